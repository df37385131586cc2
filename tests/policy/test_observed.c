/* Recorded events: what replay and learn make of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <linux/audit.h>
#include <stdio.h>

#include "supervisor/base/util.h"
#include "tests/policy/support.h"

#define ARCH AUDIT_ARCH_X86_64

static char *text_of(struct kb_buf *buf)
{
	return kb_buf_steal_string(buf);
}

/* ---- replay and learn ------------------------------------------------------------------------ */

static const struct kb_observed session[] = {
	{.seq = 1,
		.session = "s",
		.syscall = 257,
		.arch = ARCH,
		.open = true,
		.has_flags = true,
		.path = "/usr/lib/libc.so.6"},
	{.seq = 2,
		.session = "s",
		.syscall = 257,
		.arch = ARCH,
		.open = true,
		.has_flags = true,
		.path = "/srv/data/one/a"},
	{.seq = 3,
		.session = "s",
		.syscall = 257,
		.arch = ARCH,
		.open = true,
		.has_flags = true,
		.path = "/srv/data/one/b"},
	{.seq = 4,
		.session = "s",
		.syscall = 257,
		.arch = ARCH,
		.open = true,
		.has_flags = true,
		.path = "/srv/data/one/c"},
	{.seq = 5,
		.session = "s",
		.syscall = 257,
		.arch = ARCH,
		.open = true,
		.has_flags = true,
		.flags = 1,
		.path = "/srv/out/x\"y"},
	{.seq = 6,
		.session = "s",
		.syscall = 257,
		.arch = ARCH,
		.open = true,
		.has_flags = true,
		.path = "/home/u/.ssh/id",
		.decision = KB_OBSERVED_DENIED,
		.errnum = EACCES},
	{.seq = 7,
		.session = "s",
		.syscall = 42,
		.arch = ARCH,
		.family = 2,
		.host = "api.example",
		.port = 443},
	{.seq = 8, .session = "s", .syscall = 101, .arch = ARCH, .has_args = true},
	{.seq = 9,
		.session = "s",
		.syscall = 257,
		.arch = ARCH,
		.open = true,
		.has_flags = true,
		.path = "/nowhere/x",
		.failed = true,
		.errnum = ENOENT},
	{.seq = 10,
		.session = "s",
		.syscall = 59,
		.arch = ARCH,
		.exec = true,
		.path = "/home/u/code/shop/run"},
};

static char *learn_from(const struct kb_bundle *was, const struct kb_observed *seen, size_t n,
	const char *base, bool json)
{
	struct kb_bundle *bundle = test_compile(NULL, base, NULL);
	struct kb_learn_options options = {.name = "learned",
		.base = base,
		.bundle = bundle,
		.home = test_options.home,
		.workspace = test_options.workspace};
	struct kb_learner *learner;
	struct kb_buf out;

	kb_buf_init(&out, 1 << 20);
	assert_int_equal(kb_learner_create(&options, &learner, NULL), 0);
	for (size_t i = 0; i < n; i++)
		kb_learner_add(learner, was, &seen[i]);
	assert_int_equal(kb_learner_write(learner, json, &out, NULL), 0);
	kb_learner_destroy(learner);
	kb_bundle_destroy(bundle);
	return text_of(&out);
}

static char *learn(const struct kb_observed *seen, size_t n, const char *base, bool json)
{
	return learn_from(NULL, seen, n, base, json);
}

static char *replay_from(const struct kb_bundle *was, const struct kb_bundle *bundle,
	const struct kb_observed *seen, size_t n, struct kb_replay_result *ret)
{
	struct kb_replay *rp;
	struct kb_buf out;

	kb_buf_init(&out, 1 << 20);
	assert_int_equal(kb_replay_create(&rp, NULL), 0);
	for (size_t i = 0; i < n; i++)
		kb_replay_add(rp, bundle, was, &seen[i]);
	assert_int_equal(kb_replay_render(rp, false, &out, ret, NULL), 0);
	kb_replay_destroy(rp);
	return text_of(&out);
}

