/* The passes one by one, and what is built on bundles: diff, explain, OCI, limits.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <jansson.h>
#include <linux/audit.h>
#include <stdio.h>
#include <unistd.h>

#include "policy/ast.h"
#include "policy/solve.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"
#include "tests/policy/support.h"

#define ARCH AUDIT_ARCH_X86_64

static struct kb_bundle *rules(const char *text)
{
	char *policy = test_policy(text);
	struct kb_bundle *bundle = test_compile(policy, "t.policy", NULL);

	free(policy);
	assert_non_null(bundle);
	return bundle;
}

/* The buffer as a string; free() it. */
static char *text_of(struct kb_buf *buf)
{
	return kb_buf_steal_string(buf);
}

/* ---- lex ------------------------------------------------------------------------------------- */

static void tokens(void **state)
{
	static const char text[] = "fs \"a\\\"b\\x41\" # note\n 3000..3999 {x!=-1|~/y} @io";
	static const char *const want[] = {"fs", "a\"bA", "3000", "..", "3999", "{", "x",
		"!=", "-1", "|", "~/y", "}", "@io", ""};
	struct kb_source source = {.name = "t", .base = "t", .text = text, .len = strlen(text)};
	struct kb_diags *diags = kb_diags_create();
	struct kb_tokens list = {0};
	struct kb_arena arena;

	(void)state;
	kb_arena_init(&arena, 1 << 20);
	assert_int_equal(kb_lex(&source, &arena, &list, diags), 0);
	assert_int_equal(kb_diags_errors(diags), 0);
	assert_int_equal(list.len, KB_ARRAY_LEN(want));
	for (size_t i = 0; i < list.len; i++)
		assert_string_equal(list.items[i].text, want[i]);
	assert_int_equal(list.items[1].kind, KB_TOK_STRING);
	assert_true(list.items[2].first);
	assert_false(list.items[3].first);
	assert_int_equal(list.items[2].pos.line, 2);
	assert_int_equal(list.items[2].pos.col, 2);
	kb_arena_finish(&arena);
	kb_diags_destroy(diags);
}

/* ---- paths ----------------------------------------------------------------------------------- */

static void path_patterns(void **state)
{
	static const struct {
		const char *pattern, *path;
		bool match;
	} rows[] = {
		{"/usr", "/usr", true},
		{"/usr", "/usr/lib", true},
		{"/usr", "/usrx", false},
		{"/", "/x", true},
		{"/a/*", "/a/b", true},
		{"/a/*", "/a/b/c", true},
		{"/a/*", "/a", false},
		{"/a/*.c", "/a/x.c", true},
		{"/a/*.c", "/a/x.h", false},
		{"/a/*.c", "/a/b/x.c", false},
		{"/a/**/*.c", "/a/x.c", true},
		{"/a/**/*.c", "/a/b/c/x.c", true},
		{"/a/**/*.c", "/b/x.c", false},
		{"/a/**", "/a/b/c", true},
		{"/a/?", "/a/b", true},
		{"/a/?", "/a/bb", false},
		{"/**/.git/hooks", "/x/y/.git/hooks/pre", true},
		{"/**/.git/hooks", "/x/y/.git/config", false},
		{"/**/a/**/b", "/a/a/x/b/c", true},
		{"/a*b*c", "/aXbYc", true},
		{"/a*b*c", "/aXcYb", false},
		{"/**/x/y", "/x/x/y", true},
	};

	(void)state;
	for (size_t i = 0; i < KB_ARRAY_LEN(rows); i++)
		if (kb_path_match(rows[i].pattern, rows[i].path) != rows[i].match)
			fail_msg("%s %s", rows[i].pattern, rows[i].path);
	assert_true(kb_path_weight("/a/b") > kb_path_weight("/a"));
	assert_true(kb_path_weight("/a/**/x") > kb_path_weight("/a"));
	assert_true(kb_path_weight("/a/b") > kb_path_weight("/a/*"));
}

