/* The policy compiler's only public header.
 *
 * Text becomes a *bundle* in passes, one file each: lex, parse, resolve (extends, groups,
 * constants, variables), check (conflicts, lint), lower (mounts, Landlock, decision table, limits).
 * A bundle is machine-independent; kbsup-guest emits cBPF from it for the machine it runs on. Every
 * artefact carries the index of the rule it came from, so that a verdict can always be explained.
 *
 * Ownership: what a function creates is destroyed with the function named beside it; accessors
 * return pointers that live as long as the object they were taken from. Nothing here prints.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "supervisor/base/buf.h"
#include "supervisor/base/err.h"
#include "supervisor/base/linux_abi.h"

/* ---- Diagnostics: several per run, each with its place -------------------------------------- */

enum kb_severity { KB_DIAG_ERROR, KB_DIAG_WARNING, KB_DIAG_NOTE };

struct kb_diags;
struct kb_diags *kb_diags_create(void);
void kb_diags_destroy(struct kb_diags *diags);
size_t kb_diags_errors(const struct kb_diags *diags);
size_t kb_diags_warnings(const struct kb_diags *diags);
/* All of them as people read them: file:line:col, the line, a caret, "did you mean"; the totals
 * last. Escaped. json: one JSON document instead. */
int kb_diags_render(
	const struct kb_diags *diags, bool json, struct kb_buf *out, struct kb_err *err);

/* ---- Rules ----------------------------------------------------------------------------------- */

enum kb_action { KB_ALLOW, KB_DENY, KB_KILL, KB_ASK };
enum kb_record_level { KB_RECORD_NONE, KB_RECORD_SUMMARY, KB_RECORD_FULL };

#define KB_RULE_NONE UINT32_MAX

struct kb_rule {
	const char *id; /* "base.policy:14#5f3a9c01" */
	const char *file;
	unsigned line;
	const char *text;   /* the rule as written, on one line */
	const char *reason; /* or NULL */
	enum kb_action action;
	int errnum; /* KB_DENY: what the caller gets */
	enum kb_record_level record;
};

/* ---- Compiling ------------------------------------------------------------------------------- */

struct kb_policy_options {
	/* Where `extends NAME` and NAME.policy are looked for, in order; NULL-terminated. The
	 * built-in presets come last. May be NULL. */
	const char *const *search;
	const char *home;      /* what ~ means inside the session */
	const char *workspace; /* what "." means: absolute; may be NULL for check */
	const char *user;
	const char *const *env; /* the launching user's environment for `env pass`; may be NULL */
	const char *tighten; /* a policy file from the workspace, laid over the policy asked for: it
				may only take away (deny, hide, lower limits). May be NULL */
	/* Absolute paths of the machine that the session's command is made of: read and run, as if
	 * the policy said so. NULL-terminated; may be NULL */
	const char *const *programs;
	/* The hosts of a @group, "host:port", NULL-terminated, to live as long as the options; NULL
	 * with *ret_why: how to make them known, or NULL when there is no such group. May be NULL
	 * itself: each kind then stands for one name that never resolves. */
	const char *const *(*find_hosts)(void *arg, const char *group, const char **ret_why);
	void *find_hosts_arg;
};

/* The kinds of hosts that are looked up for every user, "@npm-registry" …; NULL past the last. */
const char *kb_host_kind(size_t i);

struct kb_policy;
/* name_or_file: a path (has a '/' or ends in .policy) or the name of a policy or preset. Returns
 * -KB_ERR_INVALID when the text has errors (they are in diags), other codes when it cannot be read.
 */
int kb_policy_load(const char *name_or_file, const struct kb_policy_options *options,
	struct kb_policy **ret, struct kb_diags *diags, struct kb_err *err);
/* The same from memory; file_name is used in messages and rule ids. */
int kb_policy_load_text(const char *text, size_t len, const char *file_name,
	const struct kb_policy_options *options, struct kb_policy **ret, struct kb_diags *diags,
	struct kb_err *err);
void kb_policy_destroy(struct kb_policy *policy);
const char *kb_policy_name(const struct kb_policy *policy);
/* The files it was made from, presets as "preset:NAME". */
size_t kb_policy_files(const struct kb_policy *policy, const char *const **ret);
/* Lower to an encoded bundle (proto/bundle.proto), appended to out. */
int kb_policy_lower(const struct kb_policy *policy, const struct kb_policy_options *options,
	struct kb_buf *out, struct kb_diags *diags, struct kb_err *err);

