/* Name resolution, as the host does it (getaddrinfo), off the loop: a thread for each name, a
 * bounded number at once; the rest wait their turn. Who asks for a name that is being asked for, or
 * was a moment ago, gets the same answer. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "supervisor/base/err.h"
#include "supervisor/base/loop.h"

#define KB_RESOLVE_THREADS 16
#define KB_RESOLVE_MAX	   4096 /* questions that are open */
#define KB_RESOLVE_ANSWERS 16	/* addresses that are looked at */
#define KB_RESOLVE_KEPT	   64	/* answers that are kept */
#define KB_RESOLVE_KEEP_MS 3000

struct kb_address {
	uint8_t bytes[16];
	unsigned len; /* 4 or 16 */
};

struct kb_resolver;
struct kb_question;

typedef void (*kb_resolve_fn)(
	const struct kb_address *addresses, size_t n, const char *why, void *arg);

int kb_resolver_create(struct kb_loop *loop, struct kb_resolver **ret, struct kb_err *err);
/* Questions that are still open are forgotten. NULL is fine. */
void kb_resolver_destroy(struct kb_resolver *resolver);
/* fn is called once, from the loop; n 0: why says why there is no address. */
int kb_resolve(struct kb_resolver *resolver, const char *name, kb_resolve_fn fn, void *arg,
	struct kb_question **ret, struct kb_err *err);
/* fn is not called any more. NULL is fine. */
void kb_resolve_cancel(struct kb_question *question);
