/* The person's own set-up, as far as it is this host's business: it is fetched here, with whatever
 * opens a private repository, and goes into the image as a tar. What is in it runs only there. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "image.h"
#include "supervisor/base/fd.h"
#include "vmctl/files.h"

#define CLONE_MS 600000
#define TAR_MS	 300000
#define TAR_MAX	 (384ull << 20) /* the seed is a FAT16 of half a gigabyte */

/* In the order dotfiles.sh looks. */
static const char *const entries[] = {"bootstrap.sh", "install.sh", "Rakefile", "files.map"};

static bool has(const char *dir, const char *name)
{
	KB_FREE char *path = kb_asprintf("%s/%s", dir, name);

	return path && access(path, F_OK) == 0;
}

static bool is_bare_repository(const char *dir)
{
	return has(dir, "HEAD") && has(dir, "objects") && has(dir, "refs");
}

static int clone(const struct kb_image *image, const char *from, const char *to, struct kb_err *err)
{
	const char *const argv[] = {"git", "clone", "--quiet", "--", from, to, NULL};
	int r;

	kb_op_progress(image->vm, "fetch", "cloning the dotfiles");
	r = kb_op_run(image->vm, "fetch", argv, CLONE_MS, err);
	return r < 0 ? kb_err_prefix(err, "the dotfiles cannot be fetched") : 0;
}

/* The directory with them, which is `cloned` unless it was one already. */
static int fetch(
	const struct kb_image *image, const char *cloned, char ret[PATH_MAX], struct kb_err *err)
{
	const char *from = image->spec->dotfiles;
	struct stat st;

	if (stat(from, &st) == 0 && S_ISDIR(st.st_mode) && !is_bare_repository(from))
		return realpath(from, ret) ? 0 : kb_err_sys(err, errno, "%s", from);
	snprintf(ret, PATH_MAX, "%s", cloned);
	return clone(image, from, cloned, err);
}

static int check_entry(struct kb_image *image, const char *dir, struct kb_err *err)
{
	for (size_t i = 0; i < KB_ARRAY_LEN(entries); i++)
		if (has(dir, entries[i])) {
			image->rake = strcmp(entries[i], "Rakefile") == 0;
			return 0;
		}
	kb_err_set(
		err, KB_ERR_USAGE, "%s has nothing that sets an account up", image->spec->dotfiles);
	return kb_err_hint(err, "it needs a bootstrap.sh, install.sh, Rakefile or files.map");
}

static int pack(const struct kb_image *image, const char *dir, const char *tar, struct kb_err *err)
{
	const char *const argv[] = {"tar", "-C", dir, "-cf", tar, ".", NULL};
	struct stat st;
	int r = kb_op_run(image->vm, "fetch", argv, TAR_MS, err);

	if (r < 0)
		return kb_err_prefix(err, "the dotfiles cannot be packed");
	if (stat(tar, &st) < 0)
		return kb_err_sys(err, errno, "%s", tar);
	if ((uint64_t)st.st_size > TAR_MAX)
		return kb_err_set(err, KB_ERR_LIMIT, "the dotfiles are %llu MiB, of at most %llu",
			(unsigned long long)st.st_size >> 20, TAR_MAX >> 20);
	return 0;
}

int kb_image_dotfiles(struct kb_image *image, struct kb_err *err)
{
	KB_FREE char *seed = kb_asprintf("%s/seed", image->dir);
	KB_FREE char *cloned = kb_asprintf("%s/dotfiles", image->dir);
	KB_FREE char *tar = kb_asprintf("%s/seed/dotfiles.tar", image->dir);
	char dir[PATH_MAX];
	int r;

	if (!image->spec->dotfiles)
		return 0;
	if (!seed || !cloned || !tar)
		return kb_err_nomem(err);
	if ((r = kb_mkdirs(seed, 0700, err)) < 0 || (r = fetch(image, cloned, dir, err)) < 0 ||
		(r = check_entry(image, dir, err)) < 0 || (r = pack(image, dir, tar, err)) < 0)
		return r;
	return kb_rmtree(cloned, err);
}
