/* What goes wrong with notifications elsewhere: races, signals, storms, broken memory; and the
 * verdicts on paths. */
#include "tests/unit/kbtest.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "live.h"

static const char *const policy = LIVE_POLICY(LIVE_FILES LIVE_RECORD);

static void put(const char *path, const char *text)
{
	struct kb_err err;

	assert_ok(kb_file_write_atomic(path, text, strlen(text), 0644, &err));
}

static const char *rule_text(const struct live *live, const struct kb_record *record)
{
	const struct kb_rule *rules;
	size_t n = kb_bundle_rules(live->bundle, &rules);

	return record->rule < n ? rules[record->rule].text : "";
}

static const struct kb_record *expect(
	const struct live *live, const char *path, enum kb_decision decision, const char *rule)
{
	const struct kb_record *r = live_find(live, KB_EVENT_OPEN, path, 0);

	if (!r || r->decision != decision || !strstr(rule_text(live, r), rule)) {
		live_dump(live);
		fail_msg("%s: %s, rule \"%s\"", path, r ? "another verdict" : "no record",
			r ? rule_text(live, r) : "");
	}
	return r;
}

/* ---- Verdicts ---------------------------------------------------------------------------------
 */

static int open_errno(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return errno;
	close(fd);
	return 0;
}

static int try_denied(void *arg)
{
	const char *dir = arg;
	char link[128], via[128];

	snprintf(link, sizeof(link), "%s/link", dir);
	snprintf(via, sizeof(via), "%s/open/../no/key", dir);
	if (chdir(dir) < 0 || symlink("no/key", "link") < 0)
		return 1;
	if (open_errno("no/key") != EACCES || open_errno(link) != EACCES ||
		open_errno(via) != EACCES || open_errno("/proc/self/cwd/no/key") != EACCES)
		return 2;
	if (unlink("no/key") == 0 || errno != EACCES || rename("link", "no/link") == 0 ||
		errno != EACCES)
		return 3;
	return open_errno("open/file");
}

static char *deny_policy(const char *dir)
{
	return kb_asprintf(LIVE_POLICY("fs write \"/\" exec allow \"/\"\n"
				       "fs deny \"%s/no\" record full\n" LIVE_RECORD),
		dir);
}

static void make_tree(const char *dir)
{
	PATH_IN(no, dir, "no");
	PATH_IN(yes, dir, "open");
	PATH_IN(key, dir, "no/key");
	PATH_IN(file, dir, "open/file");

	assert_int_equal(mkdir(no, 0755) + mkdir(yes, 0755), 0);
	put(key, "N");
	put(file, "Y");
}

static void test_deny_gets_its_errno(void **state)
{
	KB_FREE char *text = deny_policy(*state);
	PATH_IN(key, *state, "no/key");
	struct live live = {0};
	const struct kb_record *r;

	make_tree(*state);
	assert_int_equal(live_run(&live, text, try_denied, *state), 0);
	assert_int_equal(live_count(&live, KB_EVENT_OPEN, key), 4);
	r = expect(&live, key, KB_DECISION_DENIED, "/no");
	assert_int_equal(r->outcome, KB_OUTCOME_FAILED);
	assert_int_equal(r->errnum, EACCES);
	r = live_find(&live, KB_EVENT_UNLINK, key, 0);
	assert_int_equal(r->decision, KB_DECISION_DENIED);
	r = live_find(&live, KB_EVENT_RENAME, NULL, 0);
	assert_int_equal(r->decision, KB_DECISION_DENIED);
	live_finish(&live);
}

