#include "qemu.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "supervisor/base/fd.h"
#include "supervisor/base/os.h"
#include "supervisor/base/spawn.h"
#include "vmctl/files.h"
#include "vmctl/monitor.h"

#define START_MS     10000
#define KILL_MS	     5000
#define POLL_MS	     2
#define WORD_MAX     512
#define WORDS_MAX    96
#define SWITCHES_MAX 6 /* of one process, past those of the machine */
#define TAIL_SIZE    256

extern char **environ;

static const char *const aarch64_firmware[] = {"/usr/share/qemu-efi-aarch64/QEMU_EFI.fd",
	"/usr/share/AAVMF/AAVMF_CODE.fd", "edk2-aarch64-code.fd", NULL};

/* What differs from one architecture to the next. */
static const struct arch {
	const char *name, *program, *package;
	const char
		*machine; /* versioned, so that a newer QEMU still builds the one that was saved */
	const char *cpu;  /* emulated */
	const char *console;	     /* as the kernel calls the serial port */
	const char *screen;	     /* a device that firmware and kernel can draw on */
	const char *const *firmware; /* files that boot a disk, one of which is there; NULL: QEMU's
				      * own does */
} arches[] = {
	/* Without page tables of five levels: TCG walks them, and a boot takes a quarter less. */
	{"x86_64", "qemu-system-x86_64", "qemu-system-x86", "pc-q35-7.2", "max,la57=off", "ttyS0",
		"VGA", NULL},
	/* Pointer authentication as Arm defines it takes half of an emulator's time. */
	{"aarch64", "qemu-system-aarch64", "qemu-system-arm", "virt-7.2", "max,pauth-impdef=on",
		"ttyAMA0", "virtio-gpu-pci", aarch64_firmware},
};

/* The first that is there, or else the name QEMU itself may know. */
static const char *firmware_of(const struct arch *arch)
{
	const char *const *file = arch->firmware;

	if (!file)
		return "";
	while (file[1] && access(*file, R_OK) < 0)
		file++;
	return *file;
}

enum when {
	ALWAYS,
	WITH_KERNEL,   /* it is given one */
	FROM_DISK,     /* a boot loader on its disk knows one */
	WITH_FIRMWARE, /* that, and QEMU's own firmware finds none */
	ONLY_X86,
	WITH_SCREEN,
};

/* The machine, fixed for good. The TCG code buffer is bounded because its default is a gigabyte. */
/* One option per line. */
/* clang-format off */
static const struct {
	const char *words[2];
	enum when when;
} options[] = {
	{{"-accel", "@ACCEL@"}},
	{{"-machine", "@MACHINE@,memory-backend=ram0"}},
	{{"-cpu", "@CPU@"}},
	{{"-smp", "@CPUS@"}},
	{{"-m", "@MEMORY@"}},
	{{"-nodefaults", "-no-user-config"}},
	{{"-display", "none"}},
	{{"-sandbox", "@SANDBOX@"}},
	{{"-bios", "@FIRMWARE@"}, WITH_FIRMWARE},
	{{"-kernel", "@KERNEL@"}, WITH_KERNEL},
	{{"-initrd", "@INITRD@"}, WITH_KERNEL},
	{{"-append", "console=@CONSOLE@ root=/dev/vda rw quiet panic=-1 net.ifnames=0"}, WITH_KERNEL},
	{{"-object", "@RAM@"}},
	{{"-blockdev", "driver=qcow2,node-name=root,discard=unmap,file.driver=file,file.filename=@DISK@"}},
	{{"-device", "virtio-blk-pci,drive=root,id=rootd,werror=stop,rerror=stop"}, WITH_KERNEL},
	{{"-device", "virtio-blk-pci,drive=root,id=rootd,werror=stop,rerror=stop,bootindex=0"}, FROM_DISK},
	{{"-netdev", "@NETDEV@"}},
	{{"-device", "virtio-net-pci,netdev=n0,id=nic0,romfile=,mac=@MAC@"}},
	{{"-device", "virtio-serial-pci,id=vs"}},
	{{"-chardev", "socket,id=machine,path=@RUN@/machine.sock,server=on,wait=off"}},
	{{"-device", "virtserialport,bus=vs.0,nr=1,chardev=machine,name=org.kbsup.machine"}},
	{{"-chardev", "socket,id=guest,path=@RUN@/guest.sock,server=on,wait=off"}},
	{{"-device", "virtserialport,bus=vs.0,nr=2,chardev=guest,name=org.kbsup.guest"}},
	{{"-device", "virtio-scsi-pci,id=sc0"}},
	{{"-device", "virtio-rng-pci"}},
	{{"-device", "pvpanic-pci"}},
	{{"-device", "vmgenid,guid=auto"}, ONLY_X86},
	{{"-vnc", "unix:@RUN@/" KB_QEMU_SCREEN_SOCK}, WITH_SCREEN},
	{{"-device", "@SCREEN@"}, WITH_SCREEN},
	{{"-device", "virtio-keyboard-pci"}, WITH_SCREEN},
	{{"-device", "virtio-tablet-pci"}, WITH_SCREEN},
	{{"-chardev", "socket,id=ser,path=@RUN@/console.sock,server=on,wait=off,logfile=@RUN@/console.log"}},
	{{"-serial", "chardev:ser"}},
	{{"-chardev", "socket,id=qmp,path=@RUN@/qmp.sock,server=on,wait=off"}},
	{{"-mon", "chardev=qmp,mode=control"}},
	{{"-chardev", "socket,id=spare,path=@RUN@/spare.sock,server=on,wait=off"}},
	{{"-mon", "chardev=spare,mode=control"}},
	{{"-action", "panic=pause,reboot=reset,shutdown=poweroff"}},
	{{"-pidfile", "@RUN@/pid"}},
};
/* clang-format on */

