/* Writing packed blocks.
 *
 * A block is one protobuf message, RecordBlock (record.proto), written front to back. Shapes and
 * strings are interned: the first record that needs one makes it be written just before it, later
 * ones name it by number. Two small open-addressing tables find what is there already; they hold
 * numbers and positions in the buffer, never copies. Everything a record can need is bounded and
 * reserved before its first byte is written, so adding either succeeds or changes nothing.
 *
 * Table slots are found by a keyed hash: the strings are chosen by the audited programs, which must
 * not be able to slow the collector down by colliding them.
 */
#include "block.h"
#include "supervisor/base/os.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#define DICT_MIN	64u
#define RECORD_FIXED	400u /* bound of all numbers of a record and its shape */
#define STRING_OVERHEAD 12u  /* tag, length and one reference */

struct string_slot {
	uint32_t number; /* 0: free */
	uint32_t off;	 /* in the block */
	uint32_t len;
	uint32_t hash;
};

struct kb_block_dict {
	uint64_t key;
	struct string_slot *strings;
	uint32_t strings_cap, n_strings;
	struct kb_shape *shapes;
	uint32_t *shape_slots; /* 1 + index in shapes; 0: free */
	uint32_t shapes_cap, n_shapes;
	uint64_t time;
	uint32_t pid, shape;
};

static inline uint64_t mix(uint64_t a, uint64_t b)
{
	__uint128_t m = (__uint128_t)a * b;

	return (uint64_t)m ^ (uint64_t)(m >> 64);
}

/* Multiply-fold over 8-byte words, in the manner of wyhash. */
static uint32_t hash_bytes(uint64_t key, const void *data, size_t len)
{
	uint64_t h = key ^ len * 0x9e3779b97f4a7c15u, word;
	const uint8_t *p = data;

	for (; len >= 8; len -= 8, p += 8) {
		memcpy(&word, p, 8);
		h = mix(h ^ word, key | 1);
	}
	word = 0;
	if (len)
		memcpy(&word, p, len);
	h = mix(h ^ word, 0xa0761d6478bd642fu);
	return (uint32_t)(h ^ h >> 32);
}

static void dict_destroy(struct kb_block_dict *dict)
{
	if (!dict)
		return;
	free(dict->strings);
	free(dict->shapes);
	free(dict->shape_slots);
	free(dict);
}

static void dict_clear(struct kb_block_dict *dict)
{
	memset(dict->strings, 0, dict->strings_cap * sizeof(*dict->strings));
	memset(dict->shape_slots, 0, 2 * dict->shapes_cap * sizeof(*dict->shape_slots));
	dict->n_strings = dict->n_shapes = 0;
	dict->time = 0;
	dict->pid = dict->shape = 0;
}

static struct kb_block_dict *dict_create(void)
{
	struct kb_block_dict *dict = calloc(1, sizeof(*dict));

	if (!dict)
		return NULL;
	dict->strings_cap = dict->shapes_cap = DICT_MIN;
	dict->strings = calloc(DICT_MIN, sizeof(*dict->strings));
	dict->shapes = calloc(DICT_MIN, sizeof(*dict->shapes));
	dict->shape_slots = calloc(2 * (size_t)DICT_MIN, sizeof(*dict->shape_slots));
	if (!dict->strings || !dict->shapes || !dict->shape_slots ||
		kb_os_random(&dict->key, sizeof(dict->key)) < 0) {
		dict_destroy(dict);
		return NULL;
	}
	return dict;
}

/* Room for n more strings at a load of at most one half. */
static bool strings_reserve(struct kb_block_dict *dict, uint32_t n)
{
	uint32_t cap = dict->strings_cap, at;
	struct string_slot *slots;

	while (2 * ((uint64_t)dict->n_strings + n) > cap)
		cap *= 2;
	if (cap == dict->strings_cap)
		return true;
	slots = calloc(cap, sizeof(*slots));
	if (!slots)
		return false;
	for (uint32_t i = 0; i < dict->strings_cap; i++) {
		if (!dict->strings[i].number)
			continue;
		at = dict->strings[i].hash & (cap - 1);
		while (slots[at].number)
			at = (at + 1) & (cap - 1);
		slots[at] = dict->strings[i];
	}
	free(dict->strings);
	dict->strings = slots;
	dict->strings_cap = cap;
	return true;
}

static void shape_slot_set(struct kb_block_dict *dict, uint32_t *slots, uint32_t mask, uint32_t i)
{
	uint32_t at = hash_bytes(dict->key, &dict->shapes[i], sizeof(dict->shapes[i])) & mask;

	while (slots[at])
		at = (at + 1) & mask;
	slots[at] = i + 1;
}

