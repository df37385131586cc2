#include "digest.h"

#include <ctype.h>
#include <string.h>

#include "index.h"
#include "supervisor/base/util.h"
#include "text.h"

struct kb_digest_index {
	struct kb_index files, dests, denials;
	struct kb_buf key;			  /* scratch */
	struct kb_bytes *denial_keys, *dest_keys; /* owned */
};

/* ---- Growing --------------------------------------------------------------------------------- */

/* Make room for one more; arrays grow at powers of two. */
static bool room(void *array, size_t n, size_t size)
{
	void **p = array, *mem;

	if (n & (n - 1))
		return true;
	mem = realloc(*p, (n ? 2 * n : 1) * size);
	if (mem)
		*p = mem;
	return mem != NULL;
}

static bool copy(struct kb_bytes src, struct kb_bytes *ret)
{
	uint8_t *mem = malloc(src.len + 1);

	if (!mem)
		return false;
	if (src.len)
		memcpy(mem, src.data, src.len);
	mem[src.len] = '\0';
	*ret = (struct kb_bytes){mem, src.len};
	return true;
}

/* ---- Processes ------------------------------------------------------------------------------- */

/* proc->user holds 1 + the index of its node. */
static uint32_t node_of(const struct kb_process *proc)
{
	return proc && proc->user ? (uint32_t)((uintptr_t)proc->user - 1) : KB_NONE;
}

static void link_child(struct kb_digest *d, uint32_t parent, uint32_t child)
{
	struct kb_node *p = &d->nodes[parent];

	d->nodes[child].parent = parent;
	d->nodes[child].depth = p->depth + 1;
	if (p->first_child == KB_NONE)
		p->first_child = child;
	else
		d->nodes[p->last_child].next_sibling = child;
	p->last_child = child;
}

static int add_node(struct kb_digest *d, struct kb_process *proc, uint64_t seq, struct kb_err *err)
{
	uint32_t at = (uint32_t)d->n_nodes, parent = node_of(proc->parent);

	if (!room(&d->nodes, d->n_nodes, sizeof(*d->nodes)))
		return kb_err_nomem(err);
	d->nodes[d->n_nodes++] = (struct kb_node){
		.proc = kb_process_ref(proc),
		.first_seq = seq,
		.parent = KB_NONE,
		.first_child = KB_NONE,
		.last_child = KB_NONE,
		.next_sibling = KB_NONE,
	};
	proc->user = (void *)((uintptr_t)at + 1);
	if (parent != KB_NONE)
		link_child(d, parent, at);
	return 0;
}

static void add_image(struct kb_node *node, struct kb_image *image)
{
	if (node->n_images < KB_NODE_IMAGES) {
		node->images[node->n_images++] = kb_image_ref(image);
		return;
	}
	/* The first and the latest tell most. */
	kb_image_unref(node->images[KB_NODE_IMAGES - 1]);
	node->images[KB_NODE_IMAGES - 1] = kb_image_ref(image);
}

/* ---- Files ----------------------------------------------------------------------------------- */

static struct kb_bytes file_key(const void *arg, uint32_t number)
{
	const struct kb_digest *d = arg;

	return d->files[number].path;
}

static int file_at(
	struct kb_digest *d, struct kb_bytes path, uint32_t *ret, bool *ret_new, struct kb_err *err)
{
	*ret = KB_NONE;
	*ret_new = false;
	if (!path.data)
		return 0;
	if (d->n_files >= KB_DIGEST_FILES_MAX) {
		d->cut = true;
		*ret = kb_index_get(&d->index->files, path, file_key, d);
		return 0;
	}
	if (!room(&d->files, d->n_files, sizeof(*d->files)))
		return kb_err_nomem(err);
	*ret = kb_index_put(&d->index->files, path, file_key, d, ret_new);
	if (*ret == KB_INDEX_NOMEM)
		return kb_err_nomem(err);
	if (!*ret_new)
		return 0;
	d->files[d->n_files] = (struct kb_file){.node = KB_NONE};
	if (!copy(path, &d->files[d->n_files].path))
		return kb_err_nomem(err);
	d->n_files++;
	return 0;
}

