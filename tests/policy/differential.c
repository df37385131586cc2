/* Random policies × random calls. Three answers must agree: a model of the rules that is kept here
 *and knows nothing of the compiler, the reference evaluator, and the emitted program. For policies
 *that libseccomp can express, its program is a fourth.
 *
 *	test_policy_differential [CASES [SEED]]        default 400,000 cases; a million takes
 *seconds
 */
#include <linux/audit.h>
#include <seccomp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "supervisor/base/util.h"
#include "tests/policy/support.h"

#define CALLS_PER_POLICY 200
#define RULES_MAX	 8
#define TERMS_MAX	 3
#define TEXT_MAX	 8192

/* xorshift64*: the same cases for the same seed, everywhere. */
static uint64_t rng_state;

static uint64_t rnd(void)
{
	rng_state ^= rng_state >> 12;
	rng_state ^= rng_state << 25;
	rng_state ^= rng_state >> 27;
	return rng_state * 2685821657736338717ULL;
}

static unsigned below(unsigned n)
{
	return (unsigned)(rnd() % n);
}

/* ---- The model ------------------------------------------------------------------------------- */

struct arg_spec {
	const char *name;
	unsigned width;
	bool sign;
};

/* Calls whose arguments take plain numbers; the model's own knowledge of them. */
static const struct call_spec {
	const char *name;
	struct arg_spec args[6];
	unsigned n;
} specs[] = {
	{"lseek", {{"fd", 32, false}, {"offset", 64, true}, {"whence", 32, false}}, 3},
	{"munmap", {{0}, {"len", 64, false}}, 2},
	{"fchmod", {{"fd", 32, false}, {"mode", 16, false}}, 2},
	{"getpriority", {{"which", 32, true}, {"who", 32, true}}, 2},
	{"socket", {{"domain", 32, true}, {"type", 32, true}, {"protocol", 32, true}}, 3},
	{"mremap",
		{{"addr", 64, false}, {"old_len", 64, false}, {"new_len", 64, false}, {0},
			{"new_addr", 64, false}},
		5},
};

enum op { EQ, NE, LT, LE, GT, GE, MASK_EQ, MASK_NE, RANGE, LIST, OPS };

struct term {
	unsigned arg;
	enum op op;
	uint64_t a, b, mask;
};

struct rule {
	unsigned call;
	bool cond;
	struct term terms[TERMS_MAX];
	unsigned n_terms;
	unsigned action; /* 0 allow, 1 deny, 2 kill */
	int errnum;
};

struct model {
	struct rule rules[RULES_MAX];
	unsigned n;
};

static uint64_t width_mask(unsigned width)
{
	return width == 64 ? UINT64_MAX : (1ULL << width) - 1;
}

static int64_t as_signed(uint64_t v, unsigned width)
{
	return width == 64 ? (int64_t)v : (int64_t)(int32_t)(uint32_t)v;
}

static bool ordered(const struct arg_spec *arg, enum op op, uint64_t v, uint64_t a)
{
	int64_t sv = as_signed(v, arg->width), sa = as_signed(a, arg->width);
	bool lt = arg->sign ? sv < sa : v < a, eq = v == a;

	return op == LT ? lt : op == LE ? lt || eq : op == GT ? !lt && !eq : !lt;
}

static bool term_holds(
	const struct call_spec *spec, const struct term *term, const uint64_t args[6])
{
	const struct arg_spec *arg = &spec->args[term->arg];
	uint64_t v = args[term->arg] & width_mask(arg->width);

	switch (term->op) {
	case EQ:
		return v == term->a;
	case NE:
		return v != term->a;
	case MASK_EQ:
		return (v & term->mask) == term->a;
	case MASK_NE:
		return (v & term->mask) != term->a;
	case RANGE:
		return ordered(arg, GE, v, term->a) && ordered(arg, LE, v, term->b);
	case LIST:
		return v == term->a || v == term->b;
	default:
		return ordered(arg, term->op, v, term->a);
	}
}

static bool rule_holds(const struct rule *rule, const uint64_t args[6])
{
	for (unsigned i = 0; i < rule->n_terms; i++)
		if (!term_holds(&specs[rule->call], &rule->terms[i], args))
			return false;
	return true;
}

