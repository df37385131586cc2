/* Role processes: kbsupd itself, executed again with a role and one end of a socket pair. A process
 * is gone when its channel is closed and it is reaped; only then its kind hears of it, with the
 * best reason there is: its last words, else how it died. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "main.h"
#include "roles.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/log.h"
#include "supervisor/base/os.h"
#include "supervisor/base/spawn.h"
#include "supervisor/base/util.h"

#define ARGS_MAX  4
#define LINGER_MS 12000 /* a role may take so long to leave after its channel closed */

static void gone_if_whole(struct kb_role_process *p)
{
	struct kb_main *m = p->main;
	char how[KB_EXIT_TEXT];
	struct kb_err why;

	if (p->ch || !p->reaped)
		return;
	kb_exit_describe(p->status, how);
	if (p->last_words.code != 0)
		why = p->last_words;
	else
		kb_err_set(&why, KB_ERR_CLOSED, "the supervisor's %s process was lost (%s)",
			p->kind->role, how);
	if (p->expected)
		kb_log_info("%s (pid %d) left: %s", p->kind->role, (int)p->pid, how);
	else
		kb_log_error(
			"%s (pid %d) is gone: %s: %s", p->kind->role, (int)p->pid, how, why.msg);
	TAILQ_REMOVE(&m->processes, p, entry);
	p->kind->gone(p, &why);
	kb_source_destroy(p->timer);
	kb_close(&p->out_fd);
	free(p->question.data);
	free(p);
	kb_main_check(m);
}

static int on_message(struct kb_channel *ch, uint32_t stream, const uint8_t *data, size_t len,
	int fd, void *arg, struct kb_err *err)
{
	struct kb_role_process *p = arg;

	kb_close(&fd); /* roles hand nothing to main */
	if (stream != 0)
		return kb_err_set(err, KB_ERR_INVALID, "a message on a stream");
	return p->kind->message(p, data, len, err);
}

static void on_closed(struct kb_channel *ch, const struct kb_err *why, void *arg)
{
	struct kb_role_process *p = arg;

	if (why && p->last_words.code == 0) {
		p->last_words = *why;
		kb_err_prefix(&p->last_words, "the supervisor's %s process broke the protocol",
			p->kind->role);
		kb_process_kill(p, SIGKILL);
	}
	kb_process_close(p);
	gone_if_whole(p);
}

static const struct kb_channel_ops channel_ops = {on_message, on_closed};

static void on_linger(void *arg)
{
	kb_process_kill(arg, SIGKILL);
}

void kb_process_close(struct kb_role_process *p)
{
	kb_channel_destroy(p->ch);
	p->ch = NULL;
	if (!p->reaped)
		(void)kb_source_arm(p->timer, LINGER_MS, NULL);
}

void kb_process_kill(struct kb_role_process *p, int signo)
{
	if (!p->reaped && p->pid > 0)
		(void)kill(p->pid, signo);
}

int kb_process_send(
	struct kb_role_process *p, const ProtobufCMessage *msg, int fd, struct kb_err *err)
{
	if (!p || !p->ch)
		return kb_err_set(err, KB_ERR_CLOSED, "that part of the supervisor is gone");
	return kb_channel_send(p->ch, 0, msg, fd, err);
}

static int spawn_role(
	struct kb_role_process *p, const char *const *args, int fd, struct kb_err *err)
{
	struct kb_spawn_fd fds[] = {{fd, KB_ROLE_FD}, {STDERR_FILENO, STDERR_FILENO}};
	char role[32], store[PATH_MAX + 16];
	const char *argv[3 + ARGS_MAX + 1] = {"kbsupd", role, store};
	struct kb_spawn spawn = {.path = "/proc/self/exe",
		.argv = argv,
		.env = (const char *const *)environ,
		.cwd = "/",
		.fds = fds,
		.n_fds = KB_ARRAY_LEN(fds),
		.flags = p->kind->spawn_flags | KB_SPAWN_SETSID};

	for (size_t i = 0; args && args[i] && i < ARGS_MAX; i++)
		argv[3 + i] = args[i];
	snprintf(role, sizeof(role), "--role=%s", p->kind->role);
	snprintf(store, sizeof(store), "--store=%s", p->main->dirs.store);
	return kb_spawn(&spawn, &p->pid, err);
}

int kb_process_start(struct kb_main *m, const struct kb_process_kind *kind, const char *const *args,
	struct kb_role_process **ret, struct kb_err *err)
{
	struct kb_role_process *p = calloc(1, sizeof(*p));
	int pair[2] = {-1, -1}, r;

	if (!p)
		return kb_err_nomem(err);
	*p = (struct kb_role_process){.main = m,
		.kind = kind,
		.number = ++m->last_number,
		.started = kb_now_mono(),
		.out_fd = -1};
	r = kb_loop_timer(m->loop, on_linger, p, &p->timer, err);
	if (r == 0)
		r = kb_fd_socketpair(false, pair, err);
	if (r == 0)
		r = spawn_role(p, args, pair[1], err);
	kb_close(&pair[1]);
	if (r == 0)
		r = kb_channel_create(m->loop, kb_steal_fd(&pair[0]), &channel_ops, p, &p->ch, err);
	kb_close(&pair[0]);
	if (r < 0) {
		/* Without its channel the process, if there is one, ends by itself. */
		kb_source_destroy(p->timer);
		free(p);
		return kb_err_prefix(err, "the supervisor's %s process", kind->role);
	}
	kb_log_info("%s is pid %d", kind->role, (int)p->pid);
	TAILQ_INSERT_TAIL(&m->processes, p, entry);
	*ret = p;
	return 0;
}

void kb_process_reap_all(struct kb_main *m)
{
	struct kb_role_process *p;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		TAILQ_FOREACH(p, &m->processes, entry)
			if (p->pid == pid)
				break;
		if (!p)
			continue;
		p->reaped = true;
		p->status = status;
		gone_if_whole(p);
	}
}
