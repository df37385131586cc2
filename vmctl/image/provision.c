/* Setting an image up from inside: it boots once as a machine with a way out, on an overlay of its
 * disk, which becomes part of the image when all has gone well. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "image.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/os.h"
#include "vmctl/base.h"
#include "vmctl/builder.h"
#include "vmctl/driver/qemu.h"
#include "vmctl/files.h"

#define IMPORT_MS    900000 /* a first boot with cloud-init under TCG, on a busy machine */
#define ADOPT_MS     1800000
#define SETUP_MS     120000
#define DOTFILES_MS  1800000
#define FINISH_MS    120000
#define COMMIT_MS    600000
#define NET_MS	     60000
#define ENTROPY_SIZE 32
#define WORDS_MAX    (KB_BASE_PACKAGES_MAX + 4)

#define SEED	   "/run/kbsup-seed"
#define MOUNT_SEED "modprobe vfat; mkdir -p " SEED "; mount -o ro -L " KB_QEMU_SEED_LABEL " " SEED

/* ---- the seed ---- */

static int put(const struct kb_image *image, const char *name, const char *text, struct kb_err *err)
{
	KB_FREE char *path = kb_asprintf("seed/%s", name);

	return path ? kb_image_write(image, path, text, err) : kb_err_nomem(err);
}

/* What cloud-init looks for, and what it is to start. */
static int put_import(const struct kb_image *image, struct kb_err *err)
{
	KB_FREE char *meta = kb_asprintf(
		"instance-id: kbsup-%s\nlocal-hostname: kbsup-base\n", kb_tmp_id(image->dir));
	int r;

	if (!meta)
		return kb_err_nomem(err);
	if ((r = put(image, "meta-data", meta, err)) < 0 ||
		(r = put(image, "user-data", kb_image_user_data, err)) < 0 ||
		(r = put(image, "seed.sh", kb_image_seed_sh, err)) < 0 ||
		(r = put(image, "adopt.sh", kb_image_adopt_sh, err)) < 0 ||
		(r = put(image, "setup.sh", kb_image_setup_sh, err)) < 0 ||
		(r = put(image, "key", image->spec->ssh_key ? image->spec->ssh_key : "", err)) <
			0 ||
		(r = kb_image_put_program(image, "seed", "kbsup-machine", err)) < 0 ||
		(r = kb_image_put_program(image, "seed", "kbsup-guest", err)) < 0)
		return r;
	return kb_image_put_program(image, "seed", "kbsup-init", err);
}

static int make_seed(const struct kb_image *image, struct kb_err *err)
{
	KB_FREE char *dir = kb_asprintf("%s/seed", image->dir);
	int r;

	if (!dir)
		return kb_err_nomem(err);
	if ((r = kb_mkdirs(dir, 0700, err)) < 0 ||
		(r = put(image, "dotfiles.sh", kb_image_dotfiles_sh, err)) < 0 ||
		(r = put(image, "finish.sh", kb_image_finish_sh, err)) < 0)
		return r;
	return image->spec->from ? put_import(image, err) : 0;
}

/* ---- inside ---- */

/* The network of a machine that nobody else will ever see, at the right time and with random
 * numbers. */
static int go_online(struct kb_builder *b, struct kb_err *err)
{
	uint8_t raw[ENTROPY_SIZE];
	char hex[2 * ENTROPY_SIZE + 1];

	if (kb_os_random(raw, sizeof(raw)) < 0)
		return kb_err_sys(err, errno, "no random bytes");
	for (size_t i = 0; i < sizeof(raw); i++)
		snprintf(hex + 2 * i, 3, "%02x", raw[i]);
	return kb_agent_call(&b->agent,
		json_pack("{s:s, s:s, s:I, s:s, s:s, s:s, s:s, s:s}", "op", "online", "entropy",
			hex, "time_ns", (json_int_t)kb_now_real(), "mac", KB_TEMPLATE_MAC,
			"address", "10.0.2.15", "netmask", "255.255.255.0", "gateway", "10.0.2.2",
			"dns", "10.0.2.3"),
		NET_MS, NULL, err);
}