/* A hostile pattern and path must not take for ever. */
static void path_patterns_are_bounded(void **state)
{
	char pattern[2048] = "", path[4096] = "";

	(void)state;
	for (int i = 0; i < 60; i++)
		strcat(pattern, "/**/a*a*a*b");
	for (int i = 0; i < 1000; i++)
		strcat(path, "/aa");
	assert_false(kb_path_match(pattern, path));
}

/* ---- limits of the emitter ------------------------------------------------------------------- */

static void oversize_is_diagnosed(void **state)
{
	struct kb_buf text;
	struct kb_program program;
	struct kb_bundle *bundle;
	struct kb_err err = {0};
	char *policy;

	(void)state;
	kb_buf_init(&text, 1 << 20);
	for (int i = 0; i < 300; i++)
		kb_buf_printf(&text, NULL,
			"syscall mremap { old_len = %#llx, new_len in %d..%d | %d..%d } deny "
			"EDOM\n",
			(1ULL << 32) + (unsigned)i, i * 9, i * 9 + 2, i * 9 + 4, i * 9 + 6);
	policy = text_of(&text);
	bundle = rules(policy);
	assert_int_equal(
		kb_bundle_emit(bundle, ARCH, KB_EMIT_PLAIN, &program, &err), -KB_ERR_LIMIT);
	assert_non_null(strstr(err.msg, "4096"));
	kb_bundle_destroy(bundle);
	free(policy);
}

/* Jumps beyond 255 instructions: a long list, every value tried. */
static void long_jumps(void **state)
{
	struct kb_buf text;
	struct kb_bundle *bundle;
	struct kb_program program;
	char *policy;

	(void)state;
	kb_buf_init(&text, 1 << 20);
	kb_buf_puts(&text, "syscall lseek { whence in 1", NULL);
	for (int i = 1; i < 900; i++)
		kb_buf_printf(&text, NULL, "|%d", i * 3 + 1);
	kb_buf_puts(&text, "} deny EDOM\nsyscall lseek allow", NULL);
	policy = text_of(&text);
	bundle = rules(policy);
	program = test_emit(bundle, ARCH, KB_EMIT_PLAIN);
	for (uint64_t v = 0; v < 3000; v++) {
		struct seccomp_data data = {.nr = 8, .arch = ARCH, .args = {0, 0, v}};
		bool deny = v % 3 == 1 && v < 2700;

		assert_int_equal(bpf_interpret(program.insns, &data).value,
			deny ? SECCOMP_RET_ERRNO | EDOM : SECCOMP_RET_ALLOW);
	}
	kb_program_finish(&program);
	kb_bundle_destroy(bundle);
	free(policy);
}

/* ---- inheritance ----------------------------------------------------------------------------- */

static void override_widens(void **state)
{
	static const char text[] =
		"policy t extends shell {\n"
		" group @ptrace allow override reason \"debugger\"\n"
		" fs read \"~/.ssh/config\" override reason \"host names\"\n"
		" limit pids 7\n env set PATH \"/x\"\n env pass GITHUB_TOKEN override "
		"reason \"needed\"\n}\n";
	struct kb_bundle *bundle = test_compile(text, "t.policy", NULL);
	const char *const *env;
	size_t n;
	bool path = false, token = false;

	(void)state;
	assert_non_null(bundle);
	assert_int_equal(kb_bundle_decide(bundle, ARCH, 101, (uint64_t[6]){0}).action, KB_ALLOW);
	assert_int_equal(
		kb_bundle_decide_path(bundle, KB_FS_READ, "/home/u/.ssh/config").action, KB_ALLOW);
	assert_int_equal(
		kb_bundle_decide_path(bundle, KB_FS_READ, "/home/u/.ssh/id").action, KB_DENY);
	n = kb_bundle_env(bundle, &env);
	for (size_t i = 0; i < n; i++) {
		path |= !strcmp(env[i], "PATH=/x");
		token |= !strcmp(env[i], "GITHUB_TOKEN=secret");
	}
	assert_true(path);
	assert_true(token);
	kb_bundle_destroy(bundle);
}

