/* The Linux kernel's interface as policies and records speak of it. Guests are Linux whatever the
 * host is; a Linux host has the kernel's own headers, any other the same numbers from here.
 */
#pragma once

/* Numbers of errno that differ from system to system. */
#define KB_LINUX_ENOSYS	     38
#define KB_LINUX_ENETUNREACH 101

#if defined(__linux__)

#include <linux/audit.h>
#include <linux/bpf_common.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

#else

#include <stdint.h>

/* linux/filter.h, linux/bpf_common.h: classic BPF */
struct sock_filter {
	uint16_t code;
	uint8_t jt, jf;
	uint32_t k;
};
#define BPF_MAXINSNS		 4096
#define BPF_CLASS(code)		 ((code)&0x07)
#define BPF_LD			 0x00
#define BPF_LDX			 0x01
#define BPF_ST			 0x02
#define BPF_STX			 0x03
#define BPF_ALU			 0x04
#define BPF_JMP			 0x05
#define BPF_RET			 0x06
#define BPF_MISC		 0x07
#define BPF_SIZE(code)		 ((code)&0x18)
#define BPF_W			 0x00
#define BPF_H			 0x08
#define BPF_B			 0x10
#define BPF_MODE(code)		 ((code)&0xe0)
#define BPF_IMM			 0x00
#define BPF_ABS			 0x20
#define BPF_IND			 0x40
#define BPF_MEM			 0x60
#define BPF_LEN			 0x80
#define BPF_MSH			 0xa0
#define BPF_OP(code)		 ((code)&0xf0)
#define BPF_ADD			 0x00
#define BPF_SUB			 0x10
#define BPF_MUL			 0x20
#define BPF_DIV			 0x30
#define BPF_OR			 0x40
#define BPF_AND			 0x50
#define BPF_LSH			 0x60
#define BPF_RSH			 0x70
#define BPF_NEG			 0x80
#define BPF_XOR			 0xa0
#define BPF_JA			 0x00
#define BPF_JEQ			 0x10
#define BPF_JGT			 0x20
#define BPF_JGE			 0x30
#define BPF_JSET		 0x40
#define BPF_SRC(code)		 ((code)&0x08)
#define BPF_K			 0x00
#define BPF_X			 0x08
#define BPF_A			 0x10
#define BPF_RVAL(code)		 ((code)&0x18)

/* linux/seccomp.h */
#define SECCOMP_RET_KILL_PROCESS 0x80000000u
#define SECCOMP_RET_KILL_THREAD	 0x00000000u
#define SECCOMP_RET_TRAP	 0x00030000u
#define SECCOMP_RET_ERRNO	 0x00050000u
#define SECCOMP_RET_USER_NOTIF	 0x7fc00000u
#define SECCOMP_RET_TRACE	 0x7ff00000u
#define SECCOMP_RET_LOG		 0x7ffc0000u
#define SECCOMP_RET_ALLOW	 0x7fff0000u
#define SECCOMP_RET_ACTION_FULL	 0xffff0000u
#define SECCOMP_RET_ACTION	 0x7fff0000u
#define SECCOMP_RET_DATA	 0x0000ffffu

struct seccomp_data {
	int nr;
	uint32_t arch;
	uint64_t instruction_pointer;
	uint64_t args[6];
};

/* linux/audit.h: the ELF machine, 64 bits, little-endian */
#define AUDIT_ARCH_X86_64	 0xc000003eu
#define AUDIT_ARCH_AARCH64	 0xc00000b7u
#define AUDIT_ARCH_I386		 0x40000003u

#endif
