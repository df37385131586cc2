/* The user's settings: ~/.config/kbsup/config, one "NAME = VALUE" a line, '#' begins a comment.
 * They stand for options that are not given; which options have one, and its name, is in the
 * command table (struct kb_option). An option beats its variable, the variable the setting. */
#pragma once

#include "args.h"
#include "supervisor/base/buf.h"
#include "supervisor/base/dirs.h"

#define KB_SETTINGS_FILE "config"
#define KB_SETTINGS_MAX	 32

struct kb_setting {
	const char *name, *value; /* in the text */
	unsigned line;
};

struct kb_settings {
	char path[PATH_MAX + sizeof(KB_SETTINGS_FILE)];
	struct kb_buf text;
	struct kb_setting items[KB_SETTINGS_MAX];
	size_t n;
};

/* No file is no settings. KB_ERR_INVALID with file and line: one that is malformed, unknown or
 * given twice. kb_settings_finish() is fine in any case. */
int kb_settings_load(struct kb_settings *settings, const struct kb_dirs *dirs, struct kb_err *err);
void kb_settings_finish(struct kb_settings *settings);
/* NULL: not set. */
const char *kb_settings_value(const struct kb_settings *settings, const char *name);
/* Loads them where the command has options that settings stand for, and gives those that are not
 * given what they say. The values belong to the settings. */
int kb_settings_apply(struct kb_settings *settings, struct kb_args *args, struct kb_err *err);