static char *replay(const struct kb_bundle *bundle, const struct kb_observed *seen, size_t n,
	struct kb_replay_result *ret)
{
	return replay_from(NULL, bundle, seen, n, ret);
}

static struct kb_bundle *compile_learned(const char *policy)
{
	char *why;
	struct kb_bundle *bundle = test_compile(policy, "learned.policy", &why);

	if (!bundle)
		fail_msg("%s\n%s", why, policy);
	free(why);
	return bundle;
}

static void learned_policy_allows_what_was_seen(void **state)
{
	struct kb_replay_result result;
	struct kb_bundle *bundle;
	char *policy, *text;

	(void)state;
	policy = learn(session, KB_ARRAY_LEN(session), "shell", false);
	assert_non_null(strstr(policy, "fs read \"/srv/data/one\""));
	assert_null(strstr(policy, "/srv/data/one/a"));
	assert_non_null(strstr(policy, "fs write \"/srv/out/x\\x22y\""));
	assert_non_null(strstr(policy, "net connect tcp \"api.example:443\""));
	assert_non_null(strstr(policy, "syscall ptrace allow override"));
	assert_non_null(strstr(policy, "#   openat ~/.ssh/id (read)   1 ×"));
	assert_null(strstr(policy, "/nowhere"));
	assert_null(strstr(policy, "\"/srv\""));
	bundle = compile_learned(policy);
	text = replay(bundle, session, KB_ARRAY_LEN(session), &result);
	assert_int_equal(result.records, KB_ARRAY_LEN(session));
	assert_int_equal(result.sessions, 1);
	assert_int_equal(result.sessions_newly_denied, 0);
	assert_int_equal(result.newly_denied, 0);
	assert_int_equal(result.newly_allowed, 0);
	assert_int_equal(result.still_denied, 1);
	/* a seeded misbehaviour is not covered */
	assert_int_equal(kb_bundle_decide_path(bundle, KB_FS_READ, "/srv/other").action, KB_DENY);
	assert_int_equal(
		kb_bundle_decide_path(bundle, KB_FS_WRITE, "/srv/data/one/a").action, KB_DENY);
	kb_bundle_destroy(bundle);
	free(text);
	free(policy);
}

static void replay_finds_new_denials(void **state)
{
	struct kb_bundle *shell = test_compile(NULL, "shell", NULL);
	struct kb_replay_result result;
	char *text;

	(void)state;
	text = replay(shell, session, KB_ARRAY_LEN(session), &result);
	assert_int_equal(result.newly_denied, 6); /* three reads, a write, a host, ptrace */
	assert_int_equal(result.still_denied, 1);
	assert_int_equal(result.still_allowed, 3);
	assert_int_equal(result.sessions_newly_denied, 1);
	assert_non_null(strstr(text, "1 session, 10 records in "));
	assert_non_null(strstr(text, " s: 1 session would meet new denials\n"));
	assert_non_null(
		strstr(text, "  3 still allowed · 1 still denied · 6 newly denied · 0 newly "
			     "allowed · 0 cannot tell\n"));
	assert_non_null(strstr(text, "newly denied\n"));
	assert_non_null(strstr(text, "  s   connect api.example:443   1 ×   base.policy:"));
	free(text);
	kb_bundle_destroy(shell);
}

#define OPENED(at, name, how)                                                                      \
	{                                                                                          \
		.seq = (at), .session = "s", .syscall = 257, .arch = ARCH, .open = true,           \
		.has_flags = true, .flags = (how), .path = (name)                                  \
	}
#define CREATED 0x41

/* What a person would not give without a thought is not given: not the places everything is in, not
 * what leads to the workspace, not credentials; nor more than was done. */
