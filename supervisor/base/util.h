/* Cleanup idioms and small macros. Locals are freed by attribute; ownership leaves with a steal. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#define KB_ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define KB_UNUSED	__attribute__((unused))
#define KB_MIN(a, b)	((a) < (b) ? (a) : (b))
#define KB_MAX(a, b)	((a) > (b) ? (a) : (b))

#define kb_container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

static inline void kb_freep_(void *p)
{
	free(*(void **)p);
}

/* Close and forget; -1 and repeated calls are fine; errno is kept. */
void kb_close(int *fd);

#define KB_CLEANUP(fn) __attribute__((cleanup(fn)))
#define KB_FREE	       KB_CLEANUP(kb_freep_)
#define KB_CLOSE       KB_CLEANUP(kb_close)

/* Define a cleanup handler `name` for `type *` locals that calls destroy(). */
#define KB_DEFINE_CLEANUP(name, type, destroy)                                                     \
	static inline void name(type **p)                                                          \
	{                                                                                          \
		if (*p)                                                                            \
			destroy(*p);                                                               \
	}                                                                                          \
	struct kb_swallow_semicolon_

static inline void *kb_steal_(void *pp)
{
	void *p = *(void **)pp;

	*(void **)pp = NULL;
	return p;
}

#define KB_STEAL(p) ((__typeof__(p))kb_steal_(&(p)))

static inline int kb_steal_fd(int *fd)
{
	int v = *fd;

	*fd = -1;
	return v;
}

/* Nanoseconds: CLOCK_REALTIME and CLOCK_MONOTONIC. */
int64_t kb_now_real(void);
int64_t kb_now_mono(void);
