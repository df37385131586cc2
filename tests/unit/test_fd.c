/* Descriptors and files: passing, atomic writes, trees. */
#include "kbtest.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

static void put(const char *path, const char *text)
{
	struct kb_err err;

	assert_ok(kb_file_write_atomic(path, text, strlen(text), 0644, &err));
}

static void assert_content(const char *path, const char *text)
{
	struct kb_err err;
	KB_BUF_CLEANUP struct kb_buf buf;

	kb_buf_init(&buf, 1 << 20);
	assert_ok(kb_file_read(path, &buf, &err));
	assert_int_equal(kb_buf_len(&buf), strlen(text));
	assert_memory_equal(kb_buf_data(&buf), text, strlen(text));
}

static int open_fds(void)
{
	int n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void test_socketpair_is_close_on_exec(void **state)
{
	struct kb_err err;
	int stream[2], packet[2], type;
	socklen_t len = sizeof(type);

	assert_ok(kb_fd_socketpair(false, stream, &err));
	assert_ok(kb_fd_socketpair(true, packet, &err));
	for (int i = 0; i < 2; i++) {
		assert_int_equal(fcntl(stream[i], F_GETFD), FD_CLOEXEC);
		assert_int_equal(fcntl(packet[i], F_GETFD), FD_CLOEXEC);
	}
	assert_int_equal(getsockopt(packet[0], SOL_SOCKET, SO_TYPE, &type, &len), 0);
	assert_int_equal(type, SOCK_SEQPACKET);
	for (int i = 0; i < 2; i++) {
		kb_close(&stream[i]);
		kb_close(&packet[i]);
		assert_int_equal(stream[i], -1);
	}
}

static void test_pass_fds(void **state)
{
	struct kb_err err;
	int pair[2], pipefd[2], got[3];
	char data[16], byte;

	assert_ok(kb_fd_socketpair(true, pair, &err));
	assert_int_equal(pipe2(pipefd, O_CLOEXEC), 0);
	assert_ok(kb_fd_send(pair[0], "hello", 5, pipefd, 2, &err));
	assert_int_equal(kb_fd_recv(pair[1], data, sizeof(data), got, 3, &err), 5);
	assert_memory_equal(data, "hello", 5);
	assert_true(got[0] >= 0 && got[1] >= 0);
	assert_int_equal(got[2], -1);
	assert_int_equal(fcntl(got[0], F_GETFD), FD_CLOEXEC);
	/* They are the two ends of the same pipe. */
	assert_int_equal(write(got[1], "x", 1), 1);
	assert_int_equal(read(pipefd[0], &byte, 1), 1);
	assert_int_equal(byte, 'x');
	kb_close(&pair[0]);
	assert_int_equal(kb_fd_recv(pair[1], data, sizeof(data), got + 2, 1, &err), 0);
	for (int i = 0; i < 2; i++) {
		kb_close(&pipefd[i]);
		kb_close(&got[i]);
	}
	kb_close(&pair[1]);
}

/* More fds than asked for are closed, not leaked. */
static void test_unwanted_fds_are_closed(void **state)
{
	struct kb_err err;
	int pair[2], three[3] = {0, 1, 2}, got[1];
	int before;
	char data[4];

	assert_ok(kb_fd_socketpair(true, pair, &err));
	before = open_fds();
	assert_ok(kb_fd_send(pair[0], "a", 1, three, 3, &err));
	assert_int_equal(kb_fd_recv(pair[1], data, sizeof(data), got, 1, &err), 1);
	assert_int_equal(open_fds(), before + 1);
	kb_close(&got[0]);
	assert_ok(kb_fd_send(pair[0], "a", 1, three, 3, &err));
	assert_int_equal(kb_fd_recv(pair[1], data, sizeof(data), NULL, 0, &err), 1);
	assert_int_equal(open_fds(), before);
	kb_close(&pair[0]);
	kb_close(&pair[1]);
}

static void test_oversized_message_is_refused_without_a_leak(void **state)
{
	struct kb_err err;
	int pair[2], fds[KB_FD_PASS_MAX + 1], got[1], before;
	char data[4];

	for (size_t i = 0; i < KB_ARRAY_LEN(fds); i++)
		fds[i] = 0;
	assert_ok(kb_fd_socketpair(true, pair, &err));
	before = open_fds();
	assert_ok(kb_fd_send(pair[0], "too long", 8, fds, 1, &err));
	assert_int_equal(kb_fd_recv(pair[1], data, sizeof(data), got, 1, &err), -KB_ERR_LIMIT);
	assert_int_equal(got[0], -1);
	assert_int_equal(open_fds(), before);
	assert_int_equal(kb_fd_send(pair[0], "x", 1, fds, KB_FD_PASS_MAX + 1, &err), -KB_ERR_LIMIT);
	kb_close(&pair[0]);
	/* A closed peer is an error, not a signal. */
	kb_close(&pair[1]);
	assert_ok(kb_fd_socketpair(false, pair, &err));
	kb_close(&pair[1]);
	assert_int_equal(kb_fd_send(pair[0], "x", 1, NULL, 0, &err), -KB_ERR_SYSTEM);
	assert_int_equal(err.errnum, EPIPE);
	kb_close(&pair[0]);
}

static void test_read_exact(void **state)
{
	struct kb_err err;
	int pipefd[2];
	char data[6];

	assert_int_equal(pipe2(pipefd, O_CLOEXEC), 0);
	assert_ok(kb_fd_write_all(pipefd[1], "abcdef123", 9, &err));
	assert_ok(kb_fd_read_exact(pipefd[0], data, 6, &err));
	assert_memory_equal(data, "abcdef", 6);
	kb_close(&pipefd[1]);
	assert_int_equal(kb_fd_read_exact(pipefd[0], data, 6, &err), -KB_ERR_CLOSED);
	kb_close(&pipefd[0]);
	assert_int_equal(kb_fd_read_exact(pipefd[0], data, 1, &err), -KB_ERR_SYSTEM);
}

static void test_nonblock_and_cloexec(void **state)
{
	struct kb_err err;
	int pipefd[2];
	char c;

	assert_int_equal(pipe2(pipefd, O_CLOEXEC), 0);
	assert_ok(kb_fd_nonblock(pipefd[0], &err));
	assert_int_equal(read(pipefd[0], &c, 1), -1);
	assert_int_equal(errno, EAGAIN);
	assert_ok(kb_fd_cloexec(pipefd[0], false, &err));
	assert_int_equal(fcntl(pipefd[0], F_GETFD), 0);
	assert_ok(kb_fd_cloexec(pipefd[0], true, &err));
	assert_int_equal(fcntl(pipefd[0], F_GETFD), FD_CLOEXEC);
	kb_close(&pipefd[0]);
	kb_close(&pipefd[1]);
	assert_int_equal(kb_fd_nonblock(-1, &err), -KB_ERR_SYSTEM);
	assert_int_equal(kb_fd_cloexec(-1, true, &err), -KB_ERR_SYSTEM);
}

static void test_file_read_is_bounded(void **state)
{
	struct kb_err err;
	KB_BUF_CLEANUP struct kb_buf buf;
	PATH_IN(path, *state, "f");

	put(path, "0123456789");
	kb_buf_init(&buf, 9);
	assert_int_equal(kb_file_read(path, &buf, &err), -KB_ERR_LIMIT);
	assert_non_null(strstr(err.msg, path));
	kb_buf_finish(&buf);
	kb_buf_init(&buf, 10);
	assert_ok(kb_file_read(path, &buf, &err));
	assert_int_equal(kb_file_read("/nonexistent/x", &buf, &err), -KB_ERR_SYSTEM);
	assert_int_equal(err.errnum, ENOENT);
}

static void test_write_atomic_replaces_or_leaves(void **state)
{
	struct kb_err err;
	struct stat st;
	PATH_IN(path, *state, "f");
	PATH_IN(dir, *state, "d");
	KB_FREE char *tmp = kb_asprintf("%s.tmp.%d", dir, (int)getpid());

	put(path, "one");
	put(path, "two");
	assert_content(path, "two");
	assert_int_equal(stat(path, &st), 0);
	/* A directory in the way: the error names it, and nothing is left beside it. */
	assert_int_equal(mkdir(dir, 0755), 0);
	assert_true(kb_file_write_atomic(dir, "x", 1, 0600, &err) < 0);
	assert_non_null(strstr(err.msg, dir));
	assert_int_equal(access(tmp, F_OK), -1);
}

static void test_mkdirs(void **state)
{
	struct kb_err err;
	struct stat st;
	PATH_IN(deep, *state, "a/b//c/");
	PATH_IN(file, *state, "f");
	PATH_IN(under, *state, "f/x");

	assert_ok(kb_mkdirs(deep, 0700, &err));
	assert_int_equal(stat(deep, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	assert_ok(kb_mkdirs(deep, 0700, &err));
	put(file, "x");
	assert_true(kb_mkdirs(file, 0700, &err) < 0);
	assert_true(kb_mkdirs(under, 0700, &err) < 0);
	assert_int_equal(kb_mkdirs("", 0700, &err), -KB_ERR_INVALID);
}

static void test_rmtree_keeps_to_its_tree(void **state)
{
	struct kb_err err;
	PATH_IN(tree, *state, "tree");
	PATH_IN(deep, *state, "tree/a/b/c");
	PATH_IN(deep_file, *state, "tree/a/b/c/file");
	PATH_IN(locked, *state, "tree/locked");
	PATH_IN(locked_file, *state, "tree/locked/file");
	PATH_IN(outside, *state, "outside");
	PATH_IN(kept, *state, "outside/kept");
	PATH_IN(link, *state, "tree/a/link");

	assert_ok(kb_mkdirs(deep, 0755, &err));
	assert_ok(kb_mkdirs(locked, 0755, &err));
	assert_ok(kb_mkdirs(outside, 0755, &err));
	put(kept, "kept");
	put(deep_file, "x");
	assert_int_equal(symlink(outside, link), 0);
	put(locked_file, "x");
	assert_int_equal(chmod(locked, 0), 0);
	assert_ok(kb_rmtree(tree, &err));
	assert_int_equal(access(tree, F_OK), -1);
	assert_content(kept, "kept");
	assert_ok(kb_rmtree(tree, &err)); /* missing is fine */
	/* A symlink itself is not a tree to descend into. */
	assert_int_equal(symlink(outside, tree), 0);
	assert_true(kb_rmtree(tree, &err) < 0);
	assert_content(kept, "kept");
}

static void test_peer(void **state)
{
	struct kb_err err;
	struct kb_peer peer;
	int pair[2];

	assert_ok(kb_fd_socketpair(false, pair, &err));
	assert_ok(kb_fd_peer(pair[0], &peer, &err));
	assert_int_equal(peer.uid, getuid());
	assert_int_equal(peer.gid, getgid());
	assert_int_equal(peer.pid, getpid());
	kb_close(&pair[0]);
	kb_close(&pair[1]);
}

/* In a child: everything from 5 on goes but the two that are kept. */
static void test_close_from(void **state)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		struct kb_err err;
		int keep[2] = {90, 70};

		for (int fd = 60; fd < 100; fd++)
			dup2(2, fd);
		if (kb_fd_close_from(5, keep, 2, &err) < 0)
			_exit(10);
		for (int fd = 0; fd < 200; fd++) {
			bool is_open = fcntl(fd, F_GETFD) >= 0;
			bool want = fd < 5 ? is_open : fd == 70 || fd == 90;

			if (is_open != want)
				_exit(11);
		}
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

#define IN_TMPDIR(test) cmocka_unit_test_setup_teardown(test, tmpdir_setup, tmpdir_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_socketpair_is_close_on_exec),
		cmocka_unit_test(test_pass_fds),
		cmocka_unit_test(test_unwanted_fds_are_closed),
		cmocka_unit_test(test_oversized_message_is_refused_without_a_leak),
		cmocka_unit_test(test_read_exact),
		cmocka_unit_test(test_nonblock_and_cloexec),
		IN_TMPDIR(test_file_read_is_bounded),
		IN_TMPDIR(test_write_atomic_replaces_or_leaves),
		IN_TMPDIR(test_mkdirs),
		IN_TMPDIR(test_rmtree_keeps_to_its_tree),
		cmocka_unit_test(test_peer),
		cmocka_unit_test(test_close_from),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
