/* What an image is, by its first bytes. qemu-img would guess, and follow what the image names: a
 * backing file or a data file can be any file here. */
#include <string.h>

#include "image.h"

#define QCOW2_MAGIC	    "QFI\xfb"
#define QCOW2_HEADER	    104 /* version 3 */
#define QCOW2_SECTOR	    512
#define QCOW2_EXTERNAL_DATA (1u << 2)
#define QCOW2_VERSION_AT    4
#define QCOW2_BACKING_AT    8
#define QCOW2_SIZE_AT	    24
#define QCOW2_CRYPT_AT	    32
#define QCOW2_FEATURES_AT   72
#define BOOT_SIGNATURE_AT   510

/* What people have instead, and what makes it an image. */
static const struct {
	const char *magic;
	size_t len, at;
	const char *name, *remedy;
} others[] = {
	{"KDMV", 4, 0, "a VMDK image", "qemu-img convert -O qcow2"},
	{"vhdxfile", 8, 0, "a VHDX image", "qemu-img convert -O qcow2"},
	{"\x7f\x10\xda\xbe", 4, 0x40, "a VDI image", "qemu-img convert -O qcow2"},
	{"\xfd"
	 "7zXZ",
		5, 0, "compressed", "unxz"},
	{"\x1f\x8b", 2, 0, "compressed", "gunzip"},
	{"\x28\xb5\x2f\xfd", 4, 0, "compressed", "unzstd"},
	{"PK\x03\x04", 4, 0, "an archive", "unzip"},
};

static uint64_t big_endian(const uint8_t *bytes, size_t len)
{
	uint64_t n = 0;

	for (size_t i = 0; i < len; i++)
		n = n << 8 | bytes[i];
	return n;
}

static int read_qcow2(
	const uint8_t *bytes, size_t len, struct kb_image_head *ret, struct kb_err *err)
{
	uint64_t version, features = 0;

	if (len < QCOW2_HEADER)
		return kb_err_set(err, KB_ERR_INVALID, "its header is cut off");
	version = big_endian(bytes + QCOW2_VERSION_AT, 4);
	if (version != 2 && version != 3)
		return kb_err_set(err, KB_ERR_INVALID, "it is qcow2 of an unknown version");
	if (version == 3)
		features = big_endian(bytes + QCOW2_FEATURES_AT, 8);
	if (big_endian(bytes + QCOW2_BACKING_AT, 8) || features & QCOW2_EXTERNAL_DATA) {
		kb_err_set(err, KB_ERR_INVALID, "it is only a part: it names another file");
		return kb_err_hint(err, "make it whole: qemu-img convert -O qcow2 IMAGE WHOLE");
	}
	if (big_endian(bytes + QCOW2_CRYPT_AT, 4))
		return kb_err_set(err, KB_ERR_INVALID, "it is encrypted");
	ret->qcow2 = true;
	ret->size = big_endian(bytes + QCOW2_SIZE_AT, 8);
	if (ret->size == 0 || ret->size > INT64_MAX || ret->size % QCOW2_SECTOR)
		return kb_err_set(err, KB_ERR_INVALID, "its size is no size of a disk");
	return 0;
}

int kb_image_head_read(
	const uint8_t *bytes, size_t len, struct kb_image_head *ret, struct kb_err *err)
{
	*ret = (struct kb_image_head){0};
	if (len >= 4 && memcmp(bytes, QCOW2_MAGIC, 4) == 0)
		return read_qcow2(bytes, len, ret, err);
	for (size_t i = 0; i < KB_ARRAY_LEN(others); i++)
		if (len >= others[i].at + others[i].len &&
			memcmp(bytes + others[i].at, others[i].magic, others[i].len) == 0) {
			kb_err_set(err, KB_ERR_INVALID, "it is %s", others[i].name);
			return kb_err_hint(err, "first: %s", others[i].remedy);
		}
	if (len < KB_IMAGE_HEAD || bytes[BOOT_SIGNATURE_AT] != 0x55 ||
		bytes[BOOT_SIGNATURE_AT + 1] != 0xaa)
		return kb_err_set(err, KB_ERR_INVALID,
			"it is neither qcow2 nor the raw image of a disk with partitions");
	return 0;
}
