/* What kbsup doctor asks: each thing that machines stand on is used once, in a directory or on a
 * port of its own, and let go again. Nothing is concluded from a version or a file's presence. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/un.h>

#include "driver/qemu.h"
#include "files.h"
#include "freeze.h"
#include "hostkey.h"
#include "machine.h"
#include "programs.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/os.h"
#include "supervisor/base/str.h"

#define TOOL_MS	   10000
#define PORTS	   8
#define SPACE_LOW  (4ull << 30)			   /* a base, and a machine with memory saved */
#define SPACE_TRY  ((off_t)KB_VM_MEMORY_MIB << 20) /* what suspending a machine writes */
#define SLOWNESS   "10 to 20 times slower"
#define SOCKET_MAX sizeof(((struct sockaddr_un *)0)->sun_path)

static void say(struct kb_vm_trial *t, enum kb_vm_worth worth, const char *fmt, ...)
	KB_PRINTF(3, 4);
static void say(struct kb_vm_trial *t, enum kb_vm_worth worth, const char *fmt, ...)
{
	va_list ap;

	t->worth = worth;
	va_start(ap, fmt);
	vsnprintf(t->detail, sizeof(t->detail), fmt, ap);
	va_end(ap);
}

static void fix(struct kb_vm_trial *t, const char *fmt, ...) KB_PRINTF(2, 3);
static void fix(struct kb_vm_trial *t, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(t->fix, sizeof(t->fix), fmt, ap);
	va_end(ap);
}

static void say_error(struct kb_vm_trial *t, const struct kb_err *err)
{
	say(t, KB_VM_FAILS, "%s", err->msg);
	fix(t, "%s", *err->hint ? err->hint : "mend that, and try again");
}

/* A directory of its own for one trial. */
struct place {
	char dir[PATH_MAX];
	int lock;
};

static int place_make(struct kb_vmctl *vm, struct place *place, struct kb_err *err)
{
	place->lock = -1;
	return kb_tmp_create(vm, place->dir, &place->lock, err);
}

static void place_leave(struct place *place)
{
	kb_rmtree(place->dir, NULL);
	kb_close(&place->lock);
}

/* ---- tools ---- */

static const struct {
	const char *name, *question, *package;
	bool for_bases; /* machines run without it */
} tools[] = {
	{"qemu-system-x86_64", "--version", "qemu-system-x86", false},
	{"qemu-img", "--version", "qemu-utils", false},
	{"mmdebstrap", "--version", "mmdebstrap", true},
	{"mke2fs", "-V", "e2fsprogs", true},
};

static void try_tools(struct kb_vmctl *vm, struct kb_vm_trial *t)
{
	char path[PATH_MAX], ran[KB_VM_TRIAL_MAX] = "";

	for (size_t i = 0; i < KB_ARRAY_LEN(tools); i++) {
		const char *const argv[] = {tools[i].name, tools[i].question, NULL};
		struct kb_err err = {0};
		size_t len = strlen(ran);

		if (kb_op_program(tools[i].name, path, tools[i].package, &err) == 0)
			kb_op_run(vm, NULL, argv, TOOL_MS, &err);
		if (!err.code) {
			snprintf(ran + len, sizeof(ran) - len, "%s%s", len ? ", " : "",
				tools[i].name);
			continue;
		}
		say(t, tools[i].for_bases ? KB_VM_WORKS_SOMEHOW : KB_VM_FAILS, "%s%s", err.msg,
			tools[i].for_bases ? ": no base can be built" : "");
		fix(t, "apt-get install --reinstall %s", tools[i].package);
		return;
	}
	say(t, KB_VM_WORKS, "%s each ran", ran);
}

/* ---- the accelerator ---- */

/* Why a probe machine does not boot with KVM here, and what to do. */
static void say_without_kvm(struct kb_vm_trial *t, const struct kb_err *why, int64_t tcg_ns)
{
	int errnum = access(KB_KVM_DEVICE, R_OK | W_OK) < 0 ? errno : 0;
	int ms = (int)(tcg_ns / 1000000);

	if (errnum)
		say(t, KB_VM_WORKS_SOMEHOW,
			KB_KVM_DEVICE " cannot be used (%s); a probe machine booted with TCG in "
				      "%d ms: machines run " SLOWNESS,
			strerror(errnum), ms);
	else
		say(t, KB_VM_WORKS_SOMEHOW,
			KB_KVM_DEVICE " opens, but a probe machine did not boot with it (%s); one "
				      "booted with TCG in %d ms: machines run " SLOWNESS,
			why->msg, ms);
	if (errnum == EACCES || errnum == EPERM)
		fix(t, "join its group (usermod -aG kvm NAME) and log in anew");
	else if (errnum)
		fix(t, "enable virtualisation in the firmware, or nested in the host of this "
		       "machine, and load kvm_intel or kvm_amd; or accept TCG");
	else
		fix(t, "run on hardware, or a machine with nested virtualisation; or accept TCG");
}