static void environment(void **state)
{
	struct kb_bundle *bundle = test_compile(NULL, "shell", NULL);
	const char *const *env;
	size_t n = kb_bundle_env(bundle, &env);

	(void)state;
	assert_true(n > 0);
	for (size_t i = 0; i < n; i++) {
		assert_null(strstr(env[i], "secret"));
		assert_string_not_equal(env[i], "PATH=/nowhere");
	}
	kb_bundle_destroy(bundle);
}

/* ---- secrets --------------------------------------------------------------------------------- */

static void secrets(void **state)
{
	char *text = test_policy(
		"env pass \"*\"\nnet connect tcp \"api.test:443\" \"*.sub.test:8443\"\n"
		"secret GITHUB_TOKEN from env for \"API.test:443\" \"http://127.0.0.1:8080\" as "
		"header \"x-key\" url BASE \"/v1\" if-available\n"
		"secret K from keyring \"service=x\" for \"*.sub.test:8443\" as basic \"me\" "
		"intercept placeholder \"sk-placeholder\"");
	struct kb_bundle *bundle = test_compile(text, "t.policy", NULL);
	const struct kb_secret *list;
	const char *const *env;
	size_t n;

	(void)state;
	assert_non_null(bundle);
	assert_int_equal(kb_bundle_secrets(bundle, &list), 2);
	assert_string_equal(list[0].name, "GITHUB_TOKEN");
	assert_string_equal(list[0].source, "GITHUB_TOKEN");
	assert_string_equal(list[0].placeholder, "kbsup-secret-GITHUB_TOKEN");
	assert_int_equal(list[0].n_endpoints, 2);
	assert_true(kb_endpoint_matches(&list[0].endpoints[0], "api.test", 443));
	assert_false(kb_endpoint_matches(&list[0].endpoints[0], "api.test", 80));
	assert_true(list[0].endpoints[0].tls);
	assert_true(kb_endpoint_matches(&list[0].endpoints[1], "127.0.0.1", 8080));
	assert_false(list[0].endpoints[1].tls);
	assert_string_equal(list[0].url, "BASE");
	assert_string_equal(list[0].url_path, "/v1");
	assert_true(list[0].optional && !list[0].intercept);
	assert_int_equal(list[1].from, KB_SECRET_KEYRING);
	assert_true(kb_endpoint_matches(&list[1].endpoints[0], "a.sub.test", 8443));
	assert_false(kb_endpoint_matches(&list[1].endpoints[0], "sub.test", 8443));
	assert_string_equal(list[1].placeholder, "sk-placeholder");
	assert_true(kb_bundle_intercepts(bundle));
	/* Whatever passes variables does not pass these: the bundle is kept with the records. */
	n = kb_bundle_env(bundle, &env);
	for (size_t i = 0; i < n; i++)
		assert_true(strncmp(env[i], "GITHUB_TOKEN=", 13) != 0);
	kb_bundle_destroy(bundle);
	free(text);
}

/* ---- mounts ---------------------------------------------------------------------------------- */

static const struct kb_mount *mount_at(const struct kb_bundle *bundle, const char *path)
{
	const struct kb_mount *mounts;
	size_t n = kb_bundle_mounts(bundle, &mounts);

	for (size_t i = 0; i < n; i++)
		if (!strcmp(mounts[i].path, path))
			return &mounts[i];
	return NULL;
}

