/* Completion scripts, made from the command table. One file per shell. */
#pragma once

#include <stdio.h>

#include "command.h"

void kb_completion_bash(FILE *out);
void kb_completion_zsh(FILE *out);
void kb_completion_fish(FILE *out);

/* The word that a script hands to `kbsup __complete` to ask for live names of a kind, or NULL when
 * the shell itself can complete it. */
const char *kb_completion_live(enum kb_kind kind);
