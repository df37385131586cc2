/* What the program in the kernel tells the collector: one struct and some bytes behind it. Included
 * by both; nothing but fixed-size types. */
#pragma once

enum kb_bpf_kind {
	KB_BPF_CALL,	  /* a system call has returned */
	KB_BPF_EXEC_TRY,  /* execve is entered: what was asked for */
	KB_BPF_EXEC_DONE, /* a program has been replaced */
	KB_BPF_FORK,
	KB_BPF_EXIT,
	KB_BPF_KINDS,
};

/* The strings behind an event, in this order. Of each the length is in len[]; 0 is "none". A path
 * the kernel knows comes as its components, leaf first, each ending in NUL; a user string without
 * NUL. */
enum kb_bpf_part {
	KB_BPF_BASE, /* where `path` starts: working directory or directory descriptor */
	KB_BPF_PATH, /* user string, or bytes of a socket address */
	KB_BPF_BASE2,
	KB_BPF_PATH2,
	KB_BPF_FILE, /* the file the call is about, as the kernel has it; exec: the program */
	KB_BPF_ARGV, /* exec: the arguments, each ending in NUL */
	KB_BPF_CWD,  /* exec */
	KB_BPF_PARTS,
};

#define KB_BPF_STRING_MAX 4096
#define KB_BPF_COMPONENTS 48
#define KB_BPF_NAME_MAX	  256
#define KB_BPF_ARGS_MAX	  512	/* arguments of one exec */
#define KB_BPF_DATA_MAX	  65536 /* a power of two: everything behind an event */

#define KB_BPF_UNREADABLE 1u /* a user string was not there */
#define KB_BPF_TRUNCATED  2u /* a bound was reached */
#define KB_BPF_SPECIAL	  4u /* FILE has no path: its only component is a kernel name like "pipe:" */

#define KB_BPF_CREATED	8u  /* the open made the file */
#define KB_BPF_ARGS_CUT 16u /* there were more arguments */
/* A hook saw what the names mean to the kernel: FILE and CWD are the first and the second one as
 * components (the target of a new link: as text); of a socket address, PATH is the kernel's copy.
 */
#define KB_BPF_NAMED 32u

struct kb_bpf_event {
	unsigned long long time; /* CLOCK_MONOTONIC */
	unsigned int kind;
	unsigned int flags;
	unsigned int pid, tid; /* in the session's pid namespace */
	unsigned int ppid;     /* fork: the parent; else the present one */
	unsigned int host_tid; /* pairs the two halves of an exec */
	int nr;
	int status; /* exit: as wait(2) has it */
	long long result;
	unsigned long long args[6];
	unsigned long long how[3]; /* openat2 */
	unsigned int len[8];	   /* KB_BPF_PARTS, up to the next power of two */
	char comm[16];
};

/* How the program should read a call; an array indexed by number. */
struct kb_bpf_call {
	unsigned char report;			  /* KB_BPF_REPORT_* */
	unsigned char dirfd, path, dirfd2, path2; /* 1 + argument; 0: none */
	unsigned char address, address_len;	  /* a socket address */
	unsigned char msghdr;
	unsigned char returns_file; /* the result is a descriptor: its file is the answer */
	unsigned char fd;	    /* the argument is a descriptor: its file is meant */
	unsigned char how;
	unsigned char exec;
	unsigned char argv;
	unsigned char pad[3];
};
#define KB_BPF_REPORT_ALWAYS 1u
#define KB_BPF_REPORT_ERRORS 2u /* only when it failed */
#define KB_BPF_CALLS	     1024

/* In the table of wanted calls. */
#define KB_BPF_WANT_EXIT  1u
#define KB_BPF_WANT_ENTER 2u /* also announced: exec */

/* The programs are loaded once; each session has a seat in their maps. */
#define KB_BPF_SEATS 320
#define KB_BPF_RING  (8u << 20) /* bytes of events that may wait, per session */

struct kb_bpf_session {
	unsigned int seat;
	unsigned int pid_ns; /* inode of its pid namespace */
	int filters; /* tasks with no more seccomp filters than this are not of the session yet */
	unsigned int pad;
};

struct kb_bpf_lost {
	unsigned long long count[KB_BPF_KINDS];
};
