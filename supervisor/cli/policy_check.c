/* kbsup policy check, policy compile */
#include <errno.h>
#include <string.h>

#include "policies.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/str.h"
#include "verbs.h"

#define REPORT_MAX (4u << 20)
#define EMIT_MAX   (16u << 20)

/* Its mistakes are in diags; other failures (it cannot be read) are errors. */
static int check_file(const struct kb_policies *policies, const char *file, struct kb_diags *diags,
	struct kb_err *err)
{
	struct kb_policy *policy KB_POLICY_CLEANUP = NULL;
	struct kb_buf encoded KB_BUF_CLEANUP;
	size_t before = kb_diags_errors(diags);
	int r;

	kb_buf_init(&encoded, KB_BUNDLE_MAX);
	r = kb_policy_load(file, &policies->options, &policy, diags, err);
	if (r == 0)
		r = kb_policy_lower(policy, &policies->options, &encoded, diags, err);
	return r == -KB_ERR_INVALID && kb_diags_errors(diags) > before ? 0 : r;
}

static int run_check(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	struct kb_diags *diags KB_DIAGS_CLEANUP = kb_diags_create();
	struct kb_buf report KB_BUF_CLEANUP;
	struct kb_policies policies;
	int r;

	kb_buf_init(&report, REPORT_MAX);
	if (!diags)
		return kb_err_nomem(err);
	r = kb_policies_init(&policies, err);
	for (size_t i = 0; r == 0 && i < args->n_operands; i++)
		r = check_file(&policies, args->operands[i], diags, err);
	if (r < 0)
		return r;
	r = kb_diags_render(diags, cli->json, &report, err);
	if (r < 0)
		return r;
	fwrite(kb_buf_data(&report), 1, kb_buf_len(&report), stdout);
	return kb_diags_errors(diags) ? KB_EXIT_FAILED : KB_EXIT_OK;
}

const struct kb_command kb_cmd_policy_check = {
	.name = "policy check",
	.group = KB_GROUP_POLICIES,
	.summary = "Find the mistakes in policy files",
	.about = "Reads policies as a session would and lists mistakes and doubtful lines with "
		 "their "
		 "place. Exits 1 when there is a mistake.",
	.operands = {{.name = "FILE", .min = 1, .max = KB_MANY, .kind = KB_KIND_POLICY}},
	.json = true,
	.man = "kbsup-policy",
	.run = run_check,
};

/* ---- compile --------------------------------------------------------------------------------- */

/* --json says the same as --emit json. */
static const char *form_of(const struct kb_cli *cli, const struct kb_args *args)
{
	const char *form = kb_args_value(args, "emit");

	return cli->json ? "json" : form ? form : "disasm";
}

static int emit(const struct kb_bundle *bundle, const struct kb_args *args, const char *form,
	uint32_t arch, struct kb_buf *out, struct kb_err *err)
{
	const char *lane = kb_args_value(args, "lane");
	bool split = lane && !strcmp(lane, "bpf");

	return kb_bundle_write(bundle, (enum kb_emit_format)kb_emit_format_parse(form), arch,
		split ? KB_EMIT_SPLIT : KB_EMIT_NOTIFY, out, err);
}

static int check_form(const struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	const char *form = kb_args_value(args, "emit");

	if (cli->json && form && strcmp(form, "json")) {
		kb_err_set(err, KB_ERR_USAGE, "--json and --emit %s ask for two things", form);
		return kb_err_hint(err, "leave one of them out");
	}
	if (!cli->out_tty || strcmp(form_of(cli, args), "bpf") || kb_args_has(args, "output"))
		return 0;
	kb_err_set(err, KB_ERR_USAGE, "a binary program would be written to the terminal");
	return kb_err_hint(err, "name a file with --output FILE, or read --emit disasm");
}

static int write_out(const struct kb_args *args, const struct kb_buf *out, struct kb_err *err)
{
	const char *file = kb_args_value(args, "output");

	if (file && strcmp(file, "-"))
		return kb_file_write_atomic(file, kb_buf_data(out), kb_buf_len(out), 0644, err);
	fwrite(kb_buf_data(out), 1, kb_buf_len(out), stdout);
	return KB_EXIT_OK;
}

static int run_compile(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	struct kb_bundle *bundle KB_BUNDLE_CLEANUP = NULL;
	struct kb_buf out KB_BUF_CLEANUP;
	struct kb_policies policies;
	uint32_t arch;
	int r;

	kb_buf_init(&out, EMIT_MAX);
	r = check_form(cli, args, err);
	if (r == 0)
		r = kb_policies_arch(args, &arch, err);
	if (r == 0)
		r = kb_policies_init(&policies, err);
	if (r == 0)
		r = kb_policies_bundle(&policies, args->operands[0], &bundle, err);
	if (r == 0)
		r = emit(bundle, args, form_of(cli, args), arch, &out, err);
	return r < 0 ? r : write_out(args, &out, err);
}

static const struct kb_option compile_options[] = {
	{.name = "arch",
		.arg = "ARCH",
		.kind = KB_KIND_WORD,
		.words = "x86_64|aarch64",
		.help = "The machine to compile for; this one unless told otherwise"},
	{.name = "emit",
		.arg = "FORM",
		.kind = KB_KIND_WORD,
		.words = "bpf|disasm|oci|landlock|nft|json",
		.help = "What to write: the seccomp program as the kernel takes it, a listing of "
			"it "
			"with the rule of each instruction (the default), the seccomp object of an "
			"OCI "
			"runtime, the Landlock rules, the nftables rules, or the whole policy as "
			"JSON"},
	{.name = "lane",
		.arg = "LANE",
		.kind = KB_KIND_WORD,
		.words = "bpf|notify",
		.help = "The collector the program is for: notify (the default) hands recorded "
			"calls "
			"to it, bpf does not"},
	{.name = "output",
		.letter = 'o',
		.arg = "FILE",
		.kind = KB_KIND_FILE,
		.help = "Write to this file instead of standard output"},
	{0},
};

const struct kb_command kb_cmd_policy_compile = {
	.name = "policy compile",
	.group = KB_GROUP_POLICIES,
	.summary = "Print what a policy compiles to",
	.about = "Compiles a policy for a machine, as a session would, and prints the result.",
	.options = compile_options,
	.operands = {{.name = "FILE", .min = 1, .max = 1, .kind = KB_KIND_POLICY}},
	.json = true,
	.man = "kbsup-policy",
	.run = run_compile,
};