static int look_around(void *arg)
{
	open_errno("/usr/bin/env");
	open_errno("/etc/passwd");
	open_errno("/etc/no-such-file-anywhere");
	close(open("/etc/kbsup-test-cannot-be", O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	unlink("/etc/kbsup-test-cannot-be");
	return 0;
}

/* Not granted: denied if it is there, a plain failure if it is nowhere. */
static void test_default_of_files(void **state)
{
	struct live live = {0};
	const struct kb_record *r;

	assert_int_equal(live_run(&live,
				 LIVE_POLICY("fs read \"/usr\" exec allow \"/usr\"\n"
					     "fs default deny EACCES record full\n" LIVE_RECORD),
				 look_around, NULL),
		0);
	expect(&live, "/usr/bin/env", KB_DECISION_ALLOWED, "fs read");
	expect(&live, "/etc/passwd", KB_DECISION_DENIED, "fs default");
	r = live_find(&live, KB_EVENT_OPEN, "/etc/no-such-file-anywhere", 0);
	assert_int_equal(r->decision, KB_DECISION_ALLOWED);
	assert_int_equal(r->outcome, KB_OUTCOME_FAILED);
	assert_int_equal(r->errnum, ENOENT);
	/* To be made where nothing may be made. */
	expect(&live, "/etc/kbsup-test-cannot-be", KB_DECISION_DENIED, "fs default");
	live_finish(&live);
}

static int look_from_inside(void *arg)
{
	if (chroot(arg) < 0 || chdir("/") < 0)
		return 1;
	open_errno("/etc/passwd");
	open_errno("/etc/hosts-of-nobody");
	open_errno("/etc/mine");
	return 0;
}

/* A tree of its own hides the machine's: asking for what is there is a denial. */
static void test_hidden_files(void **state)
{
	PATH_IN(etc, *state, "etc");
	PATH_IN(mine, *state, "etc/mine");
	struct live live = {0};

	assert_int_equal(mkdir(etc, 0755), 0);
	put(mine, "x");
	live_init(&live,
		LIVE_POLICY("fs private \"/etc\"\n"
			    "fs default deny EACCES record full\n"
			    "syscall chroot allow reason \"the test's own\"\n" LIVE_RECORD),
		*state, "/");
	live_start(&live, look_from_inside, *state);
	assert_int_equal(live_wait(&live), 0);
	expect(&live, "/etc/passwd", KB_DECISION_DENIED, "fs private");
	expect(&live, "/etc/hosts-of-nobody", KB_DECISION_ALLOWED, "");
	expect(&live, "/etc/mine", KB_DECISION_ALLOWED, "fs private");
	live_finish(&live);
}

static int call_denied_often(void *arg)
{
	for (int i = 0; i < 500; i++)
		if (syscall(SYS_swapoff, "/nowhere") != -1 || errno != EPERM)
			return 1;
	return 0;
}

/* "record summary": the first one at once, the others as a number. */
static void test_summary(void **state)
{
	struct live live = {0};
	const struct kb_record *first, *rest;

	assert_int_equal(live_run(&live,
				 LIVE_POLICY(LIVE_FILES LIVE_RECORD
					 "syscall swapoff deny EPERM record summary\n"),
				 call_denied_often, NULL),
		0);
	assert_int_equal(live.n_records, 3);
	first = live_find(&live, KB_EVENT_MOUNT, NULL, 0);
	rest = live_find(&live, KB_EVENT_MOUNT, NULL, 1);
	assert_true(bytes_are(first->path, "/nowhere"));
	assert_int_equal(first->count, 0);
	assert_int_equal(rest->count, 499);
	assert_int_equal(rest->decision, KB_DECISION_DENIED);
	assert_int_equal(rest->rule, first->rule);
	live_finish(&live);
}

/* ---- Sockets ----------------------------------------------------------------------------------
 */

static int use_sockets(void *arg)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(9)};
	struct sockaddr_un un = {.sun_family = AF_UNIX, .sun_path = "sock"};
	int tcp = socket(AF_INET, SOCK_STREAM, 0), local = socket(AF_UNIX, SOCK_STREAM, 0);

	if (chdir(arg) < 0 || bind(local, (struct sockaddr *)&un, sizeof(un)) < 0)
		return 1;
	in.sin_addr.s_addr = htonl(0x01020304);
	if (connect(tcp, (struct sockaddr *)&in, sizeof(in)) == 0 || errno != ENETUNREACH)
		return 2;
	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (connect(tcp, (struct sockaddr *)&in, sizeof(in)) < 0 && errno != ECONNREFUSED)
		return 3;
	if (connect(tcp, (struct sockaddr *)8, sizeof(in)) == 0 || errno != EFAULT)
		return 4;
	return 0;
}

