#include "log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "str.h"
#include "util.h"

#define KB_LOG_LINE_MAX 2048

static const char *const level_names[] = {"error", "warn", "info", "debug"};

/* The process's own identity in the log: set once at start, read only after. */
static const char *log_role = "kbsup";
static enum kb_log_level log_level = KB_LOG_WARN;

void kb_log_init(const char *role)
{
	const char *want = getenv("KBSUP_LOG");

	log_role = role;
	for (size_t i = 0; want && i < KB_ARRAY_LEN(level_names); i++)
		if (strcmp(want, level_names[i]) == 0)
			log_level = (enum kb_log_level)i;
}

void kb_log_set_level(enum kb_log_level level)
{
	log_level = level;
}

void kb_log(enum kb_log_level level, const char *fmt, ...)
{
	char text[KB_LOG_LINE_MAX], line[KB_LOG_LINE_MAX];
	va_list ap;

	if (level > log_level)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	kb_escape(line, sizeof(line), text, strlen(text));
	dprintf(STDERR_FILENO, "%s[%d] %s: %s\n", log_role, (int)getpid(), level_names[level],
		line);
}
