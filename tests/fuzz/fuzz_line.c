/* A carrier's bytes as a broken port or a hostile machine could send them: the packets' decoder,
 * and both ends of a line fed with them. The first byte says how the bytes are cut up, or (when it
 * is even) that they are words from which whole packets are made, so that what is inside them gets
 * past the checks. */
#include <sys/socket.h>
#include <unistd.h>

#include "supervisor/base/fd.h"
#include "supervisor/base/line.h"
#include "supervisor/base/packet.h"
#include "supervisor/base/util.h"

struct fixture {
	struct kb_loop *loop;
	struct kb_source *io;
	int connection;
	bool over;
	const uint8_t *data; /* to be fed once the caller has called */
	size_t size;
	bool words;
};

static void on_called(int fd, void *arg)
{
	struct fixture *f = arg;

	kb_close(&f->connection);
	f->connection = fd;
}

static void on_lost(const struct kb_err *why, void *arg)
{
	struct fixture *f = arg;

	kb_loop_stop(f->loop);
}

static void on_over(const struct kb_err *why, void *arg)
{
	struct fixture *f = arg;

	if (f->over)
		abort();
	f->over = true;
	kb_loop_stop(f->loop);
}

static const struct kb_line_ops ops = {.called = on_called, .lost = on_lost, .over = on_over};

/* The packets come through whole or not at all, and no more of them than their least size allows.
 */
static void decode(const uint8_t *data, size_t size, size_t piece)
{
	static struct kb_packet_decoder d;
	struct kb_packet p;
	size_t n = 0, left = size;

	kb_packet_decoder_reset(&d);
	while (left > 0) {
		size_t used;

		n += (size_t)kb_packet_decode(&d, data, KB_MIN(left, piece), &used, &p);
		if (used == 0 || used > left)
			abort();
		data += used;
		left -= used;
	}
	if (n * (KB_PACKET_HEADER + KB_PACKET_SUM) > size)
		abort();
}

/* Five bytes a packet: kind, whose, number, acknowledgement, length. Numbers are small: what can be
 * right should be hit. */
static void make_packets(uint64_t line, const uint8_t *data, size_t size, struct kb_buf *out)
{
	static const uint8_t filler[256];

	for (; size >= 5; data += 5, size -= 5) {
		struct kb_packet p = {.kind = (enum kb_packet_kind)(data[0] % 12),
			.line = data[1] % 4 ? line : line + data[1] % 8,
			.number = data[2],
			.ack = data[3],
			.data = filler,
			.len = data[4]};

		if (kb_packet_encode(&p, out, NULL) < 0)
			return;
	}
}

static void send_all(struct fixture *f, int fd, uint64_t line)
{
	struct kb_buf made KB_BUF_CLEANUP;

	kb_buf_init(&made, 4u << 20);
	if (f->words)
		make_packets(line, f->data, f->size, &made);
	else
		(void)kb_buf_append(&made, f->data, f->size, NULL);
	(void)!send(fd, kb_buf_data(&made), kb_buf_len(&made), MSG_DONTWAIT | MSG_NOSIGNAL);
	shutdown(fd, SHUT_WR);
}

/* The caller's number is in his call. */
static void on_call(int fd, unsigned events, void *arg)
{
	struct fixture *f = arg;
	static struct kb_packet_decoder d;
	struct kb_packet p = {0};
	uint8_t data[4096];
	ssize_t n = recv(fd, data, sizeof(data), MSG_DONTWAIT);
	size_t used;

	kb_packet_decoder_reset(&d);
	if (n > 0 && f->data && kb_packet_decode(&d, data, (size_t)n, &used, &p) > 0)
		send_all(f, fd, p.line);
	f->data = NULL;
}

static void feed(bool caller, bool words, const uint8_t *data, size_t size)
{
	struct fixture f = {.connection = -1, .data = data, .size = size, .words = words};
	struct kb_line *line = NULL;
	int pair[2], r;

	if (kb_loop_create(&f.loop, NULL) < 0 || kb_fd_socketpair(false, pair, NULL) < 0)
		abort();
	r = caller ? kb_line_call(f.loop, 0, &ops, &f, &line, &f.connection, NULL)
		   : kb_line_answer(f.loop, &ops, &f, &line, NULL);
	if (r < 0 || kb_line_carry(line, pair[0], NULL) < 0)
		abort();
	if (caller) {
		r = kb_loop_io(f.loop, pair[1], KB_IO_READ, on_call, &f, &f.io, NULL);
	} else {
		kb_line_listen(line);
		send_all(&f, pair[1], 5);
	}
	if (r < 0)
		abort();
	kb_loop_run(f.loop, NULL);
	kb_line_destroy(line);
	kb_source_destroy(f.io);
	kb_close(&f.connection);
	close(pair[1]);
	kb_loop_destroy(f.loop);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	bool words = size > 0 && data[0] % 2 == 0;

	if (size < 1 || size > 100000)
		return 0;
	decode(data + 1, size - 1, 1 + data[0]);
	feed(true, words, data + 1, size - 1);
	feed(false, words, data + 1, size - 1);
	return 0;
}