/* Names of the built-in presets, NULL-terminated, and their text (NULL when unknown). */
const char *const *kb_preset_names(void);
const char *kb_preset_text(const char *name, size_t *ret_len);

/* ---- Bundles --------------------------------------------------------------------------------- */

/* Where a path comes from inside the session. Paths are absolute. */
enum kb_mount_kind {
	KB_MOUNT_READ,	  /* the machine's own path, read-only */
	KB_MOUNT_WRITE,	  /* the machine's own path, writable */
	KB_MOUNT_HIDE,	  /* out of reach: a closed stand-in covers it */
	KB_MOUNT_PRIVATE, /* a fresh tmpfs that vanishes with the session */
};

struct kb_mount {
	enum kb_mount_kind kind;
	const char *path;
	uint32_t rule;
	bool optional; /* skip silently when the machine has no such path */
	bool glob;     /* path is a pattern: it stands for what matches when the session starts */
	bool keep;     /* private, but lives with the agent's profile and comes back next time */
	bool pin; /* a directory on the way to something protected: mounted so that it stays there,
		     and for nothing else */
};
/* What lies deeper is seen. For one path, a mount that names it beats what a pattern matches, and
 * that beats a pin. Sorted: parents before children. /proc, /sys and /dev have no mount here: the
 * runtime makes the session's own. A path that is a symbolic link on the machine becomes the same
 * link inside. */

/* What a path rule is about; also the kinds of access asked of kb_bundle_decide_path(). */
#define KB_FS_READ  1u
#define KB_FS_WRITE 2u /* create, modify, delete, rename, chmod, truncate … */
#define KB_FS_EXEC  4u

struct kb_path_rule {
	const char *pattern; /* absolute; * and ? within a component, ** across; a plain path covers
				its subtree */
	unsigned access;     /* KB_FS_* it speaks of */
	enum kb_action action;
	uint32_t rule;
	int errnum; /* KB_DENY */
	enum kb_record_level record;
	bool private_tree; /* the session's own tree (fs private): what the machine has at this
			      place cannot be reached */
	bool at_start;	   /* the pattern means what matched when the session started */
};

/* One Landlock path rule: everything beneath path. access is a mask of LANDLOCK_ACCESS_FS_* of the
 * newest ABI the compiler knows (5). Whoever applies it keeps the bits the machine's ABI has and,
 * for a path that is not a directory, only those that files can have (KB_LANDLOCK_FILE). */
#define KB_LANDLOCK_FILE 0xc007ull /* execute, write_file, read_file, truncate, ioctl_dev */
struct kb_landlock_rule {
	const char *path;
	uint64_t access;
	uint32_t rule;
	bool optional;
};

enum kb_limit_kind {
	KB_LIMIT_MEMORY, /* bytes */
	KB_LIMIT_PIDS,
	KB_LIMIT_CPU,	     /* thousandths of a CPU */
	KB_LIMIT_TIME,	     /* milliseconds of wall clock */
	KB_LIMIT_OPEN_FILES, /* RLIMIT_NOFILE */
	KB_LIMIT_DISK,	     /* bytes, of private tmpfs */
	KB_LIMIT_EGRESS,     /* bytes sent through the broker */
	KB_LIMIT_NOTIFY,     /* trapped calls per second */
	KB_LIMIT_ASK,	     /* milliseconds a question of an `ask` rule stays open */
	KB_LIMIT_MAX_,
};

struct kb_limit {
	enum kb_limit_kind kind;
	uint64_t value;
	uint32_t rule;
	bool optional; /* if-available */
};

enum kb_net_direction { KB_NET_CONNECT, KB_NET_LISTEN, KB_NET_RESOLVE };

/* Who may be reached, or on what one may listen. Either host, or address with prefix length. */
struct kb_net_rule {
	enum kb_net_direction direction;
	int protocol;	  /* IPPROTO_TCP, IPPROTO_UDP, or 0 for any */
	const char *host; /* lower case; "*." in front stands for any subdomain; or NULL */
	uint8_t address[16];
	unsigned address_len; /* 4, 16; 0: host */
	unsigned prefix;      /* bits */
	uint16_t port_lo, port_hi;
	enum kb_action action;
	int errnum;
	enum kb_record_level record;
	uint32_t rule;
	const char *const *http; /* "get /path", the only requests that pass; NULL: not looked
				    at. NULL-terminated */
};

