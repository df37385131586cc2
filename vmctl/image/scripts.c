#include "bundle.h"

const char kb_image_setup_sh[] =
#include "setup.sh.inc"
	;
const char kb_image_pack_sh[] =
#include "pack.sh.inc"
	;