/* The language's order, said once more: arguments before the bare name, then the harder action. */
static uint32_t model_value(const struct model *model, unsigned call, const uint64_t args[6])
{
	const struct rule *best = NULL;

	for (unsigned i = 0; i < model->n; i++) {
		const struct rule *rule = &model->rules[i];

		if (rule->call != call || !rule_holds(rule, args))
			continue;
		if (!best || (rule->cond && !best->cond) ||
			(rule->cond == best->cond && rule->action > best->action))
			best = rule;
	}
	if (!best)
		return SECCOMP_RET_ERRNO | 38;
	return best->action == 0   ? SECCOMP_RET_ALLOW
	       : best->action == 1 ? SECCOMP_RET_ERRNO | (uint32_t)best->errnum
				   : SECCOMP_RET_KILL_PROCESS;
}

/* ---- Making policies ------------------------------------------------------------------------- */

static uint64_t interesting(unsigned width)
{
	static const uint64_t values[] = {0, 1, 2, 3, 7, 8, 0xf, 0x10, 0x7f, 0x80, 0xff, 0x100,
		0x7fff, 0x8000, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff,
		0x100000000, 0x100000001, 0x1ffffffff, 0x7fffffffffffffff, 0x8000000000000000,
		0xffffffff00000000, 0xfffffffffffffffe, 0xffffffffffffffff};
	uint64_t v = below(4) ? values[below(KB_ARRAY_LEN(values))] : rnd() >> below(64);

	return v & width_mask(width);
}

static void make_term(const struct call_spec *spec, struct term *term)
{
	const struct arg_spec *arg;

	do
		term->arg = below(spec->n);
	while (!spec->args[term->arg].name);
	arg = &spec->args[term->arg];
	term->op = (enum op)below(OPS);
	term->a = interesting(arg->width);
	term->b = interesting(arg->width);
	term->mask = width_mask(arg->width);
	if (term->op == MASK_EQ || term->op == MASK_NE) {
		do
			term->mask = interesting(arg->width);
		while (!term->mask);
		term->a &= term->mask;
	}
	if (term->op == RANGE && ordered(arg, GT, term->a, term->b)) {
		uint64_t t = term->a;

		term->a = term->b;
		term->b = t;
	}
}

/* One rule for a call with 64-bit unsigned arguments: what libseccomp can say too. */
static void make_simple(struct model *model)
{
	struct rule *rule = &model->rules[0];

	model->n = 1;
	*rule = (struct rule){.call = below(2) ? 1 : 5, .cond = true, .errnum = 33};
	rule->n_terms = 1 + (rule->call == 5 && below(2));
	rule->action = below(2);
	for (unsigned t = 0; t < rule->n_terms; t++)
		do
			make_term(&specs[rule->call], &rule->terms[t]);
		while (rule->terms[t].op > MASK_EQ ||
			(t && rule->terms[t].arg == rule->terms[0].arg));
}

static void make_model(struct model *model)
{
	static const int errnos[] = {33, 1};

	model->n = 1 + below(RULES_MAX);
	for (unsigned i = 0; i < model->n; i++) {
		struct rule *rule = &model->rules[i];

		*rule = (struct rule){.call = below(KB_ARRAY_LEN(specs)), .errnum = errnos[0]};
		rule->cond = below(4) != 0;
		rule->n_terms = rule->cond ? 1 + below(TERMS_MAX) : 0;
		rule->action = below(10) ? below(2) : 2;
		for (unsigned t = 0; t < rule->n_terms; t++)
			make_term(&specs[rule->call], &rule->terms[t]);
	}
}

static void write_term(char *to, size_t size, const struct call_spec *spec, const struct term *term)
{
	static const char *const ops[] = {"=", "!=", "<", "<=", ">", ">="};
	const char *name = spec->args[term->arg].name;
	unsigned long long a = term->a, b = term->b, mask = term->mask;

	switch (term->op) {
	case MASK_EQ:
	case MASK_NE:
		snprintf(to, size, "(%s & %#llx) %s %#llx", name, mask,
			term->op == MASK_EQ ? "=" : "!=", a);
		break;
	case RANGE:
		snprintf(to, size, "(%s & %#llx) in %#llx..%#llx", name, mask, a, b);
		break;
	case LIST:
		snprintf(to, size, "(%s & %#llx) in %#llx | %#llx", name, mask, a, b);
		break;
	default:
		snprintf(to, size, "%s %s %#llx", name, ops[term->op], a);
	}
}

