/* Paths as the kernel resolves them, seen from outside. The caller is this process; its root is a
 * directory, as a session's is. */
#include "tests/unit/kbtest.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "audit/collect/resolve.h"

struct world {
	char *dir; /* the session's root */
	int root_fd;
	struct kb_resolver resolver;
	struct kb_caller caller;
	struct kb_resolved got;
};

static void make(const char *dir, const char *name, const char *link)
{
	PATH_IN(path, dir, name);

	if (link)
		assert_int_equal(symlink(link, path), 0);
	else if (path[strlen(path) - 1] == '/')
		assert_int_equal(mkdir(path, 0755), 0);
	else
		close(open(path, O_CREAT | O_WRONLY, 0644));
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	struct kb_err err;
	void *dir;

	if (tmpdir_setup(&dir) < 0)
		return -1;
	w->dir = dir;
	make(dir, "a/", NULL);
	make(dir, "a/b/", NULL);
	make(dir, "a/b/file", NULL);
	make(dir, "lib", "a/b");
	make(dir, "abs", "/a/b");
	make(dir, "up", "../../../../../a");
	make(dir, "a/b/back", "..");
	make(dir, "dangling", "a/nothing/here");
	make(dir, "loop", "loop");
	make(dir, "chain", "abs/back/b/file");
	w->root_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	assert_ok(kb_resolver_init(&w->resolver, w->root_fd, "/", &err));
	w->caller = (struct kb_caller){.tid = getpid(),
		.proc_fd = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC),
		.leader = true,
		.vpid = (uint32_t)getpid(),
		.vtid = (uint32_t)getpid()};
	*state = w;
	return chdir(dir);
}

static int teardown(void **state)
{
	struct world *w = *state;
	void *dir = w->dir;

	kb_resolver_finish(&w->resolver);
	close(w->root_fd);
	close(w->caller.proc_fd);
	free(w);
	return chdir("/") + tmpdir_teardown(&dir);
}

static void expect(struct world *w, int dirfd, const char *path, unsigned flags,
	enum kb_path_state status, const char *want)
{
	kb_resolve(&w->resolver, &w->caller, dirfd, path, flags, &w->got);
	if (w->got.state != status || strcmp(w->got.path, want) != 0)
		fail_msg("%s: state %d, errno %d, path %s; want state %d, path %s", path,
			w->got.state, w->got.errnum, w->got.path, status, want);
	assert_int_equal(w->got.len, strlen(w->got.path));
}

static void test_join(void **state)
{
	static const struct {
		const char *base, *path, *want;
	} cases[] = {
		{"/a/b", "../c/./d", "/a/c/d"},
		{"/a/b", "/x//y/", "/x/y"},
		{"/", "..", "/"},
		{"/a", "../../..", "/"},
		{"/a", ".", "/a"},
		{"/a", "...", "/a/..."},
		{"/a", ".b/..c", "/a/.b/..c"},
	};
	char out[64];

	for (size_t i = 0; i < KB_ARRAY_LEN(cases); i++) {
		size_t len = kb_path_join(out, sizeof(out), cases[i].base, cases[i].path);

		assert_string_equal(out, cases[i].want);
		assert_int_equal(len, strlen(out));
	}
	assert_int_equal(kb_path_join(out, 4, "/abc", "d"), 0);
}

static void test_straight(void **state)
{
	struct world *w = *state;

	expect(w, AT_FDCWD, "/a/b/file", 0, KB_PATH_FOUND, "/a/b/file");
	expect(w, AT_FDCWD, "a//b/./file", 0, KB_PATH_FOUND, "/a/b/file");
	expect(w, AT_FDCWD, "/a/b/../b/file", 0, KB_PATH_FOUND, "/a/b/file");
	expect(w, AT_FDCWD, "/", 0, KB_PATH_FOUND, "/");
	expect(w, AT_FDCWD, "/../../a", 0, KB_PATH_FOUND, "/a");
	expect(w, AT_FDCWD, "/a/none", 0, KB_PATH_ABSENT, "/a/none");
	expect(w, AT_FDCWD, "/none/../a", 0, KB_PATH_ABSENT, "/a");
	expect(w, AT_FDCWD, "/a/b/file/x", 0, KB_PATH_ERROR, "/a/b/file/x");
	assert_int_equal(w->got.errnum, ENOTDIR);
	expect(w, AT_FDCWD, "", 0, KB_PATH_ABSENT, "");
}

