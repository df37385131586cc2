#include "policy/arena.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_SIZE 16384
#define ALIGN	   (_Alignof(max_align_t))

struct kb_arena_chunk {
	struct kb_arena_chunk *next;
	size_t used, size;
	max_align_t bytes[];
};

void kb_arena_init(struct kb_arena *arena, size_t max)
{
	*arena = (struct kb_arena){.max = max};
}

void kb_arena_finish(struct kb_arena *arena)
{
	struct kb_arena_chunk *chunk = arena->chunks;

	while (chunk) {
		struct kb_arena_chunk *next = chunk->next;

		free(chunk);
		chunk = next;
	}
	arena->chunks = NULL;
	arena->used = 0;
}

static struct kb_arena_chunk *add_chunk(struct kb_arena *arena, size_t size)
{
	size_t want = size > CHUNK_SIZE ? size : CHUNK_SIZE;
	struct kb_arena_chunk *chunk = malloc(sizeof(*chunk) + want);

	if (!chunk)
		return NULL;
	chunk->used = 0;
	chunk->size = want;
	/* A big item does not displace the chunk that still has room for small ones. */
	if (size > CHUNK_SIZE / 2 && arena->chunks) {
		chunk->next = arena->chunks->next;
		arena->chunks->next = chunk;
	} else {
		chunk->next = arena->chunks;
		arena->chunks = chunk;
	}
	return chunk;
}

void *kb_arena_alloc(struct kb_arena *arena, size_t size)
{
	struct kb_arena_chunk *chunk = arena->chunks;
	void *ret;

	if (size > arena->max || arena->used > arena->max - size)
		return NULL;
	size = (size + ALIGN - 1) / ALIGN * ALIGN;
	if (!chunk || chunk->size - chunk->used < size)
		chunk = add_chunk(arena, size);
	if (!chunk)
		return NULL;
	ret = (char *)chunk->bytes + chunk->used;
	chunk->used += size;
	arena->used += size;
	memset(ret, 0, size);
	return ret;
}

char *kb_arena_strndup(struct kb_arena *arena, const char *text, size_t len)
{
	char *ret = kb_arena_alloc(arena, len + 1);

	if (ret && len)
		memcpy(ret, text, len);
	return ret;
}

char *kb_arena_printf(struct kb_arena *arena, const char *fmt, ...)
{
	va_list args, again;
	char *ret;
	int len;

	va_start(args, fmt);
	va_copy(again, args);
	len = vsnprintf(NULL, 0, fmt, args);
	va_end(args);
	ret = len < 0 ? NULL : kb_arena_alloc(arena, (size_t)len + 1);
	if (ret)
		vsnprintf(ret, (size_t)len + 1, fmt, again);
	va_end(again);
	return ret;
}

void *kb_arena_grow(struct kb_arena *arena, void *array_ptr, size_t *len, size_t *cap, size_t size)
{
	char *array = *(char **)array_ptr;

	if (*len == *cap) {
		size_t more = *cap ? *cap * 2 : 4;
		char *bigger = kb_arena_alloc(arena, more * size);

		if (!bigger)
			return NULL;
		if (*len)
			memcpy(bigger, array, *len * size);
		*(char **)array_ptr = array = bigger;
		*cap = more;
	}
	return array + size * (*len)++;
}
