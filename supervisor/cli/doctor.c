/* kbsup doctor */
#include "doctor.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/statvfs.h>

#include "connect.h"
#include "policies.h"
#include "proof.h"
#include "supervisor/base/dirs.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/str.h"
#include "verbs.h"
#include "vm.h"

#define SPACE_LOW   (256u << 20) /* bytes free for the store */
#define NAME_COLUMN 22

/* What a check is for: sessions on this machine, or virtual machines, which those do not need. */
#define LAYER_SESSIONS "sessions"
#define LAYER_MACHINES "machines"

/* What the checks so far have come to. */
struct report {
	struct kb_cli *cli;
	json_t *list;
	bool ok;
};

static void report_check(
	struct report *report, const char *name, const char *layer, const struct kb_check *check);

void kb_check_say(struct kb_check *check, enum kb_check_state state, const char *fmt, ...)
{
	va_list ap;

	check->state = state;
	va_start(ap, fmt);
	vsnprintf(check->detail, sizeof(check->detail), fmt, ap);
	va_end(ap);
}

void kb_check_fix(struct kb_check *check, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(check->fix, sizeof(check->fix), fmt, ap);
	va_end(ap);
}

static void say_error(struct kb_check *check, const struct kb_err *err)
{
	kb_check_say(check, KB_CHECK_FAILED, "%s", err->msg);
	kb_check_fix(check, "%s", err->hint);
}

/* ---- Files ----------------------------------------------------------------------------------- */

/* Make the directory, write a file in it, remove it again. */
static int try_directory(const char *dir, struct kb_err *err)
{
	char *file KB_FREE = kb_xprintf("%s/.doctor-%d", dir, (int)getpid());
	int r = kb_dirs_make(dir, err);

	if (r == 0)
		r = kb_file_write_atomic(file, "x", 1, 0600, err);
	if (r == 0)
		unlink(file);
	return r;
}

static void check_runtime_dir(struct kb_check *check)
{
	struct kb_dirs dirs;
	struct kb_err err = {0};

	if (kb_dirs_find(&dirs, &err) < 0 || try_directory(dirs.runtime, &err) < 0)
		say_error(check, &err);
	else
		kb_check_say(check, KB_CHECK_OK, "a file was written in %s", dirs.runtime);
}

static void check_store(struct kb_check *check)
{
	char free_text[KB_WORDS_MAX];
	struct statvfs fs;
	struct kb_dirs dirs;
	struct kb_err err = {0};
	uint64_t left;

	if (kb_dirs_find(&dirs, &err) < 0 || try_directory(dirs.state, &err) < 0 ||
		statvfs(dirs.state, &fs) < 0) {
		say_error(check, &err);
		return;
	}
	left = (uint64_t)fs.f_bavail * fs.f_frsize;
	kb_format_size(free_text, left);
	kb_check_say(check, left < SPACE_LOW ? KB_CHECK_WARNING : KB_CHECK_OK,
		"a file was written in %s, %s free", dirs.state, free_text);
	if (left < SPACE_LOW)
		kb_check_fix(
			check, "free some space: sessions end when their record cannot be kept");
}

/* ---- A whole session ------------------------------------------------------------------------- */

static void check_session(struct kb_check *check)
{
	struct kb_proof proof = {0};
	struct kb_err err = {0};

	if (kb_proof_run(&proof, &err) < 0)
		say_error(check, &err);
	else
		kb_proof_say(&proof, check);
}

static void check_limits(struct kb_check *check)
{
	struct kb_connection connection KB_CONNECTION_CLEANUP = {0};
	struct kb_status status KB_CLEANUP(kb_status_finish) = {0};
	struct kb_err err = {0};
	size_t at = 0;

	if (kb_connect(&connection, true, &err) < 0 ||
		kb_client_status(connection.client, &status, &err) < 0) {
		say_error(check, &err);
		return;
	}
	if (!*status.runtime) {
		kb_check_say(check, KB_CHECK_FAILED, "not known: no container runs here");
		return;
	}
	if (!status.n_limits_missing) {
		kb_check_say(
			check, KB_CHECK_OK, "memory, processes and CPU are bounded per session");
		return;
	}
	check->state = KB_CHECK_WARNING;
	for (size_t i = 0; i < status.n_limits_missing && at < sizeof(check->detail); i++)
		at += (size_t)snprintf(check->detail + at, sizeof(check->detail) - at, "%s%s",
			i ? "; " : "", status.limits_missing[i]);
	kb_check_fix(check, "give this user a cgroup v2 subtree of its own (a systemd user session "
			    "does), or accept it");
}

