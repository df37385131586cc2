/* Lines over a carrier that behaves as a virtio serial port does, and worse: it loses what is on
 * its way when an end comes or goes, cuts anywhere, joins what belongs to different connections.
 * Both ends are in one process, on one loop; between their carriers stands `port`. */
#include "kbtest.h"

#include <errno.h>
#include <sys/socket.h>

#include "supervisor/base/line.h"
#include "supervisor/base/packet.h"

#define TEST_MS 60000

static uint32_t seed = 1;

static uint32_t next_random(uint32_t n)
{
	seed = seed * 1664525 + 1013904223;
	return (seed >> 8) % n;
}

/* Byte `at` of a stream. */
static uint8_t byte_of(uint32_t stream, uint64_t at)
{
	return (uint8_t)((at * 2654435761u + stream * 40503u) >> 13);
}

struct end {
	struct fixture *f;
	struct kb_line *line;
	int fd; /* of the connection; -1: none */
	struct kb_source *io;
	uint32_t out_stream, in_stream;
	uint64_t sent, to_send, got, wanted;
	bool deaf, eof; /* deaf: reads nothing */
	unsigned ups, losses, overs, calls;
	struct kb_err why; /* of the last `over` */
	bool auto_listen;
};

/* One direction of the port. */
struct pipe {
	uint8_t bytes[8192];
	size_t len;
};

struct fixture {
	struct kb_loop *loop;
	struct kb_source *deadline, *rough;
	struct end caller, answerer;
	int a, b; /* the port's ends of the carriers; -1: not connected */
	struct kb_source *a_io, *b_io;
	unsigned cuts; /* still to be made */
	uint64_t passed, next_cut;
	bool (*done)(struct fixture *f);
	bool timeout;
};

static void step(struct fixture *f)
{
	if (f->done(f))
		kb_loop_stop(f->loop);
}

/* ---- The users of the connection ------------------------------------------------------------- */

static void end_close(struct end *e)
{
	kb_source_destroy(e->io);
	e->io = NULL;
	kb_close(&e->fd);
}

static void end_read(struct end *e)
{
	uint8_t data[5000];
	ssize_t n = recv(e->fd, data, 1 + next_random(sizeof(data)), MSG_DONTWAIT);

	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0) {
		e->eof = true;
		end_close(e);
		return;
	}
	for (ssize_t i = 0; i < n; i++, e->got++)
		if (data[i] != byte_of(e->in_stream, e->got))
			fail_msg("byte %llu is wrong", (unsigned long long)e->got);
}

static void end_write(struct end *e)
{
	uint8_t data[5000];
	size_t len = 1 + next_random(sizeof(data));
	ssize_t n;

	len = (size_t)KB_MIN(e->to_send - e->sent, len);
	for (size_t i = 0; i < len; i++)
		data[i] = byte_of(e->out_stream, e->sent + i);
	n = send(e->fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n > 0)
		e->sent += (uint64_t)n;
}

static void end_watch(struct end *e)
{
	if (e->io)
		kb_source_set_events(e->io,
			(e->deaf ? 0 : KB_IO_READ) | (e->sent < e->to_send ? KB_IO_WRITE : 0),
			NULL);
}

static void on_end(int fd, unsigned events, void *arg)
{
	struct end *e = arg;

	if (events & KB_IO_WRITE)
		end_write(e);
	if (events & KB_IO_READ)
		end_read(e);
	end_watch(e);
	step(e->f);
}

static void end_take(struct end *e, int fd)
{
	struct kb_err err;

	e->fd = fd;
	e->sent = e->got = 0;
	e->eof = false;
	assert_ok(kb_loop_io(e->f->loop, fd, 0, on_end, e, &e->io, &err));
	end_watch(e);
}

static void on_called(int fd, void *arg)
{
	struct end *e = arg;

	e->calls++;
	end_take(e, fd);
	step(e->f);
}

static void on_up(void *arg)
{
	struct end *e = arg;

	e->ups++;
	step(e->f);
}

static void port_connect(struct fixture *f, struct end *e);

static void on_lost(const struct kb_err *why, void *arg)
{
	struct end *e = arg;

	e->losses++;
	e->why = *why;
	step(e->f);
}

static void on_over(const struct kb_err *why, void *arg)
{
	struct end *e = arg;

	e->overs++;
	e->why = why ? *why : (struct kb_err){0};
	if (e->auto_listen)
		kb_line_listen(e->line);
	step(e->f);
}

