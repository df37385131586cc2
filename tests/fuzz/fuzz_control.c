/* Any bytes as a client's requests: each is answered, or ends the connection; main goes on. No fd
 * comes along, so nothing is started. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "supervisor/base/fd.h"
#include "supervisor/base/log.h"
#include "supervisor/base/util.h"
#include "supervisor/daemon/main.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MESSAGES_MAX 32

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

/* A role that is up and listens to nobody; its far end is left in *ret_far. */
static void make_process(struct kb_main *m, struct kb_role_process *p, int *ret_far)
{
	int pair[2];

	*p = (struct kb_role_process){
		.main = m, .state = KB_PROCESS_UP, .number = 1, .pid = -1, .reaped = true};
	must(kb_fd_socketpair(false, pair, NULL));
	must(kb_channel_create(m->loop, pair[0], &ops, p, &p->ch, NULL));
	*ret_far = pair[1];
}

/* A machine that is reached otherwise than `local` has a link process, which would be started. */
static void forbid_processes(Kb__Control__Request *request)
{
	if (request->body_case != KB__CONTROL__REQUEST__BODY_RUN)
		return;
	free(request->run->transport);
	request->run->transport = NULL;
}

static void feed(struct kb_main *m, struct kb_conn *conn, const uint8_t *data, size_t size)
{
	struct kb_err err;

	conn->greeted = true;
	for (int i = 0; i < MESSAGES_MAX && size >= 2; i++) {
		size_t len = KB_MIN((size_t)(data[0] | data[1] << 8), size - 2);
		Kb__Control__Request *request = kb__control__request__unpack(NULL, len, data + 2);

		if (request) {
			forbid_processes(request);
			if (kb_request_handle(conn, request, -1, &err) < 0 && err.code == 0)
				abort();
			kb__control__request__free_unpacked(request, NULL);
		}
		data += 2 + len;
		size -= 2 + len;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kb_main m = {.log = "", .lock = -1, .listener = -1};
	struct kb_role_process store, link;
	int far[3], pair[2];

	signal(SIGPIPE, SIG_IGN);
	kb_log_set_level(KB_LOG_ERROR);
	TAILQ_INIT(&m.conns);
	TAILQ_INIT(&m.lives);
	TAILQ_INIT(&m.chores);
	TAILQ_INIT(&m.imports);
	TAILQ_INIT(&m.processes);
	TAILQ_INIT(&m.places);
	must(kb_loop_create(&m.loop, NULL));
	must(kb_loop_timer(m.loop, nothing, NULL, &m.idle, NULL));
	must(kb_loop_timer(m.loop, nothing, NULL, &m.stop_timer, NULL));
	make_process(&m, &store, &far[0]);
	make_process(&m, &link, &far[1]);
	m.store = &store;
	must(kb_places_init(&m, NULL));
	kb_place_local(&m)->link = &link;
	link.place = kb_place_local(&m);
	must(kb_fd_socketpair(false, pair, NULL));
	must(kb_conn_accept(&m, pair[0], NULL));
	far[2] = pair[1];
	feed(&m, TAILQ_FIRST(&m.conns), data, size);
	while (!TAILQ_EMPTY(&m.lives))
		kb_live_destroy(TAILQ_FIRST(&m.lives));
	kb_conn_destroy(TAILQ_FIRST(&m.conns));
	kb_channel_destroy(store.ch);
	kb_channel_destroy(link.ch);
	for (int i = 0; i < 3; i++)
		close(far[i]);
	kb_places_finish(&m);
	kb_source_destroy(m.idle);
	kb_source_destroy(m.stop_timer);
	kb_loop_destroy(m.loop);
	return 0;
}
