/* Every preset compiles, and what is emitted says what the rules say, call by call. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <linux/audit.h>

#include "tests/policy/support.h"

static const uint32_t arches[] = {AUDIT_ARCH_X86_64, AUDIT_ARCH_AARCH64};

static void compare(const struct kb_bundle *bundle, const struct kb_program *program, uint32_t arch,
	enum kb_emit_lane lane, int nr, const uint64_t args[6])
{
	struct seccomp_data data = {.nr = nr, .arch = arch};
	struct kb_verdict verdict = kb_bundle_decide(bundle, arch, nr, args);
	struct bpf_run run;

	if (lane == KB_EMIT_SPLIT)
		lane = kb_bundle_asks(bundle, arch, nr, args) ? KB_EMIT_NOTIFY : KB_EMIT_PLAIN;
	memcpy(data.args, args, sizeof(data.args));
	run = bpf_interpret(program->insns, &data);
	if (run.value != test_expected(&verdict, lane))
		fail_msg("%s %d (%s) on %s: %#x, not %#x", kb_bundle_name(bundle), nr,
			kb_syscall_name(arch, nr), kb_arch_name(arch), run.value,
			test_expected(&verdict, lane));
	if (program->rules[run.at] != verdict.rule)
		fail_msg("%d on %s: rule %u, not %u", nr, kb_arch_name(arch),
			program->rules[run.at], verdict.rule);
}

static void sweep(const struct kb_bundle *bundle, uint32_t arch, enum kb_emit_lane lane)
{
	static const uint64_t values[] = {0, 1, 2, 3, 10, 16, 0x5412, 0x5413, 0x20000, 0x10000000,
		0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, 0x100005412, UINT64_MAX};
	struct kb_program program = test_emit(bundle, arch, lane);

	for (int nr = -2; nr < 600; nr++)
		for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++)
			for (size_t j = 0; j < sizeof(values) / sizeof(*values); j++) {
				uint64_t args[6] = {values[i], values[j], values[(i + j) % 16],
					values[i], values[j], 0};

				compare(bundle, &program, arch, lane, nr, args);
			}
	for (int nr = 0x40000000; nr < 0x40000000 + 600; nr++)
		compare(bundle, &program, arch, lane, nr, (uint64_t[6]){0});
	kb_program_finish(&program);
}

static void presets_compile(void **state)
{
	const char *const *name = kb_preset_names();

	(void)state;
	assert_non_null(*name);
	for (; *name; name++) {
		struct kb_bundle *bundle = test_compile(NULL, *name, NULL);

		assert_non_null(bundle);
		for (size_t a = 0; a < 2; a++) {
			sweep(bundle, arches[a], KB_EMIT_NOTIFY);
			sweep(bundle, arches[a], KB_EMIT_PLAIN);
			sweep(bundle, arches[a], KB_EMIT_SPLIT);
		}
		kb_bundle_destroy(bundle);
	}
}

static void foreign_arch_is_killed(void **state)
{
	struct kb_bundle *bundle = test_compile(NULL, "shell", NULL);
	struct kb_program program = test_emit(bundle, AUDIT_ARCH_X86_64, KB_EMIT_NOTIFY);
	struct seccomp_data data = {.nr = 20, .arch = AUDIT_ARCH_I386};

	(void)state;
	assert_int_equal(bpf_interpret(program.insns, &data).value, SECCOMP_RET_KILL_PROCESS);
	data.arch = AUDIT_ARCH_AARCH64;
	assert_int_equal(bpf_interpret(program.insns, &data).value, SECCOMP_RET_KILL_PROCESS);
	assert_int_equal(
		kb_bundle_decide(bundle, AUDIT_ARCH_I386, 20, (uint64_t[6]){0}).action, KB_KILL);
	kb_program_finish(&program);
	kb_bundle_destroy(bundle);
}

/* The inline tests of every preset pass and reach every rule, on its own and through what extends
 * it. */
static void preset_tests_pass(void **state)
{
	(void)state;
	for (const char *const *name = kb_preset_names(); *name; name++) {
		struct kb_diags *diags = kb_diags_create();
		struct kb_policy *policy = NULL;
		struct kb_test_result result;
		struct kb_err err = {0};
		struct kb_buf out;

		kb_buf_init(&out, 1 << 20);
		if (kb_policy_load(*name, &test_options, &policy, diags, &err) < 0 ||
			kb_policy_test(policy, &test_options, false, &out, &result, diags, &err) <
				0)
			fail_msg("%s: %s", *name, err.msg);
		if (result.failed || !result.passed || result.untested)
			fail_msg("%s: %.*s", *name, (int)kb_buf_len(&out), kb_buf_data(&out));
		kb_buf_finish(&out);
		kb_policy_destroy(policy);
		kb_diags_destroy(diags);
	}
}

/* Calls that never depend on arguments must not load one: the kernel's bitmap then answers them. */
static void plain_allows_are_constant(void **state)
{
	static const char *const names[] = {"read", "write", "close", "mmap", "futex", "getppid",
		"brk", "newfstatat", "epoll_wait", "sendmsg", "recvmsg", "wait4", "dup2"};
	struct kb_bundle *bundle = test_compile(NULL, "shell", NULL);
	struct kb_program program = test_emit(bundle, AUDIT_ARCH_X86_64, KB_EMIT_NOTIFY);

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		struct seccomp_data data = {.arch = AUDIT_ARCH_X86_64,
			.nr = kb_syscall_number(AUDIT_ARCH_X86_64, names[i])};
		struct bpf_run run = bpf_interpret(program.insns, &data);

		assert_int_equal(run.value, SECCOMP_RET_ALLOW);
		assert_false(run.loaded_arg);
	}
	kb_program_finish(&program);
	kb_bundle_destroy(bundle);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(presets_compile),
		cmocka_unit_test(preset_tests_pass),
		cmocka_unit_test(foreign_arch_is_killed),
		cmocka_unit_test(plain_allows_are_constant),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