static const struct kb_line_ops ops = {on_called, on_up, on_lost, on_over};

/* ---- The port -------------------------------------------------------------------------------- */

static void port_close(struct fixture *f, bool a)
{
	kb_source_destroy(a ? f->a_io : f->b_io);
	if (a)
		f->a_io = NULL;
	else
		f->b_io = NULL;
	kb_close(a ? &f->a : &f->b);
}

/* What happens to a real port: its host end goes and comes; the guest's end may or may not notice.
 * In either case some of what was on its way is lost. */
static void cut(struct fixture *f)
{
	f->cuts--;
	port_close(f, true);
	if (next_random(2))
		port_close(f, false);
	if (f->b < 0)
		port_connect(f, &f->answerer);
	port_connect(f, &f->caller);
}

static void pass(struct fixture *f, bool from_a)
{
	uint8_t data[3000];
	int from = from_a ? f->a : f->b, to = from_a ? f->b : f->a;
	ssize_t n = recv(from, data, 1 + next_random(sizeof(data)), MSG_DONTWAIT);

	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0) {
		port_close(f, from_a);
		return;
	}
	f->passed += (uint64_t)n;
	/* A full or closed other end: lost. A socket buffer of the test is large enough not to be
	 * full in earnest; the line asks for the bytes again where it is. */
	if (to >= 0)
		(void)!send(to, data, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (f->cuts > 0 && f->passed >= f->next_cut) {
		f->next_cut = f->passed + next_random(150000);
		cut(f);
	}
}

static void on_port_a(int fd, unsigned events, void *arg)
{
	pass(arg, true);
}

static void on_port_b(int fd, unsigned events, void *arg)
{
	pass(arg, false);
}

/* A fresh connection of one end of the port with the line there. */
static void port_connect(struct fixture *f, struct end *e)
{
	bool a = e == &f->caller;
	struct kb_err err;
	int pair[2];

	assert_ok(kb_fd_socketpair(false, pair, &err));
	assert_ok(kb_line_carry(e->line, pair[0], &err));
	if (a)
		f->a = pair[1];
	else
		f->b = pair[1];
	assert_ok(kb_loop_io(f->loop, pair[1], KB_IO_READ, a ? on_port_a : on_port_b, f,
		a ? &f->a_io : &f->b_io, &err));
}

/* ---- The fixture ----------------------------------------------------------------------------- */

static void on_deadline(void *arg)
{
	struct fixture *f = arg;

	f->timeout = true;
	kb_loop_stop(f->loop);
}

static void call(struct fixture *f, int64_t hold_ms)
{
	struct kb_err err;
	int fd;

	assert_ok(kb_line_call(f->loop, hold_ms, &ops, &f->caller, &f->caller.line, &fd, &err));
	end_take(&f->caller, fd);
}

static void answer(struct fixture *f)
{
	struct kb_err err;

	assert_ok(kb_line_answer(f->loop, &ops, &f->answerer, &f->answerer.line, &err));
	kb_line_listen(f->answerer.line);
}

static void set_up(struct fixture *f)
{
	struct kb_err err;

	*f = (struct fixture){.a = -1, .b = -1};
	f->caller = (struct end){.f = f, .fd = -1, .out_stream = 1, .in_stream = 2};
	f->answerer = (struct end){.f = f, .fd = -1, .out_stream = 2, .in_stream = 1};
	assert_ok(kb_loop_create(&f->loop, &err));
	assert_ok(kb_loop_timer(f->loop, on_deadline, f, &f->deadline, &err));
	answer(f);
}

static void run(struct fixture *f, bool (*done)(struct fixture *f))
{
	f->done = done;
	f->timeout = false;
	kb_source_arm(f->deadline, TEST_MS, NULL);
	if (!done(f))
		kb_loop_run(f->loop, NULL);
	assert_false(f->timeout);
}

static void tear_down(struct fixture *f)
{
	end_close(&f->caller);
	end_close(&f->answerer);
	kb_line_destroy(f->caller.line);
	kb_line_destroy(f->answerer.line);
	port_close(f, true);
	port_close(f, false);
	kb_source_destroy(f->deadline);
	kb_loop_destroy(f->loop);
}

static void exchange(struct fixture *f, uint64_t there, uint64_t back)
{
	f->caller.to_send = f->answerer.wanted = there;
	f->answerer.to_send = f->caller.wanted = back;
	end_watch(&f->caller);
	end_watch(&f->answerer);
}