static void mounts(void **state)
{
	struct kb_bundle *bundle = rules("workspace write \".\"\nworkspace protect \".git/hooks\"\n"
					 "workspace hide \".env\"\nfs private \"~\" \"/proc\"\n"
					 "fs deny \"~/.ssh\"\nfs read \"/usr\" \"/usr/share\"\n"
					 "fs deny \"/usr/secret\"\n");
	const struct kb_mount *list;
	size_t n = kb_bundle_mounts(bundle, &list);

	(void)state;
	assert_int_equal(mount_at(bundle, "/home/u")->kind, KB_MOUNT_PRIVATE);
	assert_int_equal(mount_at(bundle, "/home/u/code/shop")->kind, KB_MOUNT_WRITE);
	assert_int_equal(mount_at(bundle, "/home/u/code/shop/.git/hooks")->kind, KB_MOUNT_READ);
	/* the parent is pinned, so that it cannot be renamed away */
	assert_int_equal(mount_at(bundle, "/home/u/code/shop/.git")->kind, KB_MOUNT_WRITE);
	assert_int_equal(mount_at(bundle, "/home/u/code/shop/.env")->kind, KB_MOUNT_HIDE);
	assert_int_equal(mount_at(bundle, "/usr/secret")->kind, KB_MOUNT_HIDE);
	assert_null(mount_at(bundle, "/proc"));
	assert_null(mount_at(bundle, "/usr/share"));
	/* nothing of the machine is there, and nothing can be made there */
	assert_int_equal(mount_at(bundle, "/home/u/.ssh")->kind, KB_MOUNT_HIDE);
	for (size_t i = 1; i < n; i++)
		assert_true(strcmp(list[i - 1].path, list[i].path) < 0);
	kb_bundle_destroy(bundle);
}

/* ---- diff ------------------------------------------------------------------------------------ */

static void diff_finds_the_one_value(void **state)
{
	struct kb_bundle *a = rules(
		"syscall munmap { len in 0..0x123456788 | 0x12345678a..0xffffffffffffffff } allow");
	struct kb_bundle *b = rules("syscall munmap allow");
	struct kb_diff_result result;
	struct kb_buf out;
	char *text;

	(void)state;
	kb_buf_init(&out, 1 << 20);
	assert_int_equal(kb_bundle_diff(a, b, ARCH, false, &out, &result, NULL), 0);
	text = text_of(&out);
	assert_int_equal(result.newly_allowed, 1);
	assert_int_equal(result.newly_denied, 0);
	assert_true(result.complete);
	assert_non_null(strstr(text, "munmap(len = 0x123456789)"));
	free(text);
	assert_int_equal(kb_bundle_diff(a, a, ARCH, false, &out, &result, NULL), 0);
	assert_int_equal(result.newly_allowed + result.newly_denied + result.changed, 0);
	kb_buf_finish(&out);
	kb_bundle_destroy(a);
	kb_bundle_destroy(b);
}

/* Small random conditions, all 8-bit values tried: the solver must say yes exactly when one exists.
 */
static void solver_is_exact(void **state)
{
	static const char *const terms[] = {"(len & 0x0f) = 3", "(len & 0x0f) != 3",
		"(len & 0x18) = 0x10", "(len & 0xff) in 5..20 | 40..41",
		"(len & 0xff) not in 5..20", "(len & 0x33) > 0x10", "(len & 0x7f) <= 0x12",
		"(len & 0x81) = 0x81"};

	(void)state;
	for (size_t i = 0; i < KB_ARRAY_LEN(terms); i++)
		for (size_t j = 0; j < KB_ARRAY_LEN(terms); j++) {
			char ta[256], tb[256];
			struct kb_bundle *a, *b;
			struct kb_diff_result result;
			struct kb_buf out;
			bool more = false, less = false;

			snprintf(ta, sizeof(ta), "syscall munmap { %s } allow", terms[i]);
			snprintf(tb, sizeof(tb), "syscall munmap { %s, %s } allow", terms[j],
				terms[(i + j) % KB_ARRAY_LEN(terms)]);
			a = rules(ta);
			b = rules(tb);
			for (uint64_t v = 0; v < 256; v++) {
				uint64_t args[6] = {0, v};
				bool in_a = kb_bundle_decide(a, ARCH, 11, args).action == KB_ALLOW;
				bool in_b = kb_bundle_decide(b, ARCH, 11, args).action == KB_ALLOW;

				more |= in_b && !in_a;
				less |= in_a && !in_b;
			}
			kb_buf_init(&out, 1 << 20);
			assert_int_equal(kb_bundle_diff(a, b, ARCH, false, &out, &result, NULL), 0);
			assert_true(result.complete);
			assert_int_equal(result.newly_allowed > 0, more);
			assert_int_equal(result.newly_denied > 0, less);
			kb_buf_finish(&out);
			kb_bundle_destroy(a);
			kb_bundle_destroy(b);
		}
}