static void try_accel(struct kb_vmctl *vm, struct kb_vm_trial *t)
{
	struct kb_err kvm = {0}, tcg = {0};
	int64_t ns;

	if (kb_qemu_boots(vm, "kvm", &ns, &kvm) == 0)
		say(t, KB_VM_WORKS, "a probe machine booted in %d ms", (int)(ns / 1000000));
	else if (kb_qemu_boots(vm, "tcg", &ns, &tcg) == 0)
		say_without_kvm(t, &kvm, ns);
	else
		say_error(t, &tcg);
}

/* ---- files ---- */

static int clone_file(const char *dir, struct kb_err *err)
{
	static const char text[] = "kbsup";
	char from[PATH_MAX + 8], to[PATH_MAX + 8], got[sizeof(text)];
	KB_CLOSE int in = -1, out = -1;
	int r;

	snprintf(from, sizeof(from), "%s/from", dir);
	snprintf(to, sizeof(to), "%s/to", dir);
	if ((r = kb_file_write_atomic(from, text, sizeof(text), 0600, err)) < 0)
		return r;
	in = open(from, O_RDONLY | O_CLOEXEC);
	out = open(to, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (in < 0 || out < 0 || kb_os_clone(in, out) < 0)
		return kb_err_sys(err, errno, "the file system cannot");
	if (pread(out, got, sizeof(got), 0) != sizeof(got) || memcmp(got, text, sizeof(text)) != 0)
		return kb_err_set(err, KB_ERR_FAILED, "a cloned file was not the same");
	return 0;
}

static void try_reflink(struct kb_vmctl *vm, struct kb_vm_trial *t)
{
	struct kb_err err = {0};
	struct place place;

	if (place_make(vm, &place, &err) < 0) {
		say_error(t, &err);
		return;
	}
	if (clone_file(place.dir, &err) == 0) {
		say(t, KB_VM_WORKS, "a file was cloned in %s", vm->state);
	} else {
		say(t, KB_VM_WORKS_SOMEHOW, "%s: machines use qcow2 overlays, which are copied",
			err.msg);
		fix(t, "nothing to do: a copied overlay is small; Btrfs and XFS would share it");
	}
	place_leave(&place);
}

static int reserve(const char *dir, struct kb_err *err)
{
	char path[PATH_MAX + 8];
	KB_CLOSE int fd = -1;

	snprintf(path, sizeof(path), "%s/space", dir);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || kb_os_allocate(fd, SPACE_TRY) < 0)
		return kb_err_sys(err, errno, "%llu MiB for a machine's memory, in %s",
			(unsigned long long)SPACE_TRY >> 20, dir);
	return 0;
}

static void try_space(struct kb_vmctl *vm, struct kb_vm_trial *t)
{
	static const char remedy[] = "free some space, or delete machines (kbsup vm list shows "
				     "what each occupies) and bases (kbsup vm base list)";
	struct kb_err err = {0};
	struct place place;
	struct statvfs fs;
	uint64_t bytes;

	if (place_make(vm, &place, &err) < 0) {
		say_error(t, &err);
		return;
	}
	if (reserve(place.dir, &err) < 0 || statvfs(place.dir, &fs) < 0) {
		say_error(t, &err);
		fix(t, "%s", remedy);
		place_leave(&place);
		return;
	}
	place_leave(&place);
	bytes = (uint64_t)fs.f_bavail * fs.f_frsize + (uint64_t)SPACE_TRY;
	say(t, bytes < SPACE_LOW ? KB_VM_WORKS_SOMEHOW : KB_VM_WORKS,
		"room for a machine's memory was taken and given back in %s, %llu MiB free",
		vm->state, (unsigned long long)bytes >> 20);
	if (bytes < SPACE_LOW)
		fix(t, "%s", remedy);
}

/* ---- sockets and ports ---- */

