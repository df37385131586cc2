#include "memory.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#define PAGE	     4096u /* the smallest page of any machine we run on: reading less is only slower */
#define FIRST_READ   256u
#define POINTERS     512u /* pointers of a vector read at once */
#define BATCH	     32u  /* arguments whose first bytes are read at once */
#define BATCH_STRING 128u

static size_t to_page_end(uint64_t addr)
{
	return PAGE - (size_t)(addr % PAGE);
}

static struct iovec remote_range(uint64_t addr, size_t size)
{
	/* An address of the other process is a number here. */
	/* NOLINTNEXTLINE(performance-no-int-to-ptr) */
	return (struct iovec){.iov_base = (void *)(uintptr_t)addr, .iov_len = size};
}

static ssize_t read_once(pid_t tid, uint64_t addr, void *buf, size_t size)
{
	struct iovec local = {.iov_base = buf, .iov_len = size};
	struct iovec remote = remote_range(addr, size);
	ssize_t n = process_vm_readv(tid, &local, 1, &remote, 1, 0);

	return n >= 0 ? n : -errno;
}

ssize_t kb_mem_read(pid_t tid, uint64_t addr, void *buf, size_t size)
{
	size_t done = 0;
	ssize_t n = 0;

	if (size <= to_page_end(addr))
		return read_once(tid, addr, buf, size);
	while (done < size) {
		n = read_once(tid, addr + done, (char *)buf + done,
			KB_MIN(size - done, to_page_end(addr + done)));
		if (n <= 0)
			break;
		done += (size_t)n;
	}
	return done > 0 ? (ssize_t)done : n;
}

ssize_t kb_mem_string(pid_t tid, uint64_t addr, char *buf, size_t size)
{
	size_t done = 0;

	while (done < size) {
		size_t want = KB_MIN(size - done, to_page_end(addr + done));
		const char *end;
		ssize_t n;

		/* Most strings are short: one small copy. */
		if (done == 0)
			want = KB_MIN(want, FIRST_READ);
		n = read_once(tid, addr + done, buf + done, want);
		if (n <= 0)
			return n < 0 ? n : -EFAULT;
		end = memchr(buf + done, 0, (size_t)n);
		if (end)
			return end - buf;
		done += (size_t)n;
	}
	return -ENAMETOOLONG;
}

void kb_argv_init(struct kb_argv *argv)
{
	*argv = (struct kb_argv){0};
	kb_buf_init(&argv->text, KB_ARGV_MAX + PAGE);
}

void kb_argv_finish(struct kb_argv *argv)
{
	kb_buf_finish(&argv->text);
	free(argv->items);
	*argv = (struct kb_argv){0};
}

static int add_item(struct kb_argv *argv, size_t len)
{
	if (argv->count == argv->cap) {
		size_t cap = argv->cap ? argv->cap * 2 : 64;
		struct kb_bytes *items = reallocarray(argv->items, cap, sizeof(*items));

		if (!items)
			return -ENOMEM;
		argv->items = items;
		argv->cap = cap;
	}
	argv->items[argv->count++].len = len;
	return 0;
}

/* One vector being read; the second group is about its current argument. */
struct reader {
	pid_t tid;
	struct kb_argv *argv;
	size_t cost, scanned;

	size_t start, len;
	bool dropped;
};

static void begin_argument(struct reader *r)
{
	r->start = kb_buf_len(&r->argv->text);
	r->len = 0;
	r->dropped = false;
}

static int feed_argument(struct reader *r, const char *piece, size_t len)
{
	struct kb_buf *text = &r->argv->text;

	r->len += len;
	r->scanned += len;
	if (!r->dropped && r->cost + r->len + KB_ARGV_FRAMING > KB_ARGV_MAX) {
		r->dropped = true;
		text->tail = text->head + r->start;
	}
	if (!r->dropped && kb_buf_append(text, piece, len, NULL) < 0)
		return -ENOMEM;
	return 0;
}

static int end_argument(struct reader *r)
{
	r->scanned++;
	if (r->dropped) {
		r->argv->lost += r->len;
		return 0;
	}
	r->cost += r->len + KB_ARGV_FRAMING;
	return add_item(r->argv, r->len);
}