static void test_sockets(void **state)
{
	PATH_IN(sock, *state, "sock");
	struct live live = {0};
	const struct kb_record *r;

	assert_int_equal(live_run(&live,
				 LIVE_POLICY(LIVE_FILES LIVE_RECORD
					 "net connect loopback\n"
					 "net default deny ENETUNREACH record full\n"),
				 use_sockets, *state),
		0);
	r = live_find(&live, KB_EVENT_BIND, NULL, 0);
	assert_int_equal(r->family, AF_UNIX);
	assert_true(bytes_are(r->address, "sock"));
	assert_true(bytes_are(r->path, sock));
	r = live_find(&live, KB_EVENT_CONNECT, NULL, 0);
	assert_int_equal(r->decision, KB_DECISION_DENIED);
	assert_memory_equal(r->address.data, "\1\2\3\4", 4);
	assert_int_equal(r->port, 9);
	assert_non_null(strstr(rule_text(&live, r), "net default"));
	r = live_find(&live, KB_EVENT_CONNECT, NULL, 1);
	assert_int_equal(r->decision, KB_DECISION_ALLOWED);
	r = live_find(&live, KB_EVENT_CONNECT, NULL, 2);
	assert_int_equal(r->trust, KB_TRUST_UNREADABLE);
	live_finish(&live);
}

/* ---- Memory that changes, or is not there ------------------------------------------------------
 */

static int restrict_to(const char *dir)
{
	struct landlock_ruleset_attr attr = {.handled_access_fs = LANDLOCK_ACCESS_FS_READ_FILE};
	struct landlock_path_beneath_attr beneath = {
		.allowed_access = LANDLOCK_ACCESS_FS_READ_FILE};
	int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);

	beneath.parent_fd = open(dir, O_PATH | O_CLOEXEC);
	if (ruleset < 0 || beneath.parent_fd < 0 ||
		syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0))
		return -1;
	return (int)syscall(SYS_landlock_restrict_self, ruleset, 0);
}

#define FLIPS 4000

struct flip {
	const char *dir;
	char path[128];
	char *which; /* the seven letters that change */
	atomic_bool stop;
};

static void *flipper(void *arg)
{
	struct flip *f = arg;

	while (!atomic_load(&f->stop)) {
		memcpy(f->which, "no/keys", 7);
		memcpy(f->which, "op/file", 7);
	}
	return NULL;
}

static int flip_paths(void *arg)
{
	struct flip *f = arg;
	pthread_t thread;
	int opened = 0;
	char byte;

	if (restrict_to(f->path) < 0)
		return 2;
	snprintf(f->path, sizeof(f->path), "%s/op/file", f->dir);
	f->which = f->path + strlen(f->dir) + 1;
	pthread_create(&thread, NULL, flipper, f);
	for (int i = 0; i < FLIPS; i++) {
		int fd;

		/* However the threads are scheduled, both names get their turns. */
		memcpy(f->which, "op/file", 7);
		fd = open(f->path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		opened++;
		if (read(fd, &byte, 1) == 1 && byte == 'N')
			return 3;
		close(fd);
	}
	atomic_store(&f->stop, true);
	pthread_join(thread, NULL);
	return opened ? 0 : 4;
}

/* The collector reads one name, the kernel perhaps another: the border is Landlock's, and it holds.
 * Every call is recorded none the less. */
static void test_name_that_flips(void **state)
{
	if (syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION) < 1)
		skip();
	KB_FREE char *text = deny_policy(*state);
	PATH_IN(no, *state, "no");
	PATH_IN(op, *state, "op");
	PATH_IN(key, *state, "no/keys");
	PATH_IN(file, *state, "op/file");
	struct flip f = {.dir = *state};
	struct live live = {0};

	assert_int_equal(mkdir(no, 0755) + mkdir(op, 0755), 0);
	put(key, "N");
	put(file, "Y");
	snprintf(f.path, sizeof(f.path), "%s/op", f.dir);
	assert_int_equal(live_run(&live, text, flip_paths, &f), 0);
	/* One for each call, and one for the ruleset's directory. */
	assert_int_equal(live_count(&live, KB_EVENT_OPEN, NULL), FLIPS + 1);
	live_finish(&live);
}

static int open_broken(void *arg)
{
	char *map =
		mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	munmap(map + 2 * 4096, 4096);
	memset(map, 'x', 2 * 4096);
	if (open_errno(map) != ENAMETOOLONG || open_errno(map + 2 * 4096 - 10) != EFAULT ||
		open_errno((char *)16) != EFAULT || open_errno("") != ENOENT)
		return 1;
	memcpy(map + 4096 - 3, "/etc/passwd", 12);
	return open_errno(map + 4096 - 3);
}