static void write_policy(const struct model *model, char *to, size_t size)
{
	size_t len = (size_t)snprintf(
		to, size, "policy t version 1 {\n default deny ENOSYS record none\n");

	for (unsigned i = 0; i < model->n; i++) {
		const struct rule *rule = &model->rules[i];
		const struct call_spec *spec = &specs[rule->call];
		static const char *const actions[] = {"allow", "deny EDOM record none", "kill"};

		len += (size_t)snprintf(to + len, size - len, " syscall %s ", spec->name);
		for (unsigned t = 0; t < rule->n_terms; t++) {
			char text[160];

			write_term(text, sizeof(text), spec, &rule->terms[t]);
			len += (size_t)snprintf(
				to + len, size - len, "%s%s", t ? ", " : "{ ", text);
		}
		len += (size_t)snprintf(to + len, size - len, "%s%s\n", rule->n_terms ? " } " : "",
			actions[rule->action]);
	}
	snprintf(to + len, size - len, "}\n");
}

/* ---- libseccomp ------------------------------------------------------------------------------ */

/* One rule per call, one unsigned comparison per argument, 64-bit arguments only: what its API says
 * the same way. */
static bool expressible(const struct model *model)
{
	for (unsigned i = 0; i < model->n; i++) {
		const struct rule *rule = &model->rules[i];

		for (unsigned j = 0; j < i; j++)
			if (model->rules[j].call == rule->call)
				return false;
		for (unsigned t = 0; t < rule->n_terms; t++) {
			const struct arg_spec *arg = &specs[rule->call].args[rule->terms[t].arg];

			if (arg->width != 64 || arg->sign || rule->terms[t].op > MASK_EQ)
				return false;
			for (unsigned u = 0; u < t; u++)
				if (rule->terms[u].arg == rule->terms[t].arg)
					return false;
		}
	}
	return true;
}

static void oracle_rule(scmp_filter_ctx ctx, const struct rule *rule)
{
	static const enum scmp_compare ops[] = {SCMP_CMP_EQ, SCMP_CMP_NE, SCMP_CMP_LT, SCMP_CMP_LE,
		SCMP_CMP_GT, SCMP_CMP_GE, SCMP_CMP_MASKED_EQ};
	static const uint32_t actions[] = {
		SCMP_ACT_ALLOW, SCMP_ACT_ERRNO(33), SCMP_ACT_KILL_PROCESS};
	struct scmp_arg_cmp cmp[TERMS_MAX];

	for (unsigned t = 0; t < rule->n_terms; t++) {
		const struct term *term = &rule->terms[t];

		cmp[t] = (struct scmp_arg_cmp){.arg = term->arg,
			.op = ops[term->op],
			.datum_a = term->op == MASK_EQ ? term->mask : term->a,
			.datum_b = term->a};
	}
	assert_int_equal(
		seccomp_rule_add_array(ctx, actions[rule->action],
			seccomp_syscall_resolve_name(specs[rule->call].name), rule->n_terms, cmp),
		0);
}

static struct sock_filter *oracle(const struct model *model)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(38));
	int fd = memfd_create("oracle", MFD_CLOEXEC);
	struct sock_filter *insns = calloc(4096, sizeof(*insns));

	assert_non_null(ctx);
	for (unsigned i = 0; i < model->n; i++)
		oracle_rule(ctx, &model->rules[i]);
	assert_int_equal(seccomp_export_bpf(ctx, fd), 0);
	assert_true(pread(fd, insns, 4096 * sizeof(*insns), 0) > 0);
	close(fd);
	seccomp_release(ctx);
	return insns;
}

/* ---- Comparing ------------------------------------------------------------------------------- */

static struct {
	uint64_t cases, policies, refused, oracles;
} total;

