/* The transport `ssh`: kbsup-guest of a machine that is reached over ssh. Its program is brought
 * along where there is none of this build (under ~/.cache/kbsup/), and goes on between connections.
 * A machine of ours has its own, which root runs: that one is asked. The address is the machine's
 * name.
 *
 *	connect ──▶ attach ──▶ carried
 *	             │ not there (126, 127)
 *	             ▼
 *	           look (which processor) ──▶ put guest, put init ──▶ attach
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "reach.h"
#include "ssh.h"
#include "ssh_keys.h"
#include "supervisor/base/build.h"
#include "supervisor/base/dirs.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/programs.h"
#include "supervisor/base/str.h"

#define GREETING_MS 90000
#define DIR_THERE   ".cache/kbsup" /* beneath the home directory there */
#define OURS	    "exec sudo -n /usr/libexec/kbsup/kbsup-guest --attach"
#define MODE	    0755
#define ANSWER_MAX  256

/* In this order: where the last one is, all are. */
static const char *const programs[] = {"kbsup-init", "kbsup-guest"};

struct remote {
	struct kb_reach reach; /* first */
	struct kb_vm_ssh to;
	struct kb_ssh_keys keys;
	char home[PATH_MAX];
	char owner[9]; /* whose sessions they are: supervisors share no guest */
	struct kb_ssh *ssh;
	struct kb_ssh_splice *splice;
	struct kb_ssh_channel *look;
	struct kb_buf answer; /* of `look` */
	int far;	      /* the carrier's other end, until it is spliced; -1 */
	int file;	      /* the program on its way; -1 */
	size_t at;	      /* which */
	bool brought;	      /* in this try */
	char path[PATH_MAX];
};

static void broke(struct remote *m, const struct kb_err *why)
{
	kb_lasting_broke(m->reach.lasting, why);
	kb_ssh_splice_destroy(KB_STEAL(m->splice)); /* the carrier ends */
	kb_close(&m->far);
}

/* ---- Attaching ------------------------------------------------------------------------------- */

static void bring(struct remote *m);

static bool is_missing(const struct kb_ssh_exit *exit)
{
	return exit && !exit->signal[0] && (exit->code == 126 || exit->code == 127);
}

static void on_attach_over(struct kb_ssh_splice *splice, const struct kb_ssh_exit *exit,
	const struct kb_err *why, void *arg)
{
	struct remote *m = arg;
	struct kb_err err;

	if (is_missing(exit) && !m->brought && m->reach.info.state == KB_VM_REMOTE) {
		m->far = kb_ssh_splice_release(splice);
		kb_ssh_splice_destroy(KB_STEAL(m->splice));
		bring(m);
		return;
	}
	if (why)
		err = *why;
	else
		kb_err_set(&err, KB_ERR_CLOSED, "kbsup-guest in machine %s ended (%s%d)",
			m->reach.link->options->address, exit->signal[0] ? exit->signal : "exit ",
			exit->code);
	broke(m, &err);
}

static void attach(struct remote *m)
{
	KB_FREE char *theirs = kb_asprintf(
		"exec " DIR_THERE "/%s/kbsup-guest --attach --owner=%s", kb_build_id(), m->owner);
	struct kb_ssh_exec exec = {.command = m->reach.info.state == KB_VM_REMOTE ? theirs : OURS};
	struct kb_ssh_channel *ch;
	struct kb_err err = {0};
	int r = theirs ? kb_ssh_splice_create(m->reach.link->loop, kb_steal_fd(&m->far),
				 on_attach_over, m, &m->splice, &err)
		       : kb_err_nomem(&err);

	if (r == 0)
		kb_ssh_splice_keep(m->splice);
	if (r == 0)
		r = kb_ssh_exec(m->ssh, &exec, &kb_ssh_splice_ops, m->splice, &ch, &err);
	if (r == 0)
		kb_ssh_splice_start(m->splice, ch);
	else
		broke(m, &err);
}

/* ---- Bringing the programs ------------------------------------------------------------------- */

static void on_put(const struct kb_err *why, void *arg);

static int put_next(struct remote *m, struct kb_err *err)
{
	struct kb_ssh_copy copy = {.path = m->path, .mode = MODE, .done = on_put, .arg = m};
	char here[PATH_MAX];
	int r = kb_program_path(programs[m->at], here, err);

	if (r < 0)
		return r;
	snprintf(m->path, sizeof(m->path), DIR_THERE "/%s/%s", kb_build_id(), programs[m->at]);
	m->file = open(here, O_RDONLY | O_CLOEXEC);
	if (m->file < 0)
		return kb_err_sys(err, errno, "%s cannot be read", here);
	copy.fd = m->file;
	return kb_ssh_put(m->ssh, &copy, err);
}

static void on_put(const struct kb_err *why, void *arg)
{
	struct remote *m = arg;
	struct kb_err err;

	kb_close(&m->file);
	if (why) {
		broke(m, why);
		return;
	}
	if (++m->at == KB_ARRAY_LEN(programs)) {
		m->brought = true;
		attach(m);
	} else if (put_next(m, &err) < 0) {
		broke(m, &err);
	}
}

/* The answer is one word of `uname -m`. */
static int check_processor(struct remote *m, struct kb_err *err)
{
	struct utsname here;
	char there[64] = "";

	if (uname(&here) < 0)
		return kb_err_sys(err, errno, "uname");
	snprintf(there, sizeof(there), "%.*s", (int)KB_MIN(kb_buf_len(&m->answer), 63),
		(const char *)kb_buf_data(&m->answer));
	there[strcspn(there, "\n")] = '\0';
	if (strcmp(there, here.machine) == 0)
		return 0;
	return kb_err_set(err, KB_ERR_NOTFOUND,
		"machine %s is a %s, and there is no kbsup-guest for it here",
		m->reach.link->options->address, there);
}

