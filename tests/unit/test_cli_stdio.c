/* Standard input and output of a session, on real pipes and files: every byte once, in order, and
 * never a write that blocks. Also what --env makes of the environment, and which directories may be
 * a workspace. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "supervisor/base/fd.h"
#include "supervisor/base/util.h"
#include "supervisor/cli/environment.h"
#include "supervisor/cli/feed.h"
#include "supervisor/cli/sink.h"
#include "supervisor/cli/workspace.h"

#define BIG	    (700u << 10) /* several pipes full, less than a sink holds */
#define DEADLINE_MS 10000

static uint8_t byte_at(size_t i)
{
	return (uint8_t)(i * 131 + (i >> 8));
}

/* ---- Sinks ----------------------------------------------------------------------------------- */

struct sink_world {
	struct kb_loop *loop;
	struct kb_sink sink;
	struct kb_source *reader, *deadline;
	size_t drained, got, wrong;
	int broken; /* errno */
	bool late;
};

static void on_drained(struct kb_sink *sink, size_t len, void *arg)
{
	struct sink_world *w = arg;

	w->drained += len;
}

static void on_broken(struct kb_sink *sink, int errnum, void *arg)
{
	struct sink_world *w = arg;

	assert_int_equal(w->broken, 0);
	w->broken = errnum;
}

static const struct kb_sink_ops sink_ops = {.drained = on_drained, .broken = on_broken};

static void on_late(void *arg)
{
	struct sink_world *w = arg;

	w->late = true;
	kb_loop_stop(w->loop);
}

static void read_slowly(int fd, unsigned events, void *arg)
{
	struct sink_world *w = arg;
	uint8_t data[1000];
	ssize_t n = read(fd, data, sizeof(data));

	for (ssize_t i = 0; i < n; i++)
		w->wrong += data[i] != byte_at(w->got++);
	if (w->got == BIG)
		kb_loop_stop(w->loop);
}

static void begin(struct sink_world *w, int fd)
{
	struct kb_err err;

	*w = (struct sink_world){0};
	assert_int_equal(kb_loop_create(&w->loop, &err), 0);
	assert_int_equal(kb_sink_init(&w->sink, w->loop, fd, &sink_ops, w, &err), 0);
	assert_int_equal(kb_loop_timer(w->loop, on_late, w, &w->deadline, &err), 0);
	assert_int_equal(kb_source_arm(w->deadline, DEADLINE_MS, &err), 0);
}

static void end(struct sink_world *w)
{
	assert_false(w->late);
	kb_sink_finish(&w->sink);
	kb_source_destroy(w->reader);
	kb_source_destroy(w->deadline);
	kb_loop_destroy(w->loop);
}

static void write_big(struct sink_world *w)
{
	uint8_t data[5000];
	struct kb_err err;

	for (size_t at = 0; at < BIG; at += sizeof(data)) {
		size_t len = KB_MIN(sizeof(data), BIG - at);

		for (size_t i = 0; i < len; i++)
			data[i] = byte_at(at + i);
		assert_int_equal(kb_sink_write(&w->sink, data, len, &err), 0);
	}
}

static void a_slow_pipe_gets_every_byte(void **state)
{
	struct sink_world w;
	struct kb_err err;
	int fds[2];

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	begin(&w, fds[1]);
	write_big(&w); /* would block for ever if a write did */
	assert_true(kb_sink_waiting(&w.sink) > 0);
	assert_int_equal(w.drained + kb_sink_waiting(&w.sink), BIG);
	assert_int_equal(
		kb_loop_io(w.loop, fds[0], KB_IO_READ, read_slowly, &w, &w.reader, &err), 0);
	assert_int_equal(kb_loop_run(w.loop, &err), 0);
	assert_int_equal(w.got, BIG);
	assert_int_equal(w.wrong, 0);
	assert_int_equal(w.drained, BIG);
	assert_int_equal(fcntl(fds[1], F_GETFL) & O_NONBLOCK, 0); /* it is shared: untouched */
	end(&w);
	close(fds[0]);
	close(fds[1]);
}

static void nobody_reads(void **state)
{
	struct sink_world w;
	struct kb_err err;
	int fds[2];

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	begin(&w, fds[1]);
	close(fds[0]);
	assert_int_equal(kb_sink_write(&w.sink, (const uint8_t *)"abc", 3, &err), 0);
	assert_int_equal(w.broken, EPIPE);
	assert_int_equal(kb_sink_write(&w.sink, (const uint8_t *)"def", 3, &err), 0);
	assert_int_equal(w.drained, 6); /* dropped counts, or the peer would wait for ever */
	end(&w);
	close(fds[1]);
}

