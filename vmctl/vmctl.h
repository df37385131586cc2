/* Machines: disposable virtual machines on QEMU, forked warm from the frozen memory of a base.
 *
 * An operation is a straight line of steps and runs to its end in the calling process, on that
 * process's own loop: it is meant for a short-lived process per operation, so that nothing else
 * waits for it and killing it is safe at any point. Every wait inside has a deadline and ends early
 * when the caller cancels. Nothing is remembered between operations but files: what a machine *is*
 * follows from locks, QMP and the directories below, so machines outlive whoever started them, and
 * any later operation finds them as they are.
 *
 *	STATE/bases/NAME/N/	generation N of a base: root.img vmlinuz initrd base.json
 *	STATE/bases/NAME/N/template/  the frozen machine that forks start from
 *	STATE/bases/NAME/current	symbolic link to the generation new machines use
 *	STATE/packages/KEY/	packages installed less than a day ago, for the next base like it
 *	STATE/machines/NAME/	machine.json host_key[.pub] [suspended/ | memory/]
 *	STATE/disks/ID		a machine's overlay, or a layer that several build on
 *	STATE/pool/ID/	a fork that waits for a name; its disk is STATE/disks/ID
 *	STATE/luks/NAME/	an encrypted disk: disk.luks key.pem disk.json
 *	STATE/tmp/ID/		what is being made; its lock tells whether somebody still makes it
 *	RUN/ID/			a machine's sockets and the pid file that QEMU keeps locked
 *
 * Everything appears by rename. Names follow kb_name_valid(). Not thread-safe.
 */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "supervisor/base/err.h"
#include "supervisor/base/str.h"

struct kb_vmctl;

#define KB_VM_MEMORY_MIB 512 /* of a template, and of machines started from it */
#define KB_VM_CPUS	 2
#define KB_VM_DISK_BYTES (16ull << 30) /* sparse */
#define KB_VM_DISKS_MAX	 4	       /* encrypted ones in one machine */

struct kb_vmctl_config {
	const char *state_dir;	     /* absolute; made when missing */
	const char *run_dir;	     /* absolute and short: sockets live below it */
	const char *machine_program; /* the static kbsup-machine that bases get */
	const char *guest_program;   /* the static kbsup-guest that bases get; NULL: none */
	const char *init_program;    /* the static kbsup-init, beside it; NULL: none */
	const char *accel;	     /* "kvm", "tcg"; NULL: what a probe machine can boot with */
	int cancel_fd; /* readable or closed: the operation ends with its work undone; or -1 */
	/* One step of an operation is starting; detail says what it is about. May be NULL. The
	 * strings may hold foreign bytes. */
	void (*progress)(const char *step, const char *detail, void *arg);
	/* A line that a program of that step printed. May be NULL. */
	void (*output)(const char *step, const char *line, void *arg);
	void *arg;
};

int kb_vmctl_open(const struct kb_vmctl_config *config, struct kb_vmctl **ret, struct kb_err *err);
void kb_vmctl_close(struct kb_vmctl *vm); /* NULL is fine; machines go on running */
/* The last lines that programs of the current step printed, oldest first; returns how many. For
 * whoever reports that it failed. They hold foreign bytes, and live until the next operation. */
#define KB_VM_TAIL_MAX 12
size_t kb_vmctl_tail(const struct kb_vmctl *vm, const char *ret[KB_VM_TAIL_MAX]);

/* Whether there is a machine by that name. Opens nothing. */
bool kb_vm_known(const char *state_dir, const char *name);

/* ---- bases ---- */

#define KB_BASE_PACKAGES_MAX 64

struct kb_base_spec {
	const char *name;
	const char *suite;	     /* NULL: bookworm */
	const char *from;	     /* an image (qcow2 or raw) to make it from; NULL: packages */
	const char *arch;	     /* x86_64 or aarch64; NULL: this host's */
	const char *user;	     /* NULL: dev. Has uid 1000 and sudo */
	const char *ssh_key;	     /* a public key line for that user, or NULL */
	const char *dotfiles;	     /* a directory here, or a repository's URL; or NULL */
	const char *const *packages; /* further ones; NULL-terminated, or NULL; at most
					KB_BASE_PACKAGES_MAX */
	uint64_t disk_bytes;	     /* 0: KB_VM_DISK_BYTES */
	unsigned memory_mib, cpus;   /* of the template; 0: the defaults */
	bool no_template;	     /* leave kb_base_freeze() for later */
	bool fresh;		     /* install packages anew even if they were installed today */
	int64_t import_ms; /* for an imported image to come up; 0: enough for a slow one */
};

