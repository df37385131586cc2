/* A whole session, run to see whether it holds: a container, under a policy, recorded. */
#pragma once

#include "connect.h"
#include "doctor.h"

struct kb_proof {
	int64_t ns;    /* from the request to the durable end */
	int exit_code; /* of the script in proof.c */
	char name[KB_NAME_MAX];
	char runtime[KB_CHECK_TEXT_MAX]; /* and why it is this one */
	uint64_t records, denials, lost;
	bool complete;
};

/* Starts the supervisor if need be. The session stays in the store like any other. */
int kb_proof_run(struct kb_proof *proof, struct kb_err *err);
void kb_proof_say(const struct kb_proof *proof, struct kb_check *check);