static int reach(int listener, const struct sockaddr *addr, socklen_t len, struct kb_err *err)
{
	KB_CLOSE int client = kb_os_socket(addr->sa_family, SOCK_STREAM, 0, false);
	KB_CLOSE int server = -1;

	/* The connection waits in the listener's queue: nothing here can block. */
	if (client < 0 || connect(client, addr, len) < 0)
		return kb_err_sys(err, errno, "what listens cannot be reached");
	server = kb_fd_accept(listener);
	return server < 0 ? kb_err_sys(err, errno, "what was reached is not there") : 0;
}

/* The longest path of a machine's sockets, bound where those are. */
static int bind_longest(struct kb_vmctl *vm, const char *id, size_t *ret_len, struct kb_err *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	char dir[PATH_MAX];
	KB_CLOSE int fd = -1;
	int r, n;

	if ((r = kb_vm_path(vm, dir, err, "%s/%s", vm->run, id)) < 0)
		return r;
	n = snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/%s", dir, KB_QEMU_LONGEST_SOCK);
	*ret_len = (size_t)n;
	if (n >= (int)sizeof(addr.sun_path))
		return kb_err_set(err, KB_ERR_LIMIT,
			"a machine's sockets in %s would have names of %d bytes, and %zu fit",
			vm->run, n, SOCKET_MAX - 1);
	if ((r = kb_mkdirs(dir, 0700, err)) < 0)
		return r;
	fd = kb_os_socket(AF_UNIX, SOCK_STREAM, 0, false);
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 1) < 0)
		r = kb_err_sys(err, errno, "%s cannot be listened on", addr.sun_path);
	else
		r = reach(fd, (struct sockaddr *)&addr, sizeof(addr), err);
	kb_rmtree(dir, NULL);
	return r;
}

static void try_sockets(struct kb_vmctl *vm, struct kb_vm_trial *t)
{
	struct kb_err err = {0};
	struct place place;
	size_t len = 0;

	if (place_make(vm, &place, &err) < 0) {
		say_error(t, &err);
		return;
	}
	/* By the name of its directory in tmp, RUN/ID is nobody's to collect. */
	if (bind_longest(vm, kb_tmp_id(place.dir), &len, &err) == 0) {
		say(t, KB_VM_WORKS,
			"a socket was bound and reached in %s: names of %zu of %zu bytes", vm->run,
			len, SOCKET_MAX - 1);
	} else {
		say_error(t, &err);
		fix(t, "set XDG_RUNTIME_DIR to a shorter path that belongs to you");
	}
	place_leave(&place);
}

