/* Look-ups in the generated tables. */
#include "policy/tables.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/policy.h"
#include "supervisor/base/util.h"

static const struct {
	const char *name;
	uint32_t audit;
	const int16_t *by_nr;
	const size_t *len;
} arches[KB_ARCHES] = {
	[KB_X86_64] = {"x86_64", AUDIT_ARCH_X86_64, kb_calls_by_nr_x86_64,
		&kb_calls_by_nr_x86_64_len},
	[KB_AARCH64] = {"aarch64", AUDIT_ARCH_AARCH64, kb_calls_by_nr_aarch64,
		&kb_calls_by_nr_aarch64_len},
};

static int compare_call(const void *key, const void *item)
{
	return strcmp(key, ((const struct kb_call *)item)->name);
}

int kb_call_find(const char *name)
{
	const struct kb_call *call =
		bsearch(name, kb_calls, kb_calls_len, sizeof(*kb_calls), compare_call);

	return call ? (int)(call - kb_calls) : -1;
}

int kb_call_by_nr(enum kb_arch_index arch, int nr)
{
	return nr < 0 || (size_t)nr >= *arches[arch].len ? -1 : arches[arch].by_nr[nr];
}

const struct kb_group *kb_group_find(const char *name)
{
	for (size_t i = 0; i < kb_groups_len; i++)
		if (!strcmp(kb_groups[i].name, name))
			return &kb_groups[i];
	return NULL;
}

const struct kb_constant *kb_constant_find(const struct kb_constant_set *set, const char *name)
{
	for (size_t i = 0; i < set->len; i++)
		if (!strcmp(set->items[i].name, name))
			return &set->items[i];
	return NULL;
}

unsigned kb_ctype_width(enum kb_ctype type)
{
	static const unsigned widths[] = {[KB_T_U16] = 16,
		[KB_T_I32] = 32,
		[KB_T_U32] = 32,
		[KB_T_I64] = 64,
		[KB_T_U64] = 64,
		[KB_T_PTR] = 64};

	return widths[type];
}

bool kb_ctype_signed(enum kb_ctype type)
{
	return type == KB_T_I32 || type == KB_T_I64;
}

int kb_arch_index(uint32_t arch)
{
	for (int i = 0; i < KB_ARCHES; i++)
		if (arches[i].audit == arch)
			return i;
	return -1;
}

uint32_t kb_arch_audit(enum kb_arch_index index)
{
	return arches[index].audit;
}

const char *kb_syscall_name(uint32_t arch, int nr)
{
	int index = kb_arch_index(arch);
	int call = index < 0 ? -1 : kb_call_by_nr(index, nr);

	return call < 0 ? NULL : kb_calls[call].name;
}

int kb_syscall_number(uint32_t arch, const char *name)
{
	int index = kb_arch_index(arch);
	int call = index < 0 ? -1 : kb_call_find(name);

	return call < 0 ? -1 : kb_calls[call].nr[index];
}

uint32_t kb_arch_native(void)
{
#if defined(__x86_64__)
	return AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
	return AUDIT_ARCH_AARCH64;
#else
	return 0;
#endif
}

uint32_t kb_arch_parse(const char *name)
{
	for (int i = 0; i < KB_ARCHES; i++)
		if (!strcmp(arches[i].name, name))
			return arches[i].audit;
	return !strcmp(name, "arm64") ? AUDIT_ARCH_AARCH64 : 0;
}

const char *kb_arch_name(uint32_t arch)
{
	int index = kb_arch_index(arch);

	return index < 0 ? "unknown" : arches[index].name;
}

/* The errors a policy may answer with. Numbers are Linux's on both architectures; a host that is
 * not Linux compiles policies too, so they are spelt out. */
static const struct {
	const char *name;
	int number;
} errnos[] = {
	{"EPERM", 1},
	{"ENOENT", 2},
	{"ESRCH", 3},
	{"EINTR", 4},
	{"EIO", 5},
	{"ENXIO", 6},
	{"E2BIG", 7},
	{"ENOEXEC", 8},
	{"EBADF", 9},
	{"ECHILD", 10},
	{"EAGAIN", 11},
	{"ENOMEM", 12},
	{"EACCES", 13},
	{"EFAULT", 14},
	{"EBUSY", 16},
	{"EEXIST", 17},
	{"EXDEV", 18},
	{"ENODEV", 19},
	{"ENOTDIR", 20},
	{"EISDIR", 21},
	{"EINVAL", 22},
	{"ENFILE", 23},
	{"EMFILE", 24},
	{"ENOTTY", 25},
	{"EFBIG", 27},
	{"ENOSPC", 28},
	{"ESPIPE", 29},
	{"EROFS", 30},
	{"EMLINK", 31},
	{"EPIPE", 32},
	{"EDOM", 33},
	{"ERANGE", 34},
	{"ENAMETOOLONG", 36},
	{"ENOSYS", 38},
	{"ENOTEMPTY", 39},
	{"ELOOP", 40},
	{"EPROTO", 71},
	{"EOVERFLOW", 75},
	{"ENOTSOCK", 88},
	{"EPROTOTYPE", 91},
	{"ENOPROTOOPT", 92},
	{"EPROTONOSUPPORT", 93},
	{"ESOCKTNOSUPPORT", 94},
	{"EOPNOTSUPP", 95},
	{"ENOTSUP", 95},
	{"EPFNOSUPPORT", 96},
	{"EAFNOSUPPORT", 97},
	{"EADDRINUSE", 98},
	{"EADDRNOTAVAIL", 99},
	{"ENETDOWN", 100},
	{"ENETUNREACH", 101},
	{"ECONNABORTED", 103},
	{"ECONNRESET", 104},
	{"ETIMEDOUT", 110},
	{"ECONNREFUSED", 111},
	{"EHOSTUNREACH", 113},
	{"EDQUOT", 122},
};

int kb_errno_parse(const char *name)
{
	for (size_t i = 0; i < KB_ARRAY_LEN(errnos); i++)
		if (!strcmp(errnos[i].name, name))
			return errnos[i].number;
	return 0;
}

const char *kb_errno_name(int errnum)
{
	for (size_t i = 0; i < KB_ARRAY_LEN(errnos); i++)
		if (errnos[i].number == errnum)
			return errnos[i].name;
	return NULL;
}

const char *const *kb_preset_names(void)
{
	return kb_preset_name_list;
}

const char *kb_preset_text(const char *name, size_t *ret_len)
{
	for (size_t i = 0; kb_preset_name_list[i]; i++)
		if (!strcmp(kb_presets[i].name, name)) {
			if (ret_len)
				*ret_len = kb_presets[i].len;
			return kb_presets[i].text;
		}
	return NULL;
}
