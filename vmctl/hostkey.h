/* Ed25519 key pairs in OpenSSH's file formats, made here so that a machine's host key is known
 * before the machine is: it is pinned, never trusted on first use. Internal to vmctl. */
#pragma once

#include <stdbool.h>

#include "supervisor/base/err.h"

/* Both end in a newline; free them. comment: printable, short. Formats: PROTOCOL.key of OpenSSH. */
int kb_hostkey_new(const char *comment, char **ret_private, char **ret_public, struct kb_err *err);
/* Whether the private key, of the kind made here, is the one to the public line. */
bool kb_hostkey_match(const char *private, const char *public);