static int open_ports(int fds[PORTS], struct kb_err *err)
{
	struct sockaddr_in addr = {
		.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	unsigned port = 0;
	int r = 0;

	for (size_t i = 0; r == 0 && i < PORTS; i++) {
		port = 0;
		r = kb_fd_listen_loopback(&port, &fds[i], err);
	}
	addr.sin_port = htons((uint16_t)port);
	return r < 0 ? r : reach(fds[PORTS - 1], (struct sockaddr *)&addr, sizeof(addr), err);
}

static void try_ports(struct kb_vmctl *vm, struct kb_vm_trial *t)
{
	struct kb_err err = {0};
	int fds[PORTS];

	for (size_t i = 0; i < PORTS; i++)
		fds[i] = -1;
	if (open_ports(fds, &err) == 0) {
		say(t, KB_VM_WORKS, "%d loopback ports were opened at once, and one reached",
			PORTS);
	} else {
		say_error(t, &err);
		fix(t, "bring lo up, leave free ports in net.ipv4.ip_local_port_range, and let "
		       "127.0.0.1 through the firewall");
	}
	for (size_t i = 0; i < PORTS; i++)
		kb_close(&fds[i]);
}

/* ---- kbsup's key ---- */

static int check_key(struct kb_vmctl *vm, const char *path, struct kb_err *err)
{
	char public[KB_CLIENT_KEY_MAX];
	struct kb_buf text KB_BUF_CLEANUP;
	struct stat st;
	int r;

	kb_buf_init(&text, KB_CLIENT_KEY_MAX);
	if ((r = kb_machine_client_key(vm, public, err)) < 0 ||
		(r = kb_file_read(path, &text, err)) < 0 ||
		(r = kb_buf_append(&text, "", 1, err)) < 0)
		return r;
	if (!kb_hostkey_match((const char *)kb_buf_data(&text), public))
		r = kb_err_set(err, KB_ERR_INVALID, "%s is not the key to %s.pub", path, path);
	else if (stat(path, &st) < 0 || (st.st_mode & 077))
		r = kb_err_set(err, KB_ERR_INVALID, "others may read %s", path);
	kb_os_wipe((void *)kb_buf_data(&text), kb_buf_len(&text));
	return r;
}

static void try_key(struct kb_vmctl *vm, struct kb_vm_trial *t)
{
	char path[PATH_MAX];
	struct kb_err err = {0};

	if (kb_vm_path(vm, path, &err, "%s/client_key", vm->state) == 0 &&
		check_key(vm, path, &err) == 0) {
		say(t, KB_VM_WORKS, "%s is the key to its public half, and private", path);
		return;
	}
	say_error(t, &err);
	fix(t, "rm -f %s %s.pub: a new one is made, which machines take when they boot", path,
		path);
}

/* ---- bases, and what was left ---- */

static void try_base(struct kb_vmctl *vm, struct kb_vm_trial *t)
{
	struct kb_base base KB_CLEANUP(kb_base_finish) = {0};
	char dir[PATH_MAX];
	struct kb_err err = {0};

	if (kb_base_current(vm, NULL, &base, &err) < 0) {
		say(t, KB_VM_WORKS_SOMEHOW, "%s", err.msg);
		fix(t, "%s", err.hint);
	} else if (!base.frozen) {
		say(t, KB_VM_WORKS_SOMEHOW, "%s has no template: machines boot, not fork",
			base.name);
		fix(t, "kbsup vm base freeze %s", base.name);
	} else if (kb_vm_path(vm, dir, &err, "%s/template", base.dir) < 0 ||
		   kb_frozen_check(dir, base.words, &err) < 0) {
		say_error(t, &err);
		fix(t, "build it anew: kbsup vm base create --name %s", base.name);
	} else if (!kb_programs_are_ours(vm, base.json)) {
		say(t, KB_VM_WORKS_SOMEHOW,
			"the template of %s is whole, and of another kbsup: each fork is brought "
			"our programs first",
			base.name);
		fix(t, "build it anew: kbsup vm base create --name %s", base.name);
	} else {
		say(t, KB_VM_WORKS, "the template of %s was read and is whole", base.name);
	}
}

static size_t count_entries(const char *dir)
{
	KB_JSON json_t *entries = kb_dir_entries(dir);

	return json_object_size(entries);
}

static size_t count_things(struct kb_vmctl *vm)
{
	static const char *const subs[] = {"disks", "tmp"};
	char path[PATH_MAX];
	size_t n = count_entries(vm->run);

	for (size_t i = 0; i < KB_ARRAY_LEN(subs); i++)
		if (kb_vm_path(vm, path, NULL, "%s/%s", vm->state, subs[i]) == 0)
			n += count_entries(path);
	return n;
}

static void try_leftovers(struct kb_vmctl *vm, struct kb_vm_trial *t)
{
	size_t before = count_things(vm), after;
	struct kb_err err = {0};

	if (kb_vmctl_collect_garbage(vm, &err) < 0 || kb_base_collect(vm, &err) < 0) {
		say_error(t, &err);
		return;
	}
	after = count_things(vm);
	if (after < before)
		say(t, KB_VM_WORKS, "removed what interrupted operations left: %zu things",
			before - after);
	else
		say(t, KB_VM_WORKS, "nothing of interrupted operations was there");
}

/* ---- the list ---- */

static const struct {
	const char *name;
	void (*fn)(struct kb_vmctl *vm, struct kb_vm_trial *t);
} trials[] = {
	{"machine tools", try_tools},
	{"kvm", try_accel},
	{"reflink", try_reflink},
	{"machine space", try_space},
	{"socket paths", try_sockets},
	{"ports", try_ports},
	{"ssh key", try_key},
	{"base", try_base},
	{"leftovers", try_leftovers},
};

void kb_vmctl_try(struct kb_vmctl *vm, kb_vm_trial_fn fn, void *arg)
{
	for (size_t i = 0; i < KB_ARRAY_LEN(trials) && !vm->cancelled; i++) {
		struct kb_vm_trial trial = {.name = trials[i].name, .worth = KB_VM_FAILS};

		trials[i].fn(vm, &trial);
		fn(&trial, arg);
	}
}
