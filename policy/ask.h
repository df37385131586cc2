/* Questions to a policy: the words of `explain`, of test blocks and of a recorded event, as one
 * form, and the answer with all that led to it. Private to policy/. */
#pragma once

#include "policy/bundle.h"

enum kb_question_kind { KB_ASK_CALL, KB_ASK_PATH, KB_ASK_NET };

struct kb_question {
	enum kb_question_kind kind;
	/* CALL; a recorded NET event knows it too */
	int call; /* index into kb_calls, or -1 */
	uint64_t args[KB_CALL_ARGS];
	unsigned known; /* bit per argument whose value is sure (recorded events) */
	/* PATH, and a call that was given one */
	const char *path;  /* absolute, or NULL */
	unsigned access;   /* KB_FS_*; 0: the path's rules are not asked */
	const char *path2; /* recorded events: another path that is changed, or NULL */
	bool looks;	   /* recorded events: the path is only asked about */
	/* NET */
	enum kb_net_direction direction;
	int protocol;
	const char *host; /* or address */
	uint8_t address[16];
	unsigned address_len;
	uint16_t port;
	const char *request; /* recorded events: "GET /path", of HTTP; or NULL */
};

/* Words first..last-1 of tokens. Diagnoses; 0, 1 after a diagnostic, -1 without memory. */
int kb_question_parse(const struct kb_tokens *tokens, size_t first, size_t last,
	enum kb_arch_index arch, const struct kb_policy_options *opts, struct kb_arena *arena,
	struct kb_question *ret, struct kb_diags *diags);

/* What the mechanisms do about a path, from their own artefacts. */
struct kb_mech_path {
	const struct kb_mount *mount; /* what brings it inside or covers it; NULL: nothing does */
	uint64_t needed, granted;     /* Landlock rights */
	uint32_t landlock_rule;	      /* of the rule that grants the needed ones, or the closest */
	bool virtual_; /* below /proc, /sys, /dev, or a directory on the way to a mount */
	bool allowed;
	int errnum; /* what the kernel would answer */
};
struct kb_mech_path kb_mech_path(const struct kb_bundle *bundle, unsigned access, const char *path);

struct kb_answer {
	struct kb_verdict verdict; /* in all */
	/* the system call, by the emitted program */
	bool has_call;
	uint32_t value; /* what the program returns */
	size_t insn;
	struct kb_verdict call;
	/* the path */
	bool has_path;
	struct kb_verdict path;
	struct kb_mech_path mech;
	bool has_net;
	struct kb_verdict net;
};
/* program: of the architecture the question was parsed for. */
void kb_answer(const struct kb_bundle *bundle, const struct kb_program *program, uint32_t arch,
	const struct kb_question *question, struct kb_answer *ret);

/* A recorded event as a question; false when a policy does not decide on such. */
bool kb_observed_question(const struct kb_observed *seen, struct kb_question *ret);

/* Run a program that kb_bundle_emit() made. */
uint32_t kb_program_run(const struct kb_program *program, uint32_t arch, int nr,
	const uint64_t args[6], size_t *ret_insn);