/* Where a secret may go. */
struct kb_endpoint {
	const char *host; /* lower case; "*." in front stands for any subdomain; or an address */
	uint16_t port;
	bool tls; /* spoken to it; false only where the policy wrote http:// */
};
/* host: lower case, or an address as inet_ntop() writes it. */
bool kb_endpoint_matches(const struct kb_endpoint *endpoint, const char *host, uint16_t port);

/* A secret that the broker puts into requests; its value never enters the session. */
enum kb_secret_from { KB_SECRET_ENV, KB_SECRET_FILE, KB_SECRET_COMMAND, KB_SECRET_KEYRING };
enum kb_secret_as { KB_SECRET_HEADER, KB_SECRET_BEARER, KB_SECRET_BASIC, KB_SECRET_PLACEHOLDER };
struct kb_secret {
	const char *name; /* also of the session's variable that holds the placeholder */
	enum kb_secret_from from;
	const char *source; /* variable, path, command, or attributes of the keyring; on the host */
	const struct kb_endpoint *endpoints;
	size_t n_endpoints;
	enum kb_secret_as as;
	const char *as_name;	 /* header, or user of basic; else NULL */
	const char *placeholder; /* what the session has in its place */
	const char *url;      /* variable that holds the first endpoint as a plain URL; or NULL */
	const char *url_path; /* of that URL; NULL without it */
	bool intercept;	      /* TLS to its endpoints is opened by the broker */
	bool optional;	      /* if-available: the session starts without it */
	uint32_t rule;
};
#define KB_SECRETS_MAX 64

struct kb_bundle;
int kb_bundle_parse(const uint8_t *data, size_t len, struct kb_bundle **ret, struct kb_err *err);
void kb_bundle_destroy(struct kb_bundle *bundle);
const char *kb_bundle_name(const struct kb_bundle *bundle);
/* The files it was compiled from. */
size_t kb_bundle_files(const struct kb_bundle *bundle, const char *const **ret);
size_t kb_bundle_rules(const struct kb_bundle *bundle, const struct kb_rule **ret);
size_t kb_bundle_mounts(const struct kb_bundle *bundle, const struct kb_mount **ret);
size_t kb_bundle_path_rules(const struct kb_bundle *bundle, const struct kb_path_rule **ret);
size_t kb_bundle_landlock(const struct kb_bundle *bundle, const struct kb_landlock_rule **ret);
size_t kb_bundle_limits(const struct kb_bundle *bundle, const struct kb_limit **ret);
size_t kb_bundle_net(const struct kb_bundle *bundle, const struct kb_net_rule **ret);
size_t kb_bundle_secrets(const struct kb_bundle *bundle, const struct kb_secret **ret);
/* Does the broker have to look into TLS: for a secret, or for a rule that lists requests? */
bool kb_bundle_intercepts(const struct kb_bundle *bundle);
/* A policy of the workspace's own (kb_policy_options.tighten) is laid over it. */
bool kb_bundle_tightened(const struct kb_bundle *bundle);
#define KB_WORKSPACE_POLICY ".kbsup.policy" /* its name in the workspace */
/* The environment the first process gets: "K=V" strings. */
size_t kb_bundle_env(const struct kb_bundle *bundle, const char *const **ret);

/* ---- Verdicts: the reference evaluator ------------------------------------------------------- */

struct kb_verdict {
	enum kb_action action;
	int errnum; /* KB_DENY */
	enum kb_record_level record;
	uint32_t rule;	 /* KB_RULE_NONE when no line of the policy decided */
	bool by_default; /* no rule speaks of it: this is `fs default`, `net default` or `default`.
			    For paths: leave the call to the kernel, whose mounts and Landlock
			    refuse it if it exists; record a denial only when it does exist */
	bool at_start;	 /* denied, if it is among what the rule's pattern matched when the
			    session started: what was made since is not covered */
	bool private_tree; /* allowed in a tree that is the session's own. When the file is absent
			      there but the machine has one at this path, it is a denial by this
			      rule: the machine's file was asked for and is out of reach */
};

