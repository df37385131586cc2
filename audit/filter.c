#include "filter.h"

#include <string.h>

#include "supervisor/base/util.h"

#define PROBES	       4u
#define BITS_A_THING   10u /* with four probes about 1.2 % of what is not there seems to be */
#define BLOOM_LOG2_MIN 6u  /* bytes */
#define BLOOM_LOG2_MAX 17u
#define ANCESTORS      8u
#define CACHE	       1024u /* power of two; what was added a moment ago is not added again */
#define LINUX_AF_UNIX  1u
#define KB_FILTER_NONE UINT32_MAX

struct kb_filter_maker {
	struct kb_processes *procs;
	struct kb_filter_head head;
	uint64_t *things; /* hashes of this block */
	size_t n_things, cap_things;
	uint64_t cache[CACHE];
	struct kb_filter_proc *list; /* processes of this block */
	uint32_t n_list, cap_list;
	uint8_t *seen; /* a bit for each string of the block: its path is in */
	size_t seen_cap;
	uintptr_t block; /* number of the block, in proc->user of the processes it has */
	struct kb_buf out;
};

/* ---- Hashing: FNV-1a, so that every prefix of a path comes out of one pass ------------------- */

#define FNV_START 14695981039346656037u
#define FNV_PRIME 1099511628211u

static uint64_t fnv(uint64_t h, uint8_t c)
{
	return (h ^ c) * FNV_PRIME;
}

/* FNV's high bits are poor: the finaliser of MurmurHash3. */
static uint64_t finish(uint64_t h)
{
	h ^= h >> 33;
	h *= 0xff51afd7ed558ccdu;
	h ^= h >> 33;
	h *= 0xc4ceb9fe1a85ec53u;
	return h ^ h >> 33;
}

static uint64_t hash_of(enum kb_filter_class class, const void *data, size_t len)
{
	uint64_t h = fnv(FNV_START, (uint8_t) class);

	for (size_t i = 0; i < len; i++)
		h = fnv(h, ((const uint8_t *)data)[i]);
	return finish(h);
}

static uint64_t hash_number(enum kb_filter_class class, uint32_t number)
{
	const uint8_t bytes[4] = {(uint8_t)number, (uint8_t)(number >> 8), (uint8_t)(number >> 16),
		(uint8_t)(number >> 24)};

	return hash_of(class, bytes, sizeof(bytes));
}

/* ---- Asking ---------------------------------------------------------------------------------- */

bool kb_filter_parse(const void *data, size_t len, struct kb_filter *ret)
{
	size_t bloom;

	if (len < sizeof(ret->head))
		return false;
	memcpy(&ret->head, data, sizeof(ret->head));
	if (ret->head.bloom_log2 < BLOOM_LOG2_MIN || ret->head.bloom_log2 > BLOOM_LOG2_MAX)
		return false;
	bloom = (size_t)1 << ret->head.bloom_log2;
	ret->bloom = (const uint8_t *)data + sizeof(ret->head);
	ret->procs = ret->bloom + bloom;
	return len == sizeof(ret->head) + bloom +
			      (size_t)ret->head.n_procs * sizeof(struct kb_filter_proc);
}

struct kb_filter_proc kb_filter_process(const struct kb_filter *filter, uint32_t i)
{
	struct kb_filter_proc proc;

	memcpy(&proc, filter->procs + i * sizeof(proc), sizeof(proc));
	return proc;
}

static bool may(const struct kb_filter *filter, uint64_t hash)
{
	uint32_t mask = (8u << filter->head.bloom_log2) - 1, a = (uint32_t)hash,
		 b = (uint32_t)(hash >> 32) | 1;

	for (unsigned i = 0; i < PROBES; i++, a += b)
		if (!(filter->bloom[(a & mask) >> 3] >> (a & 7) & 1))
			return false;
	return true;
}

bool kb_filter_may(
	const struct kb_filter *filter, enum kb_filter_class class, const void *data, size_t len)
{
	return may(filter, hash_of(class, data, len));
}

bool kb_filter_may_number(
	const struct kb_filter *filter, enum kb_filter_class class, uint32_t number)
{
	return may(filter, hash_number(class, number));
}

/* ---- Making ---------------------------------------------------------------------------------- */

struct kb_filter_maker *kb_filter_maker_create(void)
{
	struct kb_filter_maker *maker = calloc(1, sizeof(*maker));

	if (maker && !(maker->procs = kb_processes_create())) {
		free(maker);
		return NULL;
	}
	if (maker)
		kb_buf_init(&maker->out, (2u << BLOOM_LOG2_MAX) + KB_BLOCK_MAX * 8u);
	return maker;
}

void kb_filter_maker_destroy(struct kb_filter_maker *maker)
{
	if (!maker)
		return;
	kb_processes_destroy(maker->procs);
	kb_buf_finish(&maker->out);
	free(maker->things);
	free(maker->list);
	free(maker->seen);
	free(maker);
}