static void test_names_that_are_broken(void **state)
{
	struct live live = {0};

	assert_int_equal(live_run(&live, policy, open_broken, NULL), 0);
	assert_int_equal(live_count(&live, KB_EVENT_OPEN, NULL), 5);
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(
			live_find(&live, KB_EVENT_OPEN, NULL, i)->trust, KB_TRUST_UNREADABLE);
	assert_int_equal(live_count(&live, KB_EVENT_OPEN, "/etc/passwd"), 1);
	live_finish(&live);
}

static int open_strange(void *arg)
{
	int fd;

	if (chdir(arg) < 0)
		return 1;
	fd = open("a\nb\xff\xfe\\\x1b[31m", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	return fd < 0 ? 1 : close(fd);
}

static void test_names_that_are_strange(void **state)
{
	PATH_IN(path, *state, "a\nb\xff\xfe\\\x1b[31m");
	struct live live = {0};
	const struct kb_record *r;

	assert_int_equal(live_run(&live, policy, open_strange, *state), 0);
	r = live_find(&live, KB_EVENT_OPEN, path, 0);
	assert_non_null(r);
	assert_int_equal(r->flags, O_CREAT | O_WRONLY | O_CLOEXEC);
	assert_true(r->has_mode && r->mode == 0600);
	live_finish(&live);
}

/* ---- Signals ----------------------------------------------------------------------------------
 */

#define SIGNALLED 3000

static void nothing(int signo)
{
}

static int open_under_signals(void *arg)
{
	struct sigaction action = {.sa_handler = nothing, .sa_flags = SA_RESTART};
	struct itimerval often = {{0, 150}, {0, 150}}, never = {0};
	char path[64];
	int failed = 0;

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	for (int i = 0; i < SIGNALLED; i++) {
		snprintf(path, sizeof(path), "/nowhere/%d", i);
		failed += open_errno(path) != ENOENT;
	}
	setitimer(ITIMER_REAL, &never, NULL);
	return failed > 0;
}

/* Each call at least once; returns how many are there again. */
static size_t expect_each(const struct live *live)
{
	KB_FREE unsigned char *seen = calloc(SIGNALLED, 1);
	size_t again = 0;

	for (size_t i = 0; i < live->n_records; i++) {
		const struct kb_record *r = &live->records[i]->record;
		char path[64];

		if (r->event != KB_EVENT_OPEN)
			continue;
		snprintf(path, sizeof(path), "%.*s", (int)r->path.len, r->path.data);
		again += seen[strtol(path + strlen("/nowhere/"), NULL, 10)]++ > 0;
	}
	for (int i = 0; i < SIGNALLED; i++)
		if (!seen[i])
			fail_msg("call %d is not recorded", i);
	return again;
}

static void test_signals(void **state)
{
	struct live live = {0};

	assert_int_equal(live_run(&live, policy, open_under_signals, NULL), 0);
	assert_int_equal(expect_each(&live), 0);
	live_finish(&live);
}

/* Kernels before 5.19, or filters without the flag: a signal takes the call away after it was
 * received, and the kernel starts it again. */
static void test_restarted_calls(void **state)
{
	struct live live = {.interruptible = true};

	assert_int_equal(live_run(&live, policy, open_under_signals, NULL), 0);
	/* Some 300 are interrupted; a signal between answer and wake-up cannot be told from a
	 * program that asks twice. */
	assert_in_range(expect_each(&live), 0, SIGNALLED / 200);
	live_finish(&live);
}

/* ---- Storms -----------------------------------------------------------------------------------
 */

#define STORM_THREADS 1000
#define STORM_CALLS   5

static void *storm_thread(void *arg)
{
	char path[64];

	for (int i = 0; i < STORM_CALLS; i++) {
		snprintf(path, sizeof(path), "/nowhere/%ld-%d", (long)(intptr_t)arg, i);
		open_errno(path);
	}
	return NULL;
}

static int storm(void *arg)
{
	static pthread_t threads[STORM_THREADS];
	pthread_attr_t attr;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 65536);
	for (long i = 0; i < STORM_THREADS; i++)
		if (pthread_create(&threads[i], &attr, storm_thread, (void *)(intptr_t)i))
			return 1;
	for (int i = 0; i < STORM_THREADS; i++)
		pthread_join(threads[i], NULL);
	return 0;
}