static const struct arch *find_arch(const char *name)
{
	for (size_t i = 0; name && i < KB_ARRAY_LEN(arches); i++)
		if (strcmp(arches[i].name, name) == 0)
			return &arches[i];
	return &arches[0];
}

int kb_qemu_program(const char *arch, char ret[PATH_MAX], struct kb_err *err)
{
	const struct arch *a = find_arch(arch);

	return kb_op_program(a->program, ret, a->package, err);
}

struct subst {
	const char *name, *value;
};

/* Replace the @NAME@s of one word that are listed; the others stay. */
static int fill(const char *word, const struct subst *substs, size_t n, char ret[WORD_MAX],
	struct kb_err *err)
{
	size_t len = 0;

	while (*word) {
		const char *end = *word == '@' ? strchr(word + 1, '@') : NULL;
		const char *put = NULL;
		size_t take = 1, put_len;

		for (size_t i = 0; end && !put && i < n; i++)
			if (strlen(substs[i].name) == (size_t)(end - word - 1) &&
				strncmp(substs[i].name, word + 1, (size_t)(end - word - 1)) == 0)
				put = substs[i].value;
		if (put)
			take = (size_t)(end - word) + 1;
		put_len = put ? strlen(put) : 1;
		if (len + put_len >= WORD_MAX)
			return kb_err_set(err, KB_ERR_LIMIT, "a word for QEMU is too long");
		memcpy(ret + len, put ? put : word, put_len);
		len += put_len;
		word += take;
	}
	ret[len] = '\0';
	return 0;
}

static bool applies(enum when when, const struct arch *arch, const struct kb_qemu_shape *shape)
{
	switch (when) {
	case WITH_KERNEL:
		return !shape->firmware;
	case FROM_DISK:
		return shape->firmware;
	case WITH_FIRMWARE:
		return shape->firmware && arch->firmware;
	case ONLY_X86:
		return arch == &arches[0];
	case WITH_SCREEN:
		return shape->screen;
	default:
		return true;
	}
}

int kb_qemu_shape_words(const struct kb_qemu_shape *shape, json_t **ret, struct kb_err *err)
{
	const struct arch *arch = find_arch(shape->arch);
	char memory[16], cpus[16], console[32], word[WORD_MAX];
	bool kvm = strcmp(shape->accel, "kvm") == 0;
	const struct subst substs[] = {
		{"ACCEL", kvm ? "kvm" : "tcg,tb-size=128"},
		{"MACHINE", arch->machine},
		{"CPU", kvm ? "host" : arch->cpu},
		{"CPUS", cpus},
		{"MEMORY", memory},
		{"CONSOLE", console},
		{"SCREEN", arch->screen},
		{"FIRMWARE", firmware_of(arch)},
	};
	json_t *list = json_array();

	snprintf(memory, sizeof(memory), "%u", shape->memory_mib);
	snprintf(cpus, sizeof(cpus), "%u", shape->cpus);
	/* The last one is what /dev/console is. */
	snprintf(console, sizeof(console), "%s%s", shape->screen ? "tty0 console=" : "",
		arch->console);
	for (size_t i = 0; i < 2 * KB_ARRAY_LEN(options); i++) {
		int r = 0;

		if (!applies(options[i / 2].when, arch, shape))
			continue;
		r = fill(options[i / 2].words[i % 2], substs, KB_ARRAY_LEN(substs), word, err);
		if (r < 0 || json_array_append_new(list, json_string(word)) < 0) {
			json_decref(list);
			return r < 0 ? r : kb_err_nomem(err);
		}
	}
	*ret = list;
	return 0;
}