static void sample(uint32_t *samples, uint32_t *n, uint32_t file)
{
	for (uint32_t i = 0; i < *n; i++)
		if (samples[i] == file)
			return;
	if (*n < KB_NODE_SAMPLES)
		samples[(*n)++] = file;
}

static int touch(struct kb_digest *d, const struct kb_row *row, struct kb_bytes path,
	bool may_create, uint32_t node, struct kb_err *err)
{
	struct kb_file *file;
	uint32_t at;
	bool fresh;
	int r = file_at(d, path, &at, &fresh, err);

	if (node != KB_NONE)
		d->nodes[node].written++;
	if (r < 0 || at == KB_NONE)
		return r;
	file = &d->files[at];
	file->times++;
	file->node = node;
	if (fresh || file->fate == KB_FILE_RENAMED)
		file->fate = may_create ? KB_FILE_CREATED : KB_FILE_MODIFIED;
	else if (file->fate == KB_FILE_DELETED)
		file->fate = KB_FILE_MODIFIED; /* it was there before, and is again */
	else if (file->fate == KB_FILE_TEMPORARY)
		file->fate = KB_FILE_CREATED;
	if (node != KB_NONE)
		sample(d->nodes[node].written_samples, &d->nodes[node].n_written, at);
	return 0;
}

static int removed(struct kb_digest *d, const struct kb_row *row, struct kb_bytes path,
	uint32_t node, struct kb_err *err)
{
	struct kb_file *file;
	uint32_t at;
	bool fresh;
	int r = file_at(d, path, &at, &fresh, err);

	if (node != KB_NONE)
		d->nodes[node].deleted++;
	if (r < 0 || at == KB_NONE)
		return r;
	file = &d->files[at];
	file->times++;
	file->node = node;
	file->fate = file->fate == KB_FILE_CREATED && !fresh ? KB_FILE_TEMPORARY : KB_FILE_DELETED;
	if (node != KB_NONE)
		sample(d->nodes[node].deleted_samples, &d->nodes[node].n_deleted, at);
	return 0;
}

static int renamed(struct kb_digest *d, const struct kb_row *row, uint32_t node, struct kb_err *err)
{
	const struct kb_record *record = row->record;
	bool fresh, was_created;
	uint32_t at;
	int r = file_at(d, record->path, &at, &fresh, err);

	if (r < 0 || at == KB_NONE)
		return r;
	was_created = !fresh && d->files[at].fate == KB_FILE_CREATED;
	d->files[at].times++;
	d->files[at].node = node;
	d->files[at].fate = was_created ? KB_FILE_TEMPORARY : KB_FILE_RENAMED;
	free((void *)d->files[at].path2.data);
	d->files[at].path2 = (struct kb_bytes){0};
	if (!was_created && record->path2.data && !copy(record->path2, &d->files[at].path2))
		return kb_err_nomem(err);
	/* Written beside and renamed over: the new name is what has changed. */
	return was_created ? touch(d, row, record->path2, true, node, err) : 0;
}

static bool is_below(struct kb_bytes path, const char *dir)
{
	size_t len = strlen(dir);

	return path.len > len && memcmp(path.data, dir, len) == 0;
}

/* Devices and the kernel's own files do not change by being written to. */
static bool is_file(struct kb_bytes path)
{
	return (!is_below(path, "/dev/") || is_below(path, "/dev/shm/")) &&
	       !is_below(path, "/proc/");
}

