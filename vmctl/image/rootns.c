/* Being root for a build: in mount and process namespaces of its own, and for an ordinary user in a
 * user namespace that maps the owners files can have. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "image.h"
#include "supervisor/base/fd.h"
#include "words.h"

#define PROBE_MS   10000
#define BINFMT	   "/proc/sys/fs/binfmt_misc"
#define STATUS_MAX 4096

static const char *const as_root[] = {
	"unshare", "--mount", "--pid", "--fork", "--kill-child", "--", NULL};
static const char *const as_user[] = {"unshare", "--map-root-user", "--map-auto", "--mount",
	"--pid", "--fork", "--kill-child", "--", NULL};

static void add_all(struct kb_words *words, const char *const *list)
{
	for (size_t i = 0; list[i]; i++)
		kb_words_add(words, list[i]);
}

/* Whether the kernel knows already what to do with such programs, by an emulator that it holds open
 * ("F"): another one would have to be in the image. */
static bool emulated(const struct kb_arch *arch)
{
	struct kb_buf text KB_BUF_CLEANUP;
	char path[128];
	const char *flags = NULL;

	kb_buf_init(&text, STATUS_MAX);
	snprintf(path, sizeof(path), BINFMT "/%s", arch->emulator);
	if (kb_file_read(path, &text, NULL) < 0 || kb_buf_append(&text, "", 1, NULL) < 0)
		return false;
	flags = strstr((const char *)kb_buf_data(&text), "flags: ");
	return flags && strncmp((const char *)kb_buf_data(&text), "enabled", 7) == 0 &&
	       memchr(flags, 'F', strcspn(flags, "\n"));
}

static int find_emulator(const struct kb_arch *arch, char ret[PATH_MAX], struct kb_err *err)
{
	char name[64];

	snprintf(name, sizeof(name), "%s-static", arch->emulator);
	if (kb_op_program(name, ret, NULL, NULL) == 0)
		return 0;
	return kb_op_program(arch->emulator, ret, "qemu-user-static", err);
}

/* The words before a command that make programs of the image's architecture run. */
static int add_foreign(const struct kb_image *image, struct kb_words *words, struct kb_err *err)
{
	char emulator[PATH_MAX];
	int r;

	if (kb_arch_is_native(image->arch) || emulated(image->arch))
		return 0;
	if ((r = find_emulator(image->arch, emulator, err)) < 0 ||
		(r = kb_image_write(image, "foreign.sh", kb_image_foreign_sh, err)) < 0)
		return r;
	kb_words_add(words, "sh");
	kb_words_addf(words, "%s/foreign.sh", image->dir);
	kb_words_add(words, image->arch->emulator);
	kb_words_add(words, image->arch->magic);
	kb_words_add(words, image->arch->mask);
	kb_words_addf(words, "%s", emulator);
	return 0;
}

int kb_image_run(const struct kb_image *image, const char *step, const char *const *argv,
	int64_t timeout_ms, struct kb_err *err)
{
	struct kb_words words KB_CLEANUP(kb_words_finish) = {0};
	int r;

	add_all(&words, geteuid() == 0 ? as_root : as_user);
	if ((r = add_foreign(image, &words, err)) < 0)
		return r;
	add_all(&words, argv);
	if ((r = kb_words_check(&words, err)) == 0)
		r = kb_op_run(image->vm, step, words.list, timeout_ms, err);
	return r;
}

/* Which of the two steps of being root in a namespace does not work, and what to do about it. */
int kb_image_probe_root(struct kb_vmctl *vm, struct kb_err *err)
{
	static const char *const alone[] = {
		"unshare", "--map-root-user", "--mount", "--", "true", NULL};
	struct kb_words words KB_CLEANUP(kb_words_finish) = {0};
	struct kb_err why = {0};

	if (geteuid() == 0)
		return 0;
	add_all(&words, as_user);
	kb_words_add(&words, "true");
	if (kb_op_run(vm, NULL, words.list, PROBE_MS, &why) == 0)
		return 0;
	if (kb_op_run(vm, NULL, alone, PROBE_MS, &why) < 0) {
		kb_err_set(
			err, KB_ERR_REFUSED, "this user can make no user namespaces: %s", why.msg);
		return kb_err_hint(err,
			"as root: sysctl -w kernel.unprivileged_userns_clone=1 "
			"kernel.apparmor_restrict_unprivileged_userns=0; or build as "
			"root");
	}
	kb_err_set(err, KB_ERR_REFUSED, "this user has no range of subordinate ids: %s", why.msg);
	return kb_err_hint(err, "as root: usermod --add-subuids 100000-165535 --add-subgids "
				"100000-165535 USER, with newuidmap of the package uidmap");
}