static void diff_of_paths_and_hosts(void **state)
{
	struct kb_bundle *a = rules("fs read \"/srv\"\nnet connect tcp \"a.example:443\"");
	struct kb_bundle *b = rules(
		"fs write \"/srv\"\nfs deny \"/srv/keys\"\nnet connect tcp \"b.example:443\"");
	struct kb_diff_result result;
	struct kb_buf out;
	char *text;

	(void)state;
	kb_buf_init(&out, 1 << 20);
	assert_int_equal(kb_bundle_diff(a, b, ARCH, false, &out, &result, NULL), 0);
	text = text_of(&out);
	assert_non_null(strstr(text, "newly allowed  write /srv\n"));
	assert_non_null(strstr(text, "newly denied   read /srv/keys\n"));
	assert_non_null(strstr(text, "newly denied   connect a.example:443\n"));
	assert_non_null(strstr(text, "newly allowed  connect b.example:443\n"));
	free(text);
	kb_bundle_destroy(a);
	kb_bundle_destroy(b);
}

/* ---- explain --------------------------------------------------------------------------------- */

static void explained(
	const struct kb_bundle *bundle, const char *question, const char *const *parts)
{
	struct kb_err err = {0};
	struct kb_buf out;
	char *text;

	kb_buf_init(&out, 1 << 20);
	if (kb_bundle_explain(bundle, &test_options, ARCH, question, false, &out, NULL, &err) < 0)
		fail_msg("%s: %s", question, err.msg);
	text = text_of(&out);
	for (; *parts; parts++)
		if (!strstr(text, *parts))
			fail_msg("%s: no '%s' in:\n%s", question, *parts, text);
	free(text);
}

static void explain_secrets(void)
{
	char *text = test_policy("net connect tcp \"api.test:443\" http get \"/x\"\n"
				 "secret K from env for \"api.test:443\" as header \"x-key\"");
	struct kb_bundle *bundle = test_compile(text, "t.policy", NULL);

	assert_non_null(bundle);
	explained(bundle, "connect api.test:443",
		(const char *const[]){"TLS is opened by the broker",
			"secret: K is put into requests, as header x-key, by", NULL});
	kb_bundle_destroy(bundle);
	free(text);
}

static void explanations(void **state)
{
	struct kb_bundle *shell = test_compile(NULL, "shell", NULL);
	struct kb_err err = {0};
	struct kb_buf out;

	(void)state;
	explained(shell, "openat(\"/etc/shadow\", O_RDWR)",
		(const char *const[]){"denied (EACCES) by base.policy:", "fs deny \"/etc/shadow\"",
			"recorded: full", "seccomp: instruction", "Landlock: refuses", NULL});
	explained(shell, "write src/x.c",
		(const char *const[]){"allowed by shell.policy:", "workspace write \".\"",
			"writable from the machine", "Landlock: grants", "fs deny", NULL});
	explained(shell, "connect api.example.com:443",
		(const char *const[]){"denied (ENETUNREACH)", "only loopback",
			"net connect tcp \"api.example.com:443\"", NULL});
	explained(shell, "ptrace",
		(const char *const[]){"denied (EPERM)", "then refused", "override reason", NULL});
	kb_buf_init(&out, 1 << 20);
	explain_secrets();
	assert_int_equal(kb_bundle_explain(shell, &test_options, ARCH, "openat(\"x\", O_WRITE)",
				 false, &out, NULL, &err),
		-KB_ERR_USAGE);
	assert_non_null(strstr(err.msg, "O_WRITE"));
	kb_buf_finish(&out);
	kb_bundle_destroy(shell);
}