static int change(struct kb_digest *d, const struct kb_row *row, uint32_t node, struct kb_err *err)
{
	const struct kb_record *r = row->record;
	const uint32_t make_new = 0300; /* O_CREAT | O_EXCL */

	switch (r->event) {
	case KB_EVENT_OPEN:
		if (!kb_open_writes(r) || !is_file(r->path))
			return 0;
		return touch(d, row, r->path, r->created || (r->flags & make_new) == make_new, node,
			err);
	case KB_EVENT_TRUNCATE:
	case KB_EVENT_CHMOD:
	case KB_EVENT_CHOWN:
	case KB_EVENT_XATTR:
		return touch(d, row, r->path, false, node, err);
	case KB_EVENT_MKDIR:
	case KB_EVENT_MKNOD:
		return touch(d, row, r->path, true, node, err);
	case KB_EVENT_SYMLINK:
	case KB_EVENT_LINK:
		return touch(
			d, row, r->event == KB_EVENT_LINK ? r->path2 : r->path, true, node, err);
	case KB_EVENT_UNLINK:
	case KB_EVENT_RMDIR:
		return removed(d, row, r->path, node, err);
	case KB_EVENT_RENAME:
		return renamed(d, row, node, err);
	default:
		return 0;
	}
}

/* ---- Destinations and denials ---------------------------------------------------------------- */

static struct kb_bytes dest_key(const void *arg, uint32_t number)
{
	return ((const struct kb_digest *)arg)->index->dest_keys[number];
}

static struct kb_bytes denial_key(const void *arg, uint32_t number)
{
	return ((const struct kb_digest *)arg)->index->denial_keys[number];
}

/* The scratch buffer as a key: a few numbers and what people read. */
static int make_key(struct kb_digest *d, const struct kb_view *view, const struct kb_row *row,
	const uint32_t *numbers, size_t n, struct kb_err *err)
{
	struct kb_buf *key = &d->index->key;
	int r;

	kb_buf_consume(key, kb_buf_len(key));
	r = kb_buf_append(key, numbers, n * sizeof(*numbers), err);
	return r < 0 ? r : kb_text_what(key, view, row, err);
}

static struct kb_bytes key_bytes(const struct kb_digest *d, size_t skip)
{
	return (struct kb_bytes){
		kb_buf_data(&d->index->key) + skip, kb_buf_len(&d->index->key) - skip};
}

static bool is_network(const struct kb_record *r)
{
	return (r->event == KB_EVENT_CONNECT || r->event == KB_EVENT_SEND ||
		       r->event == KB_EVENT_REQUEST) &&
	       (r->host.data || r->address.len == 4 || r->address.len == 16);
}

static int network(struct kb_digest *d, const struct kb_view *view, const struct kb_row *row,
	uint32_t node, struct kb_err *err)
{
	const uint32_t numbers[] = {row->record->decision};
	struct kb_dest *dest;
	uint32_t at;
	bool fresh;
	int r = make_key(d, view, row, numbers, 1, err);

	if (node != KB_NONE && row->record->decision == KB_DECISION_ALLOWED)
		d->nodes[node].connected++;
	if (r < 0)
		return r;
	if (d->n_dests >= KB_DIGEST_DESTS_MAX) {
		d->cut = true;
		return 0;
	}
	if (!room(&d->dests, d->n_dests, sizeof(*d->dests)) ||
		!room(&d->index->dest_keys, d->n_dests, sizeof(*d->index->dest_keys)))
		return kb_err_nomem(err);
	at = kb_index_put(&d->index->dests, key_bytes(d, 0), dest_key, d, &fresh);
	if (at == KB_INDEX_NOMEM)
		return kb_err_nomem(err);
	if (fresh) {
		dest = &d->dests[d->n_dests];
		*dest = (struct kb_dest){.decision = row->record->decision, .node = node};
		if (!copy(key_bytes(d, 0), &d->index->dest_keys[d->n_dests]))
			return kb_err_nomem(err);
		if (!copy(key_bytes(d, sizeof(numbers)), &dest->where)) {
			free((void *)d->index->dest_keys[d->n_dests].data);
			return kb_err_nomem(err);
		}
		d->n_dests++;
		d->hosts += dest->decision == KB_DECISION_ALLOWED;
	}
	d->dests[at].times++;
	return 0;
}

