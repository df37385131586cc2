/* kbsup vm cp: files into and out of machines, over SFTP */
#include "vm_cp.h"

#include <errno.h>
#include <string.h>

#include "supervisor/base/os.h"
#include "supervisor/base/str.h"
#include "verbs.h"

#define SHOW_NS	 100000000 /* between two looks of the progress line */
#define SHOW_MAX 40	   /* columns of a file's name */

/* ---- Waiting --------------------------------------------------------------------------------- */

int kb_cp_wait(struct kb_cp *cp, int r, struct kb_err *err)
{
	while (r == 0 && !cp->answered && !cp->closed)
		r = kb_loop_run(cp->loop, err);
	if (r < 0)
		return r;
	if (cp->cancelled)
		return kb_err_set(err, KB_ERR_CLOSED, "cancelled; what was half done is removed");
	if (!cp->answered || cp->failed.code) {
		*err = cp->answered ? cp->failed : cp->why;
		return -(int)err->code;
	}
	return 0;
}

static void ask(struct kb_cp *cp)
{
	cp->answered = false;
	cp->failed.code = 0;
}

static void on_done(const struct kb_err *why, void *arg)
{
	struct kb_cp *cp = arg;

	cp->answered = true;
	if (why)
		cp->failed = *why;
	kb_loop_stop(cp->loop);
}

static void on_attrs(const struct kb_ssh_attrs *attrs, const struct kb_err *why, void *arg)
{
	struct kb_cp *cp = arg;

	if (attrs)
		cp->attrs = *attrs;
	on_done(why, cp);
}

static void on_text(const char *text, const struct kb_err *why, void *arg)
{
	struct kb_cp *cp = arg;

	snprintf(cp->text, sizeof(cp->text), "%s", text ? text : "");
	on_done(why, cp);
}

int kb_cp_stat(struct kb_cp *cp, const char *path, bool follow, struct kb_err *err)
{
	ask(cp);
	return kb_cp_wait(cp, kb_ssh_stat(cp->ssh, path, follow, on_attrs, cp, err), err);
}

int kb_cp_chmod(struct kb_cp *cp, const char *path, unsigned mode, struct kb_err *err)
{
	ask(cp);
	return kb_cp_wait(cp, kb_ssh_chmod(cp->ssh, path, mode, on_done, cp, err), err);
}

int kb_cp_mkdir(struct kb_cp *cp, const char *path, unsigned mode, struct kb_err *err)
{
	ask(cp);
	return kb_cp_wait(cp, kb_ssh_mkdir(cp->ssh, path, mode, on_done, cp, err), err);
}

int kb_cp_symlink(struct kb_cp *cp, const char *path, const char *target, struct kb_err *err)
{
	ask(cp);
	return kb_cp_wait(cp, kb_ssh_symlink(cp->ssh, path, target, on_done, cp, err), err);
}

int kb_cp_readlink(struct kb_cp *cp, const char *path, struct kb_err *err)
{
	ask(cp);
	return kb_cp_wait(cp, kb_ssh_readlink(cp->ssh, path, on_text, cp, err), err);
}

/* ---- For people ------------------------------------------------------------------------------ */

static void settle(struct kb_cp *cp)
{
	if (cp->shown)
		fputs("\r\033[K", stderr);
	cp->shown = false;
}

void kb_cp_skip(struct kb_cp *cp, const char *path, const char *why)
{
	char *shown KB_FREE = kb_escape_dup(path, strlen(path));

	settle(cp);
	fprintf(stderr, "kbsup: not copied: %s: %s\n", shown ? shown : "", why);
	cp->skipped++;
}