static void the_reader_leaves_halfway(void **state)
{
	struct sink_world w;
	struct kb_err err;
	int fds[2];

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	begin(&w, fds[1]);
	write_big(&w);
	close(fds[0]);
	assert_int_equal(kb_source_arm(w.deadline, 200, &err), 0);
	assert_int_equal(kb_loop_run(w.loop, &err), 0);
	w.late = false;
	assert_int_equal(w.broken, EPIPE);
	assert_int_equal(w.drained, BIG);
	assert_int_equal(kb_sink_waiting(&w.sink), 0);
	end(&w);
	close(fds[1]);
}

static void a_full_disk_is_told(void **state)
{
	struct sink_world w;
	struct kb_err err;
	int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	begin(&w, fd);
	assert_int_equal(kb_sink_write(&w.sink, (const uint8_t *)"abc", 3, &err), 0);
	assert_int_equal(w.broken, ENOSPC);
	end(&w);
	close(fd);
}

static void files_are_written_at_once(void **state)
{
	FILE *file = tmpfile();
	struct sink_world w;
	struct stat st;

	begin(&w, fileno(file));
	write_big(&w);
	assert_int_equal(w.drained, BIG);
	assert_int_equal(fstat(fileno(file), &st), 0);
	assert_int_equal(st.st_size, BIG);
	end(&w);
	fclose(file);
}

/* ---- Feeds ----------------------------------------------------------------------------------- */

struct feed_world {
	struct kb_loop *loop;
	struct kb_feed feed;
	struct kb_source *more;
	size_t room, got, wrong;
	int ended; /* times */
	int errnum;
};

static size_t feed_room(void *arg)
{
	struct feed_world *w = arg;

	return w->room;
}

static void feed_data(const uint8_t *data, size_t len, void *arg)
{
	struct feed_world *w = arg;
	struct kb_err err;

	assert_true(len <= w->room);
	for (size_t i = 0; i < len; i++)
		w->wrong += data[i] != byte_at(w->got++);
	w->room -= len;
	if (!w->room)
		assert_int_equal(kb_source_arm(w->more, 1, &err), 0);
}

static void feed_end(int errnum, void *arg)
{
	struct feed_world *w = arg;

	w->ended++;
	w->errnum = errnum;
	kb_loop_stop(w->loop);
}

static const struct kb_feed_ops feed_ops = {.room = feed_room, .data = feed_data, .end = feed_end};

static void make_room(void *arg)
{
	struct feed_world *w = arg;

	w->room += 9999;
	kb_feed_more(&w->feed);
}

static void feed_from(struct feed_world *w, int fd)
{
	struct kb_err err;

	*w = (struct feed_world){.room = 10000};
	assert_int_equal(kb_loop_create(&w->loop, &err), 0);
	assert_int_equal(kb_loop_timer(w->loop, make_room, w, &w->more, &err), 0);
	assert_int_equal(kb_feed_init(&w->feed, w->loop, fd, &feed_ops, w, &err), 0);
	kb_feed_more(&w->feed);
	assert_int_equal(kb_loop_run(w->loop, &err), 0);
	assert_int_equal(w->ended, 1);
	assert_int_equal(w->errnum, 0);
	assert_int_equal(w->wrong, 0);
	kb_feed_finish(&w->feed);
	kb_source_destroy(w->more);
	kb_loop_destroy(w->loop);
}

static int file_of(size_t len)
{
	FILE *file = tmpfile();
	int fd;

	for (size_t i = 0; i < len; i++)
		fputc(byte_at(i), file);
	fflush(file);
	fd = dup(fileno(file));
	fclose(file);
	lseek(fd, 0, SEEK_SET);
	return fd;
}

static void feeds_from_files_and_devices(void **state)
{
	KB_CLOSE int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	KB_CLOSE int file = file_of(BIG);
	struct feed_world w;

	feed_from(&w, null);
	assert_int_equal(w.got, 0);
	feed_from(&w, file);
	assert_int_equal(w.got, BIG);
}

static void feeds_from_a_pipe(void **state)
{
	uint8_t data[3000];
	struct feed_world w;
	int fds[2];

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = byte_at(i);
	assert_int_equal(write(fds[1], data, sizeof(data)), sizeof(data));
	close(fds[1]);
	feed_from(&w, fds[0]);
	assert_int_equal(w.got, sizeof(data));
	close(fds[0]);
}

/* ---- Environment ----------------------------------------------------------------------------- */

static const struct kb_option env_options[] = {
	{.name = "env", .letter = 'e', .arg = "K", .kind = KB_KIND_ENV, .repeat = true}, {0}};
static const struct kb_command env_command = {.name = "run", .options = env_options};

