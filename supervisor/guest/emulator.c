#include "supervisor/guest/emulator.h"

#include <string.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <cpuid.h>

#define HYPERVISOR_BIT	(1u << 31) /* of leaf 1, ECX */
#define HYPERVISOR_LEAF 0x40000000u

static bool is_tcg(void)
{
	unsigned a, b, c, d;
	char name[12];

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & HYPERVISOR_BIT))
		return false;
	__cpuid(HYPERVISOR_LEAF, a, b, c, d);
	memcpy(name, &b, 4);
	memcpy(name + 4, &c, 4);
	memcpy(name + 8, &d, 4);
	return memcmp(name, "TCGTCGTCGTCG", sizeof(name)) == 0;
}
#else
/* Said nowhere else: QEMU's name for the processor is that of a real one. */
static bool is_tcg(void)
{
	return false;
}
#endif

bool kb_emulator_hangs(void)
{
	return is_tcg() && sysconf(_SC_NPROCESSORS_ONLN) > 1;
}
