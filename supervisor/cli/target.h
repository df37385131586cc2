/* Where a session runs: this machine, or one of `kbsup vm`. */
#pragma once

#include "cli.h"
#include "supervisor/daemon/client.h"
#include "vm.h"

struct kb_target {
	bool local;
	char machine[KB_NAME_MAX];
	const char *transport;	/* NULL: local */
	char user[KB_NAME_MAX]; /* whose home the session's is called after, in the machine */
	char home[PATH_MAX];
	struct kb_vm_cli vm;   /* cancel_fd -1: not open */
	bool remote;	       /* reached over ssh; its life is not ours */
	bool fresh;	       /* made for this session, and deleted with the target */
	const char *from;      /* fresh: a fork of this machine; NULL: made from the default base */
	bool made;	       /* fresh: it is there, at least in part */
	bool stays;	       /* fresh: it is still needed */
	char policy[PATH_MAX]; /* the workspace's own, here; or "" */
};

/* --vm, --local, --link and --fresh of the command line; changes nothing. Finish in any case. */
int kb_target_find(struct kb_target *target, struct kb_cli *cli, const struct kb_args *args,
	struct kb_err *err);
/* The machine runs, with programs of this build. */
int kb_target_ready(struct kb_target *target, struct kb_err *err);
/* The workspace in the machine: what was named there (absolute, or beneath the home directory), or
 * the place that corresponds to the current directory. */
int kb_target_workspace(const struct kb_target *target, const char *named, const char *home,
	char ret[PATH_MAX], struct kb_err *err);
/* The machine runs: the workspace's own policy, copied to a file here that goes with the target; ""
 * when there is none, or none can be read (a remote machine's: its guest refuses then). */
int kb_target_policy(struct kb_target *target, const char *workspace, const char *dir,
	char ret[PATH_MAX], struct kb_err *err);
/* A fresh machine goes, unless it stays. */
void kb_target_finish(struct kb_target *target);
