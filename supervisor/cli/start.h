/* A session that is started and left running. */
#pragma once

#include "supervisor/daemon/client.h"

/* Returns once its first process runs, with its id and name; the session goes on. */
int kb_start_detached(struct kb_loop *loop, struct kb_client *client, const struct kb_run *run,
	char ret_id[KB_ULID_TEXT], char ret_name[KB_NAME_MAX], struct kb_err *err);
