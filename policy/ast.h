/* What the passes hand to each other. Private to policy/.
 *
 * lex:     text → tokens
 * parse:   tokens → statements, one kb_stmt per rule, whatever its kind
 * load:    `extends` followed, the statements of all files in one list
 * resolve: variables and paths expanded (path.c), constants looked up (cond.c), calls gathered
 * (calls.c) check:   conflicts, widening, lint lower:   statements → bundle
 *
 * Everything lives in the policy's arena.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "policy/arena.h"
#include "policy/diag.h"
#include "policy/policy.h"
#include "policy/tables.h"

/* Bounds on what one compilation may be made of. */
#define KB_SOURCE_MAX	 (1u << 20) /* bytes of one file */
#define KB_FILES_MAX	 64
#define KB_EXTENDS_DEPTH 16
#define KB_STMTS_MAX	 4096
#define KB_OPERANDS_MAX	 1024 /* of one statement */
#define KB_TERMS_MAX	 64   /* of one condition */
#define KB_ALTS_MAX	 64   /* alternatives of one condition */
#define KB_POLICY_MEMORY (64u << 20)
#define KB_RULE_TEXT_MAX 400

/* The file that rules for kb_policy_options.programs stand in. */
#define KB_PROGRAMS_FILE "the command's programs"

/* ---- Tokens ---------------------------------------------------------------------------------- */

enum kb_tok {
	KB_TOK_EOF,
	KB_TOK_WORD,   /* bare: names, numbers, @groups, globs */
	KB_TOK_STRING, /* "…", unescaped in text */
	KB_TOK_PUNCT,  /* one of { } ( ) | & , ; = != < <= > >= .. */
};

struct kb_token {
	enum kb_tok kind;
	struct kb_pos pos;
	const char *text; /* NUL-terminated */
	size_t offset;	  /* in the source */
	bool first;	  /* first on its line */
};

struct kb_tokens {
	struct kb_token *items;
	size_t len, cap;
};

/* Always ends in an EOF token; errors are diagnosed and skipped. -1: no memory. */
int kb_lex(const struct kb_source *source, struct kb_arena *arena, struct kb_tokens *ret,
	struct kb_diags *diags);

/* ---- Statements ------------------------------------------------------------------------------ */

enum kb_stmt_kind {
	KB_STMT_FS,
	KB_STMT_EXEC,
	KB_STMT_ENV,
	KB_STMT_LIMIT,
	KB_STMT_SYSCALL,
	KB_STMT_GROUP,
	KB_STMT_DEFAULT,
	KB_STMT_WORKSPACE,
	KB_STMT_NET,
	KB_STMT_GROUPS,
	KB_STMT_SECRET,
	KB_STMT_LET,
	KB_STMT_HOSTS,
	KB_STMT_KINDS,
};

enum kb_verb {
	KB_VERB_NONE,
	KB_VERB_READ,
	KB_VERB_WRITE,
	KB_VERB_DENY,
	KB_VERB_PRIVATE,
	KB_VERB_DEFAULT,
	KB_VERB_ALLOW,
	KB_VERB_PASS,
	KB_VERB_SET,
	KB_VERB_DROP,
	KB_VERB_HIDE,
	KB_VERB_PROTECT,
	KB_VERB_CONNECT,
	KB_VERB_LISTEN,
	KB_VERB_RESOLVE,
	KB_VERB_EXEC,
	KB_VERB_KEEP,
};

/* A word or string of the text, with its place. */
struct kb_operand {
	const char *text;
	struct kb_pos pos;
	bool quoted;
};

struct kb_operands {
	struct kb_operand *items;
	size_t len, cap;
};

enum kb_term_op {
	KB_OP_EQ,
	KB_OP_NE,
	KB_OP_LT,
	KB_OP_LE,
	KB_OP_GT,
	KB_OP_GE,
	KB_OP_IN,
	KB_OP_NOT_IN,
	KB_OP_ANY,  /* has any of */
	KB_OP_ALL,  /* has all of */
	KB_OP_NOT,  /* has none of */
	KB_OP_ONLY, /* no bits besides */
};

