/* Usage and help, made from the command table. */
#pragma once

#include <stdio.h>

#include "cli.h"

/* Everything kbsup can do, by group. */
void kb_help_overview(const struct kb_cli *cli, FILE *out);
/* The commands of a family ("policy"). */
void kb_help_family(const struct kb_cli *cli, const char *family, FILE *out);
/* One command: usage, what it does, its options. */
void kb_help_command(const struct kb_cli *cli, const struct kb_command *command, FILE *out);
/* "kbsup run [--agent A] … [-- CMD…]", wrapped to `columns` (0: not wrapped). Fresh memory. */
char *kb_help_usage(const struct kb_command *command, unsigned columns);
