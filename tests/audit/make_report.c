/* A report page of the fixture's story, with hostile names and some more records, on standard
 * output: for the browser test. usage: make_report RECORDS [html|md] */
#include "fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/base/util.h"

#define BATCH 1000u

static void flush(struct kb_store *store, const uint8_t *id, struct kb_block *block)
{
	if (kb_store_append(store, id, kb_store_last_seq(store, id) + 1, kb_buf_data(&block->buf),
		    kb_buf_len(&block->buf), NULL) < 0 ||
		kb_store_commit(store, NULL) < 0)
		abort();
	kb_block_reset(block);
}

static void add(struct kb_store *store, const uint8_t *id, unsigned long n)
{
	static const char *const hostile[] = {"/home/dev/</script><script>window.pwned=1</script>",
		"/home/dev/a\nb\xff\x1b[31m", "/home/dev/<img src=x onerror=window.pwned=1>",
		"/home/dev/\xe2\x80\xae/x"};
	struct kb_bytes argv[] = {fix_bytes("cc"), fix_bytes("-c"), fix_bytes("file.c")};
	struct kb_record r;
	struct kb_block block;
	char path[64];

	kb_block_init(&block);
	for (unsigned long i = 0; i < n; i++) {
		r = fix_record(i % 50 ? KB_EVENT_OPEN : KB_EVENT_EXEC, 14 + (double)i / 1000,
			(uint32_t)(200 + i / 50));
		snprintf(path, sizeof(path), "/home/dev/shop/src/file%lu.c", i % 997);
		r.path = i < 4 ? fix_bytes(hostile[i]) : fix_bytes(path);
		r.has_flags = true;
		r.flags = i % 5 == 0 ? 0101 : 0;
		r.ppid = i % 50 ? 0 : (uint32_t)(i / 50 % 3 ? 199 + i / 50 : 100);
		r.argv = argv;
		r.argc = i % 50 ? 0 : 3;
		if (i % 97 == 5) {
			r.decision = KB_DECISION_DENIED;
			r.errnum = 13;
			r.rule = 0;
		}
		if (kb_block_add(&block, &r, NULL) < 0)
			abort();
		if (block.count == BATCH)
			flush(store, id, &block);
	}
	if (block.count)
		flush(store, id, &block);
	kb_block_finish(&block);
}

int main(int argc, char **argv)
{
	struct kb_view view = {.out = stdout, .utc = true, .home = "/home/dev"};
	const struct kb_session_end end = {.ended = fix_time(300), .complete = true};
	char *dir = fix_dir();
	struct kb_store *store;
	struct kb_reader *reader;
	uint8_t id[KB_ULID_SIZE];
	struct kb_err err;
	int r;

	if (kb_store_open(dir, &store, &err) < 0)
		return 1;
	fix_begin(store, "brave-otter", id);
	fix_story_records(store, id);
	add(store, id, argc > 1 ? strtoul(argv[1], NULL, 10) : 0);
	if (kb_store_session_finish(store, id, &end, &err) < 0 || kb_store_commit(store, &err) < 0)
		return 1;
	kb_store_close(store);
	if (kb_reader_open(dir, &reader, &err) < 0)
		return 1;
	r = kb_reader_report(reader, "last", argc > 2 ? argv[2] : NULL, &view, &err);
	if (r < 0)
		fprintf(stderr, "%s\n", err.msg);
	kb_reader_close(reader);
	fix_dir_remove(dir);
	return r < 0;
}
