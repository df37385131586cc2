/* The ssh client's files against a real OpenSSH server on loopback. */
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

#include "ssh_conn.h"
#include "supervisor/base/fd.h"
#include "tests/unit/kbtest.h"

#define BIG (9u << 20) /* more than the server's limit on one set of keys */

struct copying {
	struct conn *c;
	bool done, well;
	struct kb_err why;
	uint64_t told, total;
};

static void on_progress(uint64_t done, uint64_t total, void *arg)
{
	struct copying *k = arg;

	assert_true(done > k->told);
	k->told = done;
	k->total = total;
}

static void on_copied(const struct kb_err *why, void *arg)
{
	struct copying *k = arg;

	k->done = true;
	k->well = !why;
	if (why)
		k->why = *why;
	kb_loop_stop(k->c->loop);
}

static void copy(struct copying *k, struct conn *c, bool put, int fd, const char *path)
{
	struct kb_ssh_copy copy = {.fd = fd,
		.path = path,
		.mode = 0751,
		.progress = on_progress,
		.done = on_copied,
		.arg = k};
	struct kb_err err;

	*k = (struct copying){.c = c};
	assert_ok((put ? kb_ssh_put : kb_ssh_get)(c->ssh, &copy, &err));
	conn_run(c, &k->done);
}

static int make_file(const char *path, const void *data, size_t len)
{
	struct kb_err err;
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_ok(kb_fd_write_all(fd, data, len, &err));
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	return fd;
}

static void assert_file(const char *path, const uint8_t *data, size_t len)
{
	struct kb_buf buf KB_BUF_CLEANUP;
	struct kb_err err;

	kb_buf_init(&buf, 64u << 20);
	assert_ok(kb_file_read(path, &buf, &err));
	assert_int_equal(kb_buf_len(&buf), len);
	assert_memory_equal(kb_buf_data(&buf), data, len);
}

