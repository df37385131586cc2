/* Private to audit/reader*.c: the part of a reader that knows the database. */
#pragma once

#include "reader.h"
#include "store.h"

struct kb_reader {
	struct kb_env env;
	char *anchor; /* to be held against the store by verify, or NULL */
};