static bool all_there(struct fixture *f)
{
	return f->caller.got == f->caller.wanted && f->answerer.got == f->answerer.wanted;
}

static bool both_over(struct fixture *f)
{
	return f->caller.overs > 0 && f->answerer.overs > 0;
}

static bool caller_over(struct fixture *f)
{
	return f->caller.overs > 0;
}

static bool both_up(struct fixture *f)
{
	return kb_line_is_up(f->caller.line) && kb_line_is_up(f->answerer.line) &&
	       f->caller.ups > 0;
}

/* ---- Tests ----------------------------------------------------------------------------------- */

static void test_smooth(void **state)
{
	struct fixture f;

	set_up(&f);
	call(&f, 0);
	exchange(&f, 5000000, 3000000);
	port_connect(&f, &f.answerer);
	port_connect(&f, &f.caller);
	run(&f, all_there);
	assert_int_equal(f.answerer.calls, 1);
	assert_int_equal(f.caller.ups, 1);
	/* One end closes: both are over, orderly, and the other end reads its end of file. */
	end_close(&f.answerer);
	run(&f, both_over);
	assert_int_equal(f.caller.why.code, 0);
	assert_int_equal(f.answerer.why.code, 0);
	tear_down(&f);
}

/* Written and closed at once: all of it arrives first. */
static bool answerer_eof(struct fixture *f)
{
	return f->answerer.eof;
}

static bool caller_wrote(struct fixture *f)
{
	return f->caller.sent == f->caller.to_send;
}

static void test_last_words(void **state)
{
	struct fixture f;

	set_up(&f);
	call(&f, 0);
	exchange(&f, 100000, 0);
	run(&f, caller_wrote);
	port_connect(&f, &f.answerer);
	port_connect(&f, &f.caller);
	run(&f, both_up);
	end_close(&f.caller);
	run(&f, answerer_eof);
	assert_int_equal(f.answerer.got, 100000);
	run(&f, both_over);
	assert_int_equal(f.answerer.why.code, 0);
	tear_down(&f);
}

static void test_rough(void **state)
{
	struct fixture f;

	for (uint32_t i = 1; i <= 5; i++) {
		seed = i;
		set_up(&f);
		call(&f, 0);
		exchange(&f, 4000000, 4000000);
		f.cuts = 60;
		port_connect(&f, &f.answerer);
		port_connect(&f, &f.caller);
		run(&f, all_there);
		assert_true(f.cuts < 20);
		assert_int_equal(f.caller.overs + f.answerer.overs, 0);
		assert_int_equal(f.answerer.calls, 1);
		tear_down(&f);
	}
}

/* Nobody reads: what the line takes is bounded; later nothing is missing. */
static bool caller_stuck(struct fixture *f)
{
	return f->caller.sent > KB_LINE_WINDOW;
}

static void test_slow_reader(void **state)
{
	struct fixture f;
	int64_t end;

	set_up(&f);
	f.answerer.deaf = true;
	call(&f, 0);
	exchange(&f, 20000000, 0);
	port_connect(&f, &f.answerer);
	port_connect(&f, &f.caller);
	run(&f, caller_stuck);
	for (end = kb_now_mono() + 500000000; kb_now_mono() < end;) {
		kb_source_arm(f.deadline, 50, NULL);
		kb_loop_run(f.loop, NULL);
	}
	/* Two windows, and what the kernel keeps in the sockets between. */
	assert_true(f.caller.sent < 2 * KB_LINE_WINDOW + (4u << 20));
	f.answerer.deaf = false;
	end_watch(&f.answerer);
	run(&f, all_there);
	tear_down(&f);
}

/* The next caller ends what the last one had, and gets nothing of it. */
static bool second_call(struct fixture *f)
{
	return f->answerer.calls == 2;
}

static void test_new_caller(void **state)
{
	struct fixture f;

	set_up(&f);
	f.answerer.auto_listen = true;
	call(&f, 0);
	exchange(&f, 1000000, 10000000);
	port_connect(&f, &f.answerer);
	port_connect(&f, &f.caller);
	run(&f, both_up);
	/* In the middle of a transfer the host's process dies. The port's other end hears nothing.
	 */
	port_close(&f, true);
	end_close(&f.caller);
	kb_line_drop(f.caller.line);
	kb_line_destroy(f.caller.line);
	f.caller.out_stream = f.answerer.in_stream = 11;
	call(&f, 0);
	end_close(&f.answerer);
	port_connect(&f, &f.caller);
	run(&f, second_call);
	f.caller.in_stream = f.answerer.out_stream = 12;
	exchange(&f, 1000000, 1000000);
	run(&f, all_there);
	assert_true(f.answerer.overs >= 1);
	assert_int_equal(f.caller.overs, 0);
	tear_down(&f);
}

