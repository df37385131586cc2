#include "table.h"

#include <stdlib.h>
#include <string.h>

struct entry {
	char *word;
	unsigned count;
};

struct table {
	struct entry *entries;
	size_t used, size;
};

struct table *table_create(void)
{
	return calloc(1, sizeof(struct table));
}

void table_destroy(struct table *table)
{
	for (size_t i = 0; i < table->used; i++)
		free(table->entries[i].word);
	free(table->entries);
	free(table);
}

static int grow(struct table *table)
{
	size_t size = table->size ? 2 * table->size : 16;
	struct entry *entries = realloc(table->entries, size * sizeof(*entries));

	if (!entries)
		return -1;
	table->entries = entries;
	table->size = size;
	return 0;
}

int table_count(struct table *table, const char *word)
{
	for (size_t i = 0; i < table->used; i++) {
		if (strcmp(table->entries[i].word, word) == 0) {
			table->entries[i].count++;
			return 0;
		}
	}
	if (table->used == table->size && grow(table) < 0)
		return -1;
	table->entries[table->used] = (struct entry){strdup(word), 1};
	if (!table->entries[table->used].word)
		return -1;
	table->used++;
	return 0;
}

static int by_count(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	if (x->count != y->count)
		return x->count < y->count ? 1 : -1;
	return strcmp(x->word, y->word);
}

void table_print(struct table *table, FILE *out)
{
	qsort(table->entries, table->used, sizeof(*table->entries), by_count);
	for (size_t i = 0; i < table->used; i++)
		fprintf(out, "%u %s\n", table->entries[i].count, table->entries[i].word);
}
