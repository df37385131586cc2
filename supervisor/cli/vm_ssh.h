/* Machines over ssh, for the verbs that log in. */
#pragma once

#include "supervisor/link/ssh_keys.h"
#include "vm.h"

/* Where and with which keys: the machine's own, else an agent's and what lies where ssh looks. *ret
 * points into cli, to and keys. */
void kb_vm_target(struct kb_cli *cli, const struct kb_vm_ssh *to, struct kb_ssh_keys *keys,
	struct kb_ssh_target *ret);

/* A suspended machine goes on: it may have been suspended for want of anything to do. */
int kb_vm_wake(struct kb_vm_cli *v, const char *name, struct kb_err *err);
/* A login shell, or a command line for it, connected with our own standard streams. The exit status
 * to leave with, or a negative error. */
int kb_vm_shell(
	struct kb_vm_cli *v, const struct kb_vm_ssh *to, const char *command, struct kb_err *err);
/* Log in and out again: 0, or why that does not work. */
int kb_vm_try(struct kb_vm_cli *v, const struct kb_vm_ssh *to, struct kb_err *err);