bool kb_qemu_has_screen(const json_t *words)
{
	for (size_t i = 0; i < json_array_size(words); i++) {
		const char *word = json_string_value(json_array_get(words, i));

		if (word && strcmp(word, "-vnc") == 0)
			return true;
	}
	return false;
}

static unsigned shape_memory(const json_t *list)
{
	for (size_t i = 0; i + 1 < json_array_size(list); i++) {
		const char *word = json_string_value(json_array_get(list, i));

		if (word && strcmp(word, "-m") == 0)
			return (unsigned)strtoul(
				json_string_value(json_array_get(list, i + 1)), NULL, 10);
	}
	return 0;
}

static int ram_word(
	const json_t *list, const struct kb_qemu_run *run, char ret[WORD_MAX], struct kb_err *err)
{
	unsigned mib = shape_memory(list);
	int n = run->ram ? snprintf(ret, WORD_MAX,
				   "memory-backend-file,id=ram0,size=%uM,mem-path=%s,share=%s", mib,
				   run->ram, run->ram_shared ? "on" : "off")
			 : snprintf(ret, WORD_MAX, "memory-backend-ram,id=ram0,size=%uM", mib);

	/* A comma in a path would end QEMU's option. */
	if (n >= WORD_MAX || (run->ram && strchr(run->ram, ',')) || strchr(run->disk, ','))
		return kb_err_set(
			err, KB_ERR_INVALID, "a path is too long or has a comma: %s", run->disk);
	return 0;
}

/* A helper with privileges makes the tap of a bridged machine, so QEMU may start programs then. */
#define SANDBOX "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

static void net_word(const struct kb_qemu_run *run, char ret[WORD_MAX])
{
	if (run->bridge)
		snprintf(ret, WORD_MAX, "bridge,id=n0,br=%s", run->bridge);
	else
		snprintf(ret, WORD_MAX, "user,id=n0,restrict=%s", run->isolated ? "on" : "off");
}

/* What one process has that the machine as such has not. */
static int add_switches(const struct kb_qemu_run *run, char **ret, size_t n, struct kb_err *err)
{
	KB_FREE char *seed = NULL;
	const char *words[SWITCHES_MAX];
	size_t n_words = 0;

	if (run->incoming) {
		words[n_words++] = "-incoming";
		words[n_words++] = "defer";
	}
	if (run->seed) {
		if (strchr(run->seed, ','))
			return kb_err_set(err, KB_ERR_INVALID, "%s has a comma", run->seed);
		seed = kb_asprintf(
			"driver=vvfat,node-name=seed,read-only=on,label=" KB_QEMU_SEED_LABEL
			",dir=%s",
			run->seed);
		words[n_words++] = "-blockdev";
		words[n_words++] = seed ? seed : "";
		words[n_words++] = "-device";
		words[n_words++] = "virtio-blk-pci,drive=seed";
	}
	for (size_t i = 0; i < n_words && ret[n - 1]; i++)
		ret[n++] = strdup(words[i]);
	return ret[n - 1] && (seed || !run->seed) ? 0 : kb_err_nomem(err);
}

/* The complete, NULL-terminated argument list; free with argv_finish(). */
static int build_argv(const char *program, const char *dir, const json_t *list,
	const struct kb_qemu_run *run, char **ret, struct kb_err *err)
{
	char ram[WORD_MAX], word[WORD_MAX], net[WORD_MAX];
	int r = ram_word(list, run, ram, err);
	const struct subst substs[] = {
		{"RUN", dir},
		{"RAM", ram},
		{"DISK", run->disk},
		{"KERNEL", run->kernel},
		{"INITRD", run->initrd},
		{"MAC", run->mac},
		{"NETDEV", net},
		{"SANDBOX", run->bridge ? "off" : SANDBOX},
	};
	size_t n = 0;

	if (r < 0)
		return r;
	net_word(run, net);
	if (json_array_size(list) + SWITCHES_MAX + 1 > WORDS_MAX)
		return kb_err_set(err, KB_ERR_INVALID, "a machine's manifest has too many words");
	ret[n++] = strdup(program);
	for (size_t i = 0; i < json_array_size(list) && ret[n - 1]; i++) {
		const char *text = json_string_value(json_array_get(list, i));

		r = fill(text ? text : "", substs, KB_ARRAY_LEN(substs), word, err);
		if (r < 0)
			return r;
		ret[n++] = strdup(word);
	}
	return add_switches(run, ret, n, err);
}