struct kb_base_info {
	char name[KB_NAME_MAX];
	char user[KB_NAME_MAX];
	char arch[16];
	unsigned generation;
	bool current;	/* new machines start from it */
	bool frozen;	/* has a template */
	unsigned users; /* machines that need it */
	int64_t created_ns;
	uint64_t disk_bytes; /* what it occupies */
	unsigned memory_mib, cpus;
};

/* Build a new generation; it becomes current once it is whole. Machines of older generations keep
 * theirs; generations nobody needs are removed. */
int kb_base_create(struct kb_vmctl *vm, const struct kb_base_spec *spec, struct kb_err *err);
/* Boot the current generation and freeze it as the template that forks start from. */
int kb_base_freeze(struct kb_vmctl *vm, const char *name, struct kb_err *err);
/* Refuses (KB_ERR_EXISTS) while machines use any generation. */
int kb_base_delete(struct kb_vmctl *vm, const char *name, struct kb_err *err);
typedef void (*kb_base_fn)(const struct kb_base_info *info, void *arg);
int kb_base_list(struct kb_vmctl *vm, kb_base_fn fn, void *arg, struct kb_err *err);

/* ---- machines ---- */

enum kb_vm_state {
	KB_VM_STOPPED,	  /* no process, no saved memory */
	KB_VM_STARTING,	  /* an operation is bringing it up */
	KB_VM_INCOMPLETE, /* its start was interrupted; starting it again, or deleting it, mends it
			   */
	KB_VM_RUNNING,
	KB_VM_PAUSED,	 /* not executing; resume lets it go on */
	KB_VM_SUSPENDED, /* its memory is on the disk */
	KB_VM_NO_SPACE,	 /* halted: the host's disk is full; resume after making room */
	KB_VM_PANICKED,	 /* its kernel panicked; stop or delete it */
	KB_VM_CRASHED,	 /* QEMU ended without being told to */
	KB_VM_HUNG,	 /* QEMU runs but does not answer; stop kills it */
	KB_VM_DAMAGED,	 /* what says what it is cannot be read; delete it */
	KB_VM_REMOTE,	 /* reached over ssh; its life is not ours */
	KB_VM_READY,	 /* a fork in the pool */
	KB_VM_STATE_MAX_,
};
const char *kb_vm_state_name(enum kb_vm_state state);

struct kb_vm_spec {
	const char *name;
	const char *base;   /* NULL: the only one, or "default" */
	bool cold;	    /* boot instead of forking */
	bool isolated;	    /* no network but the forwarded ports */
	const char *bridge; /* a host bridge to join instead of user networking; NULL: none */
	bool screen;	    /* a graphics card, too; the machine keeps it. Boots cold */
	unsigned memory_mib, cpus; /* 0: the template's; others boot cold */
};

/* What start and resume did. */
enum kb_vm_way {
	KB_VM_RAN,
	KB_VM_FORKED,
	KB_VM_TAKEN /* from the pool */,
	KB_VM_BOOTED,
	KB_VM_RESUMED
};

struct kb_vm_info {
	char name[KB_NAME_MAX];
	char id[32];
	char base[KB_NAME_MAX];
	char user[KB_NAME_MAX];
	unsigned generation;
	enum kb_vm_state state;
	char why[160];	   /* what is known of how its state came about; foreign text, or "" */
	pid_t pid;	   /* of QEMU, or 0 */
	char host[256];	   /* where ssh_port is */
	unsigned ssh_port; /* 0 when it has none */
	bool isolated;
	char screen[108]; /* the socket its screen is at (VNC); "" when it has none or is not up */
	char bridge[16];
	char mac[18];
	unsigned memory_mib, cpus;
	int64_t created_ns;
	int64_t idle_ms; /* it was suspended because nobody used it for so long; 0: it was not */
	uint64_t disk_bytes; /* what the machine alone occupies */
	uint64_t disk_virtual;
	char disks[KB_VM_DISKS_MAX][KB_NAME_MAX]; /* encrypted ones it has now */
	unsigned n_disks;
	uint64_t host_memory; /* resident, shared pages counted in parts; 0 when not running */
	bool live;	      /* the figures below are there */
	uint64_t memory_total, memory_available, root_total, root_free;
	double load1;
	unsigned guest_cpus;
	unsigned cpu_permille; /* of all its processors, just now */
	int64_t cpu_busy_ns;   /* since it booted */
	unsigned connections;  /* TCP, with anybody but itself */
	/* How the operation that filled this in went, for people and measurements. */
	int64_t took_ns;
	enum kb_vm_way way;
	bool forked; /* it was made warm, from the template */
};

