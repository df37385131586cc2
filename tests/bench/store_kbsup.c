/* The store under the load of store_load.c: one JSON document of figures.
 * usage: store_kbsup STRACE-LOG RECORDS DIR [RECORDS-A-BLOCK [COMMIT-MS]]
 * COMMIT-MS 0: a commit for each block; else one as soon as the last is so long ago, or 256 blocks,
 * which is what role store does under load. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "audit/reader.h"
#include "proto/record.pb-c.h"
#include "store_load.h"
#include "supervisor/base/util.h"

static double cpu(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double wall(void)
{
	return (double)kb_now_mono() / 1e9;
}

static void must(int r, const struct kb_err *err)
{
	if (r >= 0)
		return;
	fprintf(stderr, "%s\n", err->msg);
	exit(1);
}

static void begin(struct kb_store *store, uint8_t id[KB_ULID_SIZE])
{
	Kb__SessionMeta meta = KB__SESSION_META__INIT;
	struct kb_err err;
	uint8_t data[512];

	must(kb_ulid_new(id, &err), &err);
	meta.id = (ProtobufCBinaryData){KB_ULID_SIZE, id};
	meta.name = (char *)"bench";
	meta.agent = (char *)"build";
	meta.machine = (char *)"local";
	meta.started = UINT64_C(1764000000000000000);
	must(kb_store_session_begin(store, data, kb__session_meta__pack(&meta, data), &err), &err);
}

#define COMMIT_BLOCKS 256u

struct pace {
	uint32_t per_block;
	double commit; /* seconds; 0: after each block */
	double last;
	unsigned blocks; /* since then */
};

static bool commit_is_due(struct pace *pace)
{
	pace->blocks++;
	if (pace->commit > 0 && pace->blocks < COMMIT_BLOCKS && wall() - pace->last < pace->commit)
		return false;
	pace->blocks = 0;
	return true;
}

/* Returns how many seconds of packing (the collector's side) are in the CPU time. */
static double ingest(struct kb_store *store, const uint8_t *id, struct load *load, uint64_t n,
	struct pace *pace, double *ret_storing)
{
	struct kb_block block;
	struct kb_err err;
	uint64_t seq = 1, done = 0, round = 0;
	double packing = 0, at;
	size_t i = 0;

	*ret_storing = 0;
	kb_block_init(&block);
	while (done < n) {
		at = cpu();
		kb_block_reset(&block);
		while (block.count < pace->per_block && done + block.count < n) {
			if (kb_block_add(&block, load_record(load, i, round), &err) < 0)
				break;
			if (++i == load_size(load)) {
				i = 0;
				round++;
			}
		}
		packing += cpu() - at;
		at = wall();
		must(kb_store_append(
			     store, id, seq, kb_buf_data(&block.buf), kb_buf_len(&block.buf), &err),
			&err);
		if (commit_is_due(pace)) {
			must(kb_store_commit(store, &err), &err);
			pace->last = wall();
		}
		*ret_storing += wall() - at;
		seq += block.count;
		done += block.count;
	}
	at = wall();
	must(kb_store_commit(store, &err), &err);
	*ret_storing += wall() - at;
	kb_block_finish(&block);
	return packing;
}

static double ask(struct kb_reader *reader, const char *expr, uint64_t limit)
{
	const struct kb_query query = {.sessions = "last", .expr = expr, .limit = limit};
	FILE *null = fopen("/dev/null", "we");
	const struct kb_view view = {.out = null, .json = true, .utc = true};
	struct kb_err err;
	double at = wall();

	must(kb_reader_query(reader, &query, &view, &err), &err);
	at = wall() - at;
	fclose(null);
	return at;
}

static void scan(struct kb_reader *reader, uint64_t n)
{
	struct kb_session *session;
	struct kb_scan *s;
	struct kb_row row;
	struct kb_err err;
	double at = wall();
	int r;

	must(kb_reader_one(reader, "last", &session, &err), &err);
	must(kb_scan_create(reader, session, &s, &err), &err);
	while ((r = kb_scan_next(s, &row, &err)) > 0)
		;
	must(r, &err);
	printf(", \"scan\": %.0f", (double)n / (wall() - at));
	kb_scan_destroy(s);
	at = wall();
	kb_verify_session(reader, session->id);
	printf(", \"verify\": %.0f", (double)n / (wall() - at));
	kb_session_destroy(session);
}

static const struct {
	const char *name, *expr;
} questions[] = {
	{"path", "path ~ \"/home/%llu/**\""},
	{"pid", "pid = %llu"},
	{"host", "host = nowhere.example or ip = 203.0.113.9"},
	{"denied", "decision = denied"},
	{"time", "time >= \"2026-12-30\""},
	{"exe", "exe = /usr/bin/nothing"},
};

int main(int argc, char **argv)
{
	uint64_t n = argc > 2 ? strtoull(argv[2], NULL, 10) : 1000000, middle;
	struct pace pace = {.per_block = argc > 4 ? (uint32_t)strtoul(argv[4], NULL, 10) : 1000,
		.commit = argc > 5 ? strtod(argv[5], NULL) / 1e3 : 0};
	struct load *load = load_read(argv[1]);
	KB_FREE char *data = kb_asprintf("%s/data.mdb", argv[3]);
	struct kb_session_end end = {.complete = true};
	struct kb_store *store;
	struct kb_reader *reader;
	struct stat st;
	struct kb_err err;
	uint8_t id[KB_ULID_SIZE];
	double packing, storing, at;
	char expr[200];

	must(kb_store_open(argv[3], &store, &err), &err);
	begin(store, id);
	at = cpu();
	packing = ingest(store, id, load, n, &pace, &storing);
	at = cpu() - at - packing;
	must(kb_store_session_finish(store, id, &end, &err), &err);
	must(kb_store_commit(store, &err), &err);
	kb_store_close(store);
	stat(data, &st);
	printf("{\"records\": %llu, \"round\": %zu, \"pack\": %.0f, \"store_cpu\": %.0f, "
	       "\"store_wall\": "
	       "%.0f, \"bytes\": %.1f",
		(unsigned long long)n, load_size(load), (double)n / packing, (double)n / at,
		(double)n / storing, (double)st.st_size / (double)n);
	must(kb_reader_open(argv[3], &reader, &err), &err);
	scan(reader, n);
	middle = n / load_size(load) / 2;
	for (size_t i = 0; i < KB_ARRAY_LEN(questions); i++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		snprintf(expr, sizeof(expr), questions[i].expr,
			strcmp(questions[i].name, "pid") == 0
				? (unsigned long long)(middle % 100000 * 20000 + 4242)
				: (unsigned long long)middle);
#pragma GCC diagnostic pop
		ask(reader, expr, 1);
		printf(", \"%s_ms\": %.2f", questions[i].name, ask(reader, expr, 1) * 1e3);
	}
	printf("}\n");
	kb_reader_close(reader);
	return 0;
}
