/* Records of a real build (an strace log, read by the importer), again and again until there are
 * enough: each round has its own pids, files of its own directory, and later times. */
#pragma once

#include "audit/audit.h"

struct load;
struct load *load_read(const char *strace_log);
size_t load_size(const struct load *load); /* records of one round */
/* Record i of round r. Its strings live until the next call. */
const struct kb_record *load_record(struct load *load, size_t i, uint64_t round);