static void on_progress(uint64_t done, uint64_t total, void *arg)
{
	struct kb_cp *cp = arg;
	int64_t now = kb_now_mono();
	char words[KB_WORDS_MAX], rate[KB_WORDS_MAX];
	char *name KB_FREE = NULL, *cut KB_FREE = NULL;

	if (!cp->cli->err_tty || now - cp->shown_at < SHOW_NS)
		return;
	cp->shown_at = now;
	cp->shown = true;
	name = kb_escape_dup(cp->name, strlen(cp->name));
	cut = kb_text_cut(name ? name : "", SHOW_MAX);
	kb_format_size(words, cp->bytes + done);
	kb_format_size(rate, (uint64_t)((double)(cp->bytes + done) * 1e9 /
					(double)KB_MAX(now - cp->started, 1)));
	fprintf(stderr, "\r\033[K%s %3u%% · %s, %s/s", cut,
		total ? (unsigned)(done * 100 / total) : 100, words, rate);
	fflush(stderr);
}

int kb_cp_contents(struct kb_cp *cp, bool put, int fd, const char *path, unsigned mode,
	const char *name, struct kb_err *err)
{
	struct kb_ssh_copy copy = {.fd = fd,
		.path = path,
		.mode = mode,
		.soon = true,
		.progress = on_progress,
		.done = on_done,
		.arg = cp};
	int r;

	ask(cp);
	cp->name = name;
	r = kb_cp_wait(cp, (put ? kb_ssh_put : kb_ssh_get)(cp->ssh, &copy, err), err);
	if (r == 0) {
		cp->files++;
		cp->bytes += (uint64_t)KB_MAX(lseek(fd, 0, SEEK_CUR), 0);
	}
	return r;
}

static void conclude(struct kb_cp *cp)
{
	char words[KB_WORDS_MAX], took[KB_WORDS_MAX], count[KB_WORDS_MAX];

	settle(cp);
	if (!cp->cli->err_tty)
		return;
	kb_format_count(count, cp->files);
	kb_format_size(words, cp->bytes);
	kb_format_duration(took, kb_now_mono() - cp->started);
	fprintf(stderr, "kbsup: %s file%s, %s copied in %s\n", count, cp->files == 1 ? "" : "s",
		words, took);
}

/* ---- Paths ----------------------------------------------------------------------------------- */

char *kb_cp_join(const char *path, const char *name)
{
	size_t len = strlen(path);

	if (!len)
		return kb_xstrdup(name);
	return kb_xprintf("%s%s%s", path, path[len - 1] == '/' ? "" : "/", name);
}

const char *kb_cp_base(const char *path, char ret[NAME_MAX + 1])
{
	size_t end = strlen(path), start;

	while (end && path[end - 1] == '/')
		end--;
	for (start = end; start && path[start - 1] != '/'; start--)
		;
	snprintf(ret, NAME_MAX + 1, "%.*s", (int)(end - start), path + start);
	return *ret && strcmp(ret, ".") != 0 && strcmp(ret, "..") != 0 ? ret : NULL;
}

/* M:PATH; a local path with a colon has a slash before it. */
static bool is_remote(const char *word, char ret_machine[KB_NAME_MAX], const char **ret_path)
{
	const char *colon = strchr(word, ':');

	if (!colon || (size_t)(colon - word) >= KB_NAME_MAX ||
		memchr(word, '/', (size_t)(colon - word)))
		return false;
	snprintf(ret_machine, KB_NAME_MAX, "%.*s", (int)(colon - word), word);
	*ret_path = colon + 1;
	if (!strncmp(*ret_path, "~/", 2))
		*ret_path += 2;
	if (!**ret_path || !strcmp(*ret_path, "~"))
		*ret_path = ".";
	return kb_name_valid(ret_machine);
}

/* ---- The connection -------------------------------------------------------------------------- */

static void on_ready(struct kb_ssh *ssh, void *arg)
{
	struct kb_cp *cp = arg;

	cp->ready = true;
	kb_loop_stop(cp->loop);
}

