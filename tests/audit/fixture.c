#include "fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "proto/record.pb-c.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/util.h"

#define ARCH_X86_64 0xc000003eu

static void must(int r, const struct kb_err *err, const char *what)
{
	if (r == 0)
		return;
	fprintf(stderr, "%s: %s\n", what, err->msg);
	abort();
}

char *fix_dir(void)
{
	const char *tmp = getenv("TMPDIR");
	KB_FREE char *top = kb_asprintf("%s/kbsup-audit-XXXXXX", tmp ? tmp : "/tmp");
	char *dir;

	if (!top || !mkdtemp(top) || !(dir = kb_asprintf("%s/store", top)) || mkdir(dir, 0700) < 0)
		abort();
	return dir;
}

void fix_dir_remove(char *dir)
{
	*strrchr(dir, '/') = '\0'; /* the key and the heads stand beside the store */
	kb_rmtree(dir, NULL);
	free(dir);
}

static uint64_t random_state = 1;

void fix_seed(uint64_t seed)
{
	random_state = seed * 0x9e3779b97f4a7c15u | 1;
}

/* xorshift64* */
uint32_t fix_random(void)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return (uint32_t)(random_state * 0x2545f4914f6cdd1du >> 33);
}

uint64_t fix_time(double seconds)
{
	return FIX_START + (uint64_t)(seconds * 1e9);
}

void fix_begin(struct kb_store *store, const char *name, uint8_t ret_id[KB_ULID_SIZE])
{
	struct kb_err err;

	must(kb_ulid_new(ret_id, &err), &err, "ulid");
	fix_begin_as(store, name, ret_id);
}

void fix_begin_as(struct kb_store *store, const char *name, const uint8_t id[KB_ULID_SIZE])
{
	static const char *const rules[][2] = {{"14", "fs deny \"~/.ssh\""},
		{"20", "fs read \"/usr\""}, {"21", "workspace write \".\""}, {"22", "net deny"}};
	Kb__RuleInfo infos[4], *list[4];
	char ids[4][40];
	Kb__SessionMeta meta = KB__SESSION_META__INIT;
	ProtobufCBinaryData argv[] = {{4, (uint8_t *)"make"}, {3, (uint8_t *)"all"}};
	struct kb_err err;
	uint8_t data[4096];

	for (int i = 0; i < 4; i++) {
		kb__rule_info__init(&infos[i]);
		snprintf(ids[i], sizeof(ids[i]), "base.policy:%s#0000000%d", rules[i][0], i);
		infos[i].id = ids[i];
		infos[i].file = (char *)"base.policy";
		infos[i].line = (uint32_t)strtoul(rules[i][0], NULL, 10);
		infos[i].text = (char *)rules[i][1];
		list[i] = &infos[i];
	}
	meta.id = (ProtobufCBinaryData){KB_ULID_SIZE, (uint8_t *)id};
	meta.name = (char *)name;
	meta.agent = (char *)"shell";
	meta.machine = (char *)"local";
	meta.started = FIX_START;
	meta.user = (char *)"dev";
	meta.has_workspace = true;
	meta.workspace = (ProtobufCBinaryData){10, (uint8_t *)"/home/dev/"};
	meta.n_argv = 2;
	meta.argv = argv;
	meta.n_rules = 4;
	meta.rules = list;
	meta.has_arch = true;
	meta.arch = ARCH_X86_64;
	must(kb_store_session_begin(store, data, kb__session_meta__pack(&meta, data), &err), &err,
		"begin");
}

struct kb_record fix_record(enum kb_event event, double seconds, uint32_t pid)
{
	return (struct kb_record){.event = event,
		.time = fix_time(seconds),
		.pid = pid,
		.tid = pid,
		.lane = KB_LANE_NOTIFY,
		.syscall = -1,
		.rule = KB_RULE_NONE,
		.trust = KB_TRUST_RACY};
}