/* Create if missing; take a fork from the pool, fork, boot or resume; give it its identity; wait
 * until it answers. Two at once: one does it, the other waits and finds it running. */
int kb_vm_start(struct kb_vmctl *vm, const struct kb_vm_spec *spec, struct kb_vm_info *ret,
	struct kb_err *err);
/* Ask the guest, then ACPI, then QEMU, then kill: each with its deadline, shown as progress. `now`
 * begins with QEMU. */
int kb_vm_stop(struct kb_vmctl *vm, const char *name, bool now, struct kb_err *err);
int kb_vm_suspend(struct kb_vmctl *vm, const char *name, struct kb_err *err);
int kb_vm_resume(struct kb_vmctl *vm, const char *name, struct kb_vm_info *ret, struct kb_err *err);
/* Fork a running machine, memory and disk, under a new name and identity. *ret_pause_ns is how long
 * the source stood still. */
int kb_vm_fork(struct kb_vmctl *vm, const char *name, const char *new_name, int64_t *ret_pause_ns,
	struct kb_vm_info *ret, struct kb_err *err);
int kb_vm_delete(struct kb_vmctl *vm, const char *name, struct kb_err *err);
/* KB_ERR_NOTFOUND for an unknown name. Asks the guest for live figures when `live`, never waiting
 * more than a second for it. */
int kb_vm_query(struct kb_vmctl *vm, const char *name, bool live, struct kb_vm_info *ret,
	struct kb_err *err);
typedef void (*kb_vm_fn)(const struct kb_vm_info *info, void *arg);
/* All machines, oldest first. */
int kb_vm_list(struct kb_vmctl *vm, bool live, kb_vm_fn fn, void *arg, struct kb_err *err);
/* Change the network of a stopped machine: user networking with a way out, isolated, or bridged. */
int kb_vm_network(struct kb_vmctl *vm, const char *name, bool isolated, const char *bridge,
	struct kb_err *err);
/* Forward a free (0) or given loopback port to a port of a running machine. */
int kb_vm_forward(struct kb_vmctl *vm, const char *name, unsigned host_port, unsigned guest_port,
	unsigned *ret_port, struct kb_err *err);
/* Run a command as root through the machine service and collect its output (each at most 256 KiB;
 * free both). For set-up and tests; agents run in sessions. */
int kb_vm_exec(struct kb_vmctl *vm, const char *name, const char *const *argv, int timeout_ms,
	int *ret_exit, char **ret_out, char **ret_err, struct kb_err *err);
/* How to log in to a machine over ssh. */
struct kb_vm_ssh {
	char host[256];
	unsigned port;
	char user[KB_NAME_MAX];
	char host_key[1024]; /* the one it must show: "ssh-ed25519 AAAA…" */
	char key[PATH_MAX];  /* file with the private key; empty: the user's own, or an agent's */
	bool ours; /* (not for kb_vm_add) we start and stop it: its sshd may still be coming */
};
/* Add an existing machine (driver ssh) under a name that is free. */
int kb_vm_add(
	struct kb_vmctl *vm, const char *name, const struct kb_vm_ssh *ssh, struct kb_err *err);
int kb_vm_ssh(struct kb_vmctl *vm, const char *name, struct kb_vm_ssh *ret, struct kb_err *err);
/* What an ssh client needs besides the port: the private key that opens the machine, and a file
 * with its one host key under the name M.kbsup. An added machine may have no key of its own: "". */
int kb_vm_ssh_files(struct kb_vmctl *vm, const char *name, char ret_key[PATH_MAX],
	char ret_known[PATH_MAX], struct kb_err *err);