static void use_secret(struct kb_digest *d, const char *name, size_t len)
{
	struct kb_used_secret *s = d->secrets;

	if (len == 0 || len >= sizeof(s->name))
		return;
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)name[i]) && name[i] != '_')
			return; /* no name that a policy could have */
	while (s < d->secrets + d->n_secrets &&
		(strncmp(s->name, name, len) != 0 || s->name[len] != '\0'))
		s++;
	if (s == d->secrets + KB_DIGEST_SECRETS_MAX) {
		d->cut = true;
		return;
	}
	if (s == d->secrets + d->n_secrets) {
		memcpy(s->name, name, len);
		d->n_secrets++;
	}
	s->times++;
}

/* "A,B" */
static void use_secrets(struct kb_digest *d, struct kb_bytes names)
{
	const char *at = (const char *)names.data, *end = at + names.len;

	while (at < end) {
		const char *comma = memchr(at, ',', (size_t)(end - at));
		size_t len = (size_t)((comma ? comma : end) - at);

		use_secret(d, at, len);
		at += len + 1;
	}
}

static int fill_denial(struct kb_digest *d, const struct kb_row *row, size_t skip, uint32_t node,
	struct kb_err *err)
{
	const struct kb_record *r = row->record;
	struct kb_denial *denial = &d->denials[d->n_denials];
	struct kb_bytes path = {0};

	kb_row_path(row, &path);
	*denial = (struct kb_denial){.event = r->event,
		.decision = r->decision,
		.errnum = r->errnum,
		.syscall = r->syscall,
		.rule = r->rule,
		.write = kb_open_writes(r),
		.first_seq = row->seq,
		.first_time = r->time,
		.node = node};
	if (!copy(key_bytes(d, 0), &d->index->denial_keys[d->n_denials]))
		return kb_err_nomem(err);
	d->n_denials++; /* from here on it is freed with the others */
	if (!copy(key_bytes(d, skip), &denial->what) || !copy(path, &denial->path))
		return kb_err_nomem(err);
	return 0;
}

static int denied(struct kb_digest *d, const struct kb_view *view, const struct kb_row *row,
	uint32_t node, struct kb_err *err)
{
	const struct kb_record *record = row->record;
	const uint32_t numbers[] = {node, record->event, record->decision, record->rule};
	uint32_t at;
	bool fresh;
	int r = make_key(d, view, row, numbers, KB_ARRAY_LEN(numbers), err);

	d->denied++;
	if (node != KB_NONE)
		d->nodes[node].denied++;
	if (r < 0)
		return r;
	if (d->n_denials >= KB_DIGEST_DENIALS_MAX) {
		d->cut = true;
		return 0;
	}
	if (!room(&d->denials, d->n_denials, sizeof(*d->denials)) ||
		!room(&d->index->denial_keys, d->n_denials, sizeof(*d->index->denial_keys)))
		return kb_err_nomem(err);
	at = kb_index_put(&d->index->denials, key_bytes(d, 0), denial_key, d, &fresh);
	if (at == KB_INDEX_NOMEM)
		return kb_err_nomem(err);
	if (fresh && (r = fill_denial(d, row, sizeof(numbers), node, err)) < 0)
		return r;
	d->denials[at].times++;
	return 0;
}

/* ---- The whole ------------------------------------------------------------------------------- */

int kb_digest_begin(struct kb_digest **ret, struct kb_err *err)
{
	struct kb_digest *d = calloc(1, sizeof(*d));

	if (!d || !(d->index = calloc(1, sizeof(*d->index)))) {
		free(d);
		return kb_err_nomem(err);
	}
	kb_buf_init(&d->index->key, KB_TEXT_MAX);
	*ret = d;
	return 0;
}