static void files_arrive_exactly(void **state)
{
	struct conn *c = conn_connected();
	KB_FREE uint8_t *data = malloc(BIG);
	PATH_IN(from, conn_server.dir, "from");
	PATH_IN(there, conn_server.dir, "there");
	PATH_IN(back, conn_server.dir, "back");
	PATH_IN(part, conn_server.dir, "there.kbsup-part");
	struct copying k;
	struct stat st;
	int fd;

	sshd_random(data, BIG);
	fd = make_file(from, data, BIG);
	for (int i = 0; i < 2; i++) { /* the second time over the first */
		lseek(fd, 0, SEEK_SET);
		copy(&k, c, true, fd, there);
		if (!k.well)
			fail_msg("%s", k.why.msg);
		assert_int_equal(k.told, BIG);
		assert_int_equal(k.total, BIG);
	}
	close(fd);
	assert_file(there, data, BIG);
	assert_int_equal(stat(there, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0751);
	assert_int_equal(access(part, F_OK), -1);
	fd = make_file(back, "", 0);
	copy(&k, c, false, fd, there);
	if (!k.well)
		fail_msg("%s", k.why.msg);
	close(fd);
	assert_file(back, data, BIG);
	conn_finish(c);
}

static void a_file_that_cannot_be_says_why(void **state)
{
	struct conn *c = conn_connected();
	PATH_IN(from, conn_server.dir, "small");
	PATH_IN(dir, conn_server.dir, "a-dir");
	PATH_IN(nowhere, conn_server.dir, "no/such/dir");
	struct copying k;
	int fd = make_file(from, "small", 5);

	copy(&k, c, true, fd, nowhere);
	assert_false(k.well);
	assert_non_null(strstr(k.why.msg, "there is no such file"));
	assert_int_equal(mkdir(dir, 0700), 0);
	copy(&k, c, true, fd, dir); /* renamed onto a directory */
	assert_false(k.well);
	copy(&k, c, false, fd, nowhere);
	assert_false(k.well);
	PATH_IN(part, conn_server.dir, "a-dir.kbsup-part");
	assert_int_equal(access(part, F_OK), -1);
	conn_command(c, "echo fine");
	conn_assert_text(&c->out, "fine\n");
	close(fd);
	conn_finish(c);
}

/* What came of a small request. */
struct asked {
	struct conn *c;
	bool done, well;
	struct kb_err why;
	struct kb_ssh_attrs attrs;
	char text[256];
	unsigned files, dirs, links;
};

static void answered(struct asked *q, const struct kb_err *why)
{
	assert_false(q->done);
	q->done = true;
	q->well = !why;
	if (why)
		q->why = *why;
	kb_loop_stop(q->c->loop);
}

static void on_done(const struct kb_err *why, void *arg)
{
	answered(arg, why);
}

static void on_attrs(const struct kb_ssh_attrs *attrs, const struct kb_err *why, void *arg)
{
	struct asked *q = arg;

	assert_true(!attrs == !!why);
	if (attrs)
		q->attrs = *attrs;
	answered(q, why);
}

static void on_text(const char *text, const struct kb_err *why, void *arg)
{
	struct asked *q = arg;

	snprintf(q->text, sizeof(q->text), "%s", text ? text : "");
	answered(q, why);
}

static void on_entry(const char *name, const struct kb_ssh_attrs *attrs, void *arg)
{
	struct asked *q = arg;

	assert_string_not_equal(name, ".");
	assert_string_not_equal(name, "..");
	q->files += S_ISREG(attrs->mode);
	q->dirs += S_ISDIR(attrs->mode);
	q->links += S_ISLNK(attrs->mode);
}

#define ASK(q, conn, call)                                                                         \
	do {                                                                                       \
		*(q) = (struct asked){.c = (conn)};                                                \
		assert_ok(call);                                                                   \
		conn_run((conn), &(q)->done);                                                      \
	} while (0)

static void directories_links_and_modes(void **state)
{
	struct conn *c = conn_connected();
	struct asked q = {0};
	struct kb_ssh_lister lister = {.entry = on_entry, .done = on_done, .arg = &q};
	struct kb_err err;
	PATH_IN(dir, conn_server.dir, "tree");
	PATH_IN(link, conn_server.dir, "tree/link");
	PATH_IN(sub, conn_server.dir, "tree/sub");
	PATH_IN(nowhere, conn_server.dir, "tree/nowhere");

	ASK(&q, c, kb_ssh_stat(c->ssh, dir, false, on_attrs, &q, &err));
	assert_false(q.well);
	assert_int_equal(q.why.code, KB_ERR_NOTFOUND);
	ASK(&q, c, kb_ssh_mkdir(c->ssh, dir, 0700, on_done, &q, &err));
	assert_true(q.well);
	ASK(&q, c, kb_ssh_mkdir(c->ssh, dir, 0700, on_done, &q, &err));
	assert_false(q.well);
	ASK(&q, c, kb_ssh_mkdir(c->ssh, sub, 0755, on_done, &q, &err));
	for (int i = 0; i < 2; i++) { /* the second time over the first */
		ASK(&q, c, kb_ssh_symlink(c->ssh, link, "sub", on_done, &q, &err));
		if (!q.well)
			fail_msg("%s", q.why.msg);
	}
	ASK(&q, c, kb_ssh_readlink(c->ssh, link, on_text, &q, &err));
	assert_string_equal(q.text, "sub");
	ASK(&q, c, kb_ssh_readlink(c->ssh, dir, on_text, &q, &err));
	assert_false(q.well);
	ASK(&q, c, kb_ssh_stat(c->ssh, link, false, on_attrs, &q, &err));
	assert_true(S_ISLNK(q.attrs.mode));
	ASK(&q, c, kb_ssh_stat(c->ssh, link, true, on_attrs, &q, &err));
	assert_true(S_ISDIR(q.attrs.mode));
	for (int i = 0; i < 300; i++) { /* more than one answer holds */
		KB_FREE char *path = kb_asprintf("%s/file-%d-with-a-name-of-some-length", dir, i);

		close(make_file(path, "x", 1));
	}
	ASK(&q, c, kb_ssh_list(c->ssh, dir, &lister, &err));
	assert_true(q.well);
	assert_int_equal(q.files, 300);
	assert_int_equal(q.dirs, 1);
	assert_int_equal(q.links, 1);
	ASK(&q, c, kb_ssh_list(c->ssh, nowhere, &lister, &err));
	assert_int_equal(q.why.code, KB_ERR_NOTFOUND);
	ASK(&q, c, kb_ssh_chmod(c->ssh, dir, 0511, on_done, &q, &err));
	ASK(&q, c, kb_ssh_stat(c->ssh, dir, false, on_attrs, &q, &err));
	assert_int_equal(q.attrs.mode & 07777, 0511);
	ASK(&q, c, kb_ssh_chmod(c->ssh, dir, 0700, on_done, &q, &err));
	conn_finish(c);
}

static void on_some_progress(uint64_t done, uint64_t total, void *arg)
{
	struct copying *k = arg;

	k->told = done;
	kb_ssh_copy_cancel(k->c->ssh);
}

static void a_cancelled_copy_leaves_nothing(void **state)
{
	struct conn *c = conn_connected();
	KB_FREE uint8_t *data = malloc(BIG);
	PATH_IN(from, conn_server.dir, "from-2");
	PATH_IN(there, conn_server.dir, "there-2");
	PATH_IN(part, conn_server.dir, "there-2.kbsup-part");
	struct copying k = {.c = c};
	struct kb_ssh_copy copy = {.path = there,
		.mode = 0600,
		.progress = on_some_progress,
		.done = on_copied,
		.arg = &k};
	struct kb_err err;

	sshd_random(data, BIG);
	copy.fd = make_file(from, data, BIG);
	assert_ok(kb_ssh_put(c->ssh, &copy, &err));
	conn_run(c, &k.done);
	assert_false(k.well);
	assert_int_equal(k.why.code, KB_ERR_CLOSED);
	assert_true(k.told > 0 && k.told < BIG);
	assert_int_equal(access(there, F_OK), -1);
	assert_int_equal(access(part, F_OK), -1);
	/* And the connection is fine. */
	copy.progress = NULL;
	k = (struct copying){.c = c};
	assert_int_equal(lseek(copy.fd, 0, SEEK_SET), 0);
	assert_ok(kb_ssh_put(c->ssh, &copy, &err));
	conn_run(c, &k.done);
	assert_true(k.well);
	assert_file(there, data, BIG);
	close(copy.fd);
	conn_finish(c);
}

int main(int argc, char **argv)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(files_arrive_exactly),
		cmocka_unit_test(a_file_that_cannot_be_says_why),
		cmocka_unit_test(directories_links_and_modes),
		cmocka_unit_test(a_cancelled_copy_leaves_nothing),
	};
	int failed;

	signal(SIGPIPE, SIG_IGN);
	if (!sshd_select(argc, argv))
		return 77;
	sshd_start(&conn_server);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	sshd_stop(&conn_server);
	return failed;
}
