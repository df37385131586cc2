/* What the unit tests share: cmocka with its includes in order, and a private directory. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "supervisor/base/fd.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"

/* A fresh directory under $TMPDIR, removed with all in it by tmpdir_teardown(). As cmocka setup and
 * teardown functions: *state is its path. */
static inline int tmpdir_setup(void **state)
{
	const char *base = getenv("TMPDIR");
	char *path;

	if (asprintf(&path, "%s/kbsup-test-XXXXXX", base ? base : "/tmp") < 0)
		return -1;
	if (!mkdtemp(path)) {
		free(path);
		return -1;
	}
	*state = path;
	return 0;
}

static inline int tmpdir_teardown(void **state)
{
	struct kb_err err;
	int r = kb_rmtree(*state, &err);

	free(*state);
	return r;
}

/* A local with the path dir/name. */
#define PATH_IN(var, dir, name) KB_FREE char *var = kb_asprintf("%s/%s", (const char *)(dir), name)

/* Fails with the error's own words. */
#define assert_ok(expr)                                                                            \
	do {                                                                                       \
		int r_ = (expr);                                                                   \
		if (r_ < 0)                                                                        \
			fail_msg("%s: %s", #expr, err.msg);                                        \
	} while (0)
