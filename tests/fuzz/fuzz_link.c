/* Any bytes as the messages of a guest: what is not allowed is refused with a reason; what is
 * allowed keeps the link's own count of records. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "supervisor/base/fd.h"
#include "supervisor/base/log.h"
#include "supervisor/base/util.h"
#include "supervisor/link/link_private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MESSAGES_MAX 64

static int drop(struct kb_channel *ch, uint32_t stream, const uint8_t *data, size_t len, int fd,
	void *arg, struct kb_err *err)
{
	kb_close(&fd);
	return 0;
}

static void closed(struct kb_channel *ch, const struct kb_err *why, void *arg)
{
}

static const struct kb_channel_ops ops = {drop, closed};

static void nothing(void *arg)
{
}

static int must(int r)
{
	if (r < 0)
		abort();
	return r;
}

static struct kb_channel *make_channel(struct kb_link *link, int *ret_far)
{
	struct kb_channel *ch;
	int pair[2];

	must(kb_fd_socketpair(false, pair, NULL));
	must(kb_channel_create(link->loop, pair[0], &ops, link, &ch, NULL));
	*ret_far = pair[1];
	return ch;
}

/* A session whose id is sixteen times the same byte, with its first process not yet started and a
 * second one that runs. */
static void add_session(struct kb_link *link, uint8_t byte)
{
	struct kb_link_session *s = calloc(1, sizeof(*s));
	struct kb_process *p;

	if (!s)
		abort();
	s->link = link;
	memset(s->id, byte, sizeof(s->id));
	TAILQ_INIT(&s->processes);
	TAILQ_INSERT_TAIL(&link->sessions, s, entry);
	must(kb_process_create(s, 0, byte == 1, &p, NULL));
	must(kb_process_create(s, 1, false, &p, NULL));
	p->started = true;
}

static void feed(struct kb_link *link, const uint8_t *data, size_t size)
{
	struct kb_err err = {0};

	for (int i = 0; i < MESSAGES_MAX && size >= 2; i++) {
		size_t len = KB_MIN((size_t)(data[0] | data[1] << 8), size - 2);
		int r = kb_guest_ops.message(link->guest, 0, data + 2, len, -1, link, &err);

		if (r < 0 && (err.code == 0 || err.msg[0] == '\0'))
			abort();
		if (r < 0)
			return;
		data += 2 + len;
		size -= 2 + len;
	}
}

static void tear_down(struct kb_link *link)
{
	struct kb_link_session *s;

	while ((s = TAILQ_FIRST(&link->sessions))) {
		while (!TAILQ_EMPTY(&s->processes))
			kb_process_destroy(TAILQ_FIRST(&s->processes));
		s->over = true;
		kb_link_session_reap(s);
	}
	kb_channel_destroy(link->main);
	kb_channel_destroy(link->store);
	kb_channel_destroy(link->guest);
	kb_source_destroy(link->kick);
	kb_source_destroy(link->deadline);
	kb_source_destroy(link->progress);
	kb_source_destroy(link->drain);
	kb_loop_destroy(link->loop);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kb_link link = {.next_stream = 16, .greeted = size > 0 && data[0] & 1};
	int far[3];

	if (size == 0)
		return 0;
	signal(SIGPIPE, SIG_IGN);
	kb_log_set_level(KB_LOG_ERROR);
	TAILQ_INIT(&link.sessions);
	TAILQ_INIT(&link.attachments);
	must(kb_loop_create(&link.loop, NULL));
	must(kb_loop_timer(link.loop, nothing, NULL, &link.kick, NULL));
	must(kb_loop_timer(link.loop, nothing, NULL, &link.deadline, NULL));
	must(kb_loop_timer(link.loop, nothing, NULL, &link.progress, NULL));
	must(kb_loop_timer(link.loop, nothing, NULL, &link.drain, NULL));
	link.main = make_channel(&link, &far[0]);
	link.store = make_channel(&link, &far[1]);
	link.guest = make_channel(&link, &far[2]);
	add_session(&link, 1);
	add_session(&link, 2);
	feed(&link, data + 1, size - 1);
	tear_down(&link);
	for (int i = 0; i < 3; i++)
		close(far[i]);
	return 0;
}