static void on_closed(struct kb_ssh *ssh, const struct kb_err *why, void *arg)
{
	struct kb_cp *cp = arg;

	cp->closed = true;
	cp->why = *why;
	kb_loop_stop(cp->loop);
}

static const struct kb_ssh_ops ssh_ops = {on_ready, on_closed};

/* The first time, what is under way is taken back; the second, nothing is waited for any more. */
static void on_signal(int fd, unsigned events, void *arg)
{
	struct kb_cp *cp = arg;

	if (kb_os_signal_take(fd) <= 0)
		return;
	if (cp->cancelled || !cp->ready) {
		cp->closed = true;
		kb_err_set(&cp->why, KB_ERR_CLOSED, "cancelled");
	}
	cp->cancelled = true;
	kb_ssh_copy_cancel(cp->ssh);
	kb_loop_stop(cp->loop);
}

static int copy(struct kb_vm_cli *v, const struct kb_vm_ssh *to, const char *here,
	const char *there, bool put, struct kb_err *err)
{
	struct kb_cp cp = {.cli = v->cli, .started = kb_now_mono()};
	struct kb_ssh_target target;
	struct kb_ssh_keys keys = {0};
	int r = kb_loop_create(&cp.loop, err);

	kb_vm_target(v->cli, to, &keys, &target);
	if (r == 0)
		r = kb_loop_io(cp.loop, v->cancel_fd, KB_IO_READ, on_signal, &cp, &cp.signals, err);
	if (r == 0)
		r = kb_ssh_connect(cp.loop, &target, &ssh_ops, &cp, &cp.ssh, err);
	while (r == 0 && !cp.ready && !cp.closed)
		r = kb_loop_run(cp.loop, err);
	if (r == 0 && cp.closed) {
		*err = cp.why;
		r = -(int)cp.why.code;
	}
	if (r == 0)
		r = put ? kb_cp_put(&cp, here, there, err) : kb_cp_get(&cp, there, here, err);
	kb_ssh_destroy(cp.ssh);
	kb_source_destroy(cp.signals);
	kb_loop_destroy(cp.loop);
	if (r == 0)
		conclude(&cp);
	settle(&cp);
	return r < 0 ? r : cp.skipped ? KB_EXIT_FAILED : KB_EXIT_OK;
}

static int run(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	struct kb_vm_cli v KB_VM_CLI_CLEANUP = {.cancel_fd = -1};
	char from[KB_NAME_MAX], to[KB_NAME_MAX];
	const char *source = args->operands[0], *target = args->operands[1];
	bool get = is_remote(source, from, &source), put = is_remote(target, to, &target);
	struct kb_vm_ssh ssh;
	int r;

	if (get == put) {
		kb_err_set(err, KB_ERR_USAGE, "%s of the two places must be in a machine",
			get ? "only one" : "one");
		return kb_err_hint(err,
			"a place in a machine is MACHINE:PATH; a file here whose name has a "
			"colon is ./NAME");
	}
	if ((r = kb_vm_cli_open(&v, cli, err)) < 0 ||
		(r = kb_vm_wake(&v, put ? to : from, err)) < 0 ||
		(r = kb_vm_ssh(v.vm, put ? to : from, &ssh, err)) < 0)
		return r;
	return copy(&v, &ssh, put ? source : target, put ? target : source, put, err);
}

const struct kb_command kb_cmd_vm_cp = {
	.name = "vm cp",
	.group = KB_GROUP_MACHINES,
	.summary = "Copy files into a machine or out of it",
	.about = "Copies a file, or a directory with all that is in it; one of the two places is "
		 "in a machine, as M:PATH, where a relative path starts at the user's home. Modes "
		 "and links are kept. A file appears in its place whole or not at all.",
	.operands = {{.name = "FROM", .min = 1, .max = 1, .kind = KB_KIND_FILE},
		{.name = "TO", .min = 1, .max = 1, .kind = KB_KIND_FILE}},
	.man = "kbsup-vm",
	.run = run,
};
