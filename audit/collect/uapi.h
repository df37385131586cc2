/* Kernel interfaces newer than the headers of the oldest system we build on (Linux 6.1).
 * Values from include/uapi/linux/{seccomp,pidfd,nsfs}.h of Linux 6.16.
 */
#pragma once

#include <linux/seccomp.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

/* 6.6: the listener and the caller take turns on one CPU instead of waking each other across. */
#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS _IOW(SECCOMP_IOC_MAGIC, 4, uint64_t)
#endif
#ifndef SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP
#define SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP (1ull << 0)
#endif

/* 6.13: who a process is; 6.15: the exit code of one that was reaped, for who holds its pidfd. */
struct kb_pidfd_info {
	uint64_t mask;
	uint64_t cgroupid;
	uint32_t pid, tgid, ppid;
	uint32_t ids[8];
	int32_t exit_code;
};
#define KB_PIDFD_GET_INFO  _IOWR(0xFF, 11, struct kb_pidfd_info)
#define KB_PIDFD_INFO_PID  (1ull << 0)
#define KB_PIDFD_INFO_EXIT (1ull << 3)

/* 6.11: the number that a process, named by ours, has in the pid namespace. */
#define KB_NS_GET_TGID_IN_PIDNS _IOR(0xb7, 0x9, int)

#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif
#ifndef RESOLVE_CACHED
#define RESOLVE_CACHED 0x20
#endif
