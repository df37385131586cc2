/* How fast the policy compiler and what it makes are:
 *
 *	bench_policy
 *
 * - compile time of every preset (text to bundle, bundle to program), length of what is emitted;
 * - cost of a system call under the preset's filter: one that is plainly allowed, one whose
 *   arguments are looked at; against no filter, and against libseccomp's filter with the same
 *   rules, linear and as a binary tree;
 * - replay and learn in records per second.
 *
 * Medians of several runs, interleaved; each filter in a child of its own, pinned to one CPU.
 */
#include <errno.h>
#include <linux/audit.h>
#include <sched.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "policy/policy.h"
#include "supervisor/base/util.h"

#define RUNS	 7
#define CALLS	 300000
#define COMPILES 50
#define RECORDS	 1000000

static const struct kb_policy_options options = {
	.home = "/home/u", .workspace = "/home/u/code/shop", .user = "u"};

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double median(double *values, size_t n)
{
	qsort(values, n, sizeof(*values), compare_doubles);
	return values[n / 2];
}

static void die(const char *what, const struct kb_err *err)
{
	fprintf(stderr, "bench_policy: %s: %s\n", what, err->msg);
	exit(1);
}

/* ---- Compiling ------------------------------------------------------------------------------- */

static void encode(const char *name, struct kb_buf *out)
{
	struct kb_diags *diags = kb_diags_create();
	struct kb_policy *policy = NULL;
	struct kb_err err = {0};

	if (kb_policy_load(name, &options, &policy, diags, &err) < 0 ||
		kb_policy_lower(policy, &options, out, diags, &err) < 0)
		die(name, &err);
	kb_policy_destroy(policy);
	kb_diags_destroy(diags);
}

static struct kb_bundle *compile(const char *name)
{
	struct kb_bundle *bundle = NULL;
	struct kb_err err = {0};
	struct kb_buf buf;

	kb_buf_init(&buf, 8 << 20);
	encode(name, &buf);
	if (kb_bundle_parse(kb_buf_data(&buf), kb_buf_len(&buf), &bundle, &err) < 0)
		die(name, &err);
	kb_buf_finish(&buf);
	return bundle;
}

static void bench_compile(const char *name)
{
	double text[COMPILES], emit[COMPILES];
	struct kb_program program;
	size_t bytes = 0, len = 0;
	struct kb_err err = {0};

	for (int i = 0; i < COMPILES; i++) {
		struct kb_bundle *bundle = NULL;
		struct kb_buf buf;
		int64_t t0 = kb_now_mono(), t1;

		kb_buf_init(&buf, 8 << 20);
		encode(name, &buf);
		t1 = kb_now_mono();
		bytes = kb_buf_len(&buf);
		if (kb_bundle_parse(kb_buf_data(&buf), bytes, &bundle, &err) < 0 ||
			kb_bundle_emit(bundle, AUDIT_ARCH_X86_64, KB_EMIT_NOTIFY, &program, &err) <
				0)
			die(name, &err);
		text[i] = (double)(t1 - t0) / 1e6;
		emit[i] = (double)(kb_now_mono() - t1) / 1e6;
		len = program.len;
		kb_program_finish(&program);
		kb_bundle_destroy(bundle);
		kb_buf_finish(&buf);
	}
	printf("  %-12s %6.2f ms to a bundle of %5zu bytes, %5.2f ms to %zu instructions\n", name,
		median(text, COMPILES), bytes, median(emit, COMPILES), len);
}

/* ---- The filter's cost ----------------------------------------------------------------------- */

enum filter { NONE, OURS, LIBSECCOMP, LIBSECCOMP_TREE, FILTERS };
static const char *const filter_names[] = {"no filter", "kbsup", "libseccomp", "libseccomp tree"};

static void load_ours(const struct kb_bundle *bundle)
{
	struct kb_program program;
	struct sock_fprog fprog;
	struct kb_err err = {0};

	if (kb_bundle_emit(bundle, kb_arch_native(), KB_EMIT_PLAIN, &program, &err) < 0)
		die("emit", &err);
	fprog = (struct sock_fprog){(unsigned short)program.len, program.insns};
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &fprog))
		_exit(1);
}

/* The same verdicts for every call by number, and the same argument rule for ioctl. */
static void load_theirs(const struct kb_bundle *bundle, bool tree)
{
	static const uint32_t requests[] = {0x5412, 0x541c, 0x541d, 0x5423};
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(38));
	uint32_t arch = kb_arch_native();

	if (tree)
		seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	for (int nr = 0; nr < 470; nr++) {
		struct kb_verdict verdict =
			kb_bundle_decide(bundle, arch, nr, (uint64_t[6]){1, 2, 3, 4, 5, 6});

		if (nr == kb_syscall_number(arch, "ioctl"))
			continue;
		if (verdict.action == KB_ALLOW)
			seccomp_rule_add(ctx, SCMP_ACT_ALLOW, nr, 0);
		else if (verdict.errnum != 38)
			seccomp_rule_add(ctx, SCMP_ACT_ERRNO((uint32_t)verdict.errnum), nr, 0);
	}
	for (size_t i = 0; i < KB_ARRAY_LEN(requests); i++)
		seccomp_rule_add(ctx, SCMP_ACT_ERRNO(1), SCMP_SYS(ioctl), 1,
			SCMP_A1(SCMP_CMP_EQ, requests[i]));
	/* libseccomp cannot say "none of these": one range between each two */
	seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1, SCMP_A1(SCMP_CMP_LT, 0x5412));
	seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1, SCMP_A1(SCMP_CMP_EQ, 0x5413));
	seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1, SCMP_A1(SCMP_CMP_GT, 0x5423));
	if (seccomp_load(ctx))
		_exit(1);
}

