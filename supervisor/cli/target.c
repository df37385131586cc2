#include "target.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "keeper.h"
#include "policy/policy.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/log.h"
#include "supervisor/base/str.h"

#define USER_DEFAULT "dev" /* of a base that does not say otherwise */
#define POLICY_MS    10000
#define FRESH_CHARS  8 /* of the name of a machine that nobody names */

static int too_long(struct kb_err *err)
{
	return kb_err_set(err, KB_ERR_LIMIT, "the workspace's path is too long");
}

/* ---- Finding --------------------------------------------------------------------------------- */

static void set_user(struct kb_target *t, const char *user)
{
	snprintf(t->user, sizeof(t->user), "%s", user);
	if (!strcmp(user, "root"))
		snprintf(t->home, sizeof(t->home), "/root");
	else
		snprintf(t->home, sizeof(t->home), "/home/%s", user);
}

/* That of the base a new machine would be made from. */
static void note_base(const struct kb_base_info *info, void *arg)
{
	struct kb_target *t = arg;

	if (info->current)
		set_user(t, info->user);
}

/* The machine, or what it will be made from. */
static int look_up(struct kb_target *t, const char *name, struct kb_err *err)
{
	struct kb_vm_info info;
	int r = name ? kb_vm_query(t->vm.vm, name, false, &info, err) : -KB_ERR_NOTFOUND;

	if (r == 0) {
		t->remote = info.state == KB_VM_REMOTE;
		set_user(t, info.user);
		return 0;
	}
	if (r != -KB_ERR_NOTFOUND || (t->fresh && name))
		return r;
	set_user(t, USER_DEFAULT);
	return kb_base_list(t->vm.vm, note_base, t, err);
}

static int check_words(const struct kb_args *args, const char *name, struct kb_err *err)
{
	bool fresh = kb_args_has(args, "fresh");

	if ((name || fresh) && kb_args_has(args, "local"))
		return kb_err_set(err, KB_ERR_USAGE, "--local and --%s are two places",
			name ? "vm" : "fresh");
	if (kb_args_value(args, "link") && !name && !fresh)
		return kb_err_set(
			err, KB_ERR_USAGE, "--link is about a machine: name it with --vm");
	if (!fresh || !kb_args_has(args, "detach"))
		return 0;
	kb_err_set(err, KB_ERR_USAGE, "a fresh machine goes with the command that made it");
	return kb_err_hint(err, "make one that stays, and run in it: --vm NAME --detach");
}

static int name_fresh(struct kb_target *t, struct kb_err *err)
{
	uint8_t id[KB_ULID_SIZE];
	char text[KB_ULID_TEXT];
	int r = kb_ulid_new(id, err);

	if (r < 0)
		return r;
	kb_ulid_format(id, text);
	for (char *at = text; *at; at++)
		*at = (char)tolower(*at);
	snprintf(t->machine, sizeof(t->machine), "fresh-%s", text + strlen(text) - FRESH_CHARS);
	return 0;
}

int kb_target_find(
	struct kb_target *t, struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	const char *name = kb_args_value(args, "vm"), *link = kb_args_value(args, "link");
	int r;

	/* As the settings have it. */
	if (name && !strcmp(name, "local"))
		name = NULL;
	r = check_words(args, name, err);
	*t = (struct kb_target){.fresh = kb_args_has(args, "fresh"), .vm = {.cancel_fd = -1}};
	t->local = !name && !t->fresh;
	t->from = t->fresh ? name : NULL;
	snprintf(t->machine, sizeof(t->machine), "%s", name ? name : "local");
	if (r < 0 || t->local)
		return r;
	r = t->fresh ? name_fresh(t, err) : 0;
	if (r == 0)
		r = kb_vm_cli_open(&t->vm, cli, err);
	if (r == 0)
		r = look_up(t, name, err);
	if (r < 0)
		return r;
	if (t->fresh && t->remote)
		return kb_err_set(
			err, KB_ERR_USAGE, "machine %s is not ours: it cannot be forked", name);
	t->transport = link ? link : t->remote ? "ssh" : "serial";
	if (t->remote && strcmp(t->transport, "ssh") != 0)
		return kb_err_set(
			err, KB_ERR_USAGE, "machine %s is reached over ssh alone", t->machine);
	return 0;
}

void kb_target_finish(struct kb_target *t)
{
	struct kb_err err;
	int r = t->made && !t->stays ? kb_vm_delete(t->vm.vm, t->machine, &err) : 0;

	/* Not found: its making failed, and left nothing. */
	if (r < 0 && r != -KB_ERR_NOTFOUND)
		kb_log_error("machine %s stays: %s", t->machine, err.msg);
	if (t->policy[0])
		unlink(t->policy);
	kb_vm_cli_close(&t->vm);
}