void fix_append(struct kb_store *store, const uint8_t *id, const struct kb_record *record)
{
	struct kb_block block;
	struct kb_err err;

	kb_block_init(&block);
	must(kb_block_add(&block, record, &err), &err, "add");
	must(kb_store_append(store, id, kb_store_last_seq(store, id) + 1, kb_buf_data(&block.buf),
		     kb_buf_len(&block.buf), &err),
		&err, "append");
	must(kb_store_commit(store, &err), &err, "commit");
	kb_block_finish(&block);
}

static struct kb_record exec_record(
	double at, uint32_t pid, uint32_t ppid, const char *exe, struct kb_bytes *argv, size_t argc)
{
	struct kb_record r = fix_record(KB_EVENT_EXEC, at, pid);

	r.ppid = ppid;
	r.syscall = 59;
	r.exe = r.path = fix_bytes(exe);
	r.argv = argv;
	r.argc = argc;
	r.outcome = KB_OUTCOME_OK;
	r.rule = 1;
	return r;
}

static struct kb_record open_record(double at, uint32_t pid, const char *path, uint32_t flags)
{
	struct kb_record r = fix_record(KB_EVENT_OPEN, at, pid);

	r.syscall = 257;
	r.path = fix_bytes(path);
	r.has_flags = true;
	r.flags = flags;
	r.rule = 2;
	return r;
}

static struct kb_record exit_record(double at, uint32_t pid, uint32_t ppid, int code)
{
	struct kb_record r = fix_record(KB_EVENT_EXIT, at, pid);

	r.ppid = ppid;
	r.has_exit_code = true;
	r.exit_code = code;
	return r;
}

static struct kb_record net_record(double at, uint32_t pid, uint8_t last, bool allowed)
{
	static uint8_t address[2][4] = {{10, 0, 0, 1}, {192, 0, 2, 7}};
	struct kb_record r = fix_record(KB_EVENT_CONNECT, at, pid);

	r.syscall = 42;
	r.family = 2;
	r.port = 443;
	r.address = (struct kb_bytes){address[last == 7], 4};
	if (!allowed) {
		r.decision = KB_DECISION_DENIED;
		r.outcome = KB_OUTCOME_FAILED;
		r.errnum = 13;
		r.rule = 3;
		r.host = fix_bytes("evil.example");
	}
	return r;
}

void fix_story_records(struct kb_store *store, const uint8_t *id)
{
	struct kb_bytes make[] = {fix_bytes("make"), fix_bytes("all")};
	struct kb_bytes gcc[] = {fix_bytes("gcc"), fix_bytes("-c"), fix_bytes("a b.c")};
	struct kb_bytes rm[] = {fix_bytes("rm"), fix_bytes("-rf"), fix_bytes("dist")};
	struct kb_bytes cat[] = {fix_bytes("cat"), fix_bytes("/home/dev/.ssh/id_ed25519")};
	struct kb_record r;

	r = fix_record(KB_EVENT_START, 0, 0);
	r.lane = KB_LANE_RUNTIME;
	r.text = fix_bytes("policy shell; landlock ABI 7");
	fix_append(store, id, &r); /* 1 */
	r = exec_record(1, 100, 1, "/usr/bin/make", make, 2);
	fix_append(store, id, &r); /* 2 */
	r = open_record(2, 100, "/home/dev/shop/Makefile", 02000000);
	fix_append(store, id, &r); /* 3 */
	r = exec_record(3, 101, 100, "/usr/bin/gcc", gcc, 3);
	fix_append(store, id, &r); /* 4 */
	r = open_record(4, 101, "/home/dev/shop/a b.o", 01 | 0100 | 01000);
	r.created = true;
	r.outcome = KB_OUTCOME_OK;
	r.has_mode = true;
	r.mode = 0644;
	fix_append(store, id, &r); /* 5 */
	r = open_record(5, 101, "/usr/include/none.h", 0);
	r.outcome = KB_OUTCOME_FAILED;
	r.errnum = 2;
	r.has_result = true;
	r.result = -2;
	fix_append(store, id, &r); /* 6 */
	r = exit_record(6, 101, 100, 0);
	fix_append(store, id, &r); /* 7 */
	r = exec_record(7, 102, 100, "/usr/bin/rm", rm, 3);
	fix_append(store, id, &r); /* 8 */
	r = fix_record(KB_EVENT_UNLINK, 8, 102);
	r.path = fix_bytes("/home/dev/shop/dist/.env");
	r.syscall = 263;
	r.outcome = KB_OUTCOME_OK;
	r.rule = 2;
	fix_append(store, id, &r); /* 9 */
	r = exec_record(9, 103, 100, "/usr/bin/cat", cat, 2);
	r.comm = fix_bytes("cat");
	fix_append(store, id, &r); /* 10 */
	r = open_record(10, 103, "/home/dev/.ssh/id_ed25519", 0);
	r.decision = KB_DECISION_DENIED;
	r.outcome = KB_OUTCOME_FAILED;
	r.errnum = 13;
	r.rule = 0;
	r.tid = 104;
	fix_append(store, id, &r); /* 11 */
	r = exit_record(11, 103, 100, 1);
	fix_append(store, id, &r); /* 12 */
	r = net_record(12, 102, 7, false);
	fix_append(store, id, &r); /* 13 */
	r = net_record(13, 102, 1, true);
	r.bytes = 4096;
	fix_append(store, id, &r); /* 14 */
}

