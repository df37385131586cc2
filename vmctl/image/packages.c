/* Trees of Debian packages, made by mmdebstrap from the machine's own package sources and kept for
 * a day under a key of everything they follow from:
 * STATE/packages/KEY/{root.tar.zst,recipe,tree.json}.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "image.h"
#include "supervisor/base/fd.h"
#include "vmctl/files.h"
#include "words.h"

#define BUILD_MS   3600000 /* emulated, on a busy machine */
#define FRESH_NS   (24 * 3600 * 1000000000ll)
#define LOCK_MS	   3600000
#define LOCK	   "packages@"
#define KEY_SIZE   17
#define RECIPE_MAX (1u << 20)

/* What every base has: a bootable system, what sessions need, what people expect over ssh. */
static const char packages[] =
	"systemd-sysv,udev,dbus,initramfs-tools,zstd,kmod,crun,"
	"openssh-server,openssh-sftp-server,git,ca-certificates,curl,iproute2,"
	"iputils-ping,netbase,procps,less,nano,sudo,cryptsetup-bin,e2fsprogs,"
	"libseccomp2,nftables";

/* An initrd with just what finds the disk: quick to load, and the same everywhere. */
static const char initrd_hook[] =
	"mkdir -p \"$1/etc/initramfs-tools/conf.d\" \"$1/usr/share/initramfs-tools/modules.d\""
	" && echo MODULES=list >\"$1/etc/initramfs-tools/conf.d/kbsup\""
	" && printf 'virtio_pci\\nvirtio_blk\\next4\\n' >"
	"\"$1/usr/share/initramfs-tools/modules.d/kbsup\"";

/* What makes /bin one with /usr/bin before there is anything in it, where the suite wants it: to
 * move it all afterwards takes minutes where programs are emulated. */
#define MERGED_USR "/usr/share/mmdebstrap/hooks/maybe-merged-usr"

static const char *const sources[] = {
	"/etc/apt/sources.list", "/etc/apt/sources.list.d/debian.sources"};

struct tree {
	struct kb_image *image;
	char key[KEY_SIZE];
	char dir[PATH_MAX];
	const char *epoch_text; /* of the environment; NULL: none is given */
};

/* The machine's own package sources that know the suite; mmdebstrap has a default when none does.
 */
static bool source_text(const char *path, const char *suite, struct kb_buf *ret)
{
	kb_buf_init(ret, RECIPE_MAX);
	return kb_file_read(path, ret, NULL) == 0 && kb_buf_contains(ret, suite);
}

static int recipe(const struct tree *t, struct kb_buf *buf, struct kb_err *err)
{
	const struct kb_image *image = t->image;
	int r = kb_buf_printf(buf, err, "tree 2\narch %s\nsuite %s\nepoch %s\npackages %s,%s\n%s\n",
		image->arch->debian, image->suite, t->epoch_text ? t->epoch_text : "now",
		image->arch->kernel, packages, initrd_hook);

	for (size_t i = 0; r == 0 && image->spec->packages && image->spec->packages[i]; i++)
		r = kb_buf_printf(buf, err, "further %s\n", image->spec->packages[i]);
	if (r == 0 && image->rake)
		r = kb_buf_printf(buf, err, "further rake\n");
	for (size_t i = 0; r == 0 && i < KB_ARRAY_LEN(sources); i++) {
		struct kb_buf text KB_BUF_CLEANUP;

		if (source_text(sources[i], image->suite, &text))
			r = kb_buf_append(buf, kb_buf_data(&text), kb_buf_len(&text), err);
	}
	return r;
}

