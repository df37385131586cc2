/* Random policies × random calls. The answers must agree: of a model of the rules that is kept here
 * and knows nothing of the compiler, of the reference evaluator, and of the programs emitted for
 * each architecture and lane. Where libseccomp can say the same, its program is one more.
 *
 *	test_policy_differential [CASES [SEED]]        default 400,000 cases
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

#define CALLS_PER_POLICY 100
#define RULES_MAX	 8
#define TERMS_MAX	 3
#define ALTS_MAX	 3
#define ITEMS_MAX	 3
#define TEXT_MAX	 16384

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
	bool word; /* of flags: `has any of`; otherwise one value */
};

/* Calls whose arguments take plain numbers; the model's own knowledge of them. */
static const struct call_spec {
	const char *name;
	struct arg_spec args[6];
	unsigned n;
} specs[] = {
	{"lseek", {{"fd", 32}, {"offset", 64, .sign = true}, {"whence", 32}}, 3},
	{"munmap", {{0}, {"len", 64}}, 2},
	{"fchmod", {{"fd", 32}, {"mode", 16, .word = true}}, 2},
	{"getpriority", {{"which", 32, .sign = true}, {"who", 32, .sign = true}}, 2},
	{"socket",
		{{"domain", 32, .sign = true}, {"type", 32, .sign = true},
			{"protocol", 32, .sign = true}},
		3},
	{"mremap",
		{{"addr", 64}, {"old_len", 64}, {"new_len", 64}, {"flags", 64, .word = true},
			{"new_addr", 64}},
		5},
	{"fallocate",
		{{"fd", 32, .sign = true}, {"mode", 32, .sign = true, .word = true},
			{"offset", 64, .sign = true}, {"len", 64, .sign = true}},
		4},
	{"mprotect", {{"start", 64}, {"len", 64}, {"prot", 64, .word = true}}, 3},
};

enum op { EQ, NE, LT, LE, GT, GE, MASK_EQ, MASK_NE, IN, NOT_IN, ANY, ALL, NONE, ONLY, OPS };

struct item {
	uint64_t a, b;
};

struct term {
	unsigned arg;
	enum op op;
	uint64_t a, mask;
	struct item items[ITEMS_MAX]; /* IN, NOT_IN: ranges */
	unsigned n_items;
};

struct alt {
	struct term terms[TERMS_MAX];
	unsigned n_terms;
};

struct rule {
	unsigned call;
	const char *group;	   /* a rule for all of it; or NULL */
	unsigned calls;		   /* of the group: a bit per spec */
	struct alt alts[ALTS_MAX]; /* none: the bare name */
	unsigned n_alts;
	enum kb_action action;
	int errnum;
	bool recorded;
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

static bool in_items(const struct arg_spec *arg, const struct term *term, uint64_t v)
{
	for (unsigned i = 0; i < term->n_items; i++)
		if (ordered(arg, GE, v, term->items[i].a) && ordered(arg, LE, v, term->items[i].b))
			return true;
	return false;
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
	case IN:
		return in_items(arg, term, v);
	case NOT_IN:
		return !in_items(arg, term, v);
	case ANY:
		return (v & term->a) != 0;
	case ALL:
		return (v & term->a) == term->a;
	case NONE:
		return (v & term->a) == 0;
	case ONLY:
		return (v & ~term->a) == 0;
	default:
		return ordered(arg, term->op, v, term->a);
	}
}

static bool rule_holds(const struct rule *rule, const uint64_t args[6])
{
	for (unsigned i = 0; i < rule->n_alts; i++) {
		const struct alt *alt = &rule->alts[i];
		bool all = true;

		for (unsigned t = 0; t < alt->n_terms; t++)
			all = all && term_holds(&specs[rule->call], &alt->terms[t], args);
		if (all)
			return true;
	}
	return rule->n_alts == 0;
}

