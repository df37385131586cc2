/* What the vm verbs share. An operation on machines runs in this process: it needs no supervisor,
 * and a machine outlives both. */
#pragma once

#include "cli.h"
#include "vmctl/vmctl.h"

#define KB_VM_STEPS_MAX 16

struct kb_vm_cli {
	struct kb_cli *cli;
	struct kb_vmctl *vm;
	int cancel_fd;
	bool shown;    /* a progress line is on the terminal */
	bool building; /* it takes minutes: say how long, and what programs print just now */
	bool detailed; /* show everything that programs print */
	bool silent;   /* show no steps */
	bool unkept;   /* start no keeper */
	/* The steps so far, the last one still running. */
	struct {
		char name[24];
		int64_t start, ns;
	} steps[KB_VM_STEPS_MAX];
	size_t n_steps;
};

/* ^C or SIGTERM ends the operation with its work undone. Finish in any case. */
int kb_vm_cli_open(struct kb_vm_cli *v, struct kb_cli *cli, struct kb_err *err);
void kb_vm_cli_close(struct kb_vm_cli *v);
/* Stop a machine and say so: for `kbsup stop`, which takes machines as well as sessions. */
int kb_vm_stop_named(struct kb_cli *cli, const char *name, bool now, struct kb_err *err);
/* vm_screen.c: opens a window on a machine's screen, where there is a desktop to open one on, and
 * says where the screen is in any case. */
void kb_vm_show_screen(const struct kb_vm_info *info);
/* Wipe the progress line before something else is printed. */
void kb_vm_cli_settle(struct kb_vm_cli *v);
/* The signals that cancel operations are somebody else's from now on. */
void kb_vm_cli_unblock(void);
/* Show the last lines of the program that failed, unless they were shown already. */
void kb_vm_cli_tail(struct kb_vm_cli *v);

#define KB_VM_CLI_CLEANUP KB_CLEANUP(kb_vm_cli_close)

/* A verb under its own name, and under a short one for people who come from kodemachine. The rest:
 * what else the command has. */
#define KB_VM_VERB(WORD, SUMMARY, ...)                                                             \
	const struct kb_command kb_cmd_vm_##WORD = {.name = "vm " #WORD,                           \
		.group = KB_GROUP_MACHINES,                                                        \
		.summary = (SUMMARY),                                                              \
		.man = "kbsup-vm",                                                                 \
		__VA_ARGS__};                                                                      \
	const struct kb_command kb_cmd_##WORD = {.name = #WORD,                                    \
		.group = KB_GROUP_MACHINES,                                                        \
		.summary = "Short for vm " #WORD,                                                  \
		.short_for = "vm " #WORD,                                                          \
		.man = "kbsup-vm",                                                                 \
		__VA_ARGS__}
