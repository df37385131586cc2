#include "keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "connect.h"
#include "settings.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/os.h"
#include "supervisor/base/spawn.h"
#include "verbs.h"

#define IDLE_SETTING "idle-suspend"
#define POOL_SETTING "pool"
#define POOL_MAX     32
#define IDLE_MIN_MS  5000
#define HANDOVER_MS  2000 /* what a keeper that is leaving takes to go */
#define ROUND_MIN_MS 1000
#define ROUND_MAX_MS 30000
#define ROUNDS	     4 /* looks within the time after which a machine is suspended */
#define LOG_MAX	     (256 * 1024)
#define LOG_FILE     "keeper.log"

extern char **environ;

/* ---- what is asked for ------------------------------------------------------------------------
 */

struct care {
	int64_t idle_ms; /* 0: machines are left alone */
	unsigned pool;	 /* forks that are kept ready */
};

static int read_idle(const struct kb_settings *settings, struct care *care, struct kb_err *err)
{
	const char *text = kb_settings_value(settings, IDLE_SETTING);
	int64_t ns = 0;

	if (!text || !strcmp(text, "never"))
		return 0;
	if (!kb_parse_duration(text, &ns) || ns / 1000000 < IDLE_MIN_MS) {
		kb_err_set(
			err, KB_ERR_INVALID, "%s: " IDLE_SETTING " is '%s'", settings->path, text);
		return kb_err_hint(
			err, "a time of at least %d s, like 30m, or never", IDLE_MIN_MS / 1000);
	}
	care->idle_ms = ns / 1000000;
	return 0;
}

static int read_pool(const struct kb_settings *settings, struct care *care, struct kb_err *err)
{
	const char *text = kb_settings_value(settings, POOL_SETTING);
	uint64_t n = 0;

	if (text && (!kb_parse_u64(text, &n) || n > POOL_MAX)) {
		kb_err_set(
			err, KB_ERR_INVALID, "%s: " POOL_SETTING " is '%s'", settings->path, text);
		return kb_err_hint(err, "a number of forks, at most %d", POOL_MAX);
	}
	care->pool = (unsigned)n;
	return 0;
}

static int read_care(struct care *care, struct kb_err *err)
{
	struct kb_settings settings KB_CLEANUP(kb_settings_finish) = {0};
	struct kb_dirs dirs;
	int r = kb_dirs_find(&dirs, err);

	*care = (struct care){0};
	if (r == 0)
		r = kb_settings_load(&settings, &dirs, err);
	if (r < 0 || (r = read_idle(&settings, care, err)) < 0)
		return r;
	return read_pool(&settings, care, err);
}

/* ---- starting it ------------------------------------------------------------------------------
 */

static int open_log(void)
{
	struct kb_dirs dirs;
	struct stat st;
	int fd;

	if (kb_dirs_find(&dirs, NULL) < 0)
		return -1;
	char *path KB_FREE = kb_xprintf("%s/" LOG_FILE, dirs.vm);
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (fd >= 0 && fstat(fd, &st) == 0 && st.st_size > LOG_MAX)
		(void)ftruncate(fd, 0);
	return fd;
}

static void start_keeper(void)
{
	static const char *const argv[] = {"kbsup", "__keep", NULL};
	KB_CLOSE int log = open_log();
	struct kb_spawn_fd fds[] = {{log, 2}};
	char self[PATH_MAX];
	struct kb_spawn spawn = {.path = self,
		.argv = argv,
		.env = (const char *const *)environ,
		.cwd = "/",
		.fds = fds,
		.n_fds = log >= 0,
		.flags = KB_SPAWN_SETSID};
	pid_t pid;

	/* Nobody waits for it: it outlives us, or is collected when we end. */
	if (kb_os_self_path(self, sizeof(self)) == 0)
		(void)kb_spawn(&spawn, &pid, NULL);
}

void kb_keeper_ensure(struct kb_vm_cli *v)
{
	struct kb_err err = {0};
	struct care care;

	if (!v->vm || v->unkept)
		return;
	if (read_care(&care, &err) < 0)
		fprintf(stderr, "kbsup: %s (%s)\n", err.msg, err.hint);
	else if ((care.idle_ms && kb_vmctl_keeper_missing(v->vm)) ||
		 kb_vm_pool_differs(v->vm, care.pool))
		start_keeper();
}