static bool shapes_reserve(struct kb_block_dict *dict)
{
	uint32_t cap = 2 * dict->shapes_cap, *slots;
	struct kb_shape *shapes;

	if (dict->n_shapes < dict->shapes_cap)
		return true;
	shapes = realloc(dict->shapes, cap * sizeof(*shapes));
	if (!shapes)
		return false;
	dict->shapes = shapes;
	slots = calloc(2 * (size_t)cap, sizeof(*slots));
	if (!slots)
		return false;
	for (uint32_t i = 0; i < dict->n_shapes; i++)
		shape_slot_set(dict, slots, 2 * cap - 1, i);
	free(dict->shape_slots);
	dict->shape_slots = slots;
	dict->shapes_cap = cap;
	return true;
}

void kb_block_init(struct kb_block *block)
{
	*block = (struct kb_block){0};
	kb_buf_init(&block->buf, KB_BLOCK_MAX);
}

void kb_block_finish(struct kb_block *block)
{
	kb_buf_finish(&block->buf);
	dict_destroy(block->dict);
	block->dict = NULL;
	block->count = block->denials = 0;
}

void kb_block_reset(struct kb_block *block)
{
	kb_buf_consume(&block->buf, kb_buf_len(&block->buf));
	if (block->dict)
		dict_clear(block->dict);
	block->count = block->denials = 0;
}

/* ---- One record ------------------------------------------------------------------------------ */

struct writer {
	struct kb_block_dict *dict;
	uint8_t *start; /* of the block */
	uint8_t *p;
};

static uint32_t intern(struct writer *w, const struct kb_bytes *s)
{
	struct kb_block_dict *dict = w->dict;
	uint32_t hash, at, mask = dict->strings_cap - 1;
	struct string_slot *slot;

	if (!s->data)
		return 0;
	hash = hash_bytes(dict->key, s->data, s->len);
	for (at = hash & mask; (slot = &dict->strings[at])->number; at = (at + 1) & mask)
		if (slot->hash == hash && slot->len == s->len &&
			memcmp(w->start + slot->off, s->data, s->len) == 0)
			return slot->number;
	w->p = kb_wire_put_bytes(w->p, 2, s->data, s->len);
	*slot = (struct string_slot){.number = ++dict->n_strings,
		.off = (uint32_t)(w->p - s->len - w->start),
		.len = (uint32_t)s->len,
		.hash = hash};
	return slot->number;
}

static struct kb_shape shape_of(const struct kb_record *r)
{
	return (struct kb_shape){
		.event = r->event,
		.lane = r->lane,
		.arch = r->arch,
		.decision = r->decision,
		.outcome = r->outcome,
		.rule = r->rule == KB_RULE_NONE ? 0 : r->rule + 1,
		.trust = r->trust,
		.family = r->family,
		.port = r->port,
		.syscall = r->syscall < 0 ? -1 : r->syscall,
		.errnum = r->errnum < 0 ? 0 : r->errnum,
		.flags = r->has_flags ? r->flags : 0,
		.mode = r->has_mode ? r->mode : 0,
		.created = r->created,
		.has = (r->has_flags ? KB_SHAPE_FLAGS : 0) | (r->has_mode ? KB_SHAPE_MODE : 0),
	};
}

static void put_shape(struct writer *w, const struct kb_shape *s)
{
	uint8_t piece[128], *p = piece;

	p = kb_wire_put_field(p, 1, s->event);
	if (s->lane)
		p = kb_wire_put_field(p, 2, s->lane);
	if (s->syscall >= 0)
		p = kb_wire_put_field(p, 3, (uint32_t)s->syscall);
	if (s->arch)
		p = kb_wire_put_field(p, 4, s->arch);
	if (s->decision)
		p = kb_wire_put_field(p, 5, s->decision);
	if (s->outcome)
		p = kb_wire_put_field(p, 6, s->outcome);
	if (s->errnum)
		p = kb_wire_put_field(p, 7, (uint32_t)s->errnum);
	if (s->rule)
		p = kb_wire_put_field(p, 8, s->rule);
	if (s->trust)
		p = kb_wire_put_field(p, 9, s->trust);
	if (s->has & KB_SHAPE_FLAGS)
		p = kb_wire_put_field(p, 10, s->flags);
	if (s->has & KB_SHAPE_MODE)
		p = kb_wire_put_field(p, 11, s->mode);
	if (s->family)
		p = kb_wire_put_field(p, 12, s->family);
	if (s->port)
		p = kb_wire_put_field(p, 13, s->port);
	if (s->created)
		p = kb_wire_put_field(p, 14, 1);
	w->p = kb_wire_put_bytes(w->p, 3, piece, (size_t)(p - piece));
}

