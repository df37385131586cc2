/* Where a passphrase comes from: the person's terminal, unseen, or a descriptor that the command
 * line names. Never an argument or a variable, which other programs can read.
 */
#pragma once

#include "vm.h"

/* fd is the value of --passphrase-fd, or NULL to ask "Passphrase of WHAT: " on the terminal; twice
 * when it is a new one. From a descriptor it is the first line. KB_ERR_CLOSED when the person gives
 * up (^C). Wipe *ret after use. */
int kb_passphrase_read(struct kb_vm_cli *v, const char *fd, const char *what, bool is_new,
	struct kb_passphrase *ret, struct kb_err *err);
/* Whether there is a terminal to ask on. */
bool kb_passphrase_can_ask(const struct kb_cli *cli);

void kb_passphrase_wipe(struct kb_passphrase *passphrase);
#define KB_PASSPHRASE_CLEANUP KB_CLEANUP(kb_passphrase_wipe)

/* The option, for the tables of the commands that need one. */
#define KB_PASSPHRASE_OPTION                                                                       \
	{                                                                                          \
		.name = "passphrase-fd", .arg = "FD", .kind = KB_KIND_COUNT,                       \
		.help = "Read the passphrase from this descriptor instead of the terminal"         \
	}
