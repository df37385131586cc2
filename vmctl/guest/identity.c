/* Who a machine is. A fork of a template starts as a perfect copy: same random state, same keys,
 * same names, same card. The steps below part it from its siblings, and their order matters: the
 * random number generator comes first, because everything after may draw from it; network and sshd
 * come last, because nobody may talk to a machine that still has another one's identity.
 */
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "supervisor/base/fd.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"

#define ENTROPY_SIZE 32
#define NONCE_SIZE   16
#define BOOT_ID	     "/proc/sys/kernel/random/boot_id"
#define SSH_SOCKET   "/etc/systemd/system/sockets.target.wants/ssh.socket"
#define OWN_BOOT_ID  "/run/kbsup/boot_id"
#define NO_BOOT_ID   "00000000-0000-0000-0000-000000000000"
#define WHOLE_PROC   "/run/kbsup/proc"

typedef int (*step_fn)(const json_t *request, struct kb_err *err);

/* Mix in the host's bytes and make the kernel's generator start over from them at once: without
 * the reseed, siblings go on drawing the same numbers. */
static int step_entropy(const json_t *request, struct kb_err *err)
{
	_Alignas(struct rand_pool_info)
		uint8_t bytes[sizeof(struct rand_pool_info) + ENTROPY_SIZE] = {0};
	struct rand_pool_info *pool = (struct rand_pool_info *)bytes;
	KB_CLOSE int fd = -1;
	const char *hex;
	int r = kbm_string(request, "entropy", &hex, err);

	if (r < 0)
		return r;
	r = kbm_unhex(hex, (uint8_t *)pool->buf, ENTROPY_SIZE, err);
	if (r < 0)
		return r;
	if (r != ENTROPY_SIZE)
		return kb_err_set(err, KB_ERR_INVALID, "entropy must be %d bytes", ENTROPY_SIZE);
	pool->entropy_count = ENTROPY_SIZE * 8;
	pool->buf_size = ENTROPY_SIZE;
	fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);
	if (fd < 0 || ioctl(fd, RNDADDENTROPY, pool) < 0 || ioctl(fd, RNDRESEEDCRNG, NULL) < 0)
		return kb_err_sys(err, errno, "the random generator cannot be seeded");
	unlink("/var/lib/systemd/random-seed");
	return 0;
}

static int step_clock(const json_t *request, struct kb_err *err)
{
	json_int_t ns = json_integer_value(json_object_get(request, "time_ns"));
	struct timespec now = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)};

	if (ns <= 0)
		return kb_err_set(err, KB_ERR_INVALID, "time_ns is missing");
	if (clock_settime(CLOCK_REALTIME, &now) < 0)
		return kb_err_sys(err, errno, "the clock cannot be set");
	return 0;
}

static int step_machine_id(const json_t *request, struct kb_err *err)
{
	const char *id;
	char line[64];
	int r = kbm_string(request, "machine_id", &id, err);

	if (r < 0)
		return r;
	umount2("/etc/machine-id", MNT_DETACH); /* systemd's own, when it found none */
	snprintf(line, sizeof(line), "%s\n", id);
	return kbm_write("/etc/machine-id", line, 0444, err);
}

/* The kernel lets a user namespace mount a /proc of its own, as containers do, only where one can
 * be seen that nothing covers: ours, where one file is, would not do. Nobody but root gets at it.
 */