/* What the rules say of a system call's registers. arch is an AUDIT_ARCH_* value. */
struct kb_verdict kb_bundle_decide(
	const struct kb_bundle *bundle, uint32_t arch, int nr, const uint64_t args[6]);
/* Which outcomes of a call the rules want recorded, whatever its registers: what a collector must
 * look out for. */
#define KB_WATCH_ALLOWED 1u
#define KB_WATCH_DENIED	 2u
unsigned kb_bundle_watch(const struct kb_bundle *bundle, uint32_t arch, int nr);
/* What the path rules say of an absolute, resolved path. access: one or more of KB_FS_*. */
struct kb_verdict kb_bundle_decide_path(
	const struct kb_bundle *bundle, unsigned access, const char *path);

/* What the net rules say of a peer or local address, as given to connect, bind or sendto: loopback,
 * unix and unspecific families included. Only addresses are looked at here; rules by host name are
 * the broker's. protocol: IPPROTO_TCP, IPPROTO_UDP or 0 when it is not known. */
struct sockaddr;
struct kb_verdict kb_bundle_decide_net(const struct kb_bundle *bundle,
	enum kb_net_direction direction, int protocol, const struct sockaddr *address, size_t len);

/* Does a rule's list of requests (kb_net_rule.http) let this one through? Neither needs a NUL; what
 * follows a "?" of the path is not looked at. */
bool kb_http_allows(const char *const *http, const char *method, size_t method_len,
	const char *path, size_t path_len);

/* May a server in the session listen on this TCP port of its loopback? A published port is asked of
 * on the host and in the machine alike. */
struct kb_verdict kb_bundle_decide_port(const struct kb_bundle *bundle, uint16_t port);

/* As kb_bundle_decide_net() for a name, lower case; port 0 for resolve. The first rule by name that
 * matches. */
struct kb_verdict kb_bundle_decide_host(const struct kb_bundle *bundle,
	enum kb_net_direction direction, int protocol, const char *host, uint16_t port);

/* The rule behind that verdict; NULL: none speaks of it, and the default holds. */
const struct kb_net_rule *kb_bundle_find_host(const struct kb_bundle *bundle,
	enum kb_net_direction direction, int protocol, const char *host, uint16_t port);
struct kb_verdict kb_bundle_net_default(const struct kb_bundle *bundle);

/* ---- Emitting -------------------------------------------------------------------------------- */

enum kb_emit_lane {
	KB_EMIT_NOTIFY, /* calls that are recorded, and denials that are recorded, return USER_NOTIF
			 */
	KB_EMIT_PLAIN,	/* no notification: recorded denials return their errno (lane bpf sees them)
			 */
	KB_EMIT_SPLIT,	/* for both lanes: as PLAIN, but for what kb_bundle_asks() is true of */
};
/* No system call has this number or a higher one; but a program may make up one, or use x32's. */
#define KB_CALLS_MAX 1024
/* Whether a filter emitted with KB_EMIT_SPLIT asks about a call: decisions left to somebody,
 * recorded calls that name a socket address, because rules about addresses are applied by who is
 * asked, and recorded numbers past KB_CALLS_MAX. */
bool kb_bundle_asks(const struct kb_bundle *bundle, uint32_t arch, int nr, const uint64_t args[6]);

struct kb_program {
	struct sock_filter *insns;
	uint32_t *rules; /* for each instruction the rule it serves, or KB_RULE_NONE */
	size_t len;
};

/* cBPF for one architecture. Diagnoses a program the kernel would refuse (KB_ERR_LIMIT). */
int kb_bundle_emit(const struct kb_bundle *bundle, uint32_t arch, enum kb_emit_lane lane,
	struct kb_program *ret, struct kb_err *err);
void kb_program_finish(struct kb_program *program);
/* Readable listing with the rule of each instruction. */
int kb_program_disasm(const struct kb_program *program, const struct kb_bundle *bundle,
	struct kb_buf *out, struct kb_err *err);
/* The bundle as one JSON document. */
int kb_bundle_json(const struct kb_bundle *bundle, struct kb_buf *out, struct kb_err *err);

/* What `policy compile --emit` can write. Text in `out`, except BPF: the instructions as the kernel
 * takes them (struct sock_filter, little-endian). */
