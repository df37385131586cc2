/* What differs between the systems the host side runs on: os_linux.c has the Linux way. Each
 * returns 0, or -1 with errno. */
#pragma once

#include <sys/types.h>

/* Every fd from `first` up closes on exec. */
int kb_os_cloexec_from(int first);
/* In a fresh child: be killed when `parent`, which started it, ends. */
int kb_os_die_with_parent(pid_t parent);
/* "KILL" for SIGKILL; NULL when unknown. */
const char *kb_os_signal_name(int signo);
/* Absolute path of the running program. */
int kb_os_self_path(char *ret, size_t size);