/* ---- OCI ------------------------------------------------------------------------------------- */

/* What a runtime makes of the profile: any entry that matches, else the default. */
static uint32_t oci_value(const json_t *profile, const char *name, const uint64_t args[6])
{
	const json_t *list = json_object_get(profile, "syscalls"), *entry, *item;
	size_t i, k;

	json_array_foreach(list, i, entry)
	{
		const char *action = json_string_value(json_object_get(entry, "action"));
		bool named = false, holds = true;

		json_array_foreach(json_object_get(entry, "names"), k, item) named |=
			!strcmp(json_string_value(item), name);
		json_array_foreach(json_object_get(entry, "args"), k, item)
		{
			uint64_t mask =
				(uint64_t)json_integer_value(json_object_get(item, "value"));
			uint64_t value =
				(uint64_t)json_integer_value(json_object_get(item, "valueTwo"));

			holds &= (args[json_integer_value(json_object_get(item, "index"))] &
					 mask) == value;
		}
		if (!named || !holds)
			continue;
		if (!strcmp(action, "SCMP_ACT_ALLOW"))
			return SECCOMP_RET_ALLOW;
		if (!strcmp(action, "SCMP_ACT_KILL_PROCESS"))
			return SECCOMP_RET_KILL_PROCESS;
		return SECCOMP_RET_ERRNO |
		       (uint32_t)json_integer_value(json_object_get(entry, "errnoRet"));
	}
	return SECCOMP_RET_ERRNO |
	       (uint32_t)json_integer_value(json_object_get(profile, "defaultErrnoRet"));
}

/* Every stride-th pair of values. */
static void check_oci(const struct kb_bundle *bundle, size_t stride)
{
	static const uint64_t values[] = {0, 1, 2, 3, 10, 16, 17, 0x5411, 0x5412, 0x5413, 0x541c,
		0x5423, 0x20000, 0x10000000, 0x10000001, 0x7fffffff, 0x80000000, 0xffffffff,
		0x100000000, 0x100005412, UINT64_MAX};
	struct kb_buf out;
	struct kb_err err = {0};
	json_t *profile;
	char *text;

	kb_buf_init(&out, 16 << 20);
	if (kb_bundle_write(bundle, KB_EMIT_OCI, ARCH, KB_EMIT_PLAIN, &out, &err) < 0)
		fail_msg("%s", err.msg);
	text = text_of(&out);
	profile = json_loads(text, 0, NULL);
	assert_non_null(profile);
	for (int nr = 0; nr < 470; nr++) {
		const char *name = kb_syscall_name(ARCH, nr);

		/* All pairs only where arguments matter. */
		if (stride == 1 && (!name || !strstr("munmap ioctl clone stat ptrace", name)))
			continue;
		for (size_t i = 0; name && i < KB_ARRAY_LEN(values); i++)
			for (size_t j = 0; j < KB_ARRAY_LEN(values); j += stride) {
				uint64_t args[6] = {values[i], values[j], values[(i + j) % 21]};
				struct kb_verdict verdict =
					kb_bundle_decide(bundle, ARCH, nr, args);

				if (oci_value(profile, name, args) !=
					test_expected(&verdict, KB_EMIT_PLAIN))
					fail_msg("%s(%#llx, %#llx)", name,
						(unsigned long long)args[0],
						(unsigned long long)args[1]);
			}
	}
	json_decref(profile);
	free(text);
}

