/* Any bytes as the text of a policy: through every pass, and what compiles must emit programs that
 * agree with the reference evaluator. */
#include <linux/audit.h>
#include <stdlib.h>
#include <string.h>

#include "policy/policy.h"
#include "tests/policy/bpf_interp.h"

static void compare(const struct kb_bundle *bundle, const struct kb_program *program, uint32_t arch)
{
	for (int nr = 0; nr < 480; nr++) {
		struct seccomp_data data = {.nr = nr, .arch = arch};
		uint64_t args[6] = {(uint64_t)nr, 2, 0x80000000, UINT64_MAX, 0, 1};
		struct bpf_run run;

		memcpy(data.args, args, sizeof(args));
		run = bpf_interpret(program->insns, &data);
		if (program->rules[run.at] != kb_bundle_decide(bundle, arch, nr, args).rule)
			abort();
	}
}

static void emit(const struct kb_buf *encoded)
{
	static const uint32_t arches[] = {AUDIT_ARCH_X86_64, AUDIT_ARCH_AARCH64};
	struct kb_bundle *bundle = NULL;

	if (kb_bundle_parse(kb_buf_data(encoded), kb_buf_len(encoded), &bundle, NULL) < 0)
		abort(); /* what we write we must read */
	for (int i = 0; i < 2; i++) {
		struct kb_program program;

		if (kb_bundle_emit(bundle, arches[i], KB_EMIT_NOTIFY, &program, NULL) < 0)
			continue;
		if (bpf_validate(program.insns, program.len))
			abort();
		compare(bundle, &program, arches[i]);
		kb_program_finish(&program);
	}
	kb_bundle_destroy(bundle);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const env[] = {"A=1", "LC_ALL=C", NULL};
	struct kb_policy_options options = {
		.home = "/home/u", .workspace = "/home/u/w", .user = "u", .env = env};
	struct kb_diags *diags = kb_diags_create();
	struct kb_policy *policy = NULL;
	struct kb_test_result result;
	struct kb_buf out;

	kb_buf_init(&out, 8 << 20);
	if (kb_policy_load_text(
		    (const char *)data, size, "fuzz.policy", &options, &policy, diags, NULL) == 0 &&
		kb_policy_lower(policy, &options, &out, diags, NULL) == 0)
		emit(&out);
	kb_buf_finish(&out);
	kb_buf_init(&out, 1 << 20);
	if (policy) {
		kb_policy_test(policy, &options, false, &out, &result, diags, NULL);
		kb_policy_show(policy, true, &out, NULL);
	}
	kb_buf_finish(&out);
	kb_buf_init(&out, 1 << 20);
	kb_diags_render(diags, false, &out, NULL);
	kb_diags_render(diags, true, &out, NULL);
	kb_buf_finish(&out);
	kb_policy_destroy(policy);
	kb_diags_destroy(diags);
	return 0;
}