static void environment_is_built(void **state)
{
	char *words[] = {"-eA=2", "-eKBT_HERE", "-eC=", "-eA=3"};
	char *missing[] = {"-eKBT_NOT_HERE"};
	struct kb_environment env KB_ENVIRONMENT_CLEANUP = {0};
	struct kb_args args;
	struct kb_err err = {0};

	setenv("KBT_HERE", "x=y", 1);
	kb_environment_set(&env, "A=1");
	assert_int_equal(kb_args_parse(&args, &env_command, 4, words, &err), 0);
	assert_int_equal(kb_environment_options(&env, &args, &err), 0);
	kb_environment_default(&env, "A", "9");
	kb_environment_default(&env, "TERM", "vt100");
	kb_environment_default(&env, "NONE", NULL);
	assert_int_equal(env.len, 4);
	assert_string_equal(env.vars[0], "A=3");
	assert_string_equal(env.vars[1], "KBT_HERE=x=y");
	assert_string_equal(env.vars[2], "C=");
	assert_string_equal(env.vars[3], "TERM=vt100");
	assert_null(env.vars[4]);
	kb_args_finish(&args);

	assert_int_equal(kb_args_parse(&args, &env_command, 1, missing, &err), 0);
	assert_int_equal(kb_environment_options(&env, &args, &err), -KB_ERR_USAGE);
	assert_non_null(strstr(err.hint, "KBT_NOT_HERE=VALUE"));
	kb_args_finish(&args);
}

/* ---- Workspaces ------------------------------------------------------------------------------ */

static char top[PATH_MAX];

static const char *in_top(const char *name)
{
	static char path[PATH_MAX + 64];

	snprintf(path, sizeof(path), "%s%s", top, name);
	return path;
}

static void make_tree(struct kb_dirs *dirs)
{
	const char *made[] = {"/home", "/home/project", "/home/.config", "/home/.config/kbsup",
		"/run", "/run/not", "/run/not/yet", "/run/not/yet/there", "/state", "/state/kbsup",
		"/state/kbsup/store", "/new\nline\xff"};

	assert_non_null(realpath(mkdtemp(strcpy(top, "/tmp/kbt.XXXXXX")), top));
	for (size_t i = 0; i < KB_ARRAY_LEN(made); i++)
		assert_int_equal(mkdir(in_top(made[i]), 0700), 0);
	assert_int_equal(symlink("home", in_top("/link")), 0);
	close(open(in_top("/file"), O_CREAT | O_CLOEXEC, 0600));
	snprintf(dirs->home, PATH_MAX, "%s/home", top);
	snprintf(dirs->config, PATH_MAX, "%s/home/.config/kbsup", top);
	snprintf(dirs->state, PATH_MAX, "%s/state/kbsup", top);
	snprintf(dirs->runtime, PATH_MAX, "%s/run/not/yet/there", top);
}

static const struct {
	const char *name; /* below top; NULL: the path itself is `text` */
	int code;	  /* 0: fine */
	const char *text; /* in the message */
} workspaces[] = {
	{"/home/project", 0, ""},
	{"/link/project", 0, ""},
	{"/new\nline\xff", 0, ""},
	{"/home", KB_ERR_REFUSED, "your home directory"},
	{"/link", KB_ERR_REFUSED, "your home directory"},
	{"/home/project/..", KB_ERR_REFUSED, "your home directory"},
	{"", KB_ERR_REFUSED, "it holds your home directory"},
	{NULL, KB_ERR_REFUSED, "the root directory"},
	{"/state", 0, ""}, /* the machine hides what is in it */
	{"/state/kbsup", KB_ERR_REFUSED, "the audit store"},
	{"/state/kbsup/store", KB_ERR_REFUSED, "the audit store"},
	{"/home/.config/kbsup", KB_ERR_REFUSED, "your policies"},
	{"/run/not/yet", 0, ""},
	{"/run/not/yet/there", KB_ERR_REFUSED, "the supervisor's socket"},
	{"/file", KB_ERR_FAILED, "is not a directory"},
	{"/gone", KB_ERR_SYSTEM, "No such file"},
	{"/file/x", KB_ERR_SYSTEM, "Not a directory"},
};

static void workspaces_are_checked(void **state)
{
	struct kb_dirs dirs = {0};
	char found[PATH_MAX];

	make_tree(&dirs);
	for (size_t i = 0; i < KB_ARRAY_LEN(workspaces); i++) {
		const char *path = workspaces[i].name ? in_top(workspaces[i].name) : "/";
		struct kb_err err = {0};
		int r = kb_workspace_find(path, &dirs, found, &err);

		if (r != -workspaces[i].code || !strstr(err.msg, workspaces[i].text))
			fail_msg("%s: %d %s", path, r, err.msg);
		if (r < 0)
			assert_true(err.hint[0]);
		else
			assert_true(!strncmp(found, top, strlen(top)));
	}
	assert_int_equal(kb_rmtree(top, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_slow_pipe_gets_every_byte),
		cmocka_unit_test(nobody_reads),
		cmocka_unit_test(the_reader_leaves_halfway),
		cmocka_unit_test(a_full_disk_is_told),
		cmocka_unit_test(files_are_written_at_once),
		cmocka_unit_test(feeds_from_files_and_devices),
		cmocka_unit_test(feeds_from_a_pipe),
		cmocka_unit_test(environment_is_built),
		cmocka_unit_test(workspaces_are_checked),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