/* A value near one that some rule of the call speaks of, or any. */
static uint64_t near(const struct model *model, unsigned call, unsigned arg)
{
	const struct rule *rule = &model->rules[below(model->n)];
	const struct term *term = rule->n_terms ? &rule->terms[below(rule->n_terms)] : NULL;

	if (!term || rule->call != call || term->arg != arg || !below(4))
		return below(2) ? interesting(64) : rnd();
	return (below(2) ? term->a : term->b) + below(3) - 1 + (below(4) ? 0 : 1ULL << 32);
}

static void compare(const struct model *model, const struct kb_bundle *bundle,
	const struct kb_program *programs, const struct sock_filter *theirs, const char *text)
{
	static const uint32_t arches[] = {AUDIT_ARCH_X86_64, AUDIT_ARCH_AARCH64};
	unsigned call = below(KB_ARRAY_LEN(specs));
	uint64_t args[6];
	uint32_t want;

	for (unsigned i = 0; i < 6; i++)
		args[i] = near(model, call, i);
	want = model_value(model, call, args);
	for (unsigned a = 0; a < KB_ARRAY_LEN(arches); a++) {
		struct seccomp_data data = {
			.arch = arches[a], .nr = kb_syscall_number(arches[a], specs[call].name)};
		struct kb_verdict verdict = kb_bundle_decide(bundle, arches[a], data.nr, args);

		memcpy(data.args, args, sizeof(args));
		if (test_expected(&verdict, KB_EMIT_PLAIN) != want ||
			bpf_interpret(programs[a].insns, &data).value != want ||
			(theirs && arches[a] == kb_arch_native() &&
				bpf_interpret(theirs, &data).value != want))
			fail_msg("%s(%#llx, %#llx, %#llx, %#llx, %#llx): model %#x, evaluator %#x, "
				 "program %#x, libseccomp %#x\n%s",
				specs[call].name, (unsigned long long)args[0],
				(unsigned long long)args[1], (unsigned long long)args[2],
				(unsigned long long)args[3], (unsigned long long)args[4], want,
				test_expected(&verdict, KB_EMIT_PLAIN),
				bpf_interpret(programs[a].insns, &data).value,
				theirs ? bpf_interpret(theirs, &data).value : 0, text);
	}
	total.cases++;
}

static void one_policy(unsigned calls)
{
	struct kb_program programs[2];
	struct sock_filter *theirs = NULL;
	struct kb_bundle *bundle;
	struct model model;
	char text[TEXT_MAX], *why = NULL;

	if (below(3))
		make_model(&model);
	else
		make_simple(&model);
	write_policy(&model, text, sizeof(text));
	bundle = test_compile(text, "random.policy", &why);
	total.policies++;
	if (!bundle) {
		/* Only contradictions may be refused. */
		if (!strstr(why, "cover the same calls"))
			fail_msg("%s\n%s", why, text);
		total.refused++;
		free(why);
		return;
	}
	free(why);
	programs[0] = test_emit(bundle, AUDIT_ARCH_X86_64, KB_EMIT_PLAIN);
	programs[1] = test_emit(bundle, AUDIT_ARCH_AARCH64, KB_EMIT_PLAIN);
	if (expressible(&model)) {
		theirs = oracle(&model);
		total.oracles++;
	}
	for (unsigned i = 0; i < calls; i++)
		compare(&model, bundle, programs, theirs, text);
	free(theirs);
	kb_program_finish(&programs[0]);
	kb_program_finish(&programs[1]);
	kb_bundle_destroy(bundle);
}

static uint64_t wanted = 400000;

static void differential(void **state)
{
	(void)state;
	while (total.cases < wanted)
		one_policy(CALLS_PER_POLICY);
	print_message("%llu cases, %llu policies (%llu contradictory), %llu against libseccomp: "
		      "no disagreement\n",
		(unsigned long long)total.cases, (unsigned long long)total.policies,
		(unsigned long long)total.refused, (unsigned long long)total.oracles);
	assert_true(total.oracles > 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(differential)};

	if (argc > 1)
		wanted = strtoull(argv[1], NULL, 0);
	rng_state = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
	rng_state = rng_state * 0x9e3779b97f4a7c15ULL + 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