static int adopt(const struct kb_image *image, struct kb_builder *b, struct kb_err *err)
{
	const char *argv[WORDS_MAX] = {"sh", SEED "/adopt.sh"};
	const char *const setup[] = {"sh", SEED "/setup.sh", image->user, SEED "/key", NULL};
	size_t n = 2;
	int r;

	for (size_t i = 0; image->spec->packages && image->spec->packages[i]; i++)
		argv[n++] = image->spec->packages[i];
	kb_op_progress(image->vm, "setup", "making a base of the image");
	r = kb_agent_follow(&b->agent, "setup", argv, ADOPT_MS, err);
	if (r == 0)
		r = kb_agent_follow(&b->agent, "setup", setup, SETUP_MS, err);
	return r < 0 ? kb_err_prefix(err, "the image cannot be made a base") : 0;
}

static int carry_out(const struct kb_image *image, struct kb_builder *b, struct kb_err *err)
{
	const char *const argv[] = {
		"sh", SEED "/dotfiles.sh", image->user, SEED "/dotfiles.tar", NULL};
	int r;

	kb_op_progress(image->vm, "dotfiles", "setting up %s's account", image->user);
	r = kb_agent_follow(&b->agent, "dotfiles", argv, DOTFILES_MS, err);
	return r < 0 ? kb_err_prefix(err, "the dotfiles failed") : 0;
}

/* What cloud-init has done in an imported image, whose own network serves until it is a base. */
static int get_ready(struct kb_builder *b, struct kb_err *err)
{
	static const char *const mount[] = {"sh", "-c", MOUNT_SEED, NULL};
	int r = kb_agent_follow(&b->agent, "seed", mount, SETUP_MS, err);

	return r < 0 ? kb_err_prefix(err, "the seed cannot be mounted") : go_online(b, err);
}

static int from_inside(const struct kb_image *image, struct kb_builder *b, struct kb_err *err)
{
	static const char *const finish[] = {"sh", SEED "/finish.sh", "running", NULL};
	int r = image->spec->from ? adopt(image, b, err) : get_ready(b, err);

	if (r == 0 && image->spec->dotfiles)
		r = carry_out(image, b, err);
	if (r < 0)
		return r;
	kb_op_progress(image->vm, "finish", "removing what tells machines apart");
	r = kb_agent_follow(&b->agent, "finish", finish, FINISH_MS, err);
	if (r < 0)
		return kb_err_prefix(err, "the image cannot be finished");
	return kb_builder_quit(b, err);
}

/* ---- around it ---- */

static int commit(const struct kb_image *image, struct kb_err *err)
{
	KB_FREE char *disk = kb_asprintf("%s/root.qcow2", image->dir);
	const char *const argv[] = {"qemu-img", "commit", "-q", "-f", "qcow2", disk, NULL};

	return disk ? kb_op_run(image->vm, "finish", argv, COMMIT_MS, err) : kb_err_nomem(err);
}

static int boot(const struct kb_image *image, struct kb_builder *b, struct kb_err *err)
{
	bool from = image->spec->from;
	int64_t import_ms = image->spec->import_ms ? image->spec->import_ms : IMPORT_MS;
	int r = kb_builder_boot(b,
		from ? "booting the image once; cloud-init is to start what sets it up"
		     : "booting it to set up the account",
		from ? import_ms : KB_BASE_BOOT_MS, err);

	if (r != -KB_ERR_TIMEOUT || !from)
		return r;
	return kb_err_hint(err,
		"the image needs cloud-init that knows NoCloud, systemd, and a boot "
		"loader for %s",
		image->arch->name);
}

int kb_image_provision(const struct kb_image *image, struct kb_err *err)
{
	KB_FREE char *seed = kb_asprintf("%s/seed", image->dir);
	KB_JSON json_t *words = NULL;
	int r;

	if (!seed)
		return kb_err_nomem(err);
	if ((r = make_seed(image, err)) < 0 || (r = kb_image_words(image, &words, err)) < 0)
		return r;
	struct kb_builder b = {.vm = image->vm,
		.arch = image->arch->name,
		.words = words,
		.base = image->dir,
		.dir = image->dir,
		.seed = seed};
	r = boot(image, &b, err);
	if (r == 0)
		r = from_inside(image, &b, err);
	kb_builder_stop(&b);
	return r < 0 ? r : commit(image, err);
}
