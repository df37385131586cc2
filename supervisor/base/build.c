#include "build.h"

#include "build_id.h"

const char *kb_build_id(void)
{
	return KB_BUILD_ID;
}
