/* The generated part of a session's /etc: accounts, host name, name resolution, facts. */
#pragma once

#include "supervisor/base/err.h"

struct kb_rootfs_spec;

/* Into directory "etc" (which exists) below root. */
int kb_etc_write(int root, const struct kb_rootfs_spec *spec, struct kb_err *err);
