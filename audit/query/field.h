/* Private to audit/: the fields of the query language, as one table. Output uses it too, so that
 * what is shown under a name is what a query under that name compares. */
#pragma once

#include "audit/reader.h"
#include "audit/record.h"

enum kb_kind {
	KB_KIND_NUMBER,
	KB_KIND_TIME,
	KB_KIND_WORD,	 /* a number with words, from a table */
	KB_KIND_TEXT,	 /* bytes; `*` crosses slashes */
	KB_KIND_PATH,	 /* bytes; `*` stops at slashes */
	KB_KIND_ARGV,	 /* a list of bytes, also compared as one line */
	KB_KIND_SYSCALL, /* a number, or its name on the record's architecture */
	KB_KIND_ERRNO,	 /* a number or its name */
	KB_KIND_SIGNAL,	 /* a number or its name */
	KB_KIND_FLAGS,	 /* a number, or names joined by | */
	KB_KIND_IP,	 /* an address or a network */
	KB_KIND_RULE,	 /* an id, with or without its hash */
	KB_KIND_SESSION, /* a name or an id */
};

struct kb_field {
	const char *name;
	enum kb_kind kind;
	const struct kb_words *words;
	/* False: the record has no such value. */
	bool (*number)(const struct kb_row *row, int64_t *ret);
	bool (*text)(const struct kb_row *row, struct kb_bytes *ret);
	const char *help;
};
const struct kb_field *kb_field_find(const char *name, size_t len);
const struct kb_field *kb_field_table(size_t *ret_n);
/* All names, for completion and "did you mean". */
const char *const *kb_field_names(size_t *ret_n);

bool kb_row_exe(const struct kb_row *row, struct kb_bytes *ret);
bool kb_row_comm(const struct kb_row *row, struct kb_bytes *ret);
/* The arguments of an exec record, else of the program its process runs. */
size_t kb_row_argv(const struct kb_row *row, const struct kb_bytes **ret);
bool kb_row_ppid(const struct kb_row *row, int64_t *ret);
bool kb_row_path(const struct kb_row *row, struct kb_bytes *ret);
uint32_t kb_row_arch(const struct kb_row *row);
/* An IP address as text; false when the record has none. */
#define KB_IP_TEXT 48
bool kb_row_ip(const struct kb_row *row, char ret[KB_IP_TEXT]);

/* "EACCES", or NULL; and back, or -1. */
const char *kb_error_name(int errnum);
int kb_error_find(const char *name, size_t len);
/* The same of signals. */
const char *kb_signal_name(int signo);
int kb_signal_find(const char *name, size_t len);
/* Flags of a call as names joined by | ("O_RDWR|O_CREAT", else "0x…"). arch tells their values. */
#define KB_FLAGS_TEXT 256
void kb_flags_format(enum kb_event event, uint32_t arch, uint32_t flags, char ret[KB_FLAGS_TEXT]);
/* The value of one flag's name, false when unknown. */
bool kb_flag_find(const char *name, size_t len, uint32_t arch, uint32_t *ret);
/* The i-th flag name, or NULL past the last. */
const char *kb_flag_name(size_t i);
#define KB_OPEN_ACCMODE 3u
/* An open that can change the file (by its access mode, O_TRUNC or O_CREAT with writing). */
bool kb_open_writes(const struct kb_record *record);
