#include "supervisor/guest/etc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "supervisor/base/egress.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"
#include "supervisor/guest/rootfs.h"
#include "supervisor/guest/trust.h"

/* A shell every machine has at a standard place; bash where there is one. */
static const char *login_shell(void)
{
	return access("/usr/bin/bash", X_OK) == 0 ? "/bin/bash" : "/bin/sh";
}

/* The machine's root user is an ordinary one inside, under its own name: then nobody else has it.
 */
static bool is_root_name(const struct kb_rootfs_spec *s)
{
	return s->uid != 0 && strcmp(s->user, "root") == 0;
}

static char *make_passwd(const struct kb_rootfs_spec *s)
{
	return kb_asprintf("%s%s:x:%u:%u:%s:%s:%s\n"
			   "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
		is_root_name(s) ? "" : "root:x:0:0:root:/root:/usr/sbin/nologin\n", s->user, s->uid,
		s->gid, s->user, s->home, login_shell());
}

static char *make_group(const struct kb_rootfs_spec *s)
{
	return kb_asprintf("%stty:x:5:\n%s:x:%u:\nnogroup:x:65534:\n",
		is_root_name(s) ? "" : "root:x:0:\n", s->user, s->gid);
}

static char *make_hosts(const struct kb_rootfs_spec *s)
{
	return kb_asprintf("127.0.0.1\tlocalhost\n::1\tlocalhost\n127.0.1.1\t%s\n", s->hostname);
}

static char *make_hostname(const struct kb_rootfs_spec *s)
{
	return kb_asprintf("%s\n", s->hostname);
}

/* An identity of this session's own: the machine's would tell one user's sessions together. */
static char *make_machine_id(const struct kb_rootfs_spec *s)
{
	uint64_t id[2];

	if (getrandom(id, sizeof(id), 0) != (ssize_t)sizeof(id))
		return NULL;
	return kb_asprintf(
		"%016llx%016llx\n", (unsigned long long)id[0], (unsigned long long)id[1]);
}

static char *make_resolv(const struct kb_rootfs_spec *s)
{
	if (!s->network)
		return strdup("# This session has no network.\n");
	return strdup("nameserver " KB_EGRESS_ADDRESS "\noptions timeout:5 attempts:2\n");
}

static char *make_nsswitch(const struct kb_rootfs_spec *s)
{
	return strdup("passwd: files\ngroup: files\nhosts: files dns\n");
}

static char *make_facts(const struct kb_rootfs_spec *s)
{
	return strdup(s->facts ? s->facts : "");
}

static char *make_own_authority(const struct kb_rootfs_spec *s)
{
	return strdup(s->trust ? s->trust : "");
}

static char *make_authorities(const struct kb_rootfs_spec *s)
{
	return s->trust ? kb_trust_bundle(s->source, s->trust) : strdup("");
}

static const struct {
	const char *path;
	char *(*make)(const struct kb_rootfs_spec *); /* empty: there is no such file */
} files[] = {
	{"etc/passwd", make_passwd},
	{"etc/group", make_group},
	{"etc/hosts", make_hosts},
	{"etc/hostname", make_hostname},
	{"etc/machine-id", make_machine_id},
	{"etc/resolv.conf", make_resolv},
	{"etc/nsswitch.conf", make_nsswitch},
	{&KB_ROOTFS_FACTS[1], make_facts},
	{&KB_TRUST_OWN[1], make_own_authority},
	{&KB_TRUST_BUNDLE[1], make_authorities},
};

int kb_etc_write(int root, const struct kb_rootfs_spec *spec, struct kb_err *err)
{
	for (size_t i = 0; i < KB_ARRAY_LEN(files); i++) {
		KB_FREE char *text = files[i].make(spec);
		KB_CLOSE int fd = -1;
		int r;

		if (!text)
			return kb_err_nomem(err);
		if (!*text)
			continue;
		fd = openat(root, files[i].path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
		if (fd < 0)
			return kb_err_sys(err, errno, "/%s cannot be made", files[i].path);
		r = kb_fd_write_all(fd, text, strlen(text), err);
		if (r < 0)
			return kb_err_prefix(err, "/%s", files[i].path);
	}
	return 0;
}
