/* A base's root image: Debian by mmdebstrap, from the machine's own package sources, without root
 * where user namespaces allow. mmdebstrap leaves a tar; pack.sh makes the image of it within one
 * user namespace, so that owners survive. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "image.h"
#include "supervisor/base/fd.h"
#include "vmctl/files.h"

#define BUILD_MS     1800000
#define PACK_MS	     600000
#define ARGS_MAX     (KB_BASE_PACKAGES_MAX + 32)
#define WORD_MAX     (PATH_MAX + 128)
#define NEEDED_BYTES (3ull << 30) /* while building; the image itself is sparse */

/* What every base has: a bootable system, what sessions need, what people expect over ssh. */
static const char packages[] =
	"systemd-sysv,udev,dbus,initramfs-tools,zstd,kmod,crun,openssh-server,"
	"openssh-sftp-server,git,ca-certificates,curl,iproute2,iputils-ping,netbase,procps,less,"
	"nano,sudo,cryptsetup-bin,e2fsprogs,libseccomp2,nftables";

/* An initrd with just what finds the disk: quick to load, and the same everywhere. */
static const char initrd_hook[] =
	"mkdir -p \"$1/etc/initramfs-tools/conf.d\" \"$1/usr/share/initramfs-tools/modules.d\""
	" && echo MODULES=list >\"$1/etc/initramfs-tools/conf.d/kbsup\""
	" && printf 'virtio_pci\\nvirtio_blk\\next4\\n' >"
	"\"$1/usr/share/initramfs-tools/modules.d/kbsup\"";

struct args {
	const char *list[ARGS_MAX + 1];
	char *owned[ARGS_MAX];
	size_t n, n_owned;
	bool failed;
};

static void args_finish(struct args *args)
{
	for (size_t i = 0; i < args->n_owned; i++)
		free(args->owned[i]);
}

static void add(struct args *args, const char *word)
{
	if (args->n < ARGS_MAX)
		args->list[args->n++] = word;
	else
		args->failed = true;
}

static void addf(struct args *args, const char *fmt, ...) KB_PRINTF(2, 3);
static void addf(struct args *args, const char *fmt, ...)
{
	char word[WORD_MAX];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(word, sizeof(word), fmt, ap);
	va_end(ap);
	args->owned[args->n_owned] = strdup(word);
	args->failed |= n >= (int)sizeof(word) || !args->owned[args->n_owned];
	if (!args->failed) {
		add(args, args->owned[args->n_owned]);
		args->n_owned++;
	}
}

/* mmdebstrap's own hooks split their line at spaces, so nothing with one may be in it. */
static int plain(const char *path, struct kb_err *err)
{
	if (!strpbrk(path, " \t\n'\"\\$`"))
		return 0;
	return kb_err_set(err, KB_ERR_INVALID, "%s has characters mmdebstrap cannot take", path);
}

/* The machine's own package sources; mmdebstrap has a default when there are none. */
static void add_sources(struct args *args, const char *suite)
{
	static const char *const files[] = {
		"/etc/apt/sources.list", "/etc/apt/sources.list.d/debian.sources"};

	for (size_t i = 0; i < KB_ARRAY_LEN(files); i++) {
		struct kb_buf text KB_BUF_CLEANUP;

		kb_buf_init(&text, 1u << 20);
		if (kb_file_read(files[i], &text, NULL) == 0 && kb_buf_contains(&text, suite))
			add(args, files[i]);
	}
}

static int add_program(struct args *args, const char *from, const char *name, struct kb_err *err)
{
	int r = *from ? plain(from, err) : 0;

	if (r == 0 && *from)
		addf(args, "--customize-hook=upload %s /usr/libexec/kbsup/%s", from, name);
	return r;
}

