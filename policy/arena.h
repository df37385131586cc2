/* Memory that is freed as a whole: everything a policy or a bundle points to. */
#pragma once

#include <stddef.h>

struct kb_arena {
	struct kb_arena_chunk *chunks;
	size_t used; /* bytes handed out, for the bound */
	size_t max;
};

void kb_arena_init(struct kb_arena *arena, size_t max);
void kb_arena_finish(struct kb_arena *arena);
/* Zeroed and aligned for any type; NULL when out of memory or past max. */
void *kb_arena_alloc(struct kb_arena *arena, size_t size);
char *kb_arena_strndup(struct kb_arena *arena, const char *text, size_t len);
char *kb_arena_printf(struct kb_arena *arena, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* Room for one more item in an array that grows by doubling; the new item is zeroed. NULL on
 * failure, the array is then unchanged. */
void *kb_arena_grow(struct kb_arena *arena, void *array_ptr, size_t *len, size_t *cap, size_t size);
#define KB_ARENA_PUSH(arena, vec)                                                                  \
	((__typeof__((vec)->items))kb_arena_grow(                                                  \
		arena, &(vec)->items, &(vec)->len, &(vec)->cap, sizeof(*(vec)->items)))