static void learning_stays_narrow(void **state)
{
	struct kb_observed seen[] = {
		/* three entries each of places that are too wide, listed and read */
		OPENED(1, "/srv", 0),
		OPENED(2, "/srv/a", 0),
		OPENED(3, "/srv/b", 0),
		OPENED(4, "/srv/c", 0),
		OPENED(5, "/home/u/code", 0),
		OPENED(6, "/home/u/code/x", 0),
		OPENED(7, "/home/u/code/y", 0),
		OPENED(8, "/home/u/code/z", 0),
		OPENED(9, "/", 0),
		OPENED(10, "/var/lib/one", 0),
		OPENED(11, "/var/lib/two", 0),
		OPENED(12, "/var/lib/three", 0),
		OPENED(13, "/home/u/.aws/credentials", 0),
		/* reads and one write of a directory: the write stays where it was */
		OPENED(14, "/opt2/data/a", 0),
		OPENED(15, "/opt2/data/b", 0),
		OPENED(16, "/opt2/data/c", 0),
		OPENED(17, "/opt2/data/c", 1),
		/* a name that was made needs its directory, unless that is too wide */
		OPENED(18, "/data/out/made", CREATED),
		OPENED(19, "/srv/made", CREATED),
		/* what could not be written as a plain path */
		OPENED(20, "/data/in/*", 0),
		OPENED(21, "/data/in/${HOME}", 0),
	};
	static const char *const never[] = {"\"/srv\"", "\"~/code\"", "\"/\"", "\"/var/lib\"",
		"\"~/.aws", "fs write \"/opt2/data\"", "\"/srv/made\"", "/data/in/", NULL};
	static const char *const given[] = {"fs read \"/srv/a\"", "fs read \"/var/lib/one\"",
		"fs read \"/opt2/data\"", "fs write \"/opt2/data/c\"", "fs write \"/data/out\"",
		NULL};
	struct kb_bundle *bundle;
	char *policy, *withheld;

	(void)state;
	seen[17].names = seen[18].names = true;
	policy = learn(seen, KB_ARRAY_LEN(seen), "base", false);
	withheld = strstr(policy, "# Used, but for you to decide");
	assert_non_null(withheld);
	*withheld++ = '\0';
	for (size_t i = 0; never[i]; i++)
		if (strstr(policy, never[i]))
			fail_msg("%s in\n%s", never[i], policy);
	for (size_t i = 0; given[i]; i++)
		if (!strstr(policy, given[i]))
			fail_msg("no %s in\n%s", given[i], policy);
	assert_non_null(strstr(withheld, "openat ~/.aws/credentials (read)"));
	assert_non_null(strstr(withheld, "openat /srv/made (write)"));
	assert_non_null(strstr(withheld, "Observed against what base grants"));
	policy[strlen(policy)] = '#';
	bundle = compile_learned(policy);
	kb_bundle_destroy(bundle);
	free(policy);
}

/* Another session's workspace is taken for this one's, and what the base denies in so many words
 * is given only by an override with a reason. */
static void learning_across_workspaces(void **state)
{
	static const struct kb_observed seen[] = {
		{.seq = 1,
			.session = "t",
			.workspace = "/home/u/code/other",
			.syscall = 263,
			.arch = ARCH,
			.change = true,
			.names = true,
			.path = "/home/u/code/other/.git/hooks/pre-push"},
		{.seq = 2,
			.session = "t",
			.workspace = "/home/u/code/other",
			.syscall = 257,
			.arch = ARCH,
			.open = true,
			.has_flags = true,
			.flags = 1,
			.path = "/home/u/code/other/src/x.c"},
	};
	struct kb_bundle *bundle;
	char *policy;

	(void)state;
	policy = learn(seen, KB_ARRAY_LEN(seen), "project", false);
	assert_null(strstr(policy, "code/other"));
	assert_non_null(strstr(policy, "fs write \"./.git/hooks\" if-available override reason "));
	assert_null(strstr(policy, "src/x.c"));
	bundle = compile_learned(policy);
	kb_bundle_destroy(bundle);
	free(policy);
}

/* The machine's files in the workspace are not those of a private tree in their place; what the
 * session made itself it would make there as well. */
