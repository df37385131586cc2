#include "arch.h"

#include <string.h>
#include <sys/utsname.h>

#include "supervisor/base/util.h"

/* The first twenty bytes of an executable: 64 bits, little-endian, this machine. */
#define ELF_MAGIC(machine)                                                                         \
	"\\x7fELF\\x02\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00" machine   \
	"\\x00"
#define ELF_MASK                                                                                   \
	"\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xfe\\x" \
	"ff\\xff\\xff"

static const struct kb_arch arches[] = {
	{"x86_64", "amd64", "linux-image-amd64", ELF_MAGIC("\\x3e"), ELF_MASK, "qemu-x86_64"},
	{"aarch64", "arm64", "linux-image-arm64", ELF_MAGIC("\\xb7"), ELF_MASK, "qemu-aarch64"},
};

int kb_arch_find(const char *name, const struct kb_arch **ret, struct kb_err *err)
{
	struct utsname host;

	if ((!name || !*name) && uname(&host) == 0)
		name = host.machine;
	for (size_t i = 0; name && i < KB_ARRAY_LEN(arches); i++)
		if (strcmp(name, arches[i].name) == 0 || strcmp(name, arches[i].debian) == 0) {
			*ret = &arches[i];
			return 0;
		}
	kb_err_set(err, KB_ERR_USAGE, "machines cannot have the architecture %s",
		name ? name : "of this host");
	return kb_err_hint(err, "they can have x86_64 or aarch64");
}

bool kb_arch_is_native(const struct kb_arch *arch)
{
	struct utsname host;

	return uname(&host) == 0 && strcmp(host.machine, arch->name) == 0;
}
