/* Building a root image, and the scripts that do it, as text. Internal to vmctl. */
#pragma once

#include "vmctl/op.h"

extern const char kb_image_setup_sh[];
extern const char kb_image_pack_sh[];

/* Make root.img, vmlinuz and initrd in dir. */
int kb_image_build(
	struct kb_vmctl *vm, const struct kb_base_spec *spec, const char *dir, struct kb_err *err);
