/* Making the root image of a base. Internal to vmctl.
 *
 * An image comes from packages (build.c) or is an imported one (import.c). Packages make a tree,
 * which takes minutes and depends on nothing but what is asked for and when: it is kept for a day
 * and serves all bases that want the same (packages.c). From the tree comes the image, with our
 * programs, services and the account in it (pack.c). Both run as the root of a user namespace when
 * the caller is not root, and in mount and process namespaces of their own always (rootns.c): no
 * mount and no process stays, whatever happens.
 *
 * Everything that has to
 * happen inside it, as itself, happens in a machine that lives only for that (provision.c): the
 * set-up of an imported image, and the dotfiles of any. That machine finds what it needs on a
 * second disk, the seed, which for cloud-init is a NoCloud source.
 */
#pragma once

#include "vmctl/arch.h"
#include "vmctl/op.h"

extern const char kb_image_setup_sh[];
extern const char kb_image_pack_sh[];
extern const char kb_image_foreign_sh[];
extern const char kb_image_seed_sh[];
extern const char kb_image_adopt_sh[];
extern const char kb_image_dotfiles_sh[];
extern const char kb_image_finish_sh[];
extern const char kb_image_user_data[];

struct kb_image {
	struct kb_vmctl *vm;
	const struct kb_base_spec *spec;
	const struct kb_arch *arch;
	const char *user, *suite;
	const char *dir; /* where root.img appears, and vmlinuz and initrd; in tmp */
	int64_t epoch;	 /* the time of everything in it that is made of packages, in seconds */
	bool firmware;	 /* its own boot loader boots it, so there is no vmlinuz */
	bool rake;	 /* its dotfiles need it */
};

/* What spec asks for, checked as far as words go. */
int kb_image_init(struct kb_image *image, struct kb_vmctl *vm, const struct kb_base_spec *spec,
	const char *dir, struct kb_err *err);
/* All of it: dir holds what a base needs afterwards, and nothing else. */
int kb_image_make(struct kb_image *image, struct kb_err *err);
/* The machine that such a base is: see driver/qemu.h. */
int kb_image_words(const struct kb_image *image, json_t **ret, struct kb_err *err);

/* ---- parts of it ---- */

int kb_image_build(struct kb_image *image, struct kb_err *err);
/* The tree of packages as a compressed tar: made now, or less than a day ago. Sets epoch. *ret_lock
 * keeps it in place until closed. */
int kb_packages_get(
	struct kb_image *image, char ret_tar[PATH_MAX], int *ret_lock, struct kb_err *err);
/* Trees of yesterday go, unless one is being used. */
void kb_packages_collect(struct kb_vmctl *vm);
int kb_image_pack(const struct kb_image *image, const char *tar, struct kb_err *err);
int kb_image_import(const struct kb_image *image, struct kb_err *err);
/* Bring the dotfiles to DIR/seed/dotfiles.tar, and see what they are. */
int kb_image_dotfiles(struct kb_image *image, struct kb_err *err);
/* Boot the image once, set it up from inside, and keep what that changed. */
int kb_image_provision(const struct kb_image *image, struct kb_err *err);
/* Run a program as root, in namespaces as above; programs of the image's architecture run, too.
 * Otherwise like kb_op_run(). */
int kb_image_run(const struct kb_image *image, const char *step, const char *const *argv,
	int64_t timeout_ms, struct kb_err *err);
/* Whether the caller can be root of a user namespace with owners in it. */
int kb_image_probe_root(struct kb_vmctl *vm, struct kb_err *err);
/* DIR/name with this text. */
int kb_image_write(
	const struct kb_image *image, const char *name, const char *text, struct kb_err *err);
/* A program of ours, as the image's machines run it, into a folder of the image's directory;
 * nothing when it is not needed. */
int kb_image_put_program(
	const struct kb_image *image, const char *folder, const char *name, struct kb_err *err);

/* What the first bytes of an image say. */
#define KB_IMAGE_HEAD 512
struct kb_image_head {
	bool qcow2;    /* else raw */
	uint64_t size; /* what a machine sees; 0 when raw: the file's */
};
/* KB_ERR_INVALID, with what it is, for anything that is not a whole disk in one file: it may name
 * other files of this host, and those are not to be read for it. */
int kb_image_head_read(
	const uint8_t *bytes, size_t len, struct kb_image_head *ret, struct kb_err *err);