static int add_hooks(const struct kb_image *image, struct args *args, struct kb_err *err)
{
	const struct kb_vmctl *vm = image->vm;
	int r;

	addf(args, "--essential-hook=%s", initrd_hook);
	add(args, "--customize-hook=mkdir -p \"$1/usr/libexec/kbsup\"");
	if ((r = add_program(args, vm->machine_program, "kbsup-machine", err)) < 0 ||
		(r = add_program(args, vm->guest_program, "kbsup-guest", err)) < 0 ||
		(r = add_program(args, vm->init_program, "kbsup-init", err)) < 0)
		return r;
	if (image->spec->ssh_key) {
		r = kb_image_write(image, "authorized-key", image->spec->ssh_key, err);
		addf(args, "--customize-hook=upload %s/authorized-key /tmp/kbsup-authorized-key",
			image->dir);
	}
	if (r < 0 || (r = kb_image_write(image, "setup.sh", kb_image_setup_sh, err)) < 0 ||
		(r = kb_image_write(image, "finish.sh", kb_image_finish_sh, err)) < 0)
		return r;
	addf(args, "--customize-hook=upload %s/setup.sh /kbsup-setup.sh", image->dir);
	addf(args, "--customize-hook=upload %s/finish.sh /kbsup-finish.sh", image->dir);
	addf(args, "--customize-hook=chroot \"$1\" sh /kbsup-setup.sh %s", image->user);
	add(args, "--customize-hook=chroot \"$1\" sh /kbsup-finish.sh");
	return 0;
}

static int bootstrap(const struct kb_image *image, struct kb_err *err)
{
	struct args args KB_CLEANUP(args_finish) = {0};
	const char *const *further = image->spec->packages;
	char program[PATH_MAX];
	int r = kb_op_program("mmdebstrap", program, NULL, err);

	if (r < 0)
		return r;
	add(&args, "mmdebstrap");
	add(&args, "--mode=auto");
	add(&args, "--variant=minbase");
	addf(&args, "--include=%s,%s", image->arch->kernel, packages);
	for (size_t i = 0; further && further[i]; i++)
		addf(&args, "--include=%s", further[i]);
	if (image->rake)
		add(&args, "--include=rake");
	r = add_hooks(image, &args, err);
	add(&args, image->suite);
	addf(&args, "%s/root.tar", image->dir);
	add_sources(&args, image->suite);
	if (r == 0 && args.failed)
		r = kb_err_set(err, KB_ERR_LIMIT, "too many packages for one base");
	return r < 0 ? r : kb_op_run(image->vm, "packages", args.list, BUILD_MS, err);
}

/* A file system's uuid that follows from its name, so that the same input gives the same image. */
static void image_uuid(const struct kb_base_spec *spec, char ret[37])
{
	uint64_t h = 0xcbf29ce484222325u;

	for (const char *p = spec->name; *p; p++)
		h = (h ^ (uint8_t)*p) * 0x100000001b3u;
	snprintf(
		ret, 37, "6b627375-7062-4173-a500-%012llx", (unsigned long long)h & 0xffffffffffff);
}

static int pack(const struct kb_image *image, struct kb_err *err)
{
	const struct kb_base_spec *spec = image->spec;
	KB_FREE char *script = kb_asprintf("%s/pack.sh", image->dir);
	KB_FREE char *tar = kb_asprintf("%s/root.tar", image->dir);
	char bytes[32], uuid[37];
	const char *const as_root[] = {"sh", script, tar, bytes, uuid, image->dir, NULL};
	const char *const as_user[] = {"unshare", "--map-root-user", "--map-auto", "--", "sh",
		script, tar, bytes, uuid, image->dir, NULL};
	uint64_t size = spec->disk_bytes ? spec->disk_bytes : KB_VM_DISK_BYTES;
	int r = kb_image_write(image, "pack.sh", kb_image_pack_sh, err);

	if (r < 0 || !script || !tar)
		return r < 0 ? r : kb_err_nomem(err);
	snprintf(bytes, sizeof(bytes), "%llu", (unsigned long long)size);
	image_uuid(spec, uuid);
	return kb_op_run(image->vm, "image", geteuid() == 0 ? as_root : as_user, PACK_MS, err);
}

int kb_image_build(const struct kb_image *image, struct kb_err *err)
{
	int r;

	if ((r = plain(image->dir, err)) < 0 ||
		(r = kb_space_check(image->dir, NEEDED_BYTES, err)) < 0)
		return r;
	kb_op_progress(image->vm, "packages", "installing Debian with mmdebstrap");
	if ((r = bootstrap(image, err)) < 0)
		return r;
	kb_op_progress(image->vm, "image", "making the disk image");
	return pack(image, err);
}
