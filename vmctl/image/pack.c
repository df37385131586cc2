/* From a tree of packages to what a machine boots from. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "image.h"
#include "supervisor/base/fd.h"
#include "vmctl/files.h"
#include "words.h"

#define PACK_MS 1800000

/* A file system's uuid that follows from its name, so that the same input gives the same image. */
static void image_uuid(const struct kb_base_spec *spec, char ret[37])
{
	uint64_t h = 0xcbf29ce484222325u;

	for (const char *p = spec->name; *p; p++)
		h = (h ^ (uint8_t)*p) * 0x100000001b3u;
	snprintf(
		ret, 37, "6b627375-7062-4173-a500-%012llx", (unsigned long long)h & 0xffffffffffff);
}

static int copy_programs(const struct kb_image *image, struct kb_err *err)
{
	static const char *const names[] = {"kbsup-machine", "kbsup-guest", "kbsup-init"};
	KB_FREE char *dir = kb_asprintf("%s/programs", image->dir);
	int r = dir ? kb_mkdirs(dir, 0700, err) : kb_err_nomem(err);

	for (size_t i = 0; r == 0 && i < KB_ARRAY_LEN(names); i++)
		r = kb_image_put_program(image, "programs", names[i], err);
	return r;
}

static int run_pack(const struct kb_image *image, const char *tar, struct kb_err *err)
{
	const struct kb_base_spec *spec = image->spec;
	struct kb_words words KB_CLEANUP(kb_words_finish) = {0};
	char uuid[37];
	int r;

	image_uuid(spec, uuid);
	kb_words_add(&words, "sh");
	kb_words_addf(&words, "%s/pack.sh", image->dir);
	kb_words_add(&words, image->dir);
	kb_words_add(&words, tar);
	kb_words_addf(&words, "%llu",
		(unsigned long long)(spec->disk_bytes ? spec->disk_bytes : KB_VM_DISK_BYTES));
	kb_words_add(&words, uuid);
	kb_words_addf(&words, "%lld", (long long)image->epoch);
	kb_words_add(&words, image->user);
	if ((r = kb_words_check(&words, err)) < 0)
		return r;
	return kb_image_run(image, "image", words.list, PACK_MS, err);
}

int kb_image_pack(const struct kb_image *image, const char *tar, struct kb_err *err)
{
	int r;

	kb_op_progress(image->vm, "image", "making the disk image");
	if ((r = copy_programs(image, err)) < 0 ||
		(r = kb_image_write(image, "setup.sh", kb_image_setup_sh, err)) < 0 ||
		(r = kb_image_write(image, "finish.sh", kb_image_finish_sh, err)) < 0 ||
		(r = kb_image_write(image, "pack.sh", kb_image_pack_sh, err)) < 0)
		return r;
	if (image->spec->ssh_key &&
		(r = kb_image_write(image, "authorized-key", image->spec->ssh_key, err)) < 0)
		return r;
	return run_pack(image, tar, err);
}