static double time_calls(long nr, long a, long b)
{
	int64_t t0 = kb_now_mono();

	for (int i = 0; i < CALLS; i++)
		syscall(nr, a, b, 0, 0, 0, 0);
	return (double)(kb_now_mono() - t0) / CALLS;
}

/* Nanoseconds for a plain call and one with an argument rule, measured in a child. */
static void bench_filter(const struct kb_bundle *bundle, enum filter filter, double ret[2])
{
	double *shared =
		mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		cpu_set_t one;

		CPU_ZERO(&one);
		CPU_SET(0, &one);
		sched_setaffinity(0, sizeof(one), &one);
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
		if (filter == OURS)
			load_ours(bundle);
		else if (filter != NONE)
			load_theirs(bundle, filter == LIBSECCOMP_TREE);
		time_calls(SYS_getppid, 0, 0);
		shared[0] = time_calls(SYS_getppid, 0, 0);
		shared[1] = time_calls(SYS_ioctl, -1, 0x5413);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	ret[0] = status ? 0 : shared[0];
	ret[1] = status ? 0 : shared[1];
	munmap(shared, 4096);
}

static void bench_filters(void)
{
	struct kb_bundle *bundle = compile("shell");
	double plain[FILTERS][RUNS], arg[FILTERS][RUNS];

	for (int run = 0; run < RUNS; run++)
		for (int f = 0; f < FILTERS; f++) {
			double ns[2];

			bench_filter(bundle, (enum filter)f, ns);
			plain[f][run] = ns[0];
			arg[f][run] = ns[1];
		}
	printf("per call, median of %d runs of %d calls on one CPU:\n", RUNS, CALLS);
	for (int f = 0; f < FILTERS; f++)
		printf("  %-16s %7.1f ns plainly allowed (getppid)   %7.1f ns by argument "
		       "(ioctl)\n",
			filter_names[f], median(plain[f], RUNS), median(arg[f], RUNS));
	kb_bundle_destroy(bundle);
}

/* ---- Records --------------------------------------------------------------------------------- */

#define PATHS 5000

struct made {
	uint64_t n;
	char paths[PATHS][64];
	int execve, unlinkat, openat;
};

/* A build's mix: mostly opens below /usr and the workspace, some elsewhere, executions, unlinks. */
static void prepare_records(struct made *made)
{
	static const char *const dirs[] = {"/usr/include/sys", "/home/u/code/shop/src",
		"/usr/lib/gcc/x86_64-linux-gnu/12", "/tmp", "/srv/data"};
	uint32_t arch = kb_arch_native();

	for (unsigned i = 0; i < PATHS; i++)
		snprintf(made->paths[i], sizeof(made->paths[i]), "%s/f%u",
			dirs[i % KB_ARRAY_LEN(dirs)], i);
	made->execve = kb_syscall_number(arch, "execve");
	made->unlinkat = kb_syscall_number(arch, "unlinkat");
	made->openat = kb_syscall_number(arch, "openat");
}

static bool make_record(struct made *made, struct kb_observed *ret)
{
	unsigned kind = made->n % 10;

	if (made->n++ == RECORDS)
		return false;
	*ret = (struct kb_observed){.seq = made->n,
		.session = "bench",
		.arch = kb_arch_native(),
		.path = made->paths[made->n % PATHS],
		.has_flags = true,
		.syscall = kind == 0   ? made->execve
			   : kind == 1 ? made->unlinkat
				       : made->openat,
		.exec = kind == 0,
		.change = kind == 1,
		.names = kind == 1,
		.open = kind > 1};
	return true;
}

/* One thread that waits for nothing: other work on the machine does not count. */
static int64_t cpu_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void bench_records(void)
{
	struct kb_bundle *bundle = compile("claude-code");
	struct kb_learn_options how = {.name = "learned",
		.base = "claude-code",
		.bundle = bundle,
		.home = options.home,
		.workspace = options.workspace};
	struct kb_replay_result result;
	struct kb_replay *replay;
	struct kb_learner *learner;
	struct kb_err err = {0};
	struct kb_observed seen;
	struct kb_buf out, text;
	int64_t t0, t1, t2;
	static struct made made;

	prepare_records(&made);
	kb_buf_init(&out, 64 << 20);
	kb_buf_init(&text, 64 << 20);
	if (kb_replay_create(&replay, &err) < 0 || kb_learner_create(&how, &learner, &err) < 0)
		die("start", &err);
	t0 = cpu_now();
	while (make_record(&made, &seen))
		kb_replay_add(replay, bundle, NULL, &seen);
	if (kb_replay_render(replay, false, &out, &result, &err) < 0)
		die("replay", &err);
	t1 = cpu_now();
	made.n = 0;
	while (make_record(&made, &seen))
		kb_learner_add(learner, NULL, &seen);
	if (kb_learner_write(learner, false, &text, &err) < 0)
		die("learn", &err);
	t2 = cpu_now();
	printf("%d records: replay %.2f s, learn %.2f s of one CPU\n", RECORDS,
		(double)(t1 - t0) / 1e9, (double)(t2 - t1) / 1e9);
	kb_replay_destroy(replay);
	kb_learner_destroy(learner);
	kb_buf_finish(&out);
	kb_buf_finish(&text);
	kb_bundle_destroy(bundle);
}

int main(void)
{
	printf("compiling, median of %d:\n", COMPILES);
	for (const char *const *name = kb_preset_names(); *name; name++)
		bench_compile(*name);
	bench_filters();
	bench_records();
	return 0;
}
