/* Where the value of a secret is: a variable, a file, what a command prints, the desktop's keyring.
 */
#pragma once

#include "policy/policy.h"
#include "supervisor/base/err.h"

#define KB_SECRET_VALUE_MAX (16u << 10)

/* The value into data, which has room for KB_SECRET_VALUE_MAX bytes; without the line end behind
 * it. KB_ERR_NOTFOUND: there is none. */
int kb_secret_read(const struct kb_secret *secret, const char *home, char *data, size_t *ret_len,
	struct kb_err *err);
/* It has been handed over: nothing of it stays in our own environment. */
void kb_secret_forget(const struct kb_secret *secret);
