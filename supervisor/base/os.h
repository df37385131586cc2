/* What differs between the systems the host side runs on: os_linux.c and os_darwin.c have a way
 * each. Each returns 0, or -1 with errno. */
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct msghdr;
struct stat;

#if !defined(__linux__)
extern char **environ;
#endif

/* Descriptors that close on exec from the first moment, as far as the system can. */
int kb_os_pipe(int ret[2], bool nonblock);
int kb_os_socket(int domain, int type, int protocol, bool nonblock);
int kb_os_socketpair(int type, int ret[2]);
ssize_t kb_os_recvmsg(int sock, struct msghdr *msg);
/* At most 256 bytes, from the kernel. */
int kb_os_random(void *ret, size_t len);
/* Zeroes memory that held a secret; no compiler leaves it out. */
void kb_os_wipe(void *memory, size_t len);
/* No other process of this user's reads our memory from now on; best effort. */
void kb_os_keep_private(void);

/* Nanoseconds since the epoch. */
int64_t kb_os_mtime(const struct stat *st);
int64_t kb_os_ctime(const struct stat *st);
/* A descriptor that is readable once the process has ended; its number is not given away meanwhile
 * when it is our child, or where the system says so. */
int kb_os_process_open(pid_t pid);
int kb_os_process_kill(int process, pid_t pid, int signo);
/* Blocks the signals; the descriptor is readable when one of them came. */
int kb_os_signal_open(const sigset_t *set);
/* Which one it was; takes it. */
int kb_os_signal_take(int fd);
/* `out` becomes a copy of `in` that shares its blocks; where the file system cannot: -1. */
int kb_os_clone(int in, int out);
/* What was written is on the disk: data, and what is needed to find it. */
int kb_os_sync(int fd);
/* Blocks for the first len bytes of the file. */
int kb_os_allocate(int fd, off_t len);
/* Copies from *at of `in` to where `out` stands, at most len bytes; moves both. */
ssize_t kb_os_copy(int in, int out, off_t *at, size_t len);
/* As rename(2), but -1 with EEXIST when `to` is there. */
int kb_os_rename_new(const char *from, const char *to);
/* A file without a name in the directory, for reading and writing, 0600; and its name. */
int kb_os_unnamed_file(int dir);
int kb_os_name_file(int fd, int dir, const char *name);
/* Every fd from `first` up closes on exec. */
int kb_os_cloexec_from(int first);
/* In a fresh child: be killed when `parent`, which started it, ends. Where the system has no such
 * thing, what our processes do anyway has to do: end when their channel does. */
int kb_os_die_with_parent(pid_t parent);
/* "KILL" for SIGKILL; NULL when unknown. */
const char *kb_os_signal_name(int signo);
/* Absolute path of the running program. */
int kb_os_self_path(char *ret, size_t size);
/* No dump of that process's memory is written from now on; where nobody can say so of another
 * process, the system's default (none) has to do. */
int kb_os_forbid_dumps(pid_t pid);
