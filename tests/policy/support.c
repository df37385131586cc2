#include "tests/policy/support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* after the headers it needs */
#include <cmocka.h>

#include "supervisor/base/str.h"
#include "supervisor/base/util.h"

static const char *const test_env[] = {"TERM=xterm", "LANG=C", "LC_ALL=C", "GITHUB_TOKEN=secret",
	"PATH=/nowhere", "WITHOUT_VALUE", NULL};

const struct kb_policy_options test_options = {
	.home = "/home/u", .workspace = "/home/u/code/shop", .user = "u", .env = test_env};

static char *rendered(const struct kb_diags *diags)
{
	struct kb_buf buf;

	kb_buf_init(&buf, 1 << 20);
	kb_diags_render(diags, false, &buf, NULL);
	return kb_buf_steal_string(&buf);
}

struct kb_bundle *test_compile_with(const struct kb_policy_options *options, const char *text,
	const char *name, char **ret_diags)
{
	struct kb_diags *diags = kb_diags_create();
	struct kb_policy *policy = NULL;
	struct kb_bundle *bundle = NULL;
	struct kb_err err = {0};
	struct kb_buf buf;
	int r;

	kb_buf_init(&buf, 8 << 20);
	r = text ? kb_policy_load_text(text, strlen(text), name, options, &policy, diags, &err)
		 : kb_policy_load(name, options, &policy, diags, &err);
	if (r >= 0)
		r = kb_policy_lower(policy, options, &buf, diags, &err);
	if (r >= 0)
		r = kb_bundle_parse(kb_buf_data(&buf), kb_buf_len(&buf), &bundle, &err);
	if (ret_diags) {
		*ret_diags = rendered(diags);
		if (r < 0 && !**ret_diags) {
			free(*ret_diags);
			*ret_diags = strdup(err.msg);
		}
	}
	if (r < 0 && !ret_diags) {
		char *why = rendered(diags);

		print_error("%s\n%s\n", err.msg, why);
		free(why);
	}
	kb_buf_finish(&buf);
	kb_policy_destroy(policy);
	kb_diags_destroy(diags);
	return bundle;
}

struct kb_bundle *test_compile(const char *text, const char *name, char **ret_diags)
{
	return test_compile_with(&test_options, text, name, ret_diags);
}

uint32_t test_expected(const struct kb_verdict *verdict, enum kb_emit_lane lane)
{
	/* KB_EMIT_SPLIT: the caller knows whether it asks. */
	bool notify = lane == KB_EMIT_NOTIFY && verdict->record != KB_RECORD_NONE;

	if (verdict->action == KB_KILL)
		return SECCOMP_RET_KILL_PROCESS;
	if (notify || (verdict->action == KB_ASK && lane == KB_EMIT_NOTIFY))
		return SECCOMP_RET_USER_NOTIF;
	if (verdict->action == KB_ALLOW)
		return SECCOMP_RET_ALLOW;
	return SECCOMP_RET_ERRNO | (uint32_t)verdict->errnum;
}

struct kb_program test_emit(const struct kb_bundle *bundle, uint32_t arch, enum kb_emit_lane lane)
{
	struct kb_program program;
	struct kb_err err = {0};

	if (kb_bundle_emit(bundle, arch, lane, &program, &err) < 0)
		fail_msg("%s", err.msg);
	assert_null(bpf_validate(program.insns, program.len));
	return program;
}

char *test_policy(const char *rules)
{
	return kb_asprintf(
		"policy t version 1 {\n default deny ENOSYS record none\n%s\n}\n", rules);
}
