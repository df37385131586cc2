/* The user's terminal: raw while a session owns it, silent while a passphrase is typed, and back as
 * it was on every way out (return, exit(), a fatal signal). One per process, because the terminal
 * is. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "supervisor/base/err.h"

/* Raw mode on fd, a terminal. In the background this stops the process until it is brought to the
 * front, as for any program. */
int kb_term_raw(int fd, struct kb_err *err);
/* What is typed is not shown, for passphrases. */
int kb_term_quiet(int fd, struct kb_err *err);
/* As it was before; fine when it is not raw. Async-signal-safe. */
void kb_term_restore(void);
/* Its size; false when fd is not a terminal or has none. */
bool kb_term_size(int fd, uint32_t *ret_rows, uint32_t *ret_cols);