#define AT_WORK "/home/u/code/shop"
static const struct kb_observed work[] = {
	OPENED(1, AT_WORK "/main.c", 0),
	{.seq = 2,
		.session = "s",
		.syscall = 258,
		.arch = ARCH,
		.change = true,
		.names = true,
		.path = AT_WORK "/out"},
	OPENED(3, AT_WORK "/out/log", CREATED),
	OPENED(4, AT_WORK "/out/log", 0),
	{.seq = 5,
		.session = "s",
		.syscall = 59,
		.arch = ARCH,
		.exec = true,
		.path = AT_WORK "/out/log"},
	OPENED(6, AT_WORK "/absent", 0),
};

static void private_trees_are_not_the_machines(void **state)
{
	struct kb_observed seen[KB_ARRAY_LEN(work)];
	struct kb_bundle *was = test_compile(NULL, "shell", NULL),
			 *now = test_compile(NULL, "base", NULL);
	struct kb_replay_result result;
	char *text, *policy;

	(void)state;
	memcpy(seen, work, sizeof(seen));
	seen[2].names = true;
	seen[5].failed = true;
	seen[5].errnum = ENOENT;
	text = replay_from(was, now, seen, KB_ARRAY_LEN(seen), &result);
	assert_int_equal(result.newly_denied, 1);
	assert_int_equal(result.still_allowed, 5);
	assert_non_null(
		strstr(text, "openat /home/u/code/shop/main.c (read)   1 ×   base.policy:"));
	free(text);

	/* learned is what was used, by a directory that is there when a session starts */
	policy = learn_from(was, seen, KB_ARRAY_LEN(seen), "base", false);
	assert_non_null(strstr(policy, "fs write \".\" if-available\n"));
	assert_null(strstr(policy, "main.c"));
	assert_null(strstr(policy, "./out"));
	kb_bundle_destroy(now);
	now = compile_learned(policy);
	text = replay_from(was, now, seen, KB_ARRAY_LEN(seen), &result);
	assert_int_equal(result.newly_denied, 0);
	free(text);
	free(policy);
	kb_bundle_destroy(now);
	kb_bundle_destroy(was);
}

/* A session that needs nothing of its workspace still starts there. */
static void learned_policies_have_a_workspace(void **state)
{
	static const struct kb_observed seen[] = {OPENED(1, "/usr/lib/x", 0)};
	char *policy = learn(seen, 1, "base", false);

	(void)state;
	assert_non_null(strstr(policy, "    workspace read \".\"\n"));
	free(policy);
	policy = learn(seen, 1, "shell", false);
	assert_null(strstr(policy, "workspace read"));
	free(policy);
}

/* What no rule changes goes on as it was. */
static void what_has_other_reasons_stays(void **state)
{
	static const char was_text[] =
		"policy was version 1 extends shell {\n"
		"  net connect tcp \"a.example:443\" http get \"/x/**\"\n"
		"  syscall getpriority ask \"how nice?\" override reason \"t\"\n"
		"}\n";
	static const char now_text[] =
		"policy now version 1 extends shell {\n"
		"  net connect tcp \"a.example:443\" http get \"/y/**\"\n"
		"  net connect tcp \"b.example:443\"\n"
		"  syscall getpriority sched_yield ask \"how nice?\" override reason \"t\"\n"
		"}\n";
	const struct kb_observed seen[] = {
		/* a limit, say: the rule let it through, and it was denied */
		{.seq = 1,
			.session = "s",
			.syscall = -1,
			.host = "a.example",
			.port = 443,
			.decision = KB_OBSERVED_DENIED,
			.errnum = EDQUOT},
		/* requests: one that both let through would be a lie here */
		{.seq = 2,
			.session = "s",
			.syscall = -1,
			.host = "a.example",
			.port = 443,
			.request = "GET /x/1"},
		{.seq = 3,
			.session = "s",
			.syscall = -1,
			.host = "b.example",
			.port = 443,
			.decision = KB_OBSERVED_DENIED,
			.errnum = ENETUNREACH},
		/* asked, and would be asked again; and what nobody was asked about before */
		{.seq = 4,
			.session = "s",
			.syscall = 140,
			.arch = ARCH,
			.has_args = true,
			.decision = KB_OBSERVED_ASKED},
		{.seq = 5,
			.session = "s",
			.syscall = 140,
			.arch = ARCH,
			.has_args = true,
			.decision = KB_OBSERVED_ASKED,
			.failed = true,
			.errnum = EPERM},
		{.seq = 6, .session = "s", .syscall = 24, .arch = ARCH, .has_args = true},
		/* a count of opens: which, nobody knows */
		{.seq = 7,
			.session = "s",
			.syscall = 257,
			.arch = ARCH,
			.open = true,
			.partial = true,
			.count = 12},
	};
	struct kb_bundle *was = test_compile(was_text, "was.policy", NULL);
	struct kb_bundle *now = test_compile(now_text, "now.policy", NULL);
	struct kb_replay_result result;
	char *text;

	(void)state;
	assert_non_null(was);
	assert_non_null(now);
	text = replay_from(was, now, seen, KB_ARRAY_LEN(seen), &result);
	assert_int_equal(result.still_denied, 2);
	assert_int_equal(result.still_allowed, 1);
	assert_int_equal(result.newly_denied, 1);
	assert_int_equal(result.newly_allowed, 1);
	assert_int_equal(result.cannot_tell, 13);
	assert_non_null(strstr(text, "connect a.example:443 GET /x/1   1 ×   now.policy:2"));
	assert_non_null(strstr(text, "connect b.example:443   1 ×   now.policy:3"));
	free(text);
	kb_bundle_destroy(was);
	kb_bundle_destroy(now);
}