void kb_filter_begin(struct kb_filter_maker *maker)
{
	maker->head = (struct kb_filter_head){.min_time = UINT64_MAX};
	maker->n_things = 0;
	maker->n_list = 0;
	maker->block++;
	memset(maker->cache, 0, sizeof(maker->cache));
	if (maker->seen_cap)
		memset(maker->seen, 0, maker->seen_cap);
}

static bool add_hash(struct kb_filter_maker *maker, uint64_t hash)
{
	uint64_t *place = &maker->cache[hash >> 40 & (CACHE - 1)];
	size_t cap = maker->cap_things ? 2 * maker->cap_things : 1024;
	uint64_t *mem;

	if (*place == hash)
		return true;
	*place = hash;
	if (maker->n_things == maker->cap_things) {
		mem = realloc(maker->things, cap * sizeof(*mem));
		if (!mem)
			return false;
		maker->things = mem;
		maker->cap_things = cap;
	}
	maker->things[maker->n_things++] = hash;
	return true;
}

static bool add_bytes(
	struct kb_filter_maker *maker, enum kb_filter_class class, struct kb_bytes bytes)
{
	return !bytes.data || add_hash(maker, hash_of(class, bytes.data, bytes.len));
}

/* The whole, every directory above it, and its last component. */
static bool add_path(struct kb_filter_maker *maker, struct kb_bytes path,
	enum kb_filter_class whole, enum kb_filter_class under, enum kb_filter_class name)
{
	uint64_t full = fnv(FNV_START, (uint8_t)whole), dir = fnv(FNV_START, (uint8_t)under);
	size_t last = 0;

	for (size_t i = 0; i < path.len; i++) {
		if (path.data[i] == '/') {
			last = i + 1;
			if (i > 0 && !add_hash(maker, finish(dir)))
				return false;
		}
		full = fnv(full, path.data[i]);
		dir = fnv(dir, path.data[i]);
	}
	return add_hash(maker, finish(full)) &&
	       add_hash(maker, hash_of(name, path.data + last, path.len - last));
}

/* True the first time that this string of the block is asked about. */
static bool first_time(struct kb_filter_maker *maker, uint32_t ref)
{
	size_t want = maker->seen_cap ? maker->seen_cap : 256;
	uint8_t *mem;

	while (want <= ref / 8)
		want *= 2;
	if (want > maker->seen_cap) {
		mem = realloc(maker->seen, want);
		if (!mem)
			return true;
		memset(mem + maker->seen_cap, 0, want - maker->seen_cap);
		maker->seen = mem;
		maker->seen_cap = want;
	}
	if (maker->seen[ref / 8] >> (ref & 7) & 1)
		return false;
	maker->seen[ref / 8] |= (uint8_t)(1 << (ref & 7));
	return true;
}

static bool add_strings(
	struct kb_filter_maker *maker, const struct kb_block_iter *iter, const struct kb_record *r)
{
	bool ok = add_bytes(maker, KB_FILTER_HOST, r->host);

	if (r->path.data && first_time(maker, iter->path_ref))
		ok = ok &&
		     add_path(maker, r->path, KB_FILTER_PATH, KB_FILTER_UNDER, KB_FILTER_NAME);
	if (r->address.data && r->family == LINUX_AF_UNIX)
		ok = ok &&
		     add_path(maker, r->address, KB_FILTER_PATH, KB_FILTER_UNDER, KB_FILTER_NAME);
	if (r->address.data && r->family != LINUX_AF_UNIX)
		ok = ok && add_bytes(maker, KB_FILTER_ADDRESS, r->address);
	if (r->port)
		ok = ok && add_hash(maker, hash_number(KB_FILTER_PORT, r->port));
	if (r->rule != KB_RULE_NONE)
		ok = ok && add_hash(maker, hash_number(KB_FILTER_RULE, r->rule));
	if (r->exe.data)
		ok = ok && add_path(maker, r->exe, KB_FILTER_EXE, KB_FILTER_EXE_UNDER,
				   KB_FILTER_EXE_NAME);
	return ok && add_bytes(maker, KB_FILTER_COMM, r->comm);
}

/* proc->user says that a process has been met in this block, and its place in the list: none for
 * one that was born here, which its own records tell about. */
#define PLACE_BITS 24u
#define OWN_BIT	   (1u << (PLACE_BITS - 1))

static void *mark(const struct kb_filter_maker *maker, uint32_t place)
{
	return (void *)(maker->block << PLACE_BITS | place);
}

static bool is_met(const struct kb_filter_maker *maker, const struct kb_process *proc)
{
	return (uintptr_t)proc->user >> PLACE_BITS == maker->block;
}

static uint32_t place_of(const struct kb_process *proc)
{
	return (uint32_t)((uintptr_t)proc->user & (OWN_BIT - 1));
}

/* It has a record of its own in this block, not only a child's. */
static bool has_own(const struct kb_filter_maker *maker, const struct kb_process *proc)
{
	return is_met(maker, proc) && ((uintptr_t)proc->user & OWN_BIT);
}