/* ---- Machines ---------------------------------------------------------------------------------
 */

static void on_trial(const struct kb_vm_trial *trial, void *arg)
{
	static const enum kb_check_state worths[] = {
		[KB_VM_WORKS] = KB_CHECK_OK,
		[KB_VM_WORKS_SOMEHOW] = KB_CHECK_WARNING,
		[KB_VM_FAILS] = KB_CHECK_FAILED,
	};
	struct kb_check check = {0};

	kb_check_say(&check, worths[trial->worth], "%s", trial->detail);
	kb_check_fix(&check, "%s", trial->fix);
	report_check(arg, trial->name, LAYER_MACHINES, &check);
}

static void check_machines(struct report *report)
{
	struct kb_vm_cli v KB_VM_CLI_CLEANUP = {.cancel_fd = -1};
	struct kb_check check = {0};
	struct kb_err err = {0};

	if (kb_vm_cli_open(&v, report->cli, &err) == 0) {
		v.silent = true;
		kb_vmctl_try(v.vm, on_trial, report);
		return;
	}
	say_error(&check, &err);
	report_check(report, "machines", LAYER_MACHINES, &check);
}

/* ---- The list -------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	void (*run)(struct kb_check *check);
} checks[] = {
	{"user namespaces", kb_probe_namespaces},
	{"seccomp notification", kb_probe_seccomp},
	{"landlock", kb_probe_landlock},
	{"runtime directory", check_runtime_dir},
	{"audit store", check_store},
	{"session", check_session},
	{"limits", check_limits},
};

static const struct {
	const char *mark, *word;
	enum kb_tone tone;
} states[] = {
	[KB_CHECK_OK] = {"✓", "ok", KB_TONE_GOOD},
	[KB_CHECK_WARNING] = {"!", "warning", KB_TONE_WARN},
	[KB_CHECK_FAILED] = {"✗", "failed", KB_TONE_BAD},
};

static void print_check(const struct kb_cli *cli, const char *name, const struct kb_check *check)
{
	char *detail KB_FREE = kb_escape_dup(check->detail, strlen(check->detail));
	char *fix KB_FREE = kb_escape_dup(check->fix, strlen(check->fix));
	enum kb_tone tone = states[check->state].tone;

	printf("%s%s%s %-*s %s\n", kb_tone(cli->colour, tone), states[check->state].mark,
		kb_tone_end(cli->colour, tone), NAME_COLUMN, name, detail ? detail : "");
	if (*check->fix)
		printf("  %-*s fix: %s\n", NAME_COLUMN, "", fix ? fix : "");
	fflush(stdout);
}

static json_t *check_json(const char *name, const char *layer, const struct kb_check *check)
{
	return json_pack("{s:s, s:s, s:s, s:o, s:o}", "name", name, "for", layer, "state",
		states[check->state].word, "detail",
		kb_json_of(check->detail, strlen(check->detail)), "fix",
		*check->fix ? kb_json_of(check->fix, strlen(check->fix)) : json_null());
}

static void report_check(
	struct report *report, const char *name, const char *layer, const struct kb_check *check)
{
	if (!strcmp(layer, LAYER_SESSIONS) && check->state == KB_CHECK_FAILED)
		report->ok = false;
	if (report->cli->json)
		json_array_append_new(report->list, check_json(name, layer, check));
	else
		print_check(report->cli, name, check);
}

static int run(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	struct report report = {.cli = cli, .list = json_array(), .ok = true};
	int r = KB_EXIT_OK;

	for (size_t i = 0; i < KB_ARRAY_LEN(checks); i++) {
		struct kb_check check = {
			.state = KB_CHECK_FAILED, .detail = "it could not be tried"};

		checks[i].run(&check);
		report_check(&report, checks[i].name, LAYER_SESSIONS, &check);
	}
	check_machines(&report);
	if (cli->json)
		r = kb_json_print(
			cli, json_pack("{s:b, s:O}", "ok", report.ok, "checks", report.list), err);
	json_decref(report.list);
	return r < 0 ? r : report.ok ? KB_EXIT_OK : KB_EXIT_REFUSED;
}

const struct kb_command kb_cmd_doctor = {
	.name = "doctor",
	.group = KB_GROUP_OTHER,
	.summary = "Prove that sessions and machines can run here, and say how to fix it",
	.about = "Tries each layer that sessions and virtual machines stand on and says what came "
		 "of it, with the fix where something is missing. Exits 0 when sessions can run on "
		 "this machine, else 4.",
	.json = true,
	.man = "kbsup-doctor",
	.run = run,
};