static void oci_profiles_are_exact(void **state)
{
	struct kb_bundle *bundle = rules(
		"syscall munmap { len in 5..0x5413 | 0x100000000..0x100005412 } deny EDOM\n"
		"syscall munmap { (len & 0x3) != 0, len > 9 } kill\nsyscall munmap allow\n"
		"syscall ioctl { request in TIOCSTI | TIOCLINUX } deny EPERM\nsyscall ioctl allow\n"
		"syscall clone { flags has any of CLONE_NEWUSER | CLONE_NEWNS } deny EPERM\n"
		"syscall clone allow\ngroup @stat allow");

	(void)state;
	check_oci(bundle, 1);
	kb_bundle_destroy(bundle);
	bundle = test_compile(NULL, "claude-code", NULL);
	check_oci(bundle, 20);
	kb_bundle_destroy(bundle);
}

/* ---- hostile bundles ------------------------------------------------------------------------- */

static void use(const struct kb_bundle *bundle)
{
	struct kb_program program;

	if (kb_bundle_emit(bundle, ARCH, KB_EMIT_NOTIFY, &program, NULL) == 0) {
		assert_null(bpf_validate(program.insns, program.len));
		kb_program_finish(&program);
	}
	kb_bundle_decide_path(bundle, KB_FS_READ, "/x");
}

/* Every byte of a small bundle changed: refused, or as good as any. */
static void damaged_bundles(void **state)
{
	char *text = test_policy("syscall lseek { whence in 1 | 5..7, offset > 3 } deny EDOM\n"
				 "fs read \"/usr\"\nnet connect loopback\nenv set A \"b\"\n"
				 "limit pids 5\nsecret K from env for \"h:1\" as bearer");
	struct kb_diags *diags = kb_diags_create();
	struct kb_policy *policy = NULL;
	struct kb_bundle *bundle = NULL;
	unsigned refused = 0;
	struct kb_buf buf;

	(void)state;
	kb_buf_init(&buf, 1 << 20);
	assert_int_equal(kb_policy_load_text(text, strlen(text), "t.policy", &test_options, &policy,
				 diags, NULL),
		0);
	assert_int_equal(kb_policy_lower(policy, &test_options, &buf, diags, NULL), 0);
	for (size_t i = 0; i < kb_buf_len(&buf); i++)
		for (int bit = 0; bit < 8; bit++) {
			kb_buf_data(&buf)[i] ^= (uint8_t)(1 << bit);
			if (kb_bundle_parse(kb_buf_data(&buf), kb_buf_len(&buf), &bundle, NULL) ==
				0) {
				use(bundle);
				kb_bundle_destroy(bundle);
			} else {
				refused++;
			}
			kb_buf_data(&buf)[i] ^= (uint8_t)(1 << bit);
		}
	for (size_t len = 0; len < kb_buf_len(&buf); len++)
		if (kb_bundle_parse(kb_buf_data(&buf), len, &bundle, NULL) == 0)
			kb_bundle_destroy(bundle);
	assert_true(refused > kb_buf_len(&buf));
	kb_buf_finish(&buf);
	kb_policy_destroy(policy);
	kb_diags_destroy(diags);
	free(text);
}

/* ---- workspace files ------------------------------------------------------------------------- */

static struct kb_bundle *tightened(const char *text, char **why)
{
	char path[] = "/tmp/kb-tighten-XXXXXX";
	int fd = mkstemp(path);
	struct kb_policy_options options = test_options;
	struct kb_diags *diags = kb_diags_create();
	struct kb_policy *policy = NULL;
	struct kb_bundle *bundle = NULL;
	struct kb_err err = {0};
	struct kb_buf buf;

	assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
	options.tighten = path;
	kb_buf_init(&buf, 8 << 20);
	if (kb_policy_load("shell", &options, &policy, diags, &err) == 0 &&
		kb_policy_lower(policy, &options, &buf, diags, &err) == 0)
		kb_bundle_parse(kb_buf_data(&buf), kb_buf_len(&buf), &bundle, &err);
	*why = strdup(err.msg);
	kb_buf_finish(&buf);
	kb_policy_destroy(policy);
	kb_diags_destroy(diags);
	unlink(path);
	return bundle;
}

