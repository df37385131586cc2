#include "supervisor/init/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

/* Rights of the Landlock ABIs, as masks of bits from 0 (linux/landlock.h). Newer bits than ours are
 * never asked for. */
#define LANDLOCK_ABI1_RIGHTS 0x1fffULL
#define LANDLOCK_ABI2_RIGHTS 0x3fffULL
#define LANDLOCK_ABI3_RIGHTS 0x7fffULL
#define LANDLOCK_ABI5_RIGHTS 0xffffULL
#define LANDLOCK_ABI6_SCOPES 0x3ULL
/* The rights that mean something on a file; the others are for directories only. */
#define LANDLOCK_FILE_RIGHTS 0xc007ULL

/* struct landlock_ruleset_attr as of ABI 6; older headers lack its tail. */
struct ruleset_attr {
	uint64_t handled_access_fs;
	uint64_t handled_access_net;
	uint64_t scoped;
};

int kb_confine_landlock_abi(void)
{
	long abi = syscall(
		SYS_landlock_create_ruleset, NULL, (size_t)0, LANDLOCK_CREATE_RULESET_VERSION);

	return abi > 0 ? (int)abi : 0;
}

static int write_proc(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t n;
	int saved;

	if (fd < 0)
		return -errno;
	n = write(fd, text, strlen(text));
	saved = errno;
	close(fd);
	return n < 0 ? -saved : 0;
}

static int write_map(const char *path, uint32_t inside, unsigned outside)
{
	char line[64];

	snprintf(line, sizeof(line), "%u %u 1\n", inside, outside);
	return write_proc(path, line);
}

int kb_confine_userns(const struct kb_spec *spec)
{
	unsigned uid = geteuid(), gid = getegid();
	int r;

	if (unshare(CLONE_NEWUSER) < 0)
		return -errno;
	r = write_proc("/proc/self/setgroups", "deny");
	/* It stays denied when the outer namespace denied it already. */
	if (r < 0 && r != -EPERM)
		return r;
	r = write_map("/proc/self/gid_map", spec->header->gid, gid);
	return r < 0 ? r : write_map("/proc/self/uid_map", spec->header->uid, uid);
}

/* Never above what the container already has. */
static int set_rlimit(const struct kb_init_rlimit *want)
{
	struct rlimit lim;

	if (getrlimit((int)want->resource, &lim) < 0)
		return -errno;
	if (lim.rlim_max == RLIM_INFINITY || want->value < lim.rlim_max)
		lim.rlim_max = want->value;
	lim.rlim_cur = lim.rlim_max;
	return setrlimit((int)want->resource, &lim) < 0 ? -errno : 0;
}

int kb_confine_rlimits(const struct kb_spec *spec)
{
	int r = 0;

	for (uint32_t i = 0; i < spec->header->n_rlimits && r == 0; i++)
		r = set_rlimit(&spec->rlimits[i]);
	return r;
}

static int drop_bounding_set(void)
{
	for (unsigned long cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
			return -errno;
	return 0;
}

int kb_confine_caps(const struct kb_spec *spec)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {0};
	unsigned long bits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
			     SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED |
			     SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
	int r;

	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		return -errno;
	r = drop_bounding_set();
	if (r < 0)
		return r;
	if (prctl(PR_SET_SECUREBITS, bits, 0, 0, 0) < 0 || syscall(SYS_capset, &header, none) < 0 ||
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	return 0;
}

static uint64_t known_rights(int abi)
{
	return abi >= 5	  ? LANDLOCK_ABI5_RIGHTS
	       : abi >= 3 ? LANDLOCK_ABI3_RIGHTS
	       : abi >= 2 ? LANDLOCK_ABI2_RIGHTS
			  : LANDLOCK_ABI1_RIGHTS;
}

static int add_rule(
	int ruleset, const char *path, const struct kb_init_landlock *rule, uint64_t handled)
{
	struct landlock_path_beneath_attr attr = {.allowed_access = rule->access & handled};
	struct stat st;
	int r = 0;

	attr.parent_fd = open(path, O_PATH | O_CLOEXEC);
	if (attr.parent_fd < 0)
		return rule->optional && (errno == ENOENT || errno == ENOTDIR) ? 0 : -errno;
	if (fstat(attr.parent_fd, &st) < 0)
		r = -errno;
	else if (!S_ISDIR(st.st_mode))
		attr.allowed_access &= LANDLOCK_FILE_RIGHTS;
	if (r == 0 && attr.allowed_access != 0 &&
		syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &attr, 0) < 0)
		r = -errno;
	close(attr.parent_fd);
	return r;
}

int kb_confine_landlock(const struct kb_spec *spec)
{
	int abi = kb_confine_landlock_abi(), ruleset, r = 0;
	struct ruleset_attr attr = {
		.handled_access_fs = spec->header->landlock_handled & known_rights(abi),
		.scoped = abi >= 6 ? spec->header->landlock_scoped & LANDLOCK_ABI6_SCOPES : 0,
	};
	size_t size = abi >= 6 ? sizeof(attr) : offsetof(struct ruleset_attr, handled_access_net);

	if (spec->header->n_landlock == 0)
		return 0;
	if (abi == 0)
		return -ENOSYS;
	ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, size, 0);
	if (ruleset < 0)
		return -errno;
	for (uint32_t i = 0; i < spec->header->n_landlock && r == 0; i++)
		r = add_rule(ruleset, spec->landlock_paths[i], &spec->landlock[i],
			attr.handled_access_fs);
	if (r == 0 && syscall(SYS_landlock_restrict_self, ruleset, 0) < 0)
		r = -errno;
	close(ruleset);
	return r;
}

int kb_confine_seccomp(const struct kb_spec *spec)
{
	struct sock_fprog program = {.len = (unsigned short)spec->header->n_filters,
		.filter = (struct sock_filter *)spec->filters};
	bool listen = spec->header->flags & KB_SPEC_LISTENER;
	unsigned long flags =
		listen ? SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
		       : 0;
	long r = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);

	/* Kernels before 6.0 do not know WAIT_KILLABLE_RECV. */
	if (r < 0 && errno == EINVAL && listen)
		r = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER,
			&program);
	if (r < 0)
		return -errno - 1;
	return listen ? (int)r : -1;
}
