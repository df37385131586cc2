#include "image.h"

const char kb_image_setup_sh[] =
#include "setup.sh.inc"
	;
const char kb_image_pack_sh[] =
#include "pack.sh.inc"
	;
const char kb_image_seed_sh[] =
#include "seed.sh.inc"
	;
const char kb_image_adopt_sh[] =
#include "adopt.sh.inc"
	;
const char kb_image_dotfiles_sh[] =
#include "dotfiles.sh.inc"
	;
const char kb_image_finish_sh[] =
#include "finish.sh.inc"
	;
const char kb_image_user_data[] =
#include "user-data.yaml.inc"
	;
const char kb_image_foreign_sh[] =
#include "foreign.sh.inc"
	;
