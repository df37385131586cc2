#include "held.h"

#include <stdlib.h>
#include <string.h>

/* The byte strings of a record. */
static const size_t fields[] = {
	offsetof(struct kb_record, path),
	offsetof(struct kb_record, path2),
	offsetof(struct kb_record, path_arg),
	offsetof(struct kb_record, path2_arg),
	offsetof(struct kb_record, exe),
	offsetof(struct kb_record, comm),
	offsetof(struct kb_record, cwd),
	offsetof(struct kb_record, address),
	offsetof(struct kb_record, host),
	offsetof(struct kb_record, text),
	offsetof(struct kb_record, secret),
};

static struct kb_bytes *field(struct kb_record *record, size_t i)
{
	return (struct kb_bytes *)((char *)record + fields[i]);
}

static uint8_t *copy_bytes(uint8_t *at, struct kb_bytes *bytes)
{
	if (!bytes->data)
		return at;
	memcpy(at, bytes->data, bytes->len);
	bytes->data = at;
	return at + bytes->len;
}

struct kb_held *kb_held_create(const struct kb_record *record)
{
	struct kb_record copy = *record;
	struct kb_held *held;
	size_t size = sizeof(*held) + record->argc * sizeof(struct kb_bytes);
	uint8_t *at;

	for (size_t i = 0; i < KB_ARRAY_LEN(fields); i++)
		size += field(&copy, i)->data ? field(&copy, i)->len : 0;
	for (size_t i = 0; i < record->argc; i++)
		size += record->argv[i].len;
	held = malloc(size);
	if (!held)
		return NULL;
	held->record = copy;
	held->record.argv = held->argv;
	at = (uint8_t *)(held->argv + record->argc);
	for (size_t i = 0; i < KB_ARRAY_LEN(fields); i++)
		at = copy_bytes(at, field(&held->record, i));
	for (size_t i = 0; i < record->argc; i++) {
		held->argv[i] = record->argv[i];
		at = copy_bytes(at, &held->argv[i]);
	}
	return held;
}