/* What follows at addr, up to the NUL. */
static int read_rest(struct reader *r, uint64_t addr)
{
	while (r->scanned <= KB_ARGV_SCAN_MAX) {
		char page[PAGE];
		ssize_t n = read_once(r->tid, addr, page, to_page_end(addr));
		const char *end;
		int error;

		if (n <= 0)
			return n < 0 ? (int)n : -EFAULT;
		end = memchr(page, 0, (size_t)n);
		error = feed_argument(r, page, end ? (size_t)(end - page) : (size_t)n);
		if (error < 0 || end)
			return error;
		addr += (size_t)n;
	}
	return -E2BIG;
}

/* The first bytes of up to BATCH strings in one call. Returns how many of them were read whole. */
static size_t read_batch(
	pid_t tid, const uint64_t *addrs, size_t n, char (*heads)[BATCH_STRING], size_t lens[BATCH])
{
	struct iovec local[BATCH], remote[BATCH];
	ssize_t got;
	size_t i;

	for (i = 0; i < n; i++) {
		lens[i] = KB_MIN(BATCH_STRING, to_page_end(addrs[i]));
		local[i] = (struct iovec){.iov_base = heads[i], .iov_len = lens[i]};
		remote[i] = remote_range(addrs[i], lens[i]);
	}
	got = process_vm_readv(tid, local, n, remote, n, 0);
	for (i = 0; i < n && got >= (ssize_t)lens[i]; i++)
		got -= (ssize_t)lens[i];
	return i;
}

static int read_strings(struct reader *r, const uint64_t *addrs, size_t n)
{
	char heads[BATCH][BATCH_STRING];
	size_t lens[BATCH];
	size_t whole = read_batch(r->tid, addrs, n, heads, lens);

	for (size_t i = 0; i < n; i++) {
		const char *end = i < whole ? memchr(heads[i], 0, lens[i]) : NULL;
		size_t len = end ? (size_t)(end - heads[i]) : i < whole ? lens[i] : 0;
		int error;

		begin_argument(r);
		error = feed_argument(r, heads[i], len);
		if (error == 0 && !end)
			error = read_rest(r, addrs[i] + len);
		if (error == 0)
			error = end_argument(r);
		if (error < 0)
			return error;
	}
	return 0;
}

static int read_vector(struct reader *r, uint64_t vector)
{
	uint64_t pointers[POINTERS];

	while (r->scanned <= KB_ARGV_SCAN_MAX) {
		/* Nearly every vector ends on the page it begins on. */
		size_t want = KB_MIN(to_page_end(vector), sizeof(pointers));
		ssize_t n = kb_mem_read(r->tid, vector, pointers,
			want < sizeof(*pointers) ? sizeof(*pointers) : want);
		size_t count = n > 0 ? (size_t)n / sizeof(*pointers) : 0;

		if (count == 0)
			return n < 0 ? (int)n : -EFAULT;
		for (size_t i = 0; i < count;) {
			size_t batch = 0;
			int error;

			while (batch < BATCH && i + batch < count && pointers[i + batch])
				batch++;
			error = read_strings(r, pointers + i, batch);
			if (error < 0)
				return error;
			i += batch;
			if (i < count && !pointers[i])
				return 0;
		}
		vector += count * sizeof(*pointers);
	}
	return -E2BIG;
}

int kb_mem_argv(pid_t tid, uint64_t addr, struct kb_argv *argv)
{
	struct reader r = {.tid = tid, .argv = argv};
	const uint8_t *at;
	int error;

	argv->count = 0;
	argv->lost = 0;
	kb_buf_consume(&argv->text, kb_buf_len(&argv->text));
	error = addr ? read_vector(&r, addr) : 0;
	/* The buffer moves no more; the arguments lie in it one after another. */
	at = kb_buf_data(&argv->text);
	for (size_t i = 0; i < argv->count; i++) {
		argv->items[i].data = at;
		at += argv->items[i].len;
	}
	return error;
}
