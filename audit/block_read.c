/* Reading packed blocks, which may come from anywhere: a compromised machine, a damaged disk.
 *
 * One pass, no copies: strings stay where they are in the block and are found through a table of
 * places. What a block can make this code allocate is bounded by its own size, and by
 * KB_RECORD_ARGC_MAX for the list of arguments. The reader is strict: a field it does not know, a
 * number before its definition, a value outside its enumeration, an over-long list, and a block
 * without a record are malformed. */
#include "block.h"

#include "record.h"

#define TABLE_MIN 256u

static int malformed(struct kb_err *err, const char *what)
{
	return kb_err_set(err, KB_ERR_INVALID, "the block of records is malformed: %s", what);
}

/* Grow *table to hold index n; memory stays bounded because n counts things read from the block. */
static bool table_grow(void *table, uint32_t *cap, uint32_t n, size_t size)
{
	void **p = table, *mem;
	uint32_t want = *cap ? *cap : TABLE_MIN;

	if (n < *cap)
		return true;
	while (want <= n)
		want *= 2;
	mem = realloc(*p, want * size);
	if (!mem)
		return false;
	*p = mem;
	*cap = want;
	return true;
}

int kb_block_iter_begin(
	struct kb_block_iter *iter, const uint8_t *data, size_t len, struct kb_err *err)
{
	if (len == 0 || len > KB_BLOCK_MAX)
		return malformed(err, "its size is out of bounds");
	iter->wire = (struct kb_wire){data, data + len, false};
	iter->n_shapes = 0;
	iter->time = 0;
	iter->pid = iter->shape = iter->path_ref = iter->count = 0;
	if (!table_grow(&iter->strings, &iter->strings_cap, 0, sizeof(*iter->strings)))
		return kb_err_nomem(err);
	iter->strings[0] = (struct kb_bytes){0};
	iter->n_strings = 1;
	return 0;
}

void kb_block_iter_finish(struct kb_block_iter *iter)
{
	free(iter->strings);
	free(iter->shapes);
	free(iter->argv);
	*iter = (struct kb_block_iter){0};
}

static int read_string(struct kb_block_iter *iter, struct kb_err *err)
{
	struct kb_wire piece = kb_wire_get_bytes(&iter->wire);

	if (iter->wire.bad)
		return malformed(err, "a string is cut short");
	if (!table_grow(
		    &iter->strings, &iter->strings_cap, iter->n_strings, sizeof(*iter->strings)))
		return kb_err_nomem(err);
	iter->strings[iter->n_strings++] =
		(struct kb_bytes){piece.p, (size_t)(piece.end - piece.p)};
	return 0;
}

/* ---- Shapes ---------------------------------------------------------------------------------- */

/* Field number → place in struct kb_shape, its bound (exclusive; 0: 32 bits), presence bit. */
static const struct shape_field {
	uint16_t offset;
	uint32_t bound;
	uint32_t has;
} shape_fields[] = {
	[1] = {offsetof(struct kb_shape, event), KB_EVENT_MAX_, 0},
	[2] = {offsetof(struct kb_shape, lane), KB_LANE_MAX_, 0},
	[3] = {offsetof(struct kb_shape, syscall), INT32_MAX, 0},
	[4] = {offsetof(struct kb_shape, arch), 0, 0},
	[5] = {offsetof(struct kb_shape, decision), KB_DECISION_MAX_, 0},
	[6] = {offsetof(struct kb_shape, outcome), KB_OUTCOME_MAX_, 0},
	[7] = {offsetof(struct kb_shape, errnum), INT32_MAX, 0},
	[8] = {offsetof(struct kb_shape, rule), 0, 0},
	[9] = {offsetof(struct kb_shape, trust), KB_TRUST_MAX_, 0},
	[10] = {offsetof(struct kb_shape, flags), 0, KB_SHAPE_FLAGS},
	[11] = {offsetof(struct kb_shape, mode), 0, KB_SHAPE_MODE},
	[12] = {offsetof(struct kb_shape, family), 0, 0},
	[13] = {offsetof(struct kb_shape, port), 0, 0},
	[14] = {offsetof(struct kb_shape, created), 2, 0},
};