/* What an earlier connection left in the port comes first. */
static void test_stale(void **state)
{
	static uint8_t data[2000];
	struct kb_packet p = {
		.kind = KB_PACKET_DATA, .line = 99, .data = data, .len = sizeof(data)};
	struct kb_buf stale KB_BUF_CLEANUP;
	struct fixture f;
	struct kb_err err;

	set_up(&f);
	call(&f, 0);
	exchange(&f, 100000, 100000);
	port_connect(&f, &f.answerer);
	kb_buf_init(&stale, 1u << 20);
	for (int i = 0; i < 3; i++)
		assert_ok(kb_packet_encode(&p, &stale, &err));
	/* From the middle of one packet to the middle of another. */
	assert_true(send(f.b, kb_buf_data(&stale) + 700, kb_buf_len(&stale) - 1500, 0) > 0);
	port_connect(&f, &f.caller);
	assert_true(send(f.a, kb_buf_data(&stale) + 300, kb_buf_len(&stale) - 600, 0) > 0);
	run(&f, all_there);
	assert_int_equal(f.caller.overs + f.answerer.overs, 0);
	tear_down(&f);
}

static void test_held_too_long(void **state)
{
	struct fixture f;

	set_up(&f);
	call(&f, 1000);
	exchange(&f, 1000, 1000);
	port_connect(&f, &f.answerer);
	port_connect(&f, &f.caller);
	run(&f, all_there);
	port_close(&f, true);
	port_close(&f, false);
	run(&f, both_over);
	assert_int_equal(f.caller.why.code, KB_ERR_TIMEOUT);
	assert_int_equal(f.answerer.why.code, KB_ERR_TIMEOUT);
	assert_int_equal(f.caller.losses, 1);
	tear_down(&f);
}

/* The process there is another one: the connection is gone, and that is said. */
static void test_answerer_restarts(void **state)
{
	struct fixture f;

	set_up(&f);
	call(&f, 0);
	exchange(&f, 1000, 1000);
	port_connect(&f, &f.answerer);
	port_connect(&f, &f.caller);
	run(&f, all_there);
	end_close(&f.answerer);
	port_close(&f, false);
	kb_line_drop(f.answerer.line);
	kb_line_destroy(f.answerer.line);
	answer(&f);
	port_connect(&f, &f.answerer);
	exchange(&f, 2000, 1000);
	run(&f, caller_over);
	assert_int_equal(f.caller.why.code, KB_ERR_CLOSED);
	assert_int_equal(f.answerer.calls, 1);
	tear_down(&f);
}

static bool is_called(struct fixture *f)
{
	return f->answerer.calls > 0;
}

/* Somebody who writes packets of his own does no more than end his connection. */
static void test_liar(void **state)
{
	struct kb_packet call_packet = {.kind = KB_PACKET_CALL, .line = 5, .number = 1};
	struct kb_packet lie = {.kind = KB_PACKET_DATA, .line = 5, .ack = 1000};
	struct kb_buf bytes KB_BUF_CLEANUP;
	struct fixture f;
	struct kb_err err;

	set_up(&f);
	call(&f, 0); /* not connected; the fixture wants one */
	port_connect(&f, &f.answerer);
	kb_buf_init(&bytes, 1u << 20);
	assert_ok(kb_packet_encode(&call_packet, &bytes, &err));
	assert_true(send(f.b, kb_buf_data(&bytes), kb_buf_len(&bytes), 0) > 0);
	run(&f, is_called);
	kb_buf_consume(&bytes, kb_buf_len(&bytes));
	assert_ok(kb_packet_encode(&lie, &bytes, &err));
	assert_true(send(f.b, kb_buf_data(&bytes), kb_buf_len(&bytes), 0) > 0);
	run(&f, answerer_eof);
	tear_down(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_smooth),
		cmocka_unit_test(test_last_words),
		cmocka_unit_test(test_rough),
		cmocka_unit_test(test_slow_reader),
		cmocka_unit_test(test_new_caller),
		cmocka_unit_test(test_stale),
		cmocka_unit_test(test_held_too_long),
		cmocka_unit_test(test_answerer_restarts),
		cmocka_unit_test(test_liar),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