static void test_thread_storm(void **state)
{
	static unsigned char seen[STORM_THREADS][STORM_CALLS];
	struct live live = {0};

	assert_int_equal(live_run(&live, policy, storm, NULL), 0);
	for (size_t i = 0; i < live.n_records; i++) {
		const struct kb_record *r = &live.records[i]->record;
		char path[64];
		long thread, call;
		char *dash;

		snprintf(path, sizeof(path), "%.*s", (int)r->path.len, r->path.data);
		if (strncmp(path, "/nowhere/", 9) != 0)
			continue;
		thread = strtol(path + 9, &dash, 10);
		call = strtol(dash + 1, NULL, 10);
		assert_int_equal(seen[thread][call]++, 0);
		assert_true(r->tid != 0 && r->tid != r->pid);
	}
	for (int t = 0; t < STORM_THREADS; t++)
		for (int c = 0; c < STORM_CALLS; c++)
			assert_int_equal(seen[t][c], 1);
	live_finish(&live);
}

static int fork_storm(void *arg)
{
	for (int i = 0; i < 4; i++)
		if (fork() < 0)
			return 1;
	for (int i = 0; i < 200; i++)
		open_errno("/nowhere");
	while (wait(NULL) > 0)
		;
	return 0;
}

static void test_process_storm(void **state)
{
	struct live live = {0};

	assert_int_equal(live_run(&live, policy, fork_storm, NULL), 0);
	assert_int_equal(live_count(&live, KB_EVENT_OPEN, "/nowhere"), 16 * 200);
	assert_int_equal(live_count(&live, KB_EVENT_EXIT, NULL), 16);
	live_finish(&live);
}

/* ---- Without a collector ----------------------------------------------------------------------
 */

static int open_until_refused(void *arg)
{
	int r;

	while ((r = open_errno("/etc/hostname")) == 0)
		usleep(1000);
	return r == ENOSYS ? 0 : 1;
}

static void test_no_collector_no_calls(void **state)
{
	struct live live = {0};

	live_init(&live, policy, NULL, "/");
	live_start(&live, open_until_refused, NULL);
	kb_notify_destroy(KB_STEAL(live.notify));
	assert_int_equal(live_wait(&live), 0);
	live_finish(&live);
}

static int die_in_a_call(void *arg)
{
	int fds[2];
	char byte;

	if (pipe(fds) < 0)
		return 1;
	for (int i = 0; i < 50; i++) {
		pid_t pid = fork();

		if (pid == 0) {
			open_errno("/nowhere/at/all");
			write(fds[1], "r", 1);
			for (;;)
				open_errno("/nowhere/at/all");
		}
		read(fds[0], &byte, 1);
		usleep((useconds_t)(i * 7));
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	return 0;
}

static void test_killed_in_a_call(void **state)
{
	struct live live = {0};

	assert_int_equal(live_run(&live, policy, die_in_a_call, NULL), 0);
	assert_string_equal(live.failure, "");
	assert_int_equal(live_count(&live, KB_EVENT_EXIT, NULL), 51);
	live_finish(&live);
}

#define TMPDIR_TEST(fn) cmocka_unit_test_setup_teardown(fn, tmpdir_setup, tmpdir_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TMPDIR_TEST(test_deny_gets_its_errno),
		cmocka_unit_test(test_default_of_files),
		TMPDIR_TEST(test_hidden_files),
		cmocka_unit_test(test_summary),
		TMPDIR_TEST(test_sockets),
		TMPDIR_TEST(test_name_that_flips),
		cmocka_unit_test(test_names_that_are_broken),
		TMPDIR_TEST(test_names_that_are_strange),
		cmocka_unit_test(test_signals),
		cmocka_unit_test(test_restarted_calls),
		cmocka_unit_test(test_thread_storm),
		cmocka_unit_test(test_process_storm),
		cmocka_unit_test(test_no_collector_no_calls),
		cmocka_unit_test(test_killed_in_a_call),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
