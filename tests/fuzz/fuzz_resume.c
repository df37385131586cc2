/* Any bytes on the carrier of a lasting stream: what is no packet is passed over, what a peer
 * cannot say costs the carrier, and the stream goes on over the next one. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "supervisor/base/fd.h"
#include "supervisor/base/resume.h"
#include "supervisor/base/util.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define INPUT_MAX (64u << 10) /* fits the socket's buffer: nobody else drains it while we write */
#define RUN_MS	  20	      /* for a stream that nothing ended */

struct state {
	struct kb_loop *loop;
	unsigned stranded, over;
};

static void on_stranded(struct kb_resume *resume, const struct kb_err *why, void *arg)
{
	struct state *s = arg;

	if (why->code == 0 || why->msg[0] == '\0' || kb_resume_is_carried(resume))
		abort();
	s->stranded++;
	kb_loop_stop(s->loop);
}

static void on_handshake(struct kb_resume *resume, const struct kb_packet *packet, void *arg)
{
	if (packet->len > KB_PACKET_DATA_MAX)
		abort();
}

static void on_over(struct kb_resume *resume, void *arg)
{
	struct state *s = arg;

	if (s->over++)
		abort();
	kb_loop_stop(s->loop);
}

static const struct kb_resume_ops resume_ops = {on_stranded, on_handshake, on_over};

static void on_packet(struct kb_carrier *carrier, const struct kb_packet *packet, void *arg)
{
}

static void on_room(struct kb_carrier *carrier, void *arg)
{
}

static void on_ended(struct kb_carrier *carrier, const struct kb_err *why, void *arg)
{
}

static const struct kb_carrier_ops carrier_ops = {on_packet, on_room, on_ended};

static void on_time(void *arg)
{
	struct state *s = arg;

	kb_loop_stop(s->loop);
}

static void carry(struct state *s, struct kb_resume *resume, const uint8_t *data, size_t size)
{
	struct kb_carrier *carrier;
	struct kb_source *timer;
	int pair[2];

	if (kb_fd_socketpair(false, pair, NULL) < 0 ||
		kb_carrier_create(s->loop, pair[0], &carrier_ops, NULL, &carrier, NULL) < 0 ||
		kb_loop_timer(s->loop, on_time, s, &timer, NULL) < 0 ||
		kb_resume_carry(resume, carrier, 0, NULL) < 0)
		abort();
	if (write(pair[1], data, size) != (ssize_t)size)
		abort();
	shutdown(pair[1], SHUT_WR);
	(void)kb_source_arm(timer, RUN_MS, NULL);
	(void)kb_loop_run(s->loop, NULL);
	kb_source_destroy(timer);
	close(pair[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct state s = {0};
	struct kb_resume *resume;
	uint8_t drain[4096];
	int local[2];

	signal(SIGPIPE, SIG_IGN);
	if (kb_loop_create(&s.loop, NULL) < 0 || kb_fd_socketpair(false, local, NULL) < 0 ||
		kb_resume_create(s.loop, local[0], &resume_ops, &s, &resume, NULL) < 0)
		abort();
	if (write(local[1], "hello", 5) != 5)
		abort();
	carry(&s, resume, data, KB_MIN(size, INPUT_MAX));
	while (recv(local[1], drain, sizeof(drain), MSG_DONTWAIT) > 0)
		;
	kb_resume_destroy(resume);
	close(local[1]);
	kb_loop_destroy(s.loop);
	return 0;
}