/* The recipe is kept beside the tree: whoever wonders what a key stands for can read it. */
static int make_key(struct tree *t, struct kb_err *err)
{
	char path[PATH_MAX], hash[KB_HASH_TEXT];
	struct kb_buf buf KB_BUF_CLEANUP;
	int r;

	kb_buf_init(&buf, RECIPE_MAX);
	if ((r = recipe(t, &buf, err)) < 0 ||
		(r = kb_vm_path(t->image->vm, path, err, "%s/recipe", t->image->dir)) < 0 ||
		(r = kb_file_write_atomic(path, kb_buf_data(&buf), kb_buf_len(&buf), 0600, err)) <
			0 ||
		(r = kb_file_hash(path, hash, err)) < 0)
		return r;
	snprintf(t->key, sizeof(t->key), "%.16s", hash);
	return kb_vm_path(t->image->vm, t->dir, err, "%s/packages/%s", t->image->vm->state, t->key);
}

/* ---- mmdebstrap ---- */

static void add_packages(const struct kb_image *image, struct kb_words *words)
{
	kb_words_addf(words, "--include=%s,%s", image->arch->kernel, packages);
	for (size_t i = 0; image->spec->packages && image->spec->packages[i]; i++)
		kb_words_addf(words, "--include=%s", image->spec->packages[i]);
	if (image->rake)
		kb_words_add(words, "--include=rake");
}

static void add_sources(const struct kb_image *image, struct kb_words *words)
{
	for (size_t i = 0; i < KB_ARRAY_LEN(sources); i++) {
		struct kb_buf text KB_BUF_CLEANUP;

		if (source_text(sources[i], image->suite, &text))
			kb_words_add(words, sources[i]);
	}
}

/* Everything it writes is below our own directory, which is collected if we die. */
static int bootstrap(const struct tree *t, const char *dir, struct kb_err *err)
{
	struct kb_words words KB_CLEANUP(kb_words_finish) = {0};
	KB_FREE char *tmp = kb_asprintf("%s/tmp", dir);
	int r;

	if (!tmp)
		return kb_err_nomem(err);
	if ((r = kb_mkdirs(tmp, 0700, err)) < 0)
		return r;
	kb_words_add(&words, "env");
	kb_words_addf(&words, "TMPDIR=%s", tmp);
	kb_words_addf(&words, "SOURCE_DATE_EPOCH=%lld", (long long)t->image->epoch);
	kb_words_add(&words, "mmdebstrap");
	kb_words_add(&words, "--mode=root");
	kb_words_add(&words, "--variant=minbase");
	kb_words_add(&words, "--aptopt=APT::Sandbox::User \"root\"");
	kb_words_addf(&words, "--architectures=%s", t->image->arch->debian);
	/* In a user namespace sysfs belongs to another; no package here wants it. */
	if (geteuid() != 0)
		kb_words_add(&words, "--skip=chroot/mount/sys");
	if (access(MERGED_USR, X_OK) == 0)
		kb_words_add(&words, "--hook-dir=" MERGED_USR);
	add_packages(t->image, &words);
	kb_words_addf(&words, "--essential-hook=%s", initrd_hook);
	kb_words_add(&words, t->image->suite);
	kb_words_addf(&words, "%s/root.tar.zst", dir);
	add_sources(t->image, &words);
	if ((r = kb_words_check(&words, err)) == 0)
		r = kb_image_run(t->image, "packages", words.list, BUILD_MS, err);
	return r == 0 ? kb_tree_remove(t->image->vm, tmp, err) : r;
}

/* ---- keeping ---- */

/* 0 when there is none, or when it is of yesterday. */
static int64_t fresh_epoch(struct kb_vmctl *vm, const char *dir)
{
	char path[PATH_MAX];
	KB_JSON json_t *json = NULL;
	int64_t age;

	if (kb_vm_path(vm, path, NULL, "%s/tree.json", dir) < 0 ||
		kb_json_load(path, &json, NULL) < 0)
		return 0;
	age = kb_now_real() - kb_json_int(json, "created_ns", 0);
	return age >= 0 && age < FRESH_NS ? kb_json_int(json, "epoch", 0) : 0;
}

