/* A carrier's bytes as a broken port or a hostile machine could send them: the packets' decoder, and
 * both ends of a line fed with them, the answering one in the middle of a connection. The first byte
 * says how the bytes are cut up. */
#include <sys/socket.h>
#include <unistd.h>

#include "supervisor/base/fd.h"
#include "supervisor/base/line.h"
#include "supervisor/base/packet.h"
#include "supervisor/base/util.h"

struct fixture {
	struct kb_loop *loop;
	int connection;
	bool over;
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

/* The packets come through whole or not at all, and no more of them than their least size allows. */
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

static void feed(bool caller, const uint8_t *data, size_t size)
{
	struct fixture f = {.connection = -1};
	struct kb_line *line = NULL;
	int pair[2], r;

	if (kb_loop_create(&f.loop, NULL) < 0 || kb_fd_socketpair(false, pair, NULL) < 0)
		abort();
	r = caller ? kb_line_call(f.loop, 0, &ops, &f, &line, &f.connection, NULL)
		   : kb_line_answer(f.loop, &ops, &f, &line, NULL);
	if (r < 0 || kb_line_carry(line, pair[0], NULL) < 0)
		abort();
	if (!caller)
		kb_line_listen(line);
	(void)!send(pair[1], data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
	shutdown(pair[1], SHUT_WR);
	kb_loop_run(f.loop, NULL);
	kb_line_destroy(line);
	kb_close(&f.connection);
	close(pair[1]);
	kb_loop_destroy(f.loop);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1 || size > 100000)
		return 0;
	decode(data + 1, size - 1, 1 + data[0]);
	feed(true, data + 1, size - 1);
	feed(false, data + 1, size - 1);
	return 0;
}