/* One value or range of values: bits or'ed together; hi empty for a single value. */
struct kb_value {
	struct kb_operands lo, hi;
};

struct kb_values {
	struct kb_value *items;
	size_t len, cap;
};

/* (argument & mask) op values */
struct kb_term {
	struct kb_operand arg;
	struct kb_operands mask; /* empty: the whole argument */
	enum kb_term_op op;
	struct kb_pos op_pos;
	struct kb_values values;
};

struct kb_terms {
	struct kb_term *items;
	size_t len, cap;
};

/* Alternatives (or) of terms that all hold (and). */
struct kb_alts {
	struct kb_terms *items;
	size_t len, cap;
};

struct kb_stmt {
	enum kb_stmt_kind kind;
	enum kb_verb verb;
	struct kb_pos pos;
	const char *text;	   /* as written, on one line */
	struct kb_operands ops;	   /* paths, names, values */
	struct kb_operands except; /* paths */
	bool has_cond;
	struct kb_alts cond;
	bool has_action;
	enum kb_action action;
	int errnum;
	bool has_record;
	enum kb_record_level record;
	const char *reason;
	bool optional;		 /* if-available */
	bool override_;		 /* widens a parent on purpose */
	bool observe;		 /* only recorded and answered by the collector */
	bool read_only;		 /* fs private read */
	const char *proto;	 /* net: tcp, udp or NULL */
	struct kb_operands http; /* net: "get /path" */
	struct {
		enum kb_secret_from from;
		enum kb_secret_as as;
		const char *as_name; /* header or user */
		const char *placeholder, *url, *url_path;
		bool intercept;
	} secret; /* its name and source are ops, its endpoints are except */
	const struct kb_source *source;
	unsigned level; /* of its file; see load.c */
	uint32_t rule;	/* index in the bundle's rule table, set by lower */
};

struct kb_stmts {
	struct kb_stmt **items;
	size_t len, cap;
};

/* One line of a test: the question stands in tokens first..last-1. */
struct kb_expect {
	struct kb_pos pos;
	enum kb_action action;
	int errnum; /* 0: any */
	size_t first, last;
};

struct kb_test {
	const char *name;
	struct kb_pos pos;
	const struct kb_tokens *tokens;
	struct {
		struct kb_expect *items;
		size_t len, cap;
	} expects;
};

struct kb_tests {
	struct kb_test *items;
	size_t len, cap;
};

struct kb_agents {
	struct kb_agent *items;
	size_t len, cap;
};

struct kb_unit {
	bool has_policy;
	const char *name; /* of the policy block */
	struct kb_source *source;
	struct kb_operands extends;
	struct kb_stmts stmts;
	struct kb_agents agents;
	struct kb_tests tests;
};

int kb_parse(struct kb_source *source, const struct kb_tokens *tokens, struct kb_arena *arena,
	struct kb_unit *ret, struct kb_diags *diags);

/* ---- The whole policy ------------------------------------------------------------------------ */

struct kb_sources {
	struct kb_source **items;
	size_t len, cap;
};

struct kb_policy {
	struct kb_arena arena;
	const char *name;
	struct kb_sources sources; /* [0] is the file that was asked for */
	const char **file_names;
	struct kb_stmts stmts;	 /* of all files */
	struct kb_agents agents; /* of the file that was asked for */
	struct kb_tests tests;	 /* of all files */
};

int kb_check(struct kb_policy *policy, const struct kb_policy_options *opts, struct kb_diags *diags,
	struct kb_err *err);

/* Lex and parse one file. */
int kb_unit_load(struct kb_policy *policy, const char *text, size_t len, const char *file_name,
	bool preset, struct kb_unit *ret, struct kb_diags *diags, struct kb_err *err);

/* ---- Conditions in normal form --------------------------------------------------------------- */

