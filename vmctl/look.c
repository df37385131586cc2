#include "look.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "agent.h"
#include "files.h"
#include "qmp.h"
#include "supervisor/base/os.h"

#define READ_CHUNK 16384

struct looker;

/* Of all lookers: how many have not heard yet. */
struct party {
	struct kb_vmctl *vm;
	size_t waiting;
	bool done;
};

struct looker {
	struct party *party;
	struct kb_look *look;
	struct kb_qmp *qmp[2]; /* until the state is known */
	struct kb_agent agent; /* fd -1: not asked */
	struct kb_source *io;  /* of the agent's */
	json_int_t question;
	bool over;
};

static const struct {
	const char *status;
	enum kb_vm_state state;
} statuses[] = {
	{"running", KB_VM_RUNNING},
	{"paused", KB_VM_PAUSED},
	{"prelaunch", KB_VM_PAUSED},
	{"inmigrate", KB_VM_PAUSED},
	{"postmigrate", KB_VM_PAUSED},
	{"finish-migrate", KB_VM_PAUSED},
	{"save-vm", KB_VM_PAUSED},
	{"restore-vm", KB_VM_PAUSED},
	{"io-error", KB_VM_NO_SPACE},
	{"guest-panicked", KB_VM_PANICKED},
	{"internal-error", KB_VM_PANICKED},
	{"shutdown", KB_VM_PAUSED},
};

static void over(struct looker *l)
{
	if (l->over)
		return;
	l->over = true;
	if (--l->party->waiting > 0)
		return;
	l->party->done = true;
	kb_loop_stop(l->party->vm->loop);
}

/* ---- its own figures ---- */

static bool take_line(struct looker *l)
{
	struct kb_buf *in = &l->agent.in;
	size_t len = kb_buf_len(in);
	const char *data = (const char *)kb_buf_data(in);
	const char *end = len ? memchr(data, '\n', len) : NULL;
	struct kb_err why = {0};
	int r;

	if (!end)
		return false;
	r = kb_agent_parse(data, (size_t)(end - data), l->question, &l->look->stats, &why);
	kb_buf_consume(in, (size_t)(end - data) + 1);
	if (r == 1 || why.code == KB_ERR_FAILED)
		over(l);
	return !l->over;
}

static void on_agent(int fd, unsigned events, void *arg)
{
	struct looker *l = arg;
	uint8_t *space;
	ssize_t n = -1;

	if (kb_buf_reserve(&l->agent.in, READ_CHUNK, &space, NULL) == 0)
		n = read(fd, space, READ_CHUNK);
	else
		errno = ENOBUFS;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		kb_source_set_events(l->io, 0, NULL);
		over(l);
		return;
	}
	kb_buf_commit(&l->agent.in, (size_t)n);
	while (take_line(l))
		;
}

/* One question that nobody else asks by that number, so that no other answer is taken for ours. */
static int ask_figures(struct looker *l)
{
	struct kb_vmctl *vm = l->party->vm;
	char line[96];
	uint32_t number;
	int r = kb_agent_open(vm, l->look->id, &l->agent, NULL), n;

	if (r < 0 || kb_os_random(&number, sizeof(number)) < 0)
		return -1;
	l->question = (json_int_t)number << 20;
	n = snprintf(
		line, sizeof(line), "\n{\"op\":\"stats\",\"id\":%lld}\n", (long long)l->question);
	if (send(l->agent.fd, line, (size_t)n, MSG_NOSIGNAL) != n)
		return -1;
	return kb_loop_io(vm->loop, l->agent.fd, KB_IO_READ, on_agent, l, &l->io, NULL);
}

/* ---- its state ---- */

static void hang_up(struct looker *l)
{
	for (size_t i = 0; i < KB_ARRAY_LEN(l->qmp); i++)
		kb_qmp_destroy(KB_STEAL(l->qmp[i]));
}

static void on_status(const json_t *ret, const struct kb_err *err, void *arg)
{
	struct looker *l = arg;
	const char *status = err ? "" : kb_json_str(ret, "status", "");

	for (size_t i = 0; i < KB_ARRAY_LEN(statuses); i++)
		if (strcmp(statuses[i].status, status) == 0)
			l->look->state = statuses[i].state;
	if (err || l->over)
		return;
	/* At once: while a client is there, nobody else gets a greeting. */
	hang_up(l);
	if (l->look->state != KB_VM_RUNNING || !l->look->figures || ask_figures(l) < 0)
		over(l);
}

static bool ask_monitor(struct looker *l, int which, const char *name, int64_t limit_ms)
{
	struct kb_vmctl *vm = l->party->vm;
	int fd;

	return kb_run_connect(vm, l->look->id, name, &fd, NULL) == 0 &&
	       kb_qmp_create(vm->loop, fd, NULL, NULL, &l->qmp[which], NULL) == 0 &&
	       kb_qmp_execute(l->qmp[which], "query-status", NULL, -1, (int)limit_ms, on_status, l,
		       NULL) == 0;
}

/* There is one monitor for looking and one for operations, each for one client at a time. Somebody
 * may sit on either. */
static bool ask_state(struct looker *l, int64_t limit_ms)
{
	bool asked = ask_monitor(l, 0, "spare", limit_ms);

	return ask_monitor(l, 1, "qmp", limit_ms) || asked;
}

/* A process that a signal stopped answers nobody: no need to wait for it. */
static bool is_stopped(pid_t pid)
{
	char path[64], text[512] = "";
	const char *state;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	file = fopen(path, "re");
	if (!file)
		return false;
	if (!fgets(text, sizeof(text), file))
		text[0] = '\0';
	fclose(file);
	state = strrchr(text, ')');
	return state && (state[2] == 'T' || state[2] == 't');
}

static void look_finish(struct looker *l)
{
	hang_up(l);
	kb_source_destroy(l->io);
	if (l->agent.vm)
		kb_agent_close(&l->agent);
	if (l->look->state == KB_VM_HUNG)
		l->look->ended = kb_pid_of(l->party->vm, l->look->id) <= 0;
}

void kb_look(struct kb_vmctl *vm, struct kb_look *looks, size_t n, int64_t limit_ms)
{
	KB_FREE struct looker *lookers = calloc(n + 1, sizeof(*lookers));
	struct party party = {.vm = vm, .waiting = n, .done = n == 0};

	for (size_t i = 0; i < n; i++) {
		looks[i].state = KB_VM_HUNG;
		looks[i].ended = false;
		looks[i].stats = NULL;
	}
	if (!lookers)
		return;
	for (size_t i = 0; i < n; i++) {
		lookers[i] = (struct looker){.party = &party, .look = &looks[i]};
		if (is_stopped(looks[i].pid) || !ask_state(&lookers[i], limit_ms))
			over(&lookers[i]);
	}
	if (!party.done)
		kb_op_wait(vm, &party.done, limit_ms, "looking at machines", NULL);
	for (size_t i = 0; i < n; i++)
		look_finish(&lookers[i]);
}
