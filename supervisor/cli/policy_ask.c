/* kbsup policy explain, diff, test, groups */
#include <string.h>

#include "policies.h"
#include "policy_record.h"
#include "registry.h"
#include "supervisor/base/str.h"
#include "verbs.h"

#define ANSWER_MAX (16u << 20)

static int print(const struct kb_buf *out, int status)
{
	fwrite(kb_buf_data(out), 1, kb_buf_len(out), stdout);
	return status;
}

#define ARCH_OPTION                                                                                \
	{                                                                                          \
		.name = "arch", .arg = "ARCH", .kind = KB_KIND_WORD, .words = "x86_64|aarch64",    \
		.help = "The machine to compile for; this one unless told otherwise"               \
	}

static const struct kb_option arch_options[] = {ARCH_OPTION, {0}};

/* ---- explain --------------------------------------------------------------------------------- */

static int explain_question(
	const struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	struct kb_bundle *bundle KB_BUNDLE_CLEANUP = NULL;
	struct kb_buf out KB_BUF_CLEANUP, question KB_BUF_CLEANUP;
	struct kb_policies policies KB_POLICIES_CLEANUP = {0};
	struct kb_verdict verdict;
	char *asked KB_FREE = NULL;
	uint32_t arch = 0;
	int r;

	kb_buf_init(&out, ANSWER_MAX);
	kb_buf_init(&question, ANSWER_MAX);
	r = kb_policies_arch(args, &arch, err);
	for (size_t i = 1; r == 0 && i < args->n_operands; i++)
		r = kb_buf_printf(&question, err, "%s%s", i > 1 ? " " : "", args->operands[i]);
	if (r == 0)
		r = kb_policies_init(&policies, err);
	if (r < 0)
		return r;
	kb_policies_look_up_hosts(&policies);
	r = kb_policies_bundle(&policies, args->operands[0], &bundle, err);
	if (r < 0)
		return r;
	asked = kb_buf_steal_string(&question);
	if (!asked)
		return kb_err_nomem(err);
	r = kb_bundle_explain(
		bundle, &policies.options, arch, asked, cli->json, &out, &verdict, err);
	return r < 0 ? r : print(&out, KB_EXIT_OK);
}

static int run_explain(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	const char *record = kb_args_value(args, "record");

	if (!record && args->n_operands > 1)
		return explain_question(cli, args, err);
	if (record && args->n_operands <= 1)
		return kb_policy_explain_record(cli, record, kb_args_operand(args, 0), err);
	kb_err_set(err, KB_ERR_USAGE,
		record ? "a record is the question: another one was asked besides"
		       : "policy explain needs a policy and a question");
	return kb_err_hint(err, "write: kbsup policy explain FILE QUESTION, or kbsup policy "
				"explain [FILE] --record S:SEQ");
}

static const struct kb_option explain_options[] = {
	ARCH_OPTION,
	{.name = "record",
		.arg = "S:SEQ",
		.help = "Ask about a record of a session instead, under the session's own policy "
			"or "
			"FILE"},
	{0},
};

const struct kb_command kb_cmd_policy_explain = {
	.name = "policy explain",
	.group = KB_GROUP_POLICIES,
	.summary = "Say what a policy does with a call, by which line, and how",
	.about = "Answers one question from what the policy compiles to: the verdict, the rule's "
		 "line, "
		 "the mechanism that enforces it. Questions look like\n"
		 "  'openat(\"/etc/shadow\", O_RDWR)'   ptrace   read PATH   write PATH\n"
		 "  exec PATH   connect HOST:PORT   listen PORT",
	.options = explain_options,
	.operands = {{.name = "FILE", .max = 1, .kind = KB_KIND_POLICY},
		{.name = "QUESTION", .max = KB_MANY}},
	.json = true,
	.man = "kbsup-policy",
	.run = run_explain,
};

/* ---- diff ------------------------------------------------------------------------------------ */

static int run_diff(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	struct kb_bundle *a KB_BUNDLE_CLEANUP = NULL, *b KB_BUNDLE_CLEANUP = NULL;
	struct kb_buf out KB_BUF_CLEANUP;
	struct kb_policies policies;
	struct kb_diff_result result = {0};
	uint32_t arch = 0;
	int r;

	kb_buf_init(&out, ANSWER_MAX);
	r = kb_policies_arch(args, &arch, err);
	if (r == 0)
		r = kb_policies_init(&policies, err);
	if (r == 0)
		r = kb_policies_bundle(&policies, args->operands[0], &a, err);
	if (r == 0)
		r = kb_policies_bundle(&policies, args->operands[1], &b, err);
	if (r == 0)
		r = kb_bundle_diff(a, b, arch, cli->json, &out, &result, err);
	return r < 0 ? r : print(&out, KB_EXIT_OK);
}