/* ---- Bringing up ----------------------------------------------------------------------------- */

int kb_target_ready(struct kb_target *t, struct kb_err *err)
{
	struct kb_vm_spec spec = {.name = t->machine};
	struct kb_vm_info info;
	int64_t pause_ns;
	int r;

	if (t->local || t->remote)
		return 0;
	t->made = t->fresh;
	r = t->from ? kb_vm_fork(t->vm.vm, t->from, t->machine, &pause_ns, &info, err)
		    : kb_vm_start(t->vm.vm, &spec, &info, err);
	if (r == 0)
		r = kb_vm_programs(t->vm.vm, t->machine, err);
	kb_vm_cli_settle(&t->vm);
	kb_keeper_ensure(&t->vm);
	kb_vm_cli_unblock();
	return r;
}

/* ---- Its own policy -------------------------------------------------------------------------- */

enum { POLICY_NONE = 4, POLICY_STRANGE = 5 }; /* exit statuses of the script */

/* As root reads it: only a plain file, never what a link leads to. */
static const char policy_script[] =
	"f=$1/" KB_WORKSPACE_POLICY "; [ -e \"$f\" ] || [ -L \"$f\" ] || exit 4; "
	"[ -f \"$f\" ] && [ ! -L \"$f\" ] || exit 5; cat -- \"$f\"";

int kb_target_policy(struct kb_target *t, const char *workspace, const char *dir,
	char ret[PATH_MAX], struct kb_err *err)
{
	const char *const argv[] = {"sh", "-c", policy_script, "sh", workspace, NULL};
	char *out KB_FREE = NULL, *said KB_FREE = NULL;
	int r, status;

	*ret = '\0';
	if (t->local || t->remote)
		return 0;
	r = kb_vm_exec(t->vm.vm, t->machine, argv, POLICY_MS, &status, &out, &said, err);
	if (r < 0 || status == POLICY_NONE)
		return r;
	if (status == POLICY_STRANGE) {
		kb_err_set(err, KB_ERR_REFUSED,
			"the workspace's policy %s/" KB_WORKSPACE_POLICY " is not a plain file",
			workspace);
		return kb_err_hint(err, "look at what it is, then remove it");
	}
	if (status != 0)
		return kb_err_set(err, KB_ERR_FAILED,
			"the workspace's policy cannot be read in %s: %s", t->machine, said);
	if (snprintf(t->policy, sizeof(t->policy), "%s/%s" KB_WORKSPACE_POLICY, dir, t->machine) >=
		(int)sizeof(t->policy))
		return too_long(err);
	r = kb_file_write_atomic(t->policy, out, strlen(out), 0600, err);
	if (r == 0)
		snprintf(ret, PATH_MAX, "%s", t->policy);
	return r;
}

/* ---- The workspace --------------------------------------------------------------------------- */

/* "~/code" and "code" are both beneath the home directory there. */
static int named_workspace(
	const struct kb_target *t, const char *named, char ret[PATH_MAX], struct kb_err *err)
{
	int n;

	if (!*named) {
		kb_err_set(err, KB_ERR_USAGE, "the workspace has an empty name");
		return kb_err_hint(err, "name a directory of machine %s", t->machine);
	}
	if (named[0] == '/')
		n = snprintf(ret, PATH_MAX, "%s", named);
	else
		n = snprintf(ret, PATH_MAX, "%s/%s", t->home,
			!strncmp(named, "~/", 2) ? named + 2 : named);
	while (n > 1 && n < PATH_MAX && ret[n - 1] == '/')
		ret[--n] = '\0';
	return n < PATH_MAX ? 0 : too_long(err);
}

int kb_target_workspace(const struct kb_target *t, const char *named, const char *home,
	char ret[PATH_MAX], struct kb_err *err)
{
	size_t len = strlen(home);
	char cwd[PATH_MAX];

	if (named)
		return named_workspace(t, named, ret, err);
	if (!getcwd(cwd, sizeof(cwd)))
		return kb_err_sys(err, errno, "the current directory cannot be found");
	if (!strcmp(cwd, home)) {
		kb_err_set(err, KB_ERR_REFUSED, "a home directory cannot be a workspace");
		return kb_err_hint(
			err, "name a directory of machine %s with --workspace DIR", t->machine);
	}
	if (strncmp(cwd, home, len) != 0 || cwd[len] != '/')
		return named_workspace(t, cwd, ret, err);
	return named_workspace(t, cwd + len + 1, ret, err);
}