struct argv {
	char *words[WORDS_MAX + 1];
};

static void argv_finish(struct argv *argv)
{
	for (size_t i = 0; argv->words[i]; i++)
		free(argv->words[i]);
}

static int run_dir_make(struct kb_vmctl *vm, const char *id, char dir[PATH_MAX], struct kb_err *err)
{
	int r = kb_vm_path(vm, dir, err, "%s/%s", vm->run, id);

	if (r < 0)
		return r;
	if (strlen(dir) + sizeof("/" KB_QEMU_LONGEST_SOCK) >
		sizeof(((struct sockaddr_un *)0)->sun_path)) {
		kb_err_set(err, KB_ERR_LIMIT,
			"%s/" KB_QEMU_LONGEST_SOCK " is too long for a socket", dir);
		return kb_err_hint(err, "set XDG_RUNTIME_DIR to a shorter path");
	}
	/* What a dead QEMU left there goes; a living one is never disturbed. */
	if (kb_pid_of(vm, id) > 0)
		return kb_err_set(err, KB_ERR_EXISTS, "QEMU runs already for %s", dir);
	if ((r = kb_rmtree(dir, err)) < 0)
		return r;
	return kb_mkdirs(dir, 0700, err);
}

/* The last line of QEMU's log: why it ended. */
static void last_words(const char *log, char ret[TAIL_SIZE])
{
	KB_CLOSE int fd = open(log, O_RDONLY | O_CLOEXEC);
	char tail[TAIL_SIZE] = "";
	struct stat st;
	ssize_t n = 0;
	char *line;

	snprintf(ret, TAIL_SIZE, "it said nothing");
	if (fd < 0 || fstat(fd, &st) < 0)
		return;
	n = pread(fd, tail, sizeof(tail) - 1, KB_MAX(0, st.st_size - (off_t)sizeof(tail) + 1));
	while (n > 0 && tail[n - 1] == '\n')
		tail[--n] = '\0';
	line = strrchr(tail, '\n');
	line = line ? line + 1 : tail;
	if (n > 0 && *line)
		snprintf(ret, TAIL_SIZE, "%s", line);
}

static int wait_started(
	struct kb_vmctl *vm, const char *id, pid_t pid, const char *log, struct kb_err *err)
{
	int64_t deadline = kb_now_mono() + START_MS * 1000000ll;
	int r = 0;

	while (r == 0 && kb_now_mono() < deadline) {
		char why[TAIL_SIZE];
		int status;

		if (kb_pid_of(vm, id) == pid)
			return 0;
		if (waitpid(pid, &status, WNOHANG) == pid) {
			last_words(log, why);
			return kb_err_set(err, KB_ERR_FAILED, "QEMU did not start: %s", why);
		}
		r = kb_op_sleep(vm, POLL_MS, err);
	}
	return r < 0 ? r
		     : kb_err_set(err, KB_ERR_TIMEOUT, "QEMU did not start within %d ms", START_MS);
}