static int publish(const struct tree *t, const char *dir, struct kb_err *err)
{
	KB_FREE char *from = kb_asprintf("%s/recipe", t->image->dir);
	KB_FREE char *to = kb_asprintf("%s/recipe", dir);
	KB_FREE char *manifest = kb_asprintf("%s/tree.json", dir);
	KB_JSON json_t *json = json_pack("{s:I, s:I, s:s, s:s}", "created_ns",
		(json_int_t)kb_now_real(), "epoch", (json_int_t)t->image->epoch, "arch",
		t->image->arch->name, "suite", t->image->suite);
	int r;

	if (!from || !to || !manifest || !json)
		return kb_err_nomem(err);
	if (rename(from, to) < 0)
		return kb_err_sys(err, errno, "%s", to);
	if ((r = kb_json_save(manifest, json, err)) < 0 ||
		(r = kb_tree_remove(t->image->vm, t->dir, err)) < 0)
		return r;
	return kb_dir_publish(dir, t->dir, err);
}

static int make_tree(struct tree *t, struct kb_err *err)
{
	char dir[PATH_MAX];
	KB_CLOSE int lock = -1;
	int r = kb_tmp_create(t->image->vm, dir, &lock, err);

	if (r < 0)
		return r;
	kb_op_progress(t->image->vm, "packages", "installing Debian %s (%s) with mmdebstrap",
		t->image->suite, t->image->arch->debian);
	if ((r = bootstrap(t, dir, err)) == 0)
		r = publish(t, dir, err);
	if (r < 0)
		kb_tree_drop(t->image->vm, dir);
	return r;
}

void kb_packages_collect(struct kb_vmctl *vm)
{
	KB_JSON json_t *keys = NULL;
	char path[PATH_MAX], lock[64];
	const char *key;
	json_t *unused;

	if (kb_vm_path(vm, path, NULL, "%s/packages", vm->state) < 0)
		return;
	keys = kb_dir_entries(path);
	json_object_foreach(keys, key, unused)
	{
		snprintf(lock, sizeof(lock), LOCK "%.16s", key);
		if (!kb_lock_name_held(vm, lock) &&
			kb_vm_path(vm, path, NULL, "%s/packages/%s", vm->state, key) == 0 &&
			!fresh_epoch(vm, path))
			kb_rmtree(path, NULL);
	}
}

/* Packages as of a stated time, or as of now: then the tree tells. */
static int find_epoch(struct tree *t, struct kb_err *err)
{
	uint64_t epoch;

	t->image->epoch = kb_now_real() / 1000000000;
	t->epoch_text = getenv("SOURCE_DATE_EPOCH");
	if (!t->epoch_text)
		return 0;
	if (!kb_parse_u64(t->epoch_text, &epoch) || epoch == 0 || epoch > INT32_MAX)
		return kb_err_set(err, KB_ERR_USAGE, "SOURCE_DATE_EPOCH is not a time in seconds");
	t->image->epoch = (int64_t)epoch;
	return 0;
}

int kb_packages_get(
	struct kb_image *image, char ret_tar[PATH_MAX], int *ret_lock, struct kb_err *err)
{
	struct tree t = {.image = image};
	char lock[64], parent[PATH_MAX];
	int64_t epoch;
	int r;

	if ((r = find_epoch(&t, err)) < 0 || (r = make_key(&t, err)) < 0)
		return r;
	snprintf(lock, sizeof(lock), LOCK "%s", t.key);
	if ((r = kb_lock_name(image->vm, lock, LOCK_MS, ret_lock, err)) < 0 ||
		(r = kb_vm_path(image->vm, parent, err, "%s/packages", image->vm->state)) < 0 ||
		(r = kb_mkdirs(parent, 0700, err)) < 0)
		return r;
	epoch = image->spec->fresh ? 0 : fresh_epoch(image->vm, t.dir);
	if (epoch) {
		kb_op_progress(
			image->vm, "packages", "taking those installed today for another base");
		image->epoch = epoch;
	} else {
		r = make_tree(&t, err);
	}
	return r < 0 ? r : kb_vm_path(image->vm, ret_tar, err, "%s/root.tar.zst", t.dir);
}