static uint32_t intern_shape(struct writer *w, const struct kb_shape *shape)
{
	struct kb_block_dict *dict = w->dict;
	uint32_t mask = 2 * dict->shapes_cap - 1, at;

	if (dict->n_shapes && memcmp(&dict->shapes[dict->shape], shape, sizeof(*shape)) == 0)
		return dict->shape;
	at = hash_bytes(dict->key, shape, sizeof(*shape)) & mask;
	for (; dict->shape_slots[at]; at = (at + 1) & mask)
		if (memcmp(&dict->shapes[dict->shape_slots[at] - 1], shape, sizeof(*shape)) == 0)
			return dict->shape_slots[at] - 1;
	put_shape(w, shape);
	dict->shapes[dict->n_shapes] = *shape;
	dict->shape_slots[at] = ++dict->n_shapes;
	return dict->n_shapes - 1;
}

/* The strings of a record that are named by one field each: field number and place. */
static const struct {
	unsigned field;
	size_t offset;
} string_fields[] = {
	{4, offsetof(struct kb_record, path)},
	{5, offsetof(struct kb_record, path2)},
	{7, offsetof(struct kb_record, exe)},
	{8, offsetof(struct kb_record, comm)},
	{9, offsetof(struct kb_record, cwd)},
	{14, offsetof(struct kb_record, path_arg)},
	{15, offsetof(struct kb_record, host)},
	{16, offsetof(struct kb_record, address)},
	{19, offsetof(struct kb_record, text)},
	{23, offsetof(struct kb_record, path2_arg)},
	{24, offsetof(struct kb_record, secret)},
};

static const struct kb_bytes *string_at(const struct kb_record *record, size_t i)
{
	return (const struct kb_bytes *)((const uint8_t *)record + string_fields[i].offset);
}

/* Everything of the record but its strings and shape. */
static uint8_t *put_numbers(uint8_t *p, struct kb_block_dict *dict, const struct kb_record *r)
{
	if (r->pid != dict->pid)
		p = kb_wire_put_field(p, 3, r->pid);
	if (r->ppid)
		p = kb_wire_put_field(p, 10, r->ppid);
	if (r->tid && r->tid != r->pid)
		p = kb_wire_put_field(p, 11, r->tid);
	if (r->has_exit_code)
		p = kb_wire_put_field(p, 12, kb_wire_zigzag(r->exit_code));
	if (r->has_result)
		p = kb_wire_put_field(p, 13, kb_wire_zigzag(r->result));
	if (r->bytes)
		p = kb_wire_put_field(p, 17, r->bytes);
	if (r->count)
		p = kb_wire_put_field(p, 18, r->count);
	if (r->signal)
		p = kb_wire_put_field(p, 20, r->signal);
	return p;
}

static uint8_t *put_args(uint8_t *p, const struct kb_record *r)
{
	uint8_t piece[6 * KB_WIRE_VARINT_MAX], *q = piece;

	if (!r->has_args)
		return p;
	for (size_t i = 0; i < KB_ARRAY_LEN(r->args); i++)
		q = kb_wire_put(q, r->args[i]);
	return kb_wire_put_bytes(p, 21, piece, (size_t)(q - piece));
}

static const struct kb_bytes *arg_at(const struct kb_record *r, size_t i)
{
	static const struct kb_bytes empty = {(const uint8_t *)"", 0};

	return r->argv[i].data ? &r->argv[i] : &empty;
}

/* argv as a packed list of string numbers. They are found twice, to know the list's length. */
static uint8_t *put_argv(
	struct writer *w, uint8_t *p, const struct kb_record *r, size_t argc, size_t list_len)
{
	p = kb_wire_put(p, KB_WIRE_TAG(6, KB_WIRE_BYTES));
	p = kb_wire_put(p, list_len);
	for (size_t i = 0; i < argc; i++)
		p = kb_wire_put(p, intern(w, arg_at(r, i)));
	return p;
}

static size_t intern_argv(struct writer *w, const struct kb_record *r, size_t argc)
{
	size_t len = 0;

	for (size_t i = 0; i < argc; i++)
		len += kb_wire_size(intern(w, arg_at(r, i)));
	return len;
}