static int read_shape(struct kb_block_iter *iter, struct kb_err *err)
{
	struct kb_wire w = kb_wire_get_bytes(&iter->wire);
	struct kb_shape shape = {.syscall = -1};
	const struct shape_field *field;
	uint64_t tag, value;
	uint32_t small;

	if (iter->wire.bad)
		return malformed(err, "a shape is cut short");
	while (w.p < w.end) {
		tag = kb_wire_get(&w);
		value = kb_wire_get(&w);
		if (w.bad || (tag & 7) != KB_WIRE_VARINT || tag >> 3 == 0 ||
			tag >> 3 >= KB_ARRAY_LEN(shape_fields))
			return malformed(err, "a shape has a field that is not known");
		field = &shape_fields[tag >> 3];
		if (value > UINT32_MAX || (field->bound && value >= field->bound))
			return malformed(err, "a shape has a value out of range");
		small = (uint32_t)value;
		memcpy((uint8_t *)&shape + field->offset, &small, sizeof(small));
		shape.has |= field->has;
	}
	if (shape.event == KB_EVENT_NONE)
		return malformed(err, "a shape has no event");
	if (!table_grow(&iter->shapes, &iter->shapes_cap, iter->n_shapes, sizeof(*iter->shapes)))
		return kb_err_nomem(err);
	iter->shapes[iter->n_shapes++] = shape;
	return 0;
}

static void apply_shape(struct kb_record *r, const struct kb_shape *s)
{
	r->event = s->event;
	r->lane = s->lane;
	r->arch = s->arch;
	r->decision = s->decision;
	r->outcome = s->outcome;
	r->rule = s->rule ? s->rule - 1 : KB_RULE_NONE;
	r->trust = s->trust;
	r->family = s->family;
	r->port = s->port;
	r->syscall = s->syscall;
	r->errnum = s->errnum;
	r->flags = s->flags;
	r->mode = s->mode;
	r->has_flags = s->has & KB_SHAPE_FLAGS;
	r->has_mode = s->has & KB_SHAPE_MODE;
	r->created = s->created;
}

/* ---- Records --------------------------------------------------------------------------------- */

static bool get_ref(const struct kb_block_iter *iter, uint64_t number, struct kb_bytes *ret)
{
	if (number >= iter->n_strings)
		return false;
	*ret = iter->strings[number];
	return true;
}

static bool get_argv(struct kb_block_iter *iter, struct kb_wire list, struct kb_record *r)
{
	uint32_t n = 0;

	while (list.p < list.end) {
		if (n >= KB_RECORD_ARGC_MAX ||
			!table_grow(&iter->argv, &iter->argv_cap, n, sizeof(*iter->argv)) ||
			!get_ref(iter, kb_wire_get(&list), &iter->argv[n]) || list.bad)
			return false;
		n++;
	}
	r->argv = iter->argv;
	r->argc = n;
	return true;
}

static bool get_args(struct kb_wire list, struct kb_record *r)
{
	for (size_t i = 0; i < KB_ARRAY_LEN(r->args); i++)
		r->args[i] = kb_wire_get(&list);
	r->has_args = true;
	return !list.bad && list.p == list.end;
}

static bool get_u32(uint64_t value, uint32_t *ret)
{
	*ret = (uint32_t)value;
	return value <= UINT32_MAX;
}

static bool get_exit_code(uint64_t value, struct kb_record *r)
{
	int64_t code = kb_wire_unzigzag(value);

	r->exit_code = (int32_t)code;
	r->has_exit_code = true;
	return code >= INT32_MIN && code <= INT32_MAX;
}