const struct kb_command kb_cmd_policy_diff = {
	.name = "policy diff",
	.group = KB_GROUP_POLICIES,
	.summary = "Compare two policies by what they allow",
	.about = "Lists what the second policy allows and the first does not, and the other way "
		 "round, "
		 "each with a call that shows it.",
	.options = arch_options,
	.operands = {{.name = "A", .min = 1, .max = 1, .kind = KB_KIND_POLICY},
		{.name = "B", .min = 1, .max = 1, .kind = KB_KIND_POLICY}},
	.json = true,
	.man = "kbsup-policy",
	.run = run_diff,
};

/* ---- test ------------------------------------------------------------------------------------ */

static int test_one(const struct kb_policies *policies, const char *name, bool json,
	struct kb_buf *out, struct kb_test_result *result, struct kb_err *err)
{
	struct kb_diags *diags KB_DIAGS_CLEANUP = kb_diags_create();
	struct kb_policy *policy KB_POLICY_CLEANUP = NULL;
	struct kb_buf encoded KB_BUF_CLEANUP;
	int r;

	kb_buf_init(&encoded, KB_BUNDLE_MAX);
	if (!diags)
		return kb_err_nomem(err);
	r = kb_policies_compile(policies, name, &policy, &encoded, err);
	if (r == 0)
		r = kb_policy_test(policy, &policies->options, json, out, result, diags, err);
	return kb_diags_errors(diags) ? kb_policies_mistakes(diags, name, err) : r;
}

static int run_test(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	json_t *all KB_JSON_CLEANUP = json_array();
	struct kb_policies policies;
	size_t failed = 0;
	int r = kb_policies_init(&policies, err);

	for (size_t i = 0; r == 0 && i < args->n_operands; i++) {
		struct kb_test_result result = {0};
		struct kb_buf out KB_BUF_CLEANUP;

		kb_buf_init(&out, ANSWER_MAX);
		r = test_one(&policies, args->operands[i], cli->json, &out, &result, err);
		failed += result.failed;
		if (r == 0 && cli->json)
			json_array_append_new(all, json_loadb((const char *)kb_buf_data(&out),
							   kb_buf_len(&out), 0, NULL));
		else if (r == 0)
			print(&out, 0);
	}
	if (r == 0 && cli->json)
		r = kb_json_print(cli, KB_STEAL(all), err);
	return r < 0 ? r : failed ? KB_EXIT_FAILED : KB_EXIT_OK;
}

const struct kb_command kb_cmd_policy_test = {
	.name = "policy test",
	.group = KB_GROUP_POLICIES,
	.summary = "Run the tests that policies carry",
	.about = "Runs the test blocks of policies and of what they extend, on what they compile "
		 "to, "
		 "and names the rules that no test reaches. Exits 1 when a test fails.",
	.operands = {{.name = "FILE", .min = 1, .max = KB_MANY, .kind = KB_KIND_POLICY}},
	.json = true,
	.man = "kbsup-policy",
	.run = run_test,
};

/* ---- groups ---------------------------------------------------------------------------------- */

static void print_hosts(const char *group, const char *const *hosts, const char *from)
{
	printf("%-15s", group);
	for (; hosts && *hosts; hosts++)
		printf(" %s", *hosts);
	printf(*from ? "   (%s)\n" : " cannot be told here\n", from);
}

static json_t *json_hosts(const char *group, const char *const *hosts, const char *from)
{
	json_t *list = json_array();

	for (; hosts && *hosts; hosts++)
		json_array_append_new(list, json_string(*hosts));
	return json_pack("{s:s, s:o, s:o}", "group", group, "hosts", list, "from",
		kb_json_of(from, strlen(from)));
}

/* The groups of system calls are kbsup's own; those of hosts are this user's. */
static int run_groups(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	struct kb_registries registries KB_CLEANUP(kb_registries_finish) = {0};
	struct kb_buf out KB_BUF_CLEANUP;
	json_t *all = NULL, *list = json_array();
	const char *group, *why;
	struct kb_dirs dirs;
	int r = kb_dirs_find(&dirs, err);

	kb_buf_init(&out, ANSWER_MAX);
	if (r == 0)
		r = kb_groups_show(cli->json, &out, err);
	if (r >= 0) {
		kb_registries_init(&registries, &dirs);
		if (!cli->json)
			r = print(&out, KB_EXIT_OK);
		else
			all = json_loadb(
				(const char *)kb_buf_data(&out), kb_buf_len(&out), 0, NULL);
	}
	for (size_t i = 0; r >= 0 && (group = kb_host_kind(i)); i++) {
		const char *const *hosts = kb_registries_find(&registries, group, &why);
		const char *from = kb_registries_from(&registries, group);

		if (cli->json)
			json_array_append_new(list, json_hosts(group, hosts, from));
		else
			print_hosts(group, hosts, from);
	}
	if (!all) {
		json_decref(list);
		return r;
	}
	json_object_set_new(all, "hosts", list);
	return kb_json_print(cli, all, err);
}

const struct kb_command kb_cmd_policy_groups = {
	.name = "policy groups",
	.group = KB_GROUP_POLICIES,
	.summary = "List the @groups of system calls and of hosts",
	.json = true,
	.man = "kbsup-policy",
	.run = run_groups,
};