/* Put a process, as it is now, and those above it into the block's list. */
static bool list_process(struct kb_filter_maker *maker, struct kb_process *proc)
{
	uint32_t cap, child = KB_FILTER_NONE;
	void *mem;

	for (unsigned i = 0; proc && i < ANCESTORS; i++, proc = proc->parent) {
		if (is_met(maker, proc)) {
			if (child != KB_FILTER_NONE)
				maker->list[child].parent = place_of(proc);
			return true;
		}
		if (maker->n_list == maker->cap_list) {
			cap = maker->cap_list ? 2 * maker->cap_list : 64;
			mem = realloc(maker->list, cap * sizeof(*maker->list));
			if (!mem)
				return false;
			maker->list = mem;
			maker->cap_list = cap;
		}
		maker->list[maker->n_list] = kb_process_brief(proc);
		maker->list[maker->n_list].former =
			kb_processes_find(maker->procs, proc->pid) != proc;
		if (child != KB_FILTER_NONE)
			maker->list[child].parent = maker->n_list + 1;
		child = maker->n_list++;
		proc->user = mark(maker, maker->n_list);
	}
	return true;
}

/* What its process runs, where that is not yet said for this block. */
static bool add_process(struct kb_filter_maker *maker, const struct kb_process *proc, bool changed)
{
	const struct kb_image *image = proc->image;

	if (!changed)
		return true;
	return add_bytes(maker, KB_FILTER_COMM, kb_process_comm(proc)) &&
	       (!image || !image->exe.data ||
		       add_path(maker, image->exe, KB_FILTER_EXE, KB_FILTER_EXE_UNDER,
			       KB_FILTER_EXE_NAME));
}

static void add_numbers(struct kb_filter_head *head, const struct kb_record *r)
{
	head->min_time = KB_MIN(head->min_time, r->time);
	head->max_time = KB_MAX(head->max_time, r->time);
	head->events |= UINT64_C(1) << r->event;
	head->decisions |= (uint8_t)(1 << r->decision);
	head->outcomes |= (uint8_t)(1 << r->outcome);
	head->lanes |= (uint8_t)(1 << r->lane);
	head->count++;
}

int kb_filter_add(struct kb_filter_maker *maker, const struct kb_block_iter *iter,
	const struct kb_record *record, uint64_t seq, struct kb_err *err)
{
	struct kb_process *proc, *before = kb_processes_find(maker->procs, record->pid);
	struct kb_process *parent =
		record->ppid ? kb_processes_find(maker->procs, record->ppid) : NULL;
	bool fresh = !before || !has_own(maker, before), ok;
	int r;

	add_numbers(&maker->head, record);
	ok = (!before || list_process(maker, before)) && (!parent || list_process(maker, parent));
	if (!ok)
		return kb_err_nomem(err);
	r = kb_processes_update(maker->procs, record, seq, &proc, err);
	if (r < 0)
		return r;
	if (proc) {
		fresh = fresh || proc != before || record->event == KB_EVENT_EXEC ||
			record->comm.data;
		proc->user = mark(maker, (is_met(maker, proc) ? place_of(proc) : 0) | OWN_BIT);
		ok = (!fresh || add_hash(maker, hash_number(KB_FILTER_PID, proc->pid))) &&
		     add_process(maker, proc, fresh);
	}
	return ok && add_strings(maker, iter, record) ? 0 : kb_err_nomem(err);
}

int kb_filter_end(
	struct kb_filter_maker *maker, const uint8_t **ret, size_t *ret_len, struct kb_err *err)
{
	struct kb_filter_head *head = &maker->head;
	size_t bloom, size;
	uint32_t mask;
	uint8_t *p;
	int r;

	head->bloom_log2 = BLOOM_LOG2_MIN;
	while (head->bloom_log2 < BLOOM_LOG2_MAX &&
		(size_t)8 << head->bloom_log2 < maker->n_things * BITS_A_THING)
		head->bloom_log2++;
	head->n_procs = maker->n_list;
	bloom = (size_t)1 << head->bloom_log2;
	size = sizeof(*head) + bloom + maker->n_list * sizeof(*maker->list);
	kb_buf_consume(&maker->out, kb_buf_len(&maker->out));
	r = kb_buf_reserve(&maker->out, size, &p, err);
	if (r < 0)
		return r;
	memcpy(p, head, sizeof(*head));
	p += sizeof(*head);
	memset(p, 0, bloom);
	mask = (uint32_t)(8 * bloom - 1);
	for (size_t i = 0; i < maker->n_things; i++) {
		uint32_t a = (uint32_t)maker->things[i], b = (uint32_t)(maker->things[i] >> 32) | 1;

		for (unsigned k = 0; k < PROBES; k++, a += b)
			p[(a & mask) >> 3] |= (uint8_t)(1 << (a & 7));
	}
	if (maker->n_list)
		memcpy(p + bloom, maker->list, maker->n_list * sizeof(*maker->list));
	kb_buf_commit(&maker->out, size);
	*ret = kb_buf_data(&maker->out);
	*ret_len = size;
	return 0;
}