static void test_links(void **state)
{
	struct world *w = *state;

	expect(w, AT_FDCWD, "lib/file", 0, KB_PATH_FOUND, "/a/b/file");
	expect(w, AT_FDCWD, "/abs/file", 0, KB_PATH_FOUND, "/a/b/file");
	expect(w, AT_FDCWD, "/up/b", 0, KB_PATH_FOUND, "/a/b");
	/* What ".." is, is decided by where the link leads. */
	expect(w, AT_FDCWD, "/lib/../b/file", 0, KB_PATH_FOUND, "/a/b/file");
	expect(w, AT_FDCWD, "/lib/..", 0, KB_PATH_FOUND, "/a");
	expect(w, AT_FDCWD, "/chain", 0, KB_PATH_FOUND, "/a/b/file");
	expect(w, AT_FDCWD, "/lib", KB_RESOLVE_NOFOLLOW, KB_PATH_FOUND, "/lib");
	expect(w, AT_FDCWD, "/abs/back", KB_RESOLVE_NOFOLLOW, KB_PATH_FOUND, "/a/b/back");
	expect(w, AT_FDCWD, "/lib/", KB_RESOLVE_NOFOLLOW, KB_PATH_FOUND, "/a/b");
	expect(w, AT_FDCWD, "/lib/none", 0, KB_PATH_ABSENT, "/a/b/none");
	expect(w, AT_FDCWD, "/lib/none/more", 0, KB_PATH_ABSENT, "/a/b/none/more");
	expect(w, AT_FDCWD, "/dangling", 0, KB_PATH_ABSENT, "/a/nothing/here");
	expect(w, AT_FDCWD, "/dangling", KB_RESOLVE_NOFOLLOW, KB_PATH_FOUND, "/dangling");
	expect(w, AT_FDCWD, "/loop", 0, KB_PATH_ERROR, "/loop");
	assert_int_equal(w->got.errnum, ELOOP);
}

static void test_descriptors(void **state)
{
	struct world *w = *state;
	int fd = open("a/b", O_RDONLY | O_DIRECTORY | O_CLOEXEC), pair[2];

	expect(w, fd, "file", 0, KB_PATH_FOUND, "/a/b/file");
	expect(w, fd, "../b/file", 0, KB_PATH_FOUND, "/a/b/file");
	expect(w, fd, "", KB_RESOLVE_EMPTY, KB_PATH_FOUND, "/a/b");
	expect(w, fd, "/a", 0, KB_PATH_FOUND, "/a");
	assert_int_equal(fchdir(fd), 0);
	expect(w, AT_FDCWD, "file", 0, KB_PATH_FOUND, "/a/b/file");
	expect(w, 999, "file", 0, KB_PATH_ERROR, "");
	assert_int_equal(w->got.errnum, EBADF);
	assert_int_equal(pipe(pair), 0);
	expect(w, pair[0], "file", 0, KB_PATH_ERROR, w->got.path);
	kb_resolve_fd(&w->resolver, &w->caller, pair[0], &w->got);
	assert_int_equal(w->got.state, KB_PATH_SPECIAL);
	assert_memory_equal(w->got.path, "pipe:[", 6);
	assert_int_equal(chdir(w->dir), 0);
	close(pair[0]);
	close(pair[1]);
	close(fd);
}

