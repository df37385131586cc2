/* The same load in SQLite with indexes on the same things, write-ahead log, synchronous=FULL: one
 * JSON document of figures. usage: store_sqlite STRACE-LOG RECORDS FILE [RECORDS-A-COMMIT] */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "store_load.h"
#include "supervisor/base/util.h"

static double clock_of(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void sql(sqlite3 *db, const char *text)
{
	char *why = NULL;

	if (sqlite3_exec(db, text, NULL, NULL, &why) == SQLITE_OK)
		return;
	fprintf(stderr, "%s: %s\n", text, why);
	exit(1);
}

static void bind(sqlite3_stmt *s, int at, struct kb_bytes b)
{
	if (b.data)
		sqlite3_bind_text(s, at, (const char *)b.data, (int)b.len, SQLITE_STATIC);
	else
		sqlite3_bind_null(s, at);
}

static void insert(sqlite3_stmt *s, uint64_t seq, const struct kb_record *r)
{
	static char line[1 << 20];
	size_t len = 0;

	for (size_t i = 0; i < r->argc && len + r->argv[i].len + 1 < sizeof(line); i++) {
		memcpy(line + len, r->argv[i].data, r->argv[i].len);
		len += r->argv[i].len;
		line[len++] = ' ';
	}
	sqlite3_bind_int64(s, 1, (sqlite3_int64)seq);
	sqlite3_bind_int64(s, 2, (sqlite3_int64)r->time);
	sqlite3_bind_int(s, 3, (int)r->event);
	sqlite3_bind_int64(s, 4, r->pid);
	bind(s, 5, r->path);
	bind(s, 6, r->exe);
	bind(s, 7, r->host.data ? r->host : r->address);
	sqlite3_bind_int(s, 8, (int)r->decision);
	sqlite3_bind_int64(s, 9, r->rule);
	sqlite3_bind_int64(s, 10, r->flags);
	sqlite3_bind_int(s, 11, r->errnum);
	sqlite3_bind_int(s, 12, r->syscall);
	bind(s, 13, (struct kb_bytes){(const uint8_t *)line, len});
	if (sqlite3_step(s) != SQLITE_DONE)
		exit(1);
	sqlite3_reset(s);
}

static int no_row(void *arg, int n, char **values, char **names)
{
	return 0;
}

static double ask(sqlite3 *db, const char *where)
{
	char text[512];
	double at;

	snprintf(text, sizeof(text), "select * from ev where %s order by seq limit 1", where);
	at = clock_of(CLOCK_MONOTONIC);
	sqlite3_exec(db, text, no_row, NULL, NULL);
	return clock_of(CLOCK_MONOTONIC) - at;
}

static const struct {
	const char *name, *where;
} questions[] = {
	{"path", "path >= '/home/%llu/' and path < '/home/%llu0'"},
	{"pid", "pid = %llu%llu"},
	{"host", "host = 'nowhere.example'"},
	{"denied", "decision = 1"},
	{"time", "time >= 1798588800000000000"},
	{"exe", "exe = '/usr/bin/nothing'"},
};

int main(int argc, char **argv)
{
	uint64_t n = argc > 2 ? strtoull(argv[2], NULL, 10) : 1000000, round = 0, middle;
	uint64_t per_commit = argc > 4 ? strtoull(argv[4], NULL, 10) : 1000;
	struct load *load = load_read(argv[1]);
	double commit = argc > 5 ? strtod(argv[5], NULL) / 1e3 : 0, last = 0;
	double at_cpu, at_wall, at;
	bool open = false;
	char where[256];
	sqlite3_stmt *s;
	struct stat st;
	sqlite3 *db;
	size_t i = 0;

	if (sqlite3_open(argv[3], &db) != SQLITE_OK)
		return 1;
	sql(db, "pragma journal_mode = wal; pragma synchronous = full");
	sql(db, "create table ev (seq integer primary key, time int, event int, pid int, path "
		"text, "
		"exe text, host text, decision int, rule int, flags int, errno int, syscall int, "
		"argv text); create index e1 on ev (path); create index e2 on ev (exe); create "
		"index e3 on ev (host); create index e4 on ev (event); create index e5 on ev "
		"(rule); create index e6 on ev (time); create index e7 on ev (pid); create index "
		"e8 on ev (decision)");
	if (sqlite3_prepare_v2(db, "insert into ev values (?,?,?,?,?,?,?,?,?,?,?,?,?)", -1, &s,
		    NULL) != SQLITE_OK)
		return 1;
	at_cpu = clock_of(CLOCK_PROCESS_CPUTIME_ID);
	at_wall = clock_of(CLOCK_MONOTONIC);
	for (uint64_t seq = 1; seq <= n; seq++) {
		if (!open)
			sql(db, "begin");
		open = true;
		insert(s, seq, load_record(load, i, round));
		if (++i == load_size(load)) {
			i = 0;
			round++;
		}
		if (seq != n &&
			(seq % per_commit != 0 || clock_of(CLOCK_MONOTONIC) - last < commit))
			continue;
		sql(db, "commit");
		open = false;
		last = clock_of(CLOCK_MONOTONIC);
	}
	sqlite3_finalize(s);
	at_cpu = clock_of(CLOCK_PROCESS_CPUTIME_ID) - at_cpu;
	at_wall = clock_of(CLOCK_MONOTONIC) - at_wall;
	sql(db, "pragma wal_checkpoint(truncate)");
	stat(argv[3], &st);
	printf("{\"records\": %llu, \"store_cpu\": %.0f, \"store_wall\": %.0f, \"bytes\": %.1f",
		(unsigned long long)n, (double)n / at_cpu, (double)n / at_wall,
		(double)st.st_size / (double)n);
	at = clock_of(CLOCK_MONOTONIC);
	sqlite3_exec(db, "select count(*), sum(length(path)), sum(length(argv)) from ev", no_row,
		NULL, NULL);
	printf(", \"scan\": %.0f", (double)n / (clock_of(CLOCK_MONOTONIC) - at));
	middle = n / load_size(load) / 2;
	for (size_t q = 0; q < KB_ARRAY_LEN(questions); q++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		snprintf(where, sizeof(where), questions[q].where, (unsigned long long)middle,
			(unsigned long long)middle);
#pragma GCC diagnostic pop
		ask(db, where);
		printf(", \"%s_ms\": %.2f", questions[q].name, ask(db, where) * 1e3);
	}
	printf("}\n");
	sqlite3_close(db);
	return 0;
}
