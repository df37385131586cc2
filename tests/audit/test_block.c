/* Packed blocks: what goes in comes out, the bytes are the protobuf they claim to be, and hostile
 * bytes are refused. */
#include "fixture.h"

#include <stdlib.h>
#include <string.h>

#include "audit/block.h"
#include "proto/record.pb-c.h"
#include "supervisor/base/util.h"

static bool same_bytes(struct kb_bytes a, struct kb_bytes b)
{
	return a.len == b.len && (a.data == NULL) == (b.data == NULL) &&
	       (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static void assert_same(const struct kb_record *a, const struct kb_record *b)
{
	assert_int_equal(a->time, b->time);
	assert_int_equal(a->event, b->event);
	assert_int_equal(a->lane, b->lane);
	assert_int_equal(a->pid, b->pid);
	assert_int_equal(a->tid ? a->tid : a->pid, b->tid);
	assert_int_equal(a->ppid, b->ppid);
	assert_int_equal(a->syscall, b->syscall);
	assert_int_equal(a->arch, b->arch);
	assert_int_equal(a->decision, b->decision);
	assert_int_equal(a->outcome, b->outcome);
	assert_int_equal(a->errnum, b->errnum);
	assert_int_equal(a->rule, b->rule);
	assert_int_equal(a->trust, b->trust);
	assert_int_equal(a->has_result, b->has_result);
	assert_int_equal(a->result, b->result);
	assert_int_equal(a->has_flags, b->has_flags);
	assert_int_equal(a->flags, b->flags);
	assert_int_equal(a->has_mode, b->has_mode);
	assert_int_equal(a->mode, b->mode);
	assert_int_equal(a->has_exit_code, b->has_exit_code);
	assert_int_equal(a->exit_code, b->exit_code);
	assert_int_equal(a->signal, b->signal);
	assert_int_equal(a->family, b->family);
	assert_int_equal(a->port, b->port);
	assert_int_equal(a->bytes, b->bytes);
	assert_int_equal(a->count, b->count);
	assert_int_equal(a->argv_lost, b->argv_lost);
	assert_int_equal(a->has_args, b->has_args);
	assert_memory_equal(a->args, b->args, sizeof(a->args));
	assert_true(same_bytes(a->path, b->path) && same_bytes(a->path2, b->path2));
	assert_true(same_bytes(a->path_arg, b->path_arg) && same_bytes(a->path2_arg, b->path2_arg));
	assert_true(same_bytes(a->exe, b->exe) && same_bytes(a->comm, b->comm));
	assert_true(same_bytes(a->cwd, b->cwd) && same_bytes(a->address, b->address));
	assert_true(same_bytes(a->host, b->host) && same_bytes(a->text, b->text));
	assert_true(same_bytes(a->secret, b->secret));
	assert_int_equal(a->argc, b->argc);
	for (size_t i = 0; i < a->argc; i++)
		assert_true(same_bytes(a->argv[i], b->argv[i]));
}

/* Random records from a small vocabulary, with every field now and then. */
static const char *const vocabulary[] = {"/usr/include/stdio.h", "/tmp/a\nb", "", "\xff\xfe", "gcc",
	"-O2", "/home/dev/x", "a b", "node", "example.org"};

static struct kb_bytes random_bytes(bool often)
{
	if (fix_random() % (often ? 3 : 12))
		return often ? fix_bytes(vocabulary[fix_random() % 10]) : (struct kb_bytes){0};
	return often ? (struct kb_bytes){0} : fix_bytes(vocabulary[fix_random() % 10]);
}

static void random_record(struct kb_record *r, struct kb_bytes argv[8], uint64_t *time)
{
	*time += (uint64_t)(fix_random() % 100000) - 20000; /* clocks step back too */
	*r = (struct kb_record){.time = *time,
		.event = (enum kb_event)(1 + fix_random() % (KB_EVENT_MAX_ - 1)),
		.lane = (enum kb_lane)(fix_random() % 5),
		.pid = (uint32_t)(fix_random() % 4 ? 7 : fix_random()),
		.ppid = fix_random() % 5 ? 0 : fix_random(),
		.syscall = fix_random() % 3 - 1 + (fix_random() % 4 ? 0 : 400),
		.arch = fix_random() % 9 ? 0 : 0xc000003e,
		.decision = (enum kb_decision)(fix_random() % 4),
		.outcome = (enum kb_outcome)(fix_random() % 4),
		.errnum = fix_random() % 3 ? 0 : fix_random() % 134,
		.rule = fix_random() % 3 ? KB_RULE_NONE : fix_random() % 1000,
		.trust = (enum kb_trust)(fix_random() % 4),
		.path = random_bytes(true),
		.path2 = random_bytes(false),
		.path_arg = random_bytes(false),
		.path2_arg = random_bytes(false),
		.exe = random_bytes(false),
		.comm = random_bytes(false),
		.cwd = random_bytes(false),
		.address = random_bytes(false),
		.host = random_bytes(false),
		.text = random_bytes(false),
		.secret = random_bytes(false),
		.family = fix_random() % 11,
		.port = fix_random() % 65536,
		.bytes = fix_random() % 9 ? 0 : (uint64_t)fix_random() << 31,
		.count = fix_random() % 9 ? 0 : (uint64_t)fix_random(),
		.argv_lost = fix_random() % 9 ? 0 : fix_random(),
		.signal = fix_random() % 9 ? 0 : 9,
		.argv = argv};
	r->tid = fix_random() % 3 ? r->pid : r->pid + 1;
	r->syscall = r->syscall < 0 ? -1 : r->syscall;
	if ((r->has_flags = fix_random() % 2))
		r->flags = fix_random();
	if ((r->has_mode = fix_random() % 4 == 0))
		r->mode = 0644;
	if ((r->has_result = fix_random() % 2))
		r->result = fix_random() % 2 ? -(int64_t)fix_random() : INT64_MIN;
	if ((r->has_exit_code = fix_random() % 5 == 0))
		r->exit_code = fix_random() % 300 - 2;
	if ((r->has_args = fix_random() % 6 == 0))
		for (int i = 0; i < 6; i++)
			r->args[i] = (uint64_t)fix_random() << 33 | (uint64_t)fix_random();
	r->argc = fix_random() % 4 ? 0 : (size_t)(fix_random() % 8);
	for (size_t i = 0; i < r->argc; i++)
		argv[i] = fix_bytes(vocabulary[fix_random() % 10]);
}

enum { ROUND = 500 };

static void check_generated(const struct kb_block *block, const struct kb_record *records)
{
	Kb__RecordBlock *msg =
		kb__record_block__unpack(NULL, kb_buf_len(&block->buf), kb_buf_data(&block->buf));
	uint64_t time;
	uint32_t shape = 0;

	assert_non_null(msg);
	assert_int_equal(msg->n_records, block->count);
	time = msg->base_time;
	for (size_t i = 0; i < msg->n_records; i++) {
		const Kb__Record *m = msg->records[i];

		shape = m->has_shape ? m->shape : shape;
		assert_true(shape < msg->n_shapes);
		assert_int_equal(msg->shapes[shape]->event, records[i].event);
		assert_int_equal(msg->shapes[shape]->decision, records[i].decision);
		time += (uint64_t)m->dtime;
		assert_int_equal(time, records[i].time);
		assert_int_equal(m->has_path, records[i].path.data != NULL);
		if (m->has_path)
			assert_true(same_bytes(records[i].path,
				(struct kb_bytes){msg->strings[m->path - 1].data
							  ? msg->strings[m->path - 1].data
							  : (uint8_t *)"",
					msg->strings[m->path - 1].len}));
		assert_int_equal(m->n_argv, records[i].argc);
		assert_int_equal(m->n_args, records[i].has_args ? 6 : 0);
	}
	kb__record_block__free_unpacked(msg, NULL);
}

static void test_round_trip(void **state)
{
	static struct kb_record records[ROUND];
	static struct kb_bytes argv[ROUND][8];
	struct kb_block_iter iter = {0};
	struct kb_block block;
	struct kb_record got;
	struct kb_err err;
	uint64_t time = FIX_START;
	uint32_t count, denials;

	fix_seed(7);
	kb_block_init(&block);
	for (int round = 0; round < 20; round++) {
		denials = 0;
		for (int i = 0; i < ROUND; i++) {
			random_record(&records[i], argv[i], &time);
			assert_int_equal(kb_block_add(&block, &records[i], &err), 0);
			denials += records[i].decision != KB_DECISION_ALLOWED;
		}
		assert_int_equal(block.count, ROUND);
		assert_int_equal(block.denials, denials);
		assert_int_equal(kb_block_check(kb_buf_data(&block.buf), kb_buf_len(&block.buf),
					 &count, &err),
			0);
		assert_int_equal(count, ROUND);
		assert_int_equal(kb_block_iter_begin(&iter, kb_buf_data(&block.buf),
					 kb_buf_len(&block.buf), &err),
			0);
		for (int i = 0; i < ROUND; i++) {
			assert_int_equal(kb_block_iter_next(&iter, &got, &err), 1);
			assert_same(&records[i], &got);
		}
		assert_int_equal(kb_block_iter_next(&iter, &got, &err), 0);
		check_generated(&block, records);
		if (round % 2)
			kb_block_reset(&block);
		else /* emptied by hand, as a sender may */
			kb_buf_consume(&block.buf, kb_buf_len(&block.buf));
	}
	kb_block_iter_finish(&iter);
	kb_block_finish(&block);
}

static void test_full(void **state)
{
	static uint8_t big[KB_BLOCK_MAX / 2];
	struct kb_record r = fix_record(KB_EVENT_OPEN, 0, 1);
	struct kb_block block;
	struct kb_err err;
	size_t before;

	kb_block_init(&block);
	memset(big, 'x', sizeof(big));
	r.path = (struct kb_bytes){big, sizeof(big)};
	assert_int_equal(kb_block_add(&block, &r, &err), 0);
	before = kb_buf_len(&block.buf);
	big[0] = 'y';
	assert_int_equal(kb_block_add(&block, &r, &err), -KB_ERR_LIMIT);
	assert_int_equal(kb_buf_len(&block.buf), before);
	assert_int_equal(block.count, 1);
	r.path = fix_bytes("/small"); /* what fits still goes in */
	assert_int_equal(kb_block_add(&block, &r, &err), 0);
	kb_block_reset(&block);
	for (uint32_t i = 0; i < KB_BLOCK_RECORDS_MAX; i++)
		assert_int_equal(kb_block_add(&block, &r, &err), 0);
	assert_int_equal(kb_block_add(&block, &r, &err), -KB_ERR_LIMIT);
	kb_block_finish(&block);
}

/* A megabyte of arguments is kept exactly; far too many are counted. */
static void test_long_argv(void **state)
{
	static struct kb_bytes argv[KB_RECORD_ARGC_MAX + 10];
	static uint8_t arg[1 << 20];
	struct kb_record r = fix_record(KB_EVENT_EXEC, 0, 1), got;
	struct kb_block_iter iter = {0};
	struct kb_block block;
	struct kb_err err;

	memset(arg, 'a', sizeof(arg));
	argv[0] = (struct kb_bytes){arg, sizeof(arg)};
	for (size_t i = 1; i < KB_RECORD_ARGC_MAX + 10; i++)
		argv[i] = fix_bytes("x");
	r.argv = argv;
	r.argc = 3;
	kb_block_init(&block);
	assert_int_equal(kb_block_add(&block, &r, &err), 0);
	argv[0] = fix_bytes("sh");
	r.argc = 40000;
	assert_int_equal(kb_block_add(&block, &r, &err), 0);
	assert_int_equal(
		kb_block_iter_begin(&iter, kb_buf_data(&block.buf), kb_buf_len(&block.buf), &err),
		0);
	assert_int_equal(kb_block_iter_next(&iter, &got, &err), 1);
	assert_int_equal(got.argc, 3);
	assert_int_equal(got.argv[0].len, sizeof(arg));
	assert_memory_equal(got.argv[0].data, arg, sizeof(arg));
	assert_int_equal(kb_block_iter_next(&iter, &got, &err), 1);
	assert_int_equal(got.argc, 40000);
	assert_int_equal(got.argv_lost, 0);
	kb_block_iter_finish(&iter);
	kb_block_finish(&block);
}

static void test_hostile(void **state)
{
	/* One per rule of the reader: what is wrong, and the bytes. */
	static const struct {
		const char *what;
		const char *bytes;
		size_t len;
	} bad[] = {
		{"nothing", "", 0},
		{"no record", "\x12\x01x", 3},
		{"a record without a shape", "\x0a\x00", 2},
		{"an event out of range", "\x1a\x02\x08\x63\x0a\x00", 6},
		{"no event", "\x1a\x02\x10\x01\x0a\x00", 6},
		{"an unknown field of a shape", "\x1a\x04\x08\x04\x78\x01\x0a\x00", 8},
		{"a lane out of range", "\x1a\x04\x08\x04\x10\x09\x0a\x00", 8},
		{"a string before it is defined", "\x1a\x02\x08\x04\x0a\x02\x20\x01\x12\x01x", 11},
		{"a shape before it is defined", "\x1a\x02\x08\x04\x0a\x02\x08\x01", 8},
		{"a length past the end", "\x1a\x02\x08\x04\x0a\x7f\x08", 7},
		{"an endless number",
			"\x1a\x02\x08\x04\x0a\x0c\x10\xff\xff\xff\xff\xff\xff\xff\xff"
			"\xff\xff\x01",
			18},
		{"an unknown part", "\x1a\x02\x08\x04\x0a\x00\x2a\x00", 8},
		{"an unknown field of a record", "\x1a\x02\x08\x04\x0a\x03\xd0\x0f\x01", 9},
		{"too few registers", "\x1a\x02\x08\x04\x0a\x04\xaa\x01\x01\x05", 10},
		{"a late base time", "\x1a\x02\x08\x04\x0a\x00\x21\1\2\3\4\5\6\7\x08", 15},
		{"a pid of more than 32 bits",
			"\x1a\x02\x08\x04\x0a\x07\x18\xff\xff\xff\xff\xff\x01", 13},
	};
	struct kb_err err;
	uint32_t count;

	for (size_t i = 0; i < KB_ARRAY_LEN(bad); i++)
		if (kb_block_check((const uint8_t *)bad[i].bytes, bad[i].len, &count, &err) !=
			-KB_ERR_INVALID)
			fail_msg("%s is not refused", bad[i].what);
	assert_int_equal(
		kb_block_check((const uint8_t *)"\x1a\x02\x08\x04\x0a\x00", 6, &count, &err), 0);
	assert_int_equal(count, 1);
}

/* Every cut and many changed bytes of a good block: an error or a record count, never a crash. */
static void test_damaged(void **state)
{
	struct kb_bytes argv[8];
	struct kb_record r;
	struct kb_block block;
	struct kb_err err;
	uint64_t time = FIX_START;
	uint8_t *copy;
	size_t len, refused = 0;

	fix_seed(3);
	kb_block_init(&block);
	for (int i = 0; i < 40; i++) {
		random_record(&r, argv, &time);
		assert_int_equal(kb_block_add(&block, &r, &err), 0);
	}
	len = kb_buf_len(&block.buf);
	for (size_t cut = 0; cut < len; cut++) {
		copy = malloc(cut + 1); /* its own allocation: reads past it are seen */
		memcpy(copy, kb_buf_data(&block.buf), cut);
		kb_block_check(copy, cut, NULL, &err);
		free(copy);
	}
	for (int i = 0; i < 20000; i++) {
		copy = malloc(len);
		memcpy(copy, kb_buf_data(&block.buf), len);
		copy[(size_t)fix_random() % len] = (uint8_t)fix_random();
		refused += kb_block_check(copy, len, NULL, &err) < 0;
		free(copy);
	}
	assert_in_range(refused, 1000, 20000);
	kb_block_finish(&block);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_long_argv),
		cmocka_unit_test(test_hostile),
		cmocka_unit_test(test_damaged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