/* A directory that has gone has the name it had; one that is only called so keeps its own. */
static void test_gone(void **state)
{
	struct world *w = *state;
	int gone, called;

	make(w->dir, "gone/", NULL);
	make(w->dir, "x (deleted)/", NULL);
	gone = open("gone", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	called = open("x (deleted)", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(rmdir("gone"), 0);
	expect(w, gone, "none", 0, KB_PATH_ABSENT, "/gone/none");
	expect(w, called, "none", 0, KB_PATH_ABSENT, "/x (deleted)/none");
	assert_int_equal(fchdir(gone), 0);
	expect(w, AT_FDCWD, "none", 0, KB_PATH_ABSENT, "/gone/none");
	assert_int_equal(chdir(w->dir), 0);
	assert_int_equal(rmdir("x (deleted)"), 0);
	close(gone);
	close(called);
}

static void test_scoped_lookup(void **state)
{
	struct world *w = *state;
	int fd = open("a", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	expect(w, fd, "/b/file", KB_RESOLVE_SCOPED, KB_PATH_FOUND, "/a/b/file");
	expect(w, fd, "../../b/file", KB_RESOLVE_SCOPED, KB_PATH_FOUND, "/a/b/file");
	expect(w, fd, "../../../none", KB_RESOLVE_SCOPED, KB_PATH_ABSENT, "/a/none");
	close(fd);
}

/* With the whole machine as root there is a /proc. */
static void test_proc(void **state)
{
	struct world *w = *state, whole = {.caller = w->caller};
	int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	int fd = open("a/b/file", O_RDONLY | O_CLOEXEC);
	KB_FREE char *file = kb_asprintf("%s/a/b/file", w->dir);
	struct kb_err err;
	char name[64], want[PATH_MAX];

	assert_ok(kb_resolver_init(&whole.resolver, root, NULL, &err));
	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	expect(&whole, AT_FDCWD, name, 0, KB_PATH_FOUND, file);
	snprintf(name, sizeof(name), "/dev/fd/%d", fd);
	expect(&whole, AT_FDCWD, name, 0, KB_PATH_FOUND, file);
	snprintf(name, sizeof(name), "/proc/thread-self/fd/%d", fd);
	expect(&whole, AT_FDCWD, name, 0, KB_PATH_FOUND, file);
	expect(&whole, AT_FDCWD, "/proc/self/cwd/a/b", 0, KB_PATH_FOUND,
		(snprintf(want, sizeof(want), "%s/a/b", w->dir), want));
	expect(&whole, AT_FDCWD, "/proc/self/root/usr/bin", 0, KB_PATH_FOUND, "/usr/bin");
	snprintf(want, sizeof(want), "/proc/%d/status", getpid());
	expect(&whole, AT_FDCWD, "/proc/self/status", 0, KB_PATH_FOUND, want);
	expect(&whole, AT_FDCWD, "/proc/self", KB_RESOLVE_NOFOLLOW, KB_PATH_FOUND, "/proc/self");
	kb_resolve(&whole.resolver, &whole.caller, AT_FDCWD, "/proc/self/ns/pid", 0, &whole.got);
	assert_int_equal(whole.got.state, KB_PATH_SPECIAL);
	kb_resolver_finish(&whole.resolver);
	close(root);
	close(fd);
}

/* "self" is whoever asks, not whoever looks. */
static void test_self_is_the_caller(void **state)
{
	struct kb_caller child = {.leader = true};
	struct world whole = {.root_fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC)};
	struct kb_err err;
	char want[64], proc[64];
	pid_t pid = fork();

	if (pid == 0) {
		pause();
		_exit(0);
	}
	snprintf(proc, sizeof(proc), "/proc/%d", pid);
	child.tid = pid;
	child.vpid = child.vtid = (uint32_t)pid;
	child.proc_fd = open(proc, O_PATH | O_DIRECTORY | O_CLOEXEC);
	whole.caller = child;
	assert_ok(kb_resolver_init(&whole.resolver, whole.root_fd, NULL, &err));
	snprintf(want, sizeof(want), "/proc/%d/stat", pid);
	expect(&whole, AT_FDCWD, "/proc/self/stat", 0, KB_PATH_FOUND, want);
	snprintf(want, sizeof(want), "/proc/%d/task/%d/stat", pid, pid);
	expect(&whole, AT_FDCWD, "/proc/thread-self/stat", 0, KB_PATH_FOUND, want);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	kb_resolver_finish(&whole.resolver);
	close(child.proc_fd);
	close(whole.root_fd);
}

static void test_host_files(void **state)
{
	struct world *w = *state;
	KB_FREE char *file = kb_asprintf("%s/a", w->dir);

	assert_true(kb_resolver_on_host(&w->resolver, file));
	assert_false(kb_resolver_on_host(&w->resolver, "/a/b/file"));
}

#define WORLD_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_join),
		WORLD_TEST(test_straight),
		WORLD_TEST(test_links),
		WORLD_TEST(test_descriptors),
		WORLD_TEST(test_gone),
		WORLD_TEST(test_scoped_lookup),
		WORLD_TEST(test_proc),
		WORLD_TEST(test_self_is_the_caller),
		WORLD_TEST(test_host_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
