/* What is said around a session: the opening line, and the closing lines with its denials. On
 * standard error, and only when that is a terminal. */
#pragma once

#include "connect.h"
#include "policies.h"
#include "publish.h"
#include "pump.h"

struct kb_opening {
	const struct kb_bundle *bundle;
	const char *name, *machine, *workspace;
	size_t policy_files;
	bool tightened; /* by the workspace's own policy */
	const struct kb_publish_list *ports;
};

void kb_opening_print(const struct kb_cli *cli, const struct kb_opening *opening,
	const struct kb_started *started);
/* The session ended. Asks for its denials. policy: the word of --policy; NULL: the agent's. */
void kb_closing_print(const struct kb_cli *cli, struct kb_connection *connection,
	const struct kb_session *session, const char *policy);
/* The user left, and how to come back. */
void kb_leaving_print(const struct kb_cli *cli, const struct kb_pump_end *end);