enum kb_emit_format {
	KB_EMIT_BPF,
	KB_EMIT_DISASM,
	KB_EMIT_OCI,	  /* the `seccomp` object of an OCI runtime specification */
	KB_EMIT_LANDLOCK, /* path rules with the rights this ABI has; what is missing is named */
	KB_EMIT_NFT,	  /* an nftables ruleset of the net rules by address */
	KB_EMIT_JSON,
};
/* "bpf", "disasm", "oci", "landlock", "nft", "json"; -1 when unknown. */
int kb_emit_format_parse(const char *name);
int kb_bundle_write(const struct kb_bundle *bundle, enum kb_emit_format format, uint32_t arch,
	enum kb_emit_lane lane, struct kb_buf *out, struct kb_err *err);

/* ---- Agents ---------------------------------------------------------------------------------- */

/* An `agent` block. Strings live as long as the policy. */
struct kb_agent {
	const char *name;
	const char *policy;	    /* the policy it runs under; defaults to the agent's name */
	const char *const *command; /* NULL-terminated; empty: the user's shell */
	const char *package_kind;   /* "npm", "pip", "apt" …, or NULL */
	const char *package;
	const char *const *programs; /* what its root file system must hold; NULL-terminated */
	const char *context;	     /* file that tells the agent its limits, as written; or NULL */
	const char *file;
	unsigned line;
};
/* The agent blocks of the file that was loaded (not of what it extends). */
size_t kb_policy_agents(const struct kb_policy *policy, const struct kb_agent **ret);

/* ---- Showing --------------------------------------------------------------------------------- */

/* The rules in effect after `extends`, each with its place and what overrules it. */
int kb_policy_show(
	const struct kb_policy *policy, bool json, struct kb_buf *out, struct kb_err *err);
/* The @groups and their calls. */
int kb_groups_show(bool json, struct kb_buf *out, struct kb_err *err);

/* ---- Asking ---------------------------------------------------------------------------------- */

/* One question, answered from the emitted program and the mechanisms' own artefacts:
 *	openat("/etc/shadow", O_RDWR)     clone(flags = CLONE_NEWUSER)     ptrace
 *	read PATH    write PATH    exec PATH    connect HOST:PORT    listen PORT
 * KB_ERR_USAGE when it cannot be understood. */
int kb_bundle_explain(const struct kb_bundle *bundle, const struct kb_policy_options *options,
	uint32_t arch, const char *question, bool json, struct kb_buf *out, struct kb_verdict *ret,
	struct kb_err *err);

/* ---- Records, as replay and learn look at them ----------------------------------------------- */

enum kb_observed_decision {
	KB_OBSERVED_ALLOWED,
	KB_OBSERVED_DENIED,
	KB_OBSERVED_KILLED,
	KB_OBSERVED_ASKED
};

struct kb_observed {
	const char *session;   /* shown to people; may be NULL */
	const char *workspace; /* of its session, absolute; may be NULL */
	const char *home;      /* the same */
	uint64_t seq;
	uint32_t arch;
	int syscall;   /* number on arch, or -1 */
	bool has_args; /* args holds the registers; otherwise rules on arguments cannot be judged */
	uint64_t args[6];
	bool has_flags; /* open flags in flags */
	uint32_t flags;
	bool has_mode;
	uint32_t mode;
	/* What the record's path was used for. link: path is read and path2 made; looks: asked
	 * about, which the kernel lets anybody who can reach it. */
	bool exec, open, change, link, looks;
	bool names;		  /* a name was made or removed: the directory was changed */
	bool partial;		  /* a count of events whose paths were not kept */
	const char *path, *path2; /* absolute, resolved; or NULL. path2 was changed too */
	int family;		  /* AF_*; 0: no address */
	enum kb_net_direction direction;
	uint8_t address[16];
	unsigned address_len; /* 4, 16 or 0 */
	uint16_t port;
	const char *host;    /* the name that was asked for, or NULL */
	const char *request; /* "GET /path", of HTTP; or NULL */
	enum kb_observed_decision decision;
	bool failed;	/* the call is known to have failed */
	int errnum;	/* of the failure, or of the denial; 0: unknown */
	uint64_t count; /* how many calls this record stands for */
};