int kb_digest_add(struct kb_digest *d, const struct kb_view *view, const struct kb_row *row,
	uint32_t *ret_node, struct kb_err *err)
{
	const struct kb_record *record = row->record;
	uint32_t node = node_of(row->proc);
	int r = 0;

	if (row->proc && node == KB_NONE) {
		r = add_node(d, row->proc, row->seq, err);
		if (r < 0)
			return r;
		node = node_of(row->proc);
	}
	*ret_node = node;
	d->records++;
	d->by_event[record->event]++;
	d->lost += record->event == KB_EVENT_LOSS ? record->count : 0;
	if (!d->first_time)
		d->first_time = record->time;
	d->last_time = record->time;
	if (node != KB_NONE)
		d->nodes[node].records++;
	if (kb_exec_took_place(record) && node != KB_NONE) {
		d->commands++;
		add_image(&d->nodes[node], row->proc->image);
	}
	if (record->decision != KB_DECISION_ALLOWED)
		r = denied(d, view, row, node, err);
	else if (record->outcome != KB_OUTCOME_FAILED)
		r = change(d, row, node, err);
	if (record->secret.data)
		use_secrets(d, record->secret);
	if (r == 0 && is_network(record))
		r = network(d, view, row, node, err);
	return r;
}

void kb_digest_end(struct kb_digest *d)
{
	for (size_t i = 0; i < d->n_files; i++) {
		enum kb_file_fate fate = d->files[i].fate;

		d->changed += fate == KB_FILE_CREATED || fate == KB_FILE_MODIFIED ||
			      fate == KB_FILE_RENAMED;
		d->deleted += fate == KB_FILE_DELETED;
	}
}

int kb_digest_create(struct kb_reader *reader, const struct kb_session *session,
	const struct kb_view *view, struct kb_digest **ret, struct kb_err *err)
{
	struct kb_digest *d = NULL;
	struct kb_scan *scan;
	struct kb_row row;
	uint32_t node;
	int r = kb_scan_create(reader, session, &scan, err);

	if (r < 0)
		return r;
	r = kb_digest_begin(&d, err);
	while (r == 0 && (r = kb_scan_next(scan, &row, err)) > 0)
		r = kb_digest_add(d, view, &row, &node, err);
	kb_scan_destroy(scan);
	if (r < 0) {
		kb_digest_destroy(d);
		return r;
	}
	kb_digest_end(d);
	*ret = d;
	return 0;
}

static void free_keys(struct kb_bytes *keys, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free((void *)keys[i].data);
	free(keys);
}

static void nodes_free(struct kb_digest *d)
{
	for (size_t i = 0; i < d->n_nodes; i++) {
		for (uint32_t k = 0; k < d->nodes[i].n_images; k++)
			kb_image_unref(d->nodes[i].images[k]);
		kb_process_unref(d->nodes[i].proc);
	}
	free(d->nodes);
}

void kb_digest_destroy(struct kb_digest *d)
{
	if (!d)
		return;
	nodes_free(d);
	for (size_t i = 0; i < d->n_files; i++) {
		free((void *)d->files[i].path.data);
		free((void *)d->files[i].path2.data);
	}
	for (size_t i = 0; i < d->n_dests; i++)
		free((void *)d->dests[i].where.data);
	for (size_t i = 0; i < d->n_denials; i++) {
		free((void *)d->denials[i].path.data);
		free((void *)d->denials[i].what.data);
	}
	free_keys(d->index->dest_keys, d->n_dests);
	free_keys(d->index->denial_keys, d->n_denials);
	kb_index_finish(&d->index->files);
	kb_index_finish(&d->index->dests);
	kb_index_finish(&d->index->denials);
	kb_buf_finish(&d->index->key);
	free(d->files);
	free(d->dests);
	free(d->denials);
	free(d->index);
	free(d);
}
