/* The writers behind kb_bundle_write(), one file or function each. Private to policy/. */
#pragma once

#include "policy/bundle.h"

int kb_write_oci(
	const struct kb_bundle *bundle, uint32_t arch, struct kb_buf *out, struct kb_err *err);
