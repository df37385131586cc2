/* Where the values of secrets are: memory that is locked, left out of core files, and wiped when it
 * is given back. Nothing else in the process keeps a value longer than it takes to send it. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "http.h"
#include "supervisor/base/err.h"

struct kb_vault;

/* Before the first value comes: this process leaves no core file, and only root can look into it.
 */
void kb_vault_harden(void);

/* Reads an encoded kb.role.Secrets from fd to its end, without waiting. */
int kb_vault_open(int fd, struct kb_vault **ret, struct kb_err *err);
void kb_vault_destroy(struct kb_vault *vault); /* NULL is fine */
/* The value of that name; at NULL: there is none (also of a vault that is NULL). */
struct kb_slice kb_vault_find(const struct kb_vault *vault, const char *name);
/* The session's own certificate authority, DER: a PKCS #8 key and its certificate. */
struct kb_slice kb_vault_authority_key(const struct kb_vault *vault);
struct kb_slice kb_vault_authority_cert(const struct kb_vault *vault);
/* Memory of the vault's, for texts made of values; NULL when there is no more. */
void *kb_vault_alloc(struct kb_vault *vault, size_t len);
