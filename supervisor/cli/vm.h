/* What the vm verbs share. An operation on machines runs in this process: it needs no supervisor,
 * and a machine outlives both. */
#pragma once

#include "cli.h"
#include "vmctl/vmctl.h"

struct kb_vm_cli {
	struct kb_cli *cli;
	struct kb_vmctl *vm;
	int cancel_fd;
	bool shown;    /* a progress line is on the terminal */
	bool detailed; /* show what programs print, too */
};

/* ^C or SIGTERM ends the operation with its work undone. Finish in any case. */
int kb_vm_cli_open(struct kb_vm_cli *v, struct kb_cli *cli, struct kb_err *err);
void kb_vm_cli_close(struct kb_vm_cli *v);
/* Wipe the progress line before something else is printed. */
void kb_vm_cli_settle(struct kb_vm_cli *v);

#define KB_VM_CLI_CLEANUP KB_CLEANUP(kb_vm_cli_close)