static void workspace_policies_only_tighten(void **state)
{
	/* ask would soften a deny, a variable may stand in a rule of the user's. */
	static const char *const hostile[] = {
		"net connect tcp \"evil.example:443\"",
		"exec allow \"/srv\"",
		"env pass SSH_AUTH_SOCK",
		"env set PATH \"/tmp\"",
		"syscall ptrace { request = PTRACE_TRACEME } ask",
		"group @mount ask \"let me\"",
		"syscall mount allow override reason \"trust me\"",
		"fs deny \"~/.ssh\" override reason \"softly\"",
		"fs deny \"**/x\" observe-only",
		"let DATA \"/home/u\"",
		"secret T from env for \"evil.example:443\" as bearer",
		"secret T from command \"id\" for \"evil.example:443\" as bearer",
		"default deny EPERM record none",
		"workspace write \"/srv\"",
		"fs keep \"~/.ssh\"",
	};
	struct kb_bundle *bundle;
	const struct kb_limit *limits;
	char *why;
	size_t n;

	(void)state;
	bundle = tightened("policy w {\n workspace hide \".env\"\n syscall getppid deny EPERM\n"
			   " limit pids 9\n limit memory 64G\n}\n",
		&why);
	if (!bundle)
		fail_msg("%s", why);
	free(why);
	assert_int_equal(kb_bundle_decide(bundle, ARCH, 110, (uint64_t[6]){0}).action, KB_DENY);
	n = kb_bundle_limits(bundle, &limits);
	for (size_t i = 0; i < n; i++)
		if (limits[i].kind == KB_LIMIT_PIDS)
			assert_int_equal(limits[i].value, 9);
		else if (limits[i].kind == KB_LIMIT_MEMORY)
			assert_int_equal(limits[i].value, 8ULL << 30);
	kb_bundle_destroy(bundle);
	/* A limit stays as binding, and a denial as loud, as it was. */
	bundle = tightened("policy w {\n group @mount deny EPERM record none\n"
			   " limit memory 1G if-available\n}\n",
		&why);
	assert_non_null(bundle);
	free(why);
	assert_int_equal(
		kb_bundle_decide(bundle, ARCH, 165, (uint64_t[6]){0}).record, KB_RECORD_FULL);
	kb_bundle_destroy(bundle);
	assert_null(tightened("policy w {\n fs read \"/srv\"\n}\n", &why));
	assert_non_null(strstr(why, "only take away"));
	free(why);
	for (size_t i = 0; i < KB_ARRAY_LEN(hostile); i++) {
		char *text = kb_asprintf("policy w {\n %s\n}\n", hostile[i]);

		if (tightened(text, &why))
			fail_msg("accepted from a workspace: %s", hostile[i]);
		if (!strstr(why, "only take away"))
			fail_msg("%s: %s", hostile[i], why);
		free(why);
		free(text);
	}
	assert_null(tightened("policy w extends base {\n fs deny \"/usr/x\"\n}\n", &why));
	free(why);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tokens),
		cmocka_unit_test(path_patterns),
		cmocka_unit_test(path_patterns_are_bounded),
		cmocka_unit_test(oversize_is_diagnosed),
		cmocka_unit_test(long_jumps),
		cmocka_unit_test(override_widens),
		cmocka_unit_test(environment),
		cmocka_unit_test(mounts),
		cmocka_unit_test(diff_finds_the_one_value),
		cmocka_unit_test(solver_is_exact),
		cmocka_unit_test(diff_of_paths_and_hosts),
		cmocka_unit_test(explanations),
		cmocka_unit_test(secrets),
		cmocka_unit_test(oci_profiles_are_exact),
		cmocka_unit_test(damaged_bundles),
		cmocka_unit_test(workspace_policies_only_tighten),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