/* What a session's own bundle tells of it. */
static void bundles_tell_circumstances(void **state)
{
	const char *const programs[] = {"/home/u/.nvm/node", NULL};
	struct kb_policy_options options = test_options;
	struct kb_bundle *bundle;

	(void)state;
	options.programs = programs;
	bundle = test_compile_with(&options, NULL, "shell", NULL);
	assert_string_equal(kb_bundle_variable(bundle, "HOME"), "/home/u");
	assert_null(kb_bundle_variable(bundle, "HOM"));
	assert_string_equal(kb_bundle_program(bundle, 0), programs[0]);
	assert_null(kb_bundle_program(bundle, 1));
	kb_bundle_destroy(bundle);
}

static void requests_are_matched_decoded(void **state)
{
	static const char *const list[] = {"get /a/*/c", "post /r/**/x*.git", "any /d", NULL};
	static const char *const all[] = {"get /**", NULL};
	static const struct {
		const char *method, *path;
		bool passes;
	} cases[] = {
		{"GET", "/a/b/c", true},
		{"get", "/a/b/c?q=/../..", true},
		{"POST", "/a/b/c", false},
		{"GET", "/a/b/x/c", false},
		{"GET", "/a/b%2Fx/c", false}, /* a slash, for many servers */
		{"GET", "/a/%62/c", true},
		{"GET", "/a/../c", false},
		{"GET", "/a/%2e%2E/c", false},
		{"GET", "/a/b\\x/c", false},
		{"POST", "/r/x.git", true},
		{"POST", "/r/one/two/xy.git", true},
		{"POST", "/r/xa/b/x.git", true}, /* the first star does not settle it */
		{"POST", "/r/one/../x.git", false},
		{"PURGE", "/d", true},
		{"PURGE", "/d/e", false},
	};

	(void)state;
	for (size_t i = 0; i < KB_ARRAY_LEN(cases); i++)
		if (kb_http_allows(list, cases[i].method, strlen(cases[i].method), cases[i].path,
			    strlen(cases[i].path)) != cases[i].passes)
			fail_msg("%s %s", cases[i].method, cases[i].path);
	assert_true(kb_http_allows(all, "GET", 3, "/a/../c", 7));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(learned_policy_allows_what_was_seen),
		cmocka_unit_test(learning_stays_narrow),
		cmocka_unit_test(learning_across_workspaces),
		cmocka_unit_test(replay_finds_new_denials),
		cmocka_unit_test(private_trees_are_not_the_machines),
		cmocka_unit_test(learned_policies_have_a_workspace),
		cmocka_unit_test(what_has_other_reasons_stays),
		cmocka_unit_test(bundles_tell_circumstances),
		cmocka_unit_test(requests_are_matched_decoded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
