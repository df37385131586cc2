/* The command table: what `kbsup` understands, in one place.
 *
 * One `const struct kb_command` per verb, defined in the file that carries the verb out, listed in
 * commands.c. The parser (args.c), usage and help (help.c), completions (complete.c) and the test
 * of the man pages all read this table and nothing else, so none of them can drift.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "supervisor/base/err.h"

struct kb_cli;
struct kb_args;

/* What a word stands for: decides how it is checked and how it is completed. */
enum kb_kind {
	KB_KIND_TEXT,	     /* anything */
	KB_KIND_FILE,	     /* any file */
	KB_KIND_POLICY_FILE, /* *.policy */
	KB_KIND_DIR,
	KB_KIND_SESSION,  /* a session that runs */
	KB_KIND_RUNNING,  /* a session that runs, or a machine */
	KB_KIND_RECORDED, /* any session in the store, "last", "all" */
	KB_KIND_AGENT,
	KB_KIND_MACHINE,
	KB_KIND_DISK,
	KB_KIND_BASE,
	KB_KIND_POLICY,	 /* a preset, one of the user's policies, or a file */
	KB_KIND_WORD,	 /* one of `words` */
	KB_KIND_COUNT,	 /* a whole number */
	KB_KIND_ENV,	 /* K or K=V */
	KB_KIND_EXPR,	 /* a word of an audit expression: begins with a field */
	KB_KIND_VERB,	 /* a command of kbsup */
	KB_KIND_COMMAND, /* a program and its arguments */
};

struct kb_option {
	const char *name; /* without the dashes */
	char letter;	  /* or 0 */
	const char *arg;  /* what the value is called; NULL: a flag */
	enum kb_kind kind;
	const char *words;    /* KB_KIND_WORD: "auto|bpf|notify" */
	bool repeat;	      /* may be given more than once */
	const char *setting;  /* its name in the user's settings (settings.h), or NULL */
	const char *variable; /* the variable that stands for it, or NULL */
	const char *unless; /* with this other option given, the setting does not count; or NULL */
	const char *help;
};

#define KB_MANY 4096u /* "any number" of operands */

struct kb_operand {
	const char *name; /* NULL ends the list */
	unsigned min, max;
	enum kb_kind kind;
	const char *words;
};

enum kb_group {
	KB_GROUP_SESSIONS,
	KB_GROUP_MACHINES,
	KB_GROUP_POLICIES,
	KB_GROUP_AUDIT,
	KB_GROUP_OTHER,
	KB_GROUP_MAX_
};

enum kb_tail {
	KB_TAIL_NONE,	  /* `--` only ends the options */
	KB_TAIL_OPTIONAL, /* [-- CMD…] */
	KB_TAIL_REQUIRED, /* -- CMD… */
};

#define KB_OPERANDS_MAX 3

struct kb_command {
	const char *name; /* one word, or two: "policy check" */
	enum kb_group group;
	const char *summary;		 /* one line, for lists; no full stop */
	const char *about;		 /* a few lines for `help VERB` */
	const struct kb_option *options; /* ended by a NULL name; may be NULL */
	struct kb_operand operands[KB_OPERANDS_MAX + 1];
	enum kb_tail tail;
	bool json;	       /* has --json */
	bool hidden;	       /* not in help; for programs */
	const char *short_for; /* the command that it is another name of, or NULL */
	const char *man;       /* the page that has the whole story: "kbsup-run" */
	/* The exit status, or a negative error with *err filled. */
	int (*run)(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err);
};

/* In the order help shows them; NULL-terminated. */
extern const struct kb_command *const kb_commands[];
/* Options every command has (--help), and the one that `json` adds. Ended by a NULL name. */
extern const struct kb_option kb_common_options[];
extern const struct kb_option kb_json_option;

const char *kb_group_title(enum kb_group group);

/* The i-th option a command takes, its own first, then the common ones; NULL past the last. */
const struct kb_option *kb_command_option(const struct kb_command *command, size_t i);
/* The command whose name is words[0] or words[0] words[1]; *ret_used says how many words it took.
 * NULL with *err filled ("did you mean …") when there is none. */
const struct kb_command *kb_command_find(
	char *const *words, int n_words, int *ret_used, struct kb_err *err);
/* True if `word` is the first word of two-word commands ("policy"). */
bool kb_command_is_family(const char *word);
/* "list, show, check": the second words of the family that command belongs to. */
#define KB_MEMBERS_MAX 256
const char *kb_family_members(const struct kb_command *command, char ret[KB_MEMBERS_MAX]);