/* One field with a number. The commonest come first. */
static bool read_field(
	struct kb_block_iter *iter, struct kb_record *r, uint64_t field, uint64_t value)
{
	switch (field) {
	case 1:
		iter->shape = (uint32_t)value;
		return value < iter->n_shapes;
	case 2:
		iter->time += (uint64_t)kb_wire_unzigzag(value);
		return true;
	case 3:
		return get_u32(value, &iter->pid);
	case 4:
		iter->path_ref = (uint32_t)value;
		return get_ref(iter, value, &r->path);
	case 5:
		return get_ref(iter, value, &r->path2);
	case 7:
		return get_ref(iter, value, &r->exe);
	case 8:
		return get_ref(iter, value, &r->comm);
	case 9:
		return get_ref(iter, value, &r->cwd);
	case 10:
		return get_u32(value, &r->ppid);
	case 11:
		return get_u32(value, &r->tid);
	case 12:
		return get_exit_code(value, r);
	case 13:
		r->result = kb_wire_unzigzag(value);
		return r->has_result = true;
	case 14:
		return get_ref(iter, value, &r->path_arg);
	case 15:
		return get_ref(iter, value, &r->host);
	case 16:
		return get_ref(iter, value, &r->address);
	case 17:
		r->bytes = value;
		return true;
	case 18:
		r->count = value;
		return true;
	case 19:
		return get_ref(iter, value, &r->text);
	case 20:
		return get_u32(value, &r->signal);
	case 22:
		return get_u32(value, &r->argv_lost);
	case 23:
		return get_ref(iter, value, &r->path2_arg);
	case 24:
		return get_ref(iter, value, &r->secret);
	default:
		return false;
	}
}

static bool read_list(
	struct kb_block_iter *iter, struct kb_record *r, uint64_t field, struct kb_wire list)
{
	if (field == 6)
		return get_argv(iter, list, r);
	return field == 21 && get_args(list, r);
}

static int read_record(struct kb_block_iter *iter, struct kb_record *r, struct kb_err *err)
{
	struct kb_wire w = kb_wire_get_bytes(&iter->wire);
	uint64_t tag;
	bool ok;

	if (iter->wire.bad)
		return malformed(err, "a record is cut short");
	if (++iter->count > KB_BLOCK_RECORDS_MAX)
		return malformed(err, "it has too many records");
	memset(r, 0, sizeof(*r));
	iter->path_ref = 0;
	while (w.p < w.end) {
		tag = kb_wire_get(&w);
		if ((tag & 7) == KB_WIRE_VARINT)
			ok = read_field(iter, r, tag >> 3, kb_wire_get(&w));
		else if ((tag & 7) == KB_WIRE_BYTES)
			ok = read_list(iter, r, tag >> 3, kb_wire_get_bytes(&w));
		else
			ok = false;
		if (w.bad || !ok)
			return malformed(err, "a record has a field that cannot be");
	}
	if (iter->shape >= iter->n_shapes)
		return malformed(err, "a record has no shape");
	apply_shape(r, &iter->shapes[iter->shape]);
	r->time = iter->time;
	r->pid = iter->pid;
	if (!r->tid)
		r->tid = r->pid;
	return 1;
}

int kb_block_iter_next(struct kb_block_iter *iter, struct kb_record *ret, struct kb_err *err)
{
	int r = 0;

	while (iter->wire.p < iter->wire.end) {
		switch (kb_wire_get(&iter->wire)) {
		case KB_WIRE_TAG(1, KB_WIRE_BYTES):
			return read_record(iter, ret, err);
		case KB_WIRE_TAG(2, KB_WIRE_BYTES):
			r = read_string(iter, err);
			break;
		case KB_WIRE_TAG(3, KB_WIRE_BYTES):
			r = read_shape(iter, err);
			break;
		case KB_WIRE_TAG(4, KB_WIRE_FIXED64):
			iter->time = kb_wire_get_fixed64(&iter->wire);
			if (iter->wire.bad || iter->count || iter->n_shapes)
				return malformed(err, "its time is misplaced");
			break;
		default:
			return malformed(err, "it has a part that is not known");
		}
		if (r < 0)
			return r;
	}
	return iter->count ? 0 : malformed(err, "it has no record");
}

int kb_block_check(const uint8_t *data, size_t len, uint32_t *ret_count, struct kb_err *err)
{
	struct kb_block_iter iter = {0};
	struct kb_record record;
	int r;

	r = kb_block_iter_begin(&iter, data, len, err);
	if (r < 0)
		return r;
	while ((r = kb_block_iter_next(&iter, &record, err)) > 0)
		;
	if (r == 0 && ret_count)
		*ret_count = iter.count;
	kb_block_iter_finish(&iter);
	return r;
}
