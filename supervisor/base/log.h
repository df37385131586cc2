/* Logging to stderr: one line per message, "role[pid] level: text". Arguments may hold foreign
 * bytes: the finished line is escaped, so a log never drives a terminal. Level from KBSUP_LOG
 * (error, warn, info, debug; default warn) unless set.
 */
#pragma once

#include "err.h"

enum kb_log_level { KB_LOG_ERROR, KB_LOG_WARN, KB_LOG_INFO, KB_LOG_DEBUG };

/* role is kept, not copied: a literal. */
void kb_log_init(const char *role);
void kb_log_set_level(enum kb_log_level level);
void kb_log(enum kb_log_level level, const char *fmt, ...) KB_PRINTF(2, 3);

#define kb_log_error(...) kb_log(KB_LOG_ERROR, __VA_ARGS__)
#define kb_log_warn(...)  kb_log(KB_LOG_WARN, __VA_ARGS__)
#define kb_log_info(...)  kb_log(KB_LOG_INFO, __VA_ARGS__)
#define kb_log_debug(...) kb_log(KB_LOG_DEBUG, __VA_ARGS__)