/* ---- being it ---------------------------------------------------------------------------------
 */

/* Its log has a time in each line. */
static void note(const char *what, const char *name, const struct kb_err *err)
{
	char when[KB_WORDS_MAX] = "";
	time_t now = time(NULL);
	struct tm tm;

	if (localtime_r(&now, &tm))
		strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &tm);
	fprintf(stderr, "%s %s%s%s%s%s\n", when, name, *name ? " " : "", what, err ? ": " : "",
		err ? err->msg : "");
}

struct rounds {
	json_t *sessions; /* by machine, as of this round; NULL: not known */
};

static bool has_session(const char *name, void *arg)
{
	const struct rounds *rounds = arg;

	/* A supervisor that does not answer may have some. One that does not run has none. */
	return !rounds->sessions || json_object_get(rounds->sessions, name);
}

static void suspended(const char *name, const struct kb_err *err, void *arg)
{
	note(err ? "was unused, but cannot be suspended" : "was unused, and is suspended", name,
		err);
}

static const struct kb_vm_idle_ops idle_ops = {.has_session = has_session, .suspended = suspended};

/* False when told to end. */
static bool rest(const struct kb_vm_cli *v, int64_t ms)
{
	struct pollfd p = {.fd = v->cancel_fd, .events = POLLIN};

	return poll(&p, 1, (int)KB_MAX(ROUND_MIN_MS, KB_MIN(ms, ROUND_MAX_MS))) == 0;
}

/* When it cannot be filled, machines are forked as they are started. */
static void fill(struct kb_vm_cli *v, const struct care *care)
{
	struct kb_err err = {0};

	if (kb_vm_pool_differs(v->vm, care->pool) && kb_vm_pool_fill(v->vm, care->pool, &err) < 0)
		note("the pool cannot be filled", "", &err);
}

static int keep(struct kb_vm_cli *v, struct kb_vm_idle *idle, struct kb_err *err)
{
	unsigned watched = 1;
	struct care care;
	int r = 0;

	/* The settings may change at any time. */
	while (r == 0 && (r = read_care(&care, err)) == 0 && care.idle_ms) {
		struct rounds rounds = {.sessions = kb_sessions_by_machine()};

		fill(v, &care);
		r = kb_vm_idle_round(idle, care.idle_ms, &idle_ops, &rounds, &watched, err);
		json_decref(rounds.sessions);
		if (r < 0 || !watched || !rest(v, care.idle_ms / ROUNDS))
			break;
	}
	return r;
}

static int run(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	struct kb_vm_cli v KB_VM_CLI_CLEANUP = {.cancel_fd = -1};
	struct kb_vm_idle *idle = NULL;
	KB_CLOSE int lock = -1;
	struct care care;
	int r = kb_vm_cli_open(&v, cli, err);

	v.silent = v.unkept = true;
	if (r < 0 || (r = read_care(&care, err)) < 0)
		return r;
	/* At once, whoever looks after the machines: the next start may follow. */
	fill(&v, &care);
	if (!care.idle_ms)
		return KB_EXIT_OK;
	/* One that found nothing to do may be about to leave, without having seen what we were
	 * started for. One that stays needs no second. */
	r = kb_vmctl_keeper_lock(v.vm, HANDOVER_MS, &lock, err);
	if (r < 0)
		return r == -KB_ERR_TIMEOUT ? KB_EXIT_OK : r;
	r = kb_vm_idle_create(v.vm, &idle, err);
	if (r == 0)
		r = keep(&v, idle, err);
	kb_vm_idle_destroy(idle);
	if (r < 0)
		note("the keeper ends", "", err);
	return r < 0 ? KB_EXIT_FAILED : KB_EXIT_OK;
}

/* Given by the settings, which are read anew each round: here they are for their names. */
static const struct kb_option options[] = {
	{.name = IDLE_SETTING,
		.arg = "TIME",
		.setting = IDLE_SETTING,
		.help = "Suspend machines that nobody used for so long"},
	{.name = POOL_SETTING,
		.arg = "N",
		.setting = POOL_SETTING,
		.help = "Keep so many forks ready"},
	{0},
};

const struct kb_command kb_cmd_keep = {
	.name = "__keep",
	.group = KB_GROUP_OTHER,
	.summary = "Look after machines as the settings say",
	.options = options,
	.hidden = true,
	.run = run,
};