/* The kbsup-guest of a running machine is of this build afterwards: else it is replaced, which ends
 * the sessions it has. */
int kb_vm_programs(struct kb_vmctl *vm, const char *name, struct kb_err *err);
/* Where to connect for the serial console, into ret (a sockaddr_un's worth). */
int kb_vm_console_path(struct kb_vmctl *vm, const char *name, char ret[108], struct kb_err *err);

/* ---- encrypted disks ----
 *
 * The only state that outlives machines: a LUKS volume that one machine at a time has plugged and
 * mounted. QEMU on the host decrypts it. So neither the passphrase nor any key is ever inside a
 * machine, where an agent that got out of its session could take it away for good, nor in what is
 * saved of a machine's memory; a machine that lets the disk go has nothing left to open it with.
 * What is in a machine while the disk is attached is what is on it: parts of files that were read
 * may stay in the machine's memory after, until it is reused, and would be saved with it.
 *
 * Who has it is told by QEMU's own lock on the volume, which no crash leaves behind; disk.json only
 * remembers names. A machine is never frozen, suspended or forked with a disk mounted.
 */

#define KB_DISK_BYTES	  (32ull << 30) /* sparse */
#define KB_DISK_BYTES_MIN (16ull << 20)
#define KB_DISK_BYTES_MAX (64ull << 40)
#define KB_PASSPHRASE_MAX 512

/* Any bytes. Wipe it after use. */
struct kb_passphrase {
	char bytes[KB_PASSPHRASE_MAX];
	size_t len;
};

enum kb_disk_state {
	KB_DISK_DETACHED,
	KB_DISK_ATTACHED,
	KB_DISK_CHANGING,   /* an operation is at it */
	KB_DISK_INCOMPLETE, /* an operation was interrupted: attach it there again, or detach it */
	KB_DISK_UNCLEAN,    /* its machine ended with it; the next attach checks it */
	KB_DISK_FOREIGN,    /* a program that is no machine of ours has it open */
	KB_DISK_STATE_MAX_,
};
const char *kb_disk_state_name(enum kb_disk_state state);

struct kb_disk_info {
	char name[KB_NAME_MAX];
	enum kb_disk_state state;
	char machine[KB_NAME_MAX]; /* that has it, or had it last; "" when none ever had */
	bool wanted;		   /* that machine's next start should attach it again */
	char place[PATH_MAX];	   /* where it is mounted */
	uint64_t bytes, occupied;  /* its size, and what it takes here */
	int64_t created_ns;
	bool live; /* it is mounted, and the figures below are there */
	uint64_t total, free;
	bool mended; /* after an attach: its file system was not in order and is now */
};

struct kb_disk_spec {
	const char *name;
	uint64_t bytes;	   /* 0: KB_DISK_BYTES */
	const char *place; /* absolute; NULL: /mnt/NAME */
};

struct kb_disk_attach {
	const char *name, *machine;
	const struct kb_passphrase *passphrase; /* NULL: it is not known */
	const char *place;			/* NULL: as created */
	bool repair;				/* mend what e2fsck would not without being told */
};

/* What can be said against it before anybody types a passphrase. */
int kb_disk_may_create(struct kb_vmctl *vm, const struct kb_disk_spec *spec, struct kb_err *err);
int kb_disk_may_attach(
	const struct kb_disk_info *disk, const struct kb_vm_info *machine, struct kb_err *err);
/* It becomes a file system when it is attached first. */
int kb_disk_create(struct kb_vmctl *vm, const struct kb_disk_spec *spec,
	const struct kb_passphrase *passphrase, struct kb_err *err);
/* Plug, check and mount it in a running machine; finishes what an interrupted attach began, and is
 * done at once where it is attached already (neither needs the passphrase). KB_ERR_INVALID: the
 * passphrase is wrong, or needed and not given; KB_ERR_EXISTS: somebody else has it. On failure it
 * is detached. */
int kb_disk_attach(struct kb_vmctl *vm, const struct kb_disk_attach *spec, struct kb_disk_info *ret,
	struct kb_err *err);
/* Unmount and unplug it. Refuses while processes use it, naming them; `now` kills them. Where its
 * machine has ended there is nothing to do. */
