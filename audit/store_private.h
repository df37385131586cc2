/* Private to audit/store*.c: what the parts of the writer share. */
#pragma once

#include "store.h"

struct kb_env *kb_store_env(struct kb_store *store);
struct kb_signer *kb_store_signer(struct kb_store *store);
/* The open transaction, begun when there is none; kb_store_commit() commits it. */
int kb_store_txn(struct kb_store *store, MDB_txn **ret, struct kb_err *err);
/* Give it up, when something in it failed. */
void kb_store_undo(struct kb_store *store);

#define KB_TXN_MAX (32u << 20) /* bytes of blocks in one transaction */

/* A file that only takes room, until there is none elsewhere. */
void kb_store_ballast_keep(const struct kb_env *env);
void kb_store_ballast_drop(const struct kb_env *env);
/* LMDB's return code of a commit: it calls a write cut short by a full disk an I/O error. */
int kb_store_commit_code(const struct kb_env *env, int rc);
