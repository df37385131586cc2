/* Which build this is. Programs of different builds do not talk to each other. */
#pragma once

const char *kb_build_id(void); /* "0.1.0+5f3a9c01d2e4": version and protocol fingerprint */