static bool concerns(const struct rule *rule, unsigned call)
{
	return rule->group ? rule->calls >> call & 1 : rule->call == call;
}

/* Arguments before the bare name, that before a group. */
static unsigned closeness(const struct rule *rule)
{
	return rule->n_alts ? 2 : rule->group ? 0 : 1;
}

/* Kill beats deny, deny beats ask, ask beats allow. */
static unsigned hardness(enum kb_action action)
{
	static const unsigned order[] = {
		[KB_ALLOW] = 0, [KB_ASK] = 1, [KB_DENY] = 2, [KB_KILL] = 3};

	return order[action];
}

/* The language's order, said once more: the closer rule, then the harder action, then the first.
 * NULL: the default. */
static const struct rule *model_rule(
	const struct model *model, unsigned call, const uint64_t args[6])
{
	const struct rule *best = NULL;

	for (unsigned i = 0; i < model->n; i++) {
		const struct rule *rule = &model->rules[i];

		if (!concerns(rule, call) || !rule_holds(rule, args))
			continue;
		if (!best || closeness(rule) > closeness(best) ||
			(closeness(rule) == closeness(best) &&
				hardness(rule->action) > hardness(best->action)))
			best = rule;
	}
	return best;
}

/* What a program for a lane returns. Nobody can be asked without a notification. */
static uint32_t model_value(const struct rule *rule, enum kb_emit_lane lane)
{
	if (!rule)
		return SECCOMP_RET_ERRNO | 38;
	if (rule->action == KB_KILL)
		return SECCOMP_RET_KILL_PROCESS;
	if (lane == KB_EMIT_NOTIFY && (rule->recorded || rule->action == KB_ASK))
		return SECCOMP_RET_USER_NOTIF;
	if (lane == KB_EMIT_SPLIT && rule->action == KB_ASK)
		return SECCOMP_RET_USER_NOTIF;
	if (rule->action == KB_ALLOW)
		return SECCOMP_RET_ALLOW;
	return SECCOMP_RET_ERRNO | (uint32_t)(rule->action == KB_ASK ? 1 : rule->errnum);
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

static struct item make_item(const struct arg_spec *arg)
{
	struct item item = {interesting(arg->width), interesting(arg->width)};

	if (ordered(arg, GT, item.a, item.b))
		return (struct item){item.b, item.a};
	return item;
}

static void make_term(const struct call_spec *spec, unsigned ops, struct term *term)
{
	const struct arg_spec *arg;

	do
		term->arg = below(spec->n);
	while (!spec->args[term->arg].name);
	arg = &spec->args[term->arg];
	do
		term->op = (enum op)below(ops);
	while (term->op >= ANY && !arg->word);
	term->a = interesting(arg->width);
	term->mask = width_mask(arg->width);
	if (term->op == MASK_EQ || term->op == MASK_NE) {
		do
			term->mask = interesting(arg->width);
		while (!term->mask);
		term->a &= term->mask;
	}
	term->n_items = term->op == IN || term->op == NOT_IN ? 1 + below(ITEMS_MAX) : 0;
	for (unsigned i = 0; i < term->n_items; i++)
		term->items[i] = make_item(arg);
	/* `has any of` nothing would be a mistake. */
	if (term->op >= ANY && !term->a)
		term->a = 1;
}

/* A rule for one or two calls with 64-bit unsigned arguments: what libseccomp can say too. Not two
 * for the same call: releases up to 2.6.0 merge their comparisons wrongly (GHSA-4q85; 2.5.4 lets
 * 0xffffffff pass by both munmap { len <= 0xfffffffe } and { len < 0x100000001 }). */
static void make_simple(struct model *model)
{
	static const unsigned calls[] = {1, 5};

	model->n = 1 + below(2);
	for (unsigned i = 0; i < model->n; i++) {
		struct rule *rule = &model->rules[i];
		struct alt *alt = &rule->alts[0];

		*rule = (struct rule){.call = calls[model->n == 1 ? below(2) : i],
			.n_alts = 1,
			.errnum = 33,
			.action = below(2) ? KB_ALLOW : KB_DENY};
		alt->n_terms = 1 + (rule->call == 5 && below(2));
		for (unsigned t = 0; t < alt->n_terms; t++)
			do
				make_term(&specs[rule->call], MASK_EQ + 1, &alt->terms[t]);
			while (t && alt->terms[t].arg == alt->terms[0].arg);
	}
}

static void make_rule(struct rule *rule)
{
	static const struct {
		const char *name;
		unsigned calls;
	} groups[] = {{"@memory", 1u << 1 | 1u << 5 | 1u << 7}, {"@io", 1u << 0 | 1u << 6}};
	unsigned group = below(2 * KB_ARRAY_LEN(groups));

	*rule = (struct rule){.call = below(KB_ARRAY_LEN(specs)), .errnum = 33};
	rule->action = below(10) ? below(2) ? KB_ALLOW : KB_DENY : below(2) ? KB_KILL : KB_ASK;
	rule->recorded = rule->action != KB_KILL && !below(3);
	if (!below(8) && group < KB_ARRAY_LEN(groups)) {
		rule->group = groups[group].name;
		rule->calls = groups[group].calls;
		return;
	}
	rule->n_alts = below(4) ? 1 + !below(3) * below(ALTS_MAX) : 0;
	for (unsigned i = 0; i < rule->n_alts; i++) {
		struct alt *alt = &rule->alts[i];

		alt->n_terms = 1 + below(TERMS_MAX);
		for (unsigned t = 0; t < alt->n_terms; t++)
			make_term(&specs[rule->call], OPS, &alt->terms[t]);
	}
}

static void make_model(struct model *model)
{
	model->n = 1 + below(RULES_MAX);
	for (unsigned i = 0; i < model->n; i++)
		make_rule(&model->rules[i]);
}

/* ---- Their text ------------------------------------------------------------------------------ */

struct text {
	char *to;
	size_t len, size;
};

static void put(struct text *t, const char *fmt, ...) KB_PRINTF(2, 3);
static void put(struct text *t, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	t->len += (size_t)vsnprintf(t->to + t->len, t->size - t->len, fmt, args);
	va_end(args);
	assert_true(t->len < t->size);
}

static void put_term(struct text *t, const struct call_spec *spec, const struct term *term)
{
	static const char *const ops[] = {[EQ] = "=",
		[NE] = "!=",
		[LT] = "<",
		[LE] = "<=",
		[GT] = ">",
		[GE] = ">=",
		[IN] = "in",
		[NOT_IN] = "not in",
		[ANY] = "has any of",
		[ALL] = "has all of",
		[NONE] = "has none of",
		[ONLY] = "only"};
	const char *name = spec->args[term->arg].name;

	if (term->op == MASK_EQ || term->op == MASK_NE) {
		put(t, "(%s & %#llx) %s %#llx", name, (unsigned long long)term->mask,
			ops[term->op - MASK_EQ], (unsigned long long)term->a);
		return;
	}
	/* A value in a word of flags is asked for under a mask only. */
	if (term->n_items && spec->args[term->arg].word)
		put(t, "(%s & %#llx) %s", name, (unsigned long long)term->mask, ops[term->op]);
	else
		put(t, "%s %s", name, ops[term->op]);
	if (!term->n_items)
		put(t, " %#llx", (unsigned long long)term->a);
	for (unsigned i = 0; i < term->n_items; i++)
		put(t, term->items[i].a == term->items[i].b ? "%s %#llx" : "%s %#llx..%#llx",
			i ? " |" : "", (unsigned long long)term->items[i].a,
			(unsigned long long)term->items[i].b);
}

static void put_rule(struct text *t, const struct rule *rule)
{
	static const char *const actions[] = {[KB_ALLOW] = "allow",
		[KB_DENY] = "deny EDOM",
		[KB_KILL] = "kill",
		[KB_ASK] = "ask"};
	static const char *const ands[] = {", ", " and ", "; "};
	const struct call_spec *spec = &specs[rule->call];

	put(t, rule->group ? " group %s" : " syscall %s", rule->group ? rule->group : spec->name);
	for (unsigned i = 0; i < rule->n_alts; i++) {
		put(t, i ? " or " : " { ");
		for (unsigned k = 0; k < rule->alts[i].n_terms; k++) {
			put(t, "%s", k ? ands[k % KB_ARRAY_LEN(ands)] : "");
			put_term(t, spec, &rule->alts[i].terms[k]);
		}
	}
	put(t, "%s%s record %s\n", rule->n_alts ? " } " : " ", actions[rule->action],
		rule->recorded ? "full" : "none");
}

static void write_policy(const struct model *model, char *to, size_t size)
{
	struct text t = {.to = to, .size = size};

	put(&t, "policy t version 1 {\n default deny ENOSYS record none\n");
	for (unsigned i = 0; i < model->n; i++)
		put_rule(&t, &model->rules[i]);
	put(&t, "}\n");
}

/* ---- libseccomp ------------------------------------------------------------------------------ */

static void oracle_rule(scmp_filter_ctx ctx, const struct rule *rule)
{
	static const enum scmp_compare ops[] = {SCMP_CMP_EQ, SCMP_CMP_NE, SCMP_CMP_LT, SCMP_CMP_LE,
		SCMP_CMP_GT, SCMP_CMP_GE, SCMP_CMP_MASKED_EQ};
	const struct alt *alt = &rule->alts[0];
	struct scmp_arg_cmp cmp[TERMS_MAX];
	uint32_t action = rule->action == KB_ALLOW ? SCMP_ACT_ALLOW : SCMP_ACT_ERRNO(33);

	for (unsigned t = 0; t < alt->n_terms; t++) {
		const struct term *term = &alt->terms[t];

		cmp[t] = (struct scmp_arg_cmp){.arg = term->arg,
			.op = ops[term->op],
			.datum_a = term->op == MASK_EQ ? term->mask : term->a,
			.datum_b = term->a};
	}
	assert_int_equal(
		seccomp_rule_add_array(ctx, action,
			seccomp_syscall_resolve_name(specs[rule->call].name), alt->n_terms, cmp),
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
	uint64_t cases, policies, refused, oracles, against;
} total;

#define ARCHES 2
#define LANES  3
static const uint32_t arches[ARCHES] = {AUDIT_ARCH_X86_64, AUDIT_ARCH_AARCH64};
static const enum kb_emit_lane lanes[LANES] = {KB_EMIT_PLAIN, KB_EMIT_NOTIFY, KB_EMIT_SPLIT};

/* A value near one that some rule of the call speaks of, or any. */
static uint64_t near(const struct model *model, unsigned call, unsigned arg)
{
	const struct rule *rule = &model->rules[below(model->n)];
	const struct alt *alt = rule->n_alts ? &rule->alts[below(rule->n_alts)] : NULL;
	const struct term *term = alt ? &alt->terms[below(alt->n_terms)] : NULL;
	const struct item *item;
	uint64_t v;

	if (!term || rule->call != call || term->arg != arg || !below(4))
		return below(2) ? interesting(64) : rnd();
	v = term->a;
	if (term->n_items) {
		item = &term->items[below(term->n_items)];
		v = below(2) ? item->a : item->b;
	}
	return v + below(3) - 1 + (below(4) ? 0 : 1ULL << 32);
}

static void disagree(unsigned call, const uint64_t args[6], const char *who, uint32_t value,
	uint32_t want, const char *text)
{
	fail_msg("%s(%#llx, %#llx, %#llx, %#llx, %#llx): %s says %#x, the model %#x\n%s",
		specs[call].name, (unsigned long long)args[0], (unsigned long long)args[1],
		(unsigned long long)args[2], (unsigned long long)args[3],
		(unsigned long long)args[4], who, value, want, text);
}

static void compare(const struct model *model, const struct kb_bundle *bundle,
	struct kb_program programs[ARCHES][LANES], const struct sock_filter *theirs,
	const char *text)
{
	unsigned call = below(KB_ARRAY_LEN(specs));
	const struct rule *rule;
	uint64_t args[6];
	uint32_t want, got;

	for (unsigned i = 0; i < 6; i++)
		args[i] = near(model, call, i);
	rule = model_rule(model, call, args);
	for (unsigned i = 0; i < ARCHES * LANES; i++) {
		unsigned a = i / LANES, l = i % LANES;
		struct seccomp_data data = {
			.arch = arches[a], .nr = kb_syscall_number(arches[a], specs[call].name)};
		struct kb_verdict verdict = kb_bundle_decide(bundle, arches[a], data.nr, args);

		want = model_value(rule, lanes[l]);
		memcpy(data.args, args, sizeof(args));
		if (lanes[l] != KB_EMIT_SPLIT && verdict.action != KB_ASK &&
			(got = test_expected(&verdict, lanes[l])) != want)
			disagree(call, args, "the evaluator", got, want, text);
		if (verdict.action != (rule ? rule->action : KB_DENY))
			disagree(call, args, "the evaluator", verdict.action, want, text);
		got = bpf_interpret(programs[a][l].insns, &data).value;
		if (got != want)
			disagree(call, args, "the program", got, want, text);
		if (!theirs || arches[a] != kb_arch_native() || lanes[l] != KB_EMIT_PLAIN)
			continue;
		got = bpf_interpret(theirs, &data).value;
		if (got != want)
			disagree(call, args, "libseccomp", got, want, text);
		total.against++;
	}
	total.cases++;
}

static void one_policy(unsigned calls)
{
	struct kb_program programs[ARCHES][LANES];
	struct sock_filter *theirs = NULL;
	struct kb_bundle *bundle;
	struct model model;
	char text[TEXT_MAX], *why = NULL;
	bool simple = !below(3);

	if (simple)
		make_simple(&model);
	else
		make_model(&model);
	write_policy(&model, text, sizeof(text));
	bundle = test_compile(text, "random.policy", &why);
	total.policies++;
	if (!bundle) {
		/* Only contradictions may be refused. */
		if (!strstr(why, "cover the same calls") && !strstr(why, "different record levels"))
			fail_msg("%s\n%s", why, text);
		total.refused++;
		free(why);
		return;
	}
	free(why);
	for (unsigned a = 0; a < ARCHES; a++)
		for (unsigned l = 0; l < LANES; l++)
			programs[a][l] = test_emit(bundle, arches[a], lanes[l]);
	if (simple) {
		theirs = oracle(&model);
		total.oracles++;
	}
	for (unsigned i = 0; i < calls; i++)
		compare(&model, bundle, programs, theirs, text);
	free(theirs);
	for (unsigned a = 0; a < ARCHES; a++)
		for (unsigned l = 0; l < LANES; l++)
			kb_program_finish(&programs[a][l]);
	kb_bundle_destroy(bundle);
}

static uint64_t wanted = 400000;

static void differential(void **state)
{
	(void)state;
	while (total.cases < wanted)
		one_policy(CALLS_PER_POLICY);
	print_message("%llu cases of %llu policies (%llu contradictory), each on %d architectures "
		      "and %d lanes; %llu of %llu policies also against libseccomp: no "
		      "disagreement\n",
		(unsigned long long)total.cases, (unsigned long long)total.policies,
		(unsigned long long)total.refused, ARCHES, LANES, (unsigned long long)total.against,
		(unsigned long long)total.oracles);
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