/* Writes shape and strings at w->p, then the record after them. */
static void put_record(struct writer *w, const struct kb_record *r, size_t argc, uint32_t argv_lost)
{
	uint8_t piece[RECORD_FIXED], *p = piece;
	struct kb_block_dict *dict = w->dict;
	struct kb_shape shape = shape_of(r);
	uint32_t number = intern_shape(w, &shape);
	size_t list_len = intern_argv(w, r, argc), len;

	if (number != dict->shape)
		p = kb_wire_put_field(p, 1, number);
	p = kb_wire_put_field(p, 2, kb_wire_zigzag((int64_t)(r->time - dict->time)));
	p = put_numbers(p, dict, r);
	for (size_t i = 0; i < KB_ARRAY_LEN(string_fields); i++)
		if (string_at(r, i)->data)
			p = kb_wire_put_field(
				p, string_fields[i].field, intern(w, string_at(r, i)));
	if (argv_lost)
		p = kb_wire_put_field(p, 22, argv_lost);
	p = put_args(p, r);
	len = (size_t)(p - piece);
	if (argc)
		len += 1 + kb_wire_size(list_len) + list_len;
	w->p = kb_wire_put(kb_wire_put(w->p, KB_WIRE_TAG(1, KB_WIRE_BYTES)), len);
	memcpy(w->p, piece, (size_t)(p - piece));
	w->p += p - piece;
	if (argc)
		w->p = put_argv(w, w->p, r, argc, list_len);
	dict->shape = number;
	dict->time = r->time;
	dict->pid = r->pid;
}

/* The most bytes and new strings this record can take. */
static size_t bound(const struct kb_record *r, size_t argc, uint32_t *ret_strings)
{
	size_t size = RECORD_FIXED + 32;
	uint32_t n = 0;

	for (size_t i = 0; i < KB_ARRAY_LEN(string_fields); i++) {
		if (!string_at(r, i)->data)
			continue;
		size += string_at(r, i)->len + STRING_OVERHEAD;
		n++;
	}
	for (size_t i = 0; i < argc; i++)
		size += r->argv[i].len + STRING_OVERHEAD;
	*ret_strings = n + (uint32_t)argc;
	return size;
}

static uint32_t argv_past(const struct kb_record *r, size_t argc)
{
	uint64_t lost = r->argv_lost;

	for (size_t i = argc; i < r->argc; i++)
		lost += r->argv[i].len + 1;
	return lost > UINT32_MAX ? UINT32_MAX : (uint32_t)lost;
}

static int reserve(struct kb_block *block, size_t size, uint32_t n_strings, struct kb_err *err)
{
	uint8_t *room;
	int r;

	if (block->count >= KB_BLOCK_RECORDS_MAX || kb_buf_len(&block->buf) + size > KB_BLOCK_MAX)
		return kb_err_set(err, KB_ERR_LIMIT, "the block of records is full");
	r = kb_buf_reserve(&block->buf, size, &room, err);
	if (r < 0)
		return r;
	if (!strings_reserve(block->dict, n_strings) || !shapes_reserve(block->dict))
		return kb_err_nomem(err);
	return 0;
}

int kb_block_add(struct kb_block *block, const struct kb_record *record, struct kb_err *err)
{
	size_t argc = KB_MIN(record->argc, KB_RECORD_ARGC_MAX), size;
	uint32_t n_strings;
	struct writer w;
	int r;

	if (record->event <= KB_EVENT_NONE || record->event >= KB_EVENT_MAX_)
		return kb_err_set(err, KB_ERR_INVALID, "a record has no known event");
	if (!block->dict && !(block->dict = dict_create()))
		return kb_err_nomem(err);
	if (kb_buf_len(&block->buf) == 0)
		kb_block_reset(block);
	size = bound(record, argc, &n_strings);
	r = reserve(block, size, n_strings, err);
	if (r < 0)
		return r;
	w = (struct writer){.dict = block->dict,
		.start = kb_buf_data(&block->buf),
		.p = kb_buf_data(&block->buf) + kb_buf_len(&block->buf)};
	if (block->count == 0) {
		*w.p++ = KB_WIRE_TAG(4, KB_WIRE_FIXED64);
		for (int i = 0; i < 8; i++)
			*w.p++ = (uint8_t)(record->time >> (8 * i));
		block->dict->time = record->time;
	}
	put_record(&w, record, argc, argv_past(record, argc));
	kb_buf_commit(&block->buf, (size_t)(w.p - w.start) - kb_buf_len(&block->buf));
	block->count++;
	block->denials += record->decision != KB_DECISION_ALLOWED;
	return 0;
}
