/* What a session's programs trust besides the machine's authorities: an authority of its own, where
 * the policy has TLS opened. */
#pragma once

#include <stddef.h>

#define KB_TRUST_OWN	"/etc/kbsup/ca.pem"	   /* that one alone */
#define KB_TRUST_BUNDLE "/etc/kbsup/ca-bundle.pem" /* and the machine's */

/* Files with the machine's authorities, as systems have them: the bundle is mounted over those that
 * are there. NULL past the last. */
const char *kb_trust_place(size_t i);
/* The machine's authorities (source: its root directory, NULL for /) and own, as one text; NULL: no
 * memory. */
char *kb_trust_bundle(const char *source, const char *own);