static int keep_whole_proc(struct kb_err *err)
{
	if (access(WHOLE_PROC "/self", F_OK) == 0)
		return 0;
	if (kb_mkdirs(WHOLE_PROC, 0700, err) < 0)
		return -KB_ERR_SYSTEM;
	if (mount("proc", WHOLE_PROC, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
		return kb_err_sys(err, errno, "%s cannot be mounted", WHOLE_PROC);
	return chmod("/run/kbsup", 0700) < 0 ? kb_err_sys(err, errno, "/run/kbsup") : 0;
}

/* The kernel's boot id is copied with its memory; what programs read is laid over it. A template
 * has it laid over already, since systemd does much work for each mount that comes or goes. */
static int cover_boot_id(const char *id, struct kb_err *err)
{
	char line[64];
	int r;

	snprintf(line, sizeof(line), "%s\n", id);
	if ((r = kb_mkdirs("/run/kbsup", 0755, err)) < 0 ||
		(r = kbm_write(OWN_BOOT_ID, line, 0444, err)) < 0)
		return r;
	if (kbm_has_text(BOOT_ID, line))
		return keep_whole_proc(err);
	while (umount2(BOOT_ID, MNT_DETACH) == 0)
		;
	if (mount(OWN_BOOT_ID, BOOT_ID, NULL, MS_BIND, NULL) < 0)
		return kb_err_sys(err, errno, "%s cannot be covered", BOOT_ID);
	return keep_whole_proc(err);
}

static int step_boot_id(const json_t *request, struct kb_err *err)
{
	const char *id;
	int r = kbm_string(request, "boot_id", &id, err);

	return r < 0 ? r : cover_boot_id(id, err);
}

static int step_hostname(const json_t *request, struct kb_err *err)
{
	const char *name;
	char text[512];
	int r = kbm_string(request, "hostname", &name, err);

	if (r < 0)
		return r;
	if (sethostname(name, strlen(name)) < 0)
		return kb_err_sys(err, errno, "the host name cannot be set");
	snprintf(text, sizeof(text), "%s\n", name);
	if ((r = kbm_write("/etc/hostname", text, 0644, err)) < 0)
		return r;
	snprintf(text, sizeof(text),
		"127.0.0.1\tlocalhost\n127.0.1.1\t%s\n::1\tlocalhost ip6-localhost\n", name);
	return kbm_write("/etc/hosts", text, 0644, err);
}

static int step_host_keys(const json_t *request, struct kb_err *err)
{
	static const struct {
		const char *key, *path;
		mode_t mode;
	} files[] = {
		{"host_key", "/etc/ssh/ssh_host_ed25519_key", 0600},
		{"host_key_pub", "/etc/ssh/ssh_host_ed25519_key.pub", 0644},
		{"authorized_key", "/etc/ssh/kbsup_authorized_keys", 0644},
	};

	for (size_t i = 0; i < KB_ARRAY_LEN(files); i++) {
		const char *text;
		int r = kbm_string(request, files[i].key, &text, err);

		if (r == 0)
			r = kbm_write(files[i].path, text, files[i].mode, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Where a socket starts sshd with each connection there is nothing to do: it reads its keys then.
 * Else it starts anew with its own; not waited for, since the machine is usable without it. */
static int step_sshd(const json_t *request, struct kb_err *err)
{
	static const char *const argv[] = {
		"/usr/bin/systemctl", "--no-block", "restart", "ssh.service", NULL};

	return access(SSH_SOCKET, F_OK) == 0 ? 0 : kbm_start(argv, err);
}

static const struct {
	const char *name;
	step_fn fn;
} steps[] = {
	{"entropy", step_entropy},
	{"clock", step_clock},
	{"machine_id", step_machine_id},
	{"boot_id", step_boot_id},
	{"hostname", step_hostname},
	{"host_keys", step_host_keys},
	{"network", kbm_net_up},
	{"sshd", step_sshd},
};

/* The first bytes this machine draws as itself, so that the host can see that no sibling drew
 * them. */
static void report_nonce(json_t *reply)
{
	uint8_t bytes[NONCE_SIZE];
	char hex[2 * NONCE_SIZE + 1];

	if (getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes))
		return;
	for (size_t i = 0; i < sizeof(bytes); i++)
		snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
	json_object_set_new(reply, "nonce", json_string(hex));
}

int kbm_identity(const json_t *request, json_t *reply, struct kb_err *err)
{
	json_t *took = json_object();

	json_object_set_new(reply, "took_us", took);
	for (size_t i = 0; i < KB_ARRAY_LEN(steps); i++) {
		int64_t start = kb_now_mono();
		int r = steps[i].fn(request, err);

		if (r < 0)
			return kb_err_prefix(err, "identity step %s", steps[i].name);
		if (i == 0)
			report_nonce(reply);
		json_object_set_new(
			took, steps[i].name, json_integer((kb_now_mono() - start) / 1000));
	}
	return 0;
}

/* For a machine that only a base's build will ever see: a way out, and no identity. */
int kbm_online(const json_t *request, json_t *reply, struct kb_err *err)
{
	static const step_fn needed[] = {step_entropy, step_clock, kbm_net_up};
	int r = 0;

	for (size_t i = 0; r == 0 && i < KB_ARRAY_LEN(needed); i++)
		r = needed[i](request, err);
	return r;
}

int kbm_clock(const json_t *request, json_t *reply, struct kb_err *err)
{
	int r = 0;

	/* A resumed machine is the same machine, but its random state was on a disk. */
	if (json_object_get(request, "entropy"))
		r = step_entropy(request, err);
	return r < 0 ? r : step_clock(request, err);
}

/* Before a template is frozen: nothing that tells machines apart may be in it. Its page cache
 * stays: forks share it, and what they do first is in it. */
int kbm_prepare(const json_t *request, json_t *reply, struct kb_err *err)
{
	static const char *const wait_boot[] = {
		"/usr/bin/systemctl", "is-system-running", "--wait", NULL};
	/* Else each fork has to finish what its template began. */
	static const char *const wait_devices[] = {
		"/usr/bin/udevadm", "settle", "--timeout=60", NULL};
	static const char *const stop_ssh[] = {"/usr/bin/systemctl", "stop", "ssh.service", NULL};
	/* What is likely to come first, so that its files are in memory. */
	static const char *const warm[] = {"/bin/sh", "-c",
		"sshd -t; bash -lc 'ls /; id; ip address; git --version' >/dev/null", NULL};
	static const char *const stale[] = {
		"/var/lib/systemd/random-seed",
		"/etc/ssh/ssh_host_ed25519_key",
		"/etc/ssh/ssh_host_ed25519_key.pub",
		"/etc/ssh/ssh_host_rsa_key",
		"/etc/ssh/ssh_host_rsa_key.pub",
		"/etc/ssh/ssh_host_ecdsa_key",
		"/etc/ssh/ssh_host_ecdsa_key.pub",
		"/etc/ssh/kbsup_authorized_keys",
		"/root/.bash_history",
	};
	int r;

	kbm_run(wait_boot, NULL); /* "degraded" is an answer too */
	kbm_run(wait_devices, NULL);
	kbm_run(warm, NULL);
	if ((r = kbm_run(stop_ssh, err)) < 0 || (r = kbm_net_down(err)) < 0 ||
		(r = kbm_net_forget(err)) < 0)
		return r;
	for (size_t i = 0; i < KB_ARRAY_LEN(stale); i++)
		if (unlink(stale[i]) < 0 && errno != ENOENT)
			return kb_err_sys(err, errno, "%s cannot be removed", stale[i]);
	umount2("/etc/machine-id", MNT_DETACH);
	if ((r = kbm_write("/etc/machine-id", "uninitialized\n", 0444, err)) < 0 ||
		(r = cover_boot_id(NO_BOOT_ID, err)) < 0)
		return r;
	sync();
	return 0;
}