void fix_story(struct kb_store *store, const uint8_t *id)
{
	const struct kb_session_end end = {.ended = fix_time(20), .complete = true};
	struct kb_err err;

	fix_story_records(store, id);
	must(kb_store_session_finish(store, id, &end, &err), &err, "finish"); /* 15 */
	must(kb_store_commit(store, &err), &err, "commit");
}

struct kb_view fix_view(char **text, size_t *len)
{
	return (struct kb_view){.out = open_memstream(text, len), .utc = true, .home = "/home/dev"};
}

void fix_view_end(struct kb_view *view)
{
	fclose(view->out);
}

static struct kb_reader *reader_of(const char *dir)
{
	struct kb_reader *reader;
	struct kb_err err;

	must(kb_reader_open(dir, &reader, &err), &err, "reader");
	return reader;
}

char *fix_query(const char *dir, const char *sessions, const char *expr, bool json)
{
	const struct kb_query query = {.sessions = sessions, .expr = expr};
	struct kb_reader *reader = reader_of(dir);
	char *text;
	size_t len;
	struct kb_view view = fix_view(&text, &len);
	struct kb_err err;

	view.json = json;
	must(kb_reader_query(reader, &query, &view, &err), &err, expr ? expr : "query");
	fix_view_end(&view);
	kb_reader_close(reader);
	return text;
}

char *fix_tree(const char *dir, const char *session, uint32_t around, bool json)
{
	struct kb_reader *reader = reader_of(dir);
	char *text;
	size_t len;
	struct kb_view view = fix_view(&text, &len);
	struct kb_err err;

	view.json = json;
	must(kb_reader_tree(reader, session, around, &view, &err), &err, "tree");
	fix_view_end(&view);
	kb_reader_close(reader);
	return text;
}

int fix_verify(const char *dir, const char *sessions, char **ret_out)
{
	struct kb_reader *reader = reader_of(dir);
	enum kb_verify verdict;
	char *text;
	size_t len;
	struct kb_view view = fix_view(&text, &len);
	struct kb_err err;

	must(kb_reader_verify(reader, sessions, &view, &verdict, &err), &err, "verify");
	fix_view_end(&view);
	kb_reader_close(reader);
	if (ret_out)
		*ret_out = text;
	else
		free(text);
	return (int)verdict;
}

char *fix_seqs(const char *dir, const char *expr)
{
	KB_FREE char *json = fix_query(dir, "last", expr, true);
	char *out = calloc(1, strlen(json) + 1), *p = json;
	size_t len = 0;

	while ((p = strstr(p, "{\"seq\":"))) {
		p += strlen("{\"seq\":");
		len += (size_t)sprintf(out + len, "%s%ld", len ? " " : "", strtol(p, NULL, 10));
	}
	return out;
}
