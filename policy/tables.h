/* System call knowledge, compiled from tables/ by gen_tables.py: calls, their arguments, constants,
 * groups; and the presets' text. Everything here is constant data. Private to policy/.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Column of an architecture in the tables. */
enum kb_arch_index { KB_X86_64, KB_AARCH64, KB_ARCHES };

/* What the kernel looks at in a register. */
enum kb_ctype { KB_T_U16, KB_T_I32, KB_T_U32, KB_T_I64, KB_T_U64, KB_T_PTR };

struct kb_constant {
	const char *name;
	uint64_t value[KB_ARCHES];
	bool has[KB_ARCHES];
};

struct kb_constant_set {
	const char *name;
	bool flags; /* a word of bits; otherwise one value */
	const struct kb_constant *items;
	size_t len;
};

struct kb_call_arg {
	const char *name;
	enum kb_ctype type;
	const struct kb_constant_set *set; /* or NULL */
};

#define KB_CALL_ARGS 6

struct kb_call {
	const char *name;
	int nr[KB_ARCHES]; /* -1: the architecture has no such call */
	unsigned n_args;
	struct kb_call_arg args[KB_CALL_ARGS];
};

struct kb_group {
	const char *name;     /* with the @ */
	const int16_t *calls; /* indices into kb_calls */
	size_t len;
};

struct kb_preset {
	const char *name;
	size_t len;
	const char *text;
};

extern const struct kb_constant_set kb_constant_sets[];
extern const size_t kb_constant_sets_len;
extern const struct kb_call kb_calls[]; /* sorted by name */
extern const size_t kb_calls_len;
extern const int16_t kb_calls_by_nr_x86_64[], kb_calls_by_nr_aarch64[];
extern const size_t kb_calls_by_nr_x86_64_len, kb_calls_by_nr_aarch64_len;
extern const struct kb_group kb_groups[];
extern const size_t kb_groups_len;
extern const char kb_groups_version[];
extern const struct kb_preset kb_presets[];
extern const char *const kb_preset_name_list[];

/* Index of a call by name, or by number on an architecture; -1: none. */
int kb_call_find(const char *name);
int kb_call_by_nr(enum kb_arch_index arch, int nr);
const struct kb_group *kb_group_find(const char *name);
const struct kb_constant *kb_constant_find(const struct kb_constant_set *set, const char *name);
/* Bits of the register that the kernel looks at. */
unsigned kb_ctype_width(enum kb_ctype type);
bool kb_ctype_signed(enum kb_ctype type);
/* Column of an AUDIT_ARCH_* value, or -1; and back. */
int kb_arch_index(uint32_t arch);
uint32_t kb_arch_audit(enum kb_arch_index index);
/* errno by name ("EPERM"), 0 when unknown; and the name of a number, or NULL. */
int kb_errno_parse(const char *name);
const char *kb_errno_name(int errnum);