int kb_qemu_start(struct kb_vmctl *vm, const json_t *list, const struct kb_qemu_run *run,
	pid_t *ret_pid, struct kb_err *err)
{
	struct argv argv KB_CLEANUP(argv_finish) = {0};
	char program[PATH_MAX], dir[PATH_MAX];
	KB_CLOSE int log = -1;
	int r;

	if ((r = kb_qemu_program(run->arch, program, err)) < 0 ||
		(r = run_dir_make(vm, run->id, dir, err)) < 0 ||
		(r = build_argv(program, dir, list, run, argv.words, err)) < 0)
		return r;
	log = open(run->log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	if (log < 0)
		return kb_err_sys(err, errno, "%s cannot be opened", run->log);
	struct kb_spawn_fd fds[] = {{log, 1}, {log, 2}};
	struct kb_spawn spawn = {.path = program,
		.argv = (const char *const *)argv.words,
		.env = (const char *const *)environ,
		.cwd = "/",
		.fds = fds,
		.n_fds = 2,
		.flags = KB_SPAWN_SETSID};
	r = kb_spawn(&spawn, ret_pid, err);
	if (r == 0) {
		r = wait_started(vm, run->id, *ret_pid, run->log, err);
		if (r < 0) {
			kill(*ret_pid, SIGKILL);
			waitpid(*ret_pid, NULL, 0);
		}
	}
	if (r < 0)
		kb_rmtree(dir, NULL);
	return r;
}

int kb_qemu_wait_end(struct kb_vmctl *vm, const char *id, int64_t timeout_ms, struct kb_err *err)
{
	int64_t deadline = kb_now_mono() + timeout_ms * 1000000;
	pid_t pid;
	int r = 0;

	while (r == 0 && (pid = kb_pid_of(vm, id)) > 0) {
		if (kb_now_mono() >= deadline)
			return kb_err_set(err, KB_ERR_TIMEOUT,
				"QEMU (%d) did not end within %lld ms", pid, (long long)timeout_ms);
		r = kb_op_sleep(vm, POLL_MS, err);
		waitpid(pid, NULL, WNOHANG); /* when it is our own child */
	}
	return r;
}

int kb_qemu_kill(struct kb_vmctl *vm, const char *id, struct kb_err *err)
{
	pid_t pid = kb_pid_of(vm, id);
	char dir[PATH_MAX];
	int r = 0;

	if (pid > 0) {
		/* The lock was held a moment ago; a pidfd makes sure that what is killed is what
		 * holds it now. */
		KB_CLOSE int pidfd = kb_os_process_open(pid);

		if (pidfd >= 0 && kb_pid_of(vm, id) == pid)
			kb_os_process_kill(pidfd, pid, SIGKILL);
		vm->shielded++;
		r = kb_qemu_wait_end(vm, id, KILL_MS, err);
		vm->shielded--;
	}
	if (r == 0)
		r = kb_vm_path(vm, dir, err, "%s/%s", vm->run, id);
	return r < 0 ? r : kb_rmtree(dir, err);
}

int kb_qemu_version(struct kb_mon *mon, char ret[32], struct kb_err *err)
{
	KB_JSON json_t *info = NULL;
	const json_t *v;
	int r = kb_mon_call(mon, "query-version", NULL, &info, err);

	if (r < 0)
		return r;
	v = json_object_get(info, "qemu");
	snprintf(ret, 32, "%lld.%lld.%lld", (long long)kb_json_int(v, "major", 0),
		(long long)kb_json_int(v, "minor", 0), (long long)kb_json_int(v, "micro", 0));
	return 0;
}

/* Parts of a cluster are allocated by themselves: what a machine writes takes little more space
 * than it is long, and its first write to a place need not read the rest of the cluster from below.
 */
#define LAYOUT "extended_l2=on"

int kb_qemu_overlay(struct kb_vmctl *vm, const char *backing, const char *backing_format,
	const char *path, struct kb_err *err)
{
	const char *const argv[] = {"qemu-img", "create", "-q", "-f", "qcow2", "-o", LAYOUT, "-b",
		backing, "-F", backing_format, path, NULL};

	return kb_op_run(vm, NULL, argv, START_MS, err);
}

/* The virtual size in a qcow2 header: eight big-endian bytes at 24. */
uint64_t kb_qemu_disk_size(const char *path)
{
	KB_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint8_t bytes[8];
	uint64_t size = 0;

	if (fd < 0 || pread(fd, bytes, sizeof(bytes), 24) != sizeof(bytes))
		return 0;
	for (int i = 0; i < 8; i++)
		size = size << 8 | bytes[i];
	return size;
}

int kb_qemu_overlay_on(struct kb_vmctl *vm, const char *layer, const char *path, struct kb_err *err)
{
	char size[32];
	/* -u: the layer is still a machine's disk, locked by its QEMU, so it is not opened here. */
	const char *const argv[] = {"qemu-img", "create", "-q", "-f", "qcow2", "-o", LAYOUT, "-u",
		"-b", layer, "-F", "qcow2", path, size, NULL};

	snprintf(size, sizeof(size), "%llu", (unsigned long long)kb_qemu_disk_size(layer));
	return kb_op_run(vm, NULL, argv, START_MS, err);
}
