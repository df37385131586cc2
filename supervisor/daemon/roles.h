/* The roles kbsupd re-executes itself into. Each runs until its work is over and returns the exit
 * status. fd 3 is the channel to main. */
#pragma once

#define KB_ROLE_FD 3

/* The only process that writes the audit store in `dir`. Ends when main closes the channel: open
 * sessions are finished first (with the reason that main is gone, if it did not say how they
 * ended). */
int kb_store_role(const char *dir);
/* Answers one AskRequest from the store in `dir`. */
int kb_reader_role(const char *dir);
/* Reads one log of strace and brings its records to the store. */
int kb_import_role(void);