static void look_data(
	struct kb_ssh_channel *ch, bool is_err, const uint8_t *data, size_t len, void *arg)
{
	struct remote *m = arg;

	if (!is_err)
		(void)kb_buf_append(&m->answer, data, len, NULL);
}

static void look_closed(struct kb_ssh_channel *ch, const struct kb_ssh_exit *exit,
	const struct kb_err *why, void *arg)
{
	struct remote *m = arg;
	struct kb_err err = {0};
	int r = 0;

	m->look = NULL;
	if (why)
		err = *why, r = -1;
	else if (exit->code != 0 || exit->signal[0])
		r = kb_err_set(&err, KB_ERR_FAILED, "~/" DIR_THERE " cannot be made in machine %s",
			m->reach.link->options->address);
	else
		r = check_processor(m, &err);
	m->at = 0;
	if (r == 0)
		r = put_next(m, &err);
	if (r < 0)
		broke(m, &err);
}

static const struct kb_ssh_channel_ops look_ops = {.data = look_data, .closed = look_closed};

static void bring(struct remote *m)
{
	KB_FREE char *command =
		kb_asprintf("umask 077; mkdir -p " DIR_THERE "/%s && uname -m", kb_build_id());
	struct kb_ssh_exec exec = {.command = command};
	struct kb_err err = {0};

	kb_buf_consume(&m->answer, kb_buf_len(&m->answer));
	if (!command ? kb_err_nomem(&err) < 0
		     : kb_ssh_exec(m->ssh, &exec, &look_ops, m, &m->look, &err) < 0)
		broke(m, &err);
}

/* ---- The connection -------------------------------------------------------------------------- */

static void on_ready(struct kb_ssh *ssh, void *arg)
{
	attach(arg);
}

static void on_closed(struct kb_ssh *ssh, const struct kb_err *why, void *arg)
{
	broke(arg, why);
}

static const struct kb_ssh_ops ssh_ops = {on_ready, on_closed};

static void hang_up(void *arg)
{
	struct remote *m = arg;

	kb_ssh_splice_destroy(KB_STEAL(m->splice));
	kb_ssh_channel_close(KB_STEAL(m->look));
	kb_ssh_destroy(KB_STEAL(m->ssh));
	kb_close(&m->far);
	kb_close(&m->file);
	m->brought = false;
}

static int dial(void *arg, int *ret_fd, struct kb_err *err)
{
	struct remote *m = arg;
	struct kb_ssh_target target = {0};
	KB_CLOSE int near = -1;
	int pair[2], r = kb_reach_check(&m->reach, err);

	if (r == 0)
		r = kb_vm_ssh(m->reach.vm, m->reach.link->options->address, &m->to, err);
	if (r == 0)
		r = kb_fd_socketpair(false, pair, err);
	if (r < 0)
		return r;
	near = pair[0];
	m->far = pair[1];
	kb_ssh_keys_find(&m->keys, m->to.key, m->home, &target);
	target.host = m->to.host;
	target.port = m->to.port;
	target.user = m->to.user;
	target.host_key = m->to.host_key;
	r = kb_ssh_connect(m->reach.link->loop, &target, &ssh_ops, m, &m->ssh, err);
	if (r == 0)
		*ret_fd = kb_steal_fd(&near);
	else
		kb_close(&m->far);
	return r;
}

/* ---- The transport --------------------------------------------------------------------------- */

/* FNV-1a of what tells this supervisor from others: the host's id, the user, where the state is. */
static void name_owner(struct remote *m, const struct kb_dirs *dirs)
{
	KB_BUF_CLEANUP struct kb_buf text;
	uint32_t h = 2166136261u;

	kb_buf_init(&text, 2 * PATH_MAX);
	(void)kb_file_read("/etc/machine-id", &text, NULL);
	(void)kb_buf_printf(&text, NULL, "%u %s", (unsigned)geteuid(), dirs->state);
	for (size_t i = 0; i < kb_buf_len(&text); i++)
		h = (h ^ kb_buf_data(&text)[i]) * 16777619u;
	snprintf(m->owner, sizeof(m->owner), "%08x", h);
}

static int remote_open(struct kb_link *link, int *ret_fd, struct kb_err *err)
{
	struct remote *m = calloc(1, sizeof(*m));
	struct kb_dirs dirs;
	int r;

	if (!m)
		return kb_err_nomem(err);
	m->far = m->file = -1;
	kb_buf_init(&m->answer, ANSWER_MAX);
	link->transport_state = m;
	r = kb_dirs_find(&dirs, err);
	if (r < 0)
		return r;
	snprintf(m->home, sizeof(m->home), "%s", dirs.home);
	name_owner(m, &dirs);
	return kb_reach_open(&m->reach, link, dial, hang_up, ret_fd, err);
}

static void remote_close(struct kb_link *link)
{
	struct remote *m = KB_STEAL(link->transport_state);

	if (!m)
		return;
	hang_up(m);
	kb_reach_close(&m->reach);
	kb_buf_finish(&m->answer);
	free(m);
}

const struct kb_transport kb_transport_ssh = {
	.name = "ssh", .greeting_ms = GREETING_MS, .open = remote_open, .close = remote_close};