int kb_disk_detach(struct kb_vmctl *vm, const char *name, bool now, struct kb_err *err);
/* Another passphrase for the same key. A copy of the old key.pem still opens the disk with the old
 * one. */
int kb_disk_passphrase(struct kb_vmctl *vm, const char *name, const struct kb_passphrase *old,
	const struct kb_passphrase *new, struct kb_err *err);
/* Only larger, and only while it is detached; the file system follows when it is attached. */
int kb_disk_grow(struct kb_vmctl *vm, const char *name, uint64_t bytes, struct kb_err *err);
/* What was on it is gone for good. Refuses while it is in use. */
int kb_disk_delete(struct kb_vmctl *vm, const char *name, struct kb_err *err);
/* `live`: ask its machine for figures, never waiting more than a second. */
int kb_disk_query(struct kb_vmctl *vm, const char *name, bool live, struct kb_disk_info *ret,
	struct kb_err *err);
typedef void (*kb_disk_fn)(const struct kb_disk_info *info, void *arg);
/* All of them, by name. */
int kb_disk_list(struct kb_vmctl *vm, bool live, kb_disk_fn fn, void *arg, struct kb_err *err);

/* The same for its kbsup-guest: the port of supervisor/guest/front.h. */
int kb_vm_guest_path(struct kb_vmctl *vm, const char *name, char ret[108], struct kb_err *err);
/* ---- the pool: forks that wait for a name ---- */

#define KB_POOL_PREFIX "pool:" /* no machine's name has a colon */

/* Afterwards `want` forks of the base that machines start from by default are ready for
 * kb_vm_start(), and no others are there. */
int kb_vm_pool_fill(struct kb_vmctl *vm, unsigned want, struct kb_err *err);
/* Whether that would change anything. */
bool kb_vm_pool_differs(struct kb_vmctl *vm, unsigned want);
/* Those that are there, as machines named pool:ID. */
int kb_vm_pool_list(struct kb_vmctl *vm, kb_vm_fn fn, void *arg, struct kb_err *err);

/* Remove what interrupted operations left. Called by every operation that creates. */
int kb_vmctl_collect_garbage(struct kb_vmctl *vm, struct kb_err *err);

/* ---- machines that nobody uses ---- */

struct kb_vm_idle; /* what is remembered of them from one round to the next */
struct kb_vm_idle_ops {
	bool (*has_session)(const char *name, void *arg);
	/* err: why it could not be; NULL: it is. */
	void (*suspended)(const char *name, const struct kb_err *err, void *arg);
};
int kb_vm_idle_create(struct kb_vmctl *vm, struct kb_vm_idle **ret, struct kb_err *err);
void kb_vm_idle_destroy(struct kb_vm_idle *idle); /* NULL is fine */
/* Look at the running machines once; those that were not in use for after_ms are suspended.
 * *ret_watched: how many still run. The theory is in idle.c. */
int kb_vm_idle_round(struct kb_vm_idle *idle, int64_t after_ms, const struct kb_vm_idle_ops *ops,
	void *arg, unsigned *ret_watched, struct kb_err *err);
/* One process looks at a time: the one that holds this. KB_ERR_TIMEOUT: another one. */
int kb_vmctl_keeper_lock(struct kb_vmctl *vm, int64_t wait_ms, int *ret, struct kb_err *err);
/* Machines run, and nobody looks. */
bool kb_vmctl_keeper_missing(struct kb_vmctl *vm);

/* ---- whether this host can hold machines ---- */

enum kb_vm_worth { KB_VM_WORKS, KB_VM_WORKS_SOMEHOW, KB_VM_FAILS };

#define KB_VM_TRIAL_MAX 512

struct kb_vm_trial {
	const char *name;
	enum kb_vm_worth worth;
	char detail[KB_VM_TRIAL_MAX]; /* what was tried, and what came of it */
	char fix[KB_VM_TRIAL_MAX];    /* what to do; "" when nothing is to be done */
};

/* Try each thing that machines need; fn hears of it at once. Takes some seconds. */
typedef void (*kb_vm_trial_fn)(const struct kb_vm_trial *trial, void *arg);
void kb_vmctl_try(struct kb_vmctl *vm, kb_vm_trial_fn fn, void *arg);