/* (argument & mask) lies in one of the closed intervals, compared unsigned at `width` bits. */
struct kb_interval {
	uint64_t lo, hi;
};

struct kb_intervals {
	struct kb_interval *items; /* ascending, disjoint, not touching */
	size_t len, cap;
};

struct kb_cond {
	unsigned arg;
	unsigned width; /* 16, 32, 64 */
	uint64_t mask;	/* within width */
	struct kb_intervals in;
};

struct kb_conds {
	struct kb_cond *items;
	size_t len, cap;
};

/* Bring the terms of one alternative into normal form for a call on an architecture. Diagnoses
 * unknown arguments and constants. 0, 1 (can never hold), or negative. */
int kb_cond_resolve(const struct kb_call *call, enum kb_arch_index arch,
	const struct kb_terms *terms, struct kb_arena *arena, struct kb_conds *ret,
	struct kb_diags *diags);
/* Can both hold at once? Exact for intervals under equal masks, else a safe yes. */
bool kb_conds_overlap(const struct kb_conds *a, const struct kb_conds *b);
/* Does every call that satisfies a also satisfy b? May say no for a yes. */
bool kb_conds_within(const struct kb_conds *a, const struct kb_conds *b);

/* ---- Rules by call --------------------------------------------------------------------------- */

/* How closely a rule speaks of a call. */
enum kb_spec {
	KB_SPEC_GROUP,	/* the whole group the call is in */
	KB_SPEC_CALL,	/* the call by name */
	KB_SPEC_INTENT, /* what an intent implies of its arguments */
	KB_SPEC_ARGS,	/* the call with these arguments */
};

struct kb_call_rule {
	struct kb_stmt *stmt;
	struct kb_conds conds;
	enum kb_spec spec;
	enum kb_action action;
	int errnum;
	unsigned order; /* of appearance, to keep sorting stable */
};

struct kb_call_rules {
	struct kb_call_rule *items; /* the first that matches decides */
	size_t len, cap;
};

/* One list per entry of kb_calls, sorted; *ret is an array of kb_calls_len in the arena. diags may
 * be NULL to stay quiet. */
int kb_calls_gather(struct kb_policy *policy, enum kb_arch_index arch, struct kb_arena *arena,
	struct kb_call_rules **ret, struct kb_diags *diags);

/* ---- Paths ----------------------------------------------------------------------------------- */

/* An operand as an absolute pattern without "." and "..": ~ is home, relative paths are the
 * workspace's, ${NAME} is expanded. NULL after a diagnostic. */
const char *kb_path_resolve(const struct kb_operand *op, const struct kb_policy_options *opts,
	struct kb_arena *arena, struct kb_diags *diags);
const char *kb_option_home(const struct kb_policy_options *opts);
const char *kb_option_workspace(const struct kb_policy_options *opts);
/* Put the values of `let` variables in place of their names, in every operand of the policy. */
int kb_vars_apply(struct kb_policy *policy, struct kb_diags *diags);
/* Put the hosts of @groups in place of their names, in net rules and in tests. */
int kb_hosts_apply(
	struct kb_policy *policy, const struct kb_policy_options *opts, struct kb_diags *diags);
/* Only ${NAME} expanded. */
const char *kb_text_expand(const struct kb_operand *op, const struct kb_policy_options *opts,
	struct kb_arena *arena, struct kb_diags *diags);
bool kb_path_is_glob(const char *path);
/* Is path at or beneath the pattern? * and ? stay within a component, ** crosses; a pattern that
 * matches a directory covers what is beneath it. */
bool kb_path_match(const char *pattern, const char *path);
/* Of a path that the pattern matches: the length of the first directory on the way that it covers.
 */
size_t kb_path_matched(const char *pattern, const char *path);
/* Plain paths: is path dir itself or beneath it? */
bool kb_path_beneath(const char *dir, const char *path);
/* More literal components weigh more; a glob weighs less than a plain path of its length. */
unsigned kb_path_weight(const char *pattern);