/* The same as kb_bundle_explain() for one recorded event, with a line that would have changed it.
 */
int kb_bundle_explain_observed(const struct kb_bundle *bundle, const struct kb_observed *seen,
	bool json, struct kb_buf *out, struct kb_verdict *ret, struct kb_err *err);

/* What of a recorded session's circumstances its own bundle tells, for compiling another policy for
 * it: a variable of its environment, and the programs it was given (kb_policy_options.programs).
 * NULL: none, or none any more. */
const char *kb_bundle_variable(const struct kb_bundle *bundle, const char *name);
const char *kb_bundle_program(const struct kb_bundle *bundle, size_t i);

/* Recorded sessions against another policy. Bundles must outlive the replay; a policy that says "."
 * is another bundle for each workspace. */
struct kb_replay;
struct kb_replay_result {
	uint64_t sessions, records, still_allowed, still_denied, newly_denied, newly_allowed,
		cannot_tell;
	uint64_t sessions_newly_denied; /* sessions that would meet new denials */
};
int kb_replay_create(struct kb_replay **ret, struct kb_err *err);
void kb_replay_destroy(struct kb_replay *replay);
/* The events of one session come together. was: the policy the session ran under, NULL when it is
 * not known. Where both policies say the same, what happened goes on happening, even if it was
 * another thing than the rules say (a file was not there, a limit was reached). */
void kb_replay_add(struct kb_replay *replay, const struct kb_bundle *bundle,
	const struct kb_bundle *was, const struct kb_observed *seen);
/* In out: what changes, by kind of change and session, one line per distinct event with its count.
 */
int kb_replay_render(const struct kb_replay *replay, bool json, struct kb_buf *out,
	struct kb_replay_result *ret, struct kb_err *err);

struct kb_learn_options {
	const char *name;		/* of the policy that is written */
	const char *base;		/* name of the policy it extends */
	const struct kb_bundle *bundle; /* that policy, compiled; outlives the learner */
	const char *home, *workspace;	/* what it was compiled for; may be NULL as there */
};
/* The smallest policy that allows what was seen, on top of a base. What happened in the workspace
 * of another session is taken as if it had been in this one's. was: the policy the session ran
 * under, NULL when it is not known. The events of one session come together. */
struct kb_learner;
int kb_learner_create(
	const struct kb_learn_options *options, struct kb_learner **ret, struct kb_err *err);
void kb_learner_destroy(struct kb_learner *learner);
void kb_learner_add(
	struct kb_learner *learner, const struct kb_bundle *was, const struct kb_observed *seen);
/* The policy's text, with what was denied and what was observed against what is granted as
 * comments; json: one document with the text and the same in lists. Called once, at the end. */
int kb_learner_write(struct kb_learner *learner, bool json, struct kb_buf *out, struct kb_err *err);

/* ---- Comparing and testing ------------------------------------------------------------------- */

struct kb_diff_result {
	size_t newly_allowed, newly_denied,
		changed; /* differences; changed: other errno or record */
	bool complete;	 /* false: a condition was too involved to be decided exactly */
};
/* What b allows and a does not, and the other way round, each with a witness. Exact for system
 * calls. */
int kb_bundle_diff(const struct kb_bundle *a, const struct kb_bundle *b, uint32_t arch, bool json,
	struct kb_buf *out, struct kb_diff_result *ret, struct kb_err *err);

struct kb_test_result {
	size_t passed, failed;
	size_t untested; /* rules that no test reaches */
};
/* The inline tests of the loaded file and of what it extends. */
int kb_policy_test(const struct kb_policy *policy, const struct kb_policy_options *options,
	bool json, struct kb_buf *out, struct kb_test_result *ret, struct kb_diags *diags,
	struct kb_err *err);

/* ---- System call knowledge ------------------------------------------------------------------- */

/* Name of a call on an architecture, or NULL; number of a name, or -1. */
const char *kb_syscall_name(uint32_t arch, int nr);
int kb_syscall_number(uint32_t arch, const char *name);
/* AUDIT_ARCH_* of the machine this runs on; "x86_64" or "aarch64" ↔ AUDIT_ARCH_* (0: unknown). */
uint32_t kb_arch_native(void);
uint32_t kb_arch_parse(const char *name);
const char *kb_arch_name(uint32_t arch);
