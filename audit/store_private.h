/* Private to audit/store*.c: what the parts of the writer share. */
#pragma once

#include "store.h"

struct kb_env *kb_store_env(struct kb_store *store);
struct kb_signer *kb_store_signer(struct kb_store *store);
