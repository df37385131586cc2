/* What an image may be, by its first bytes. */
#include "kbtest.h"

#include "vmctl/image/image.h"

#define MIB (1u << 20)

/* A qcow2 header as qemu-img writes it. */
static void qcow2(uint8_t ret[KB_IMAGE_HEAD], unsigned version)
{
	memset(ret, 0, KB_IMAGE_HEAD);
	memcpy(ret, "QFI\xfb", 4);
	ret[7] = (uint8_t)version;
	ret[23] = 16;	/* cluster_bits */
	ret[29] = 0x10; /* size: 1 MiB */
	ret[103] = 104;
}

static void refused(const uint8_t *bytes, size_t len, const char *words)
{
	struct kb_image_head head;
	struct kb_err err = {0};

	assert_int_equal(kb_image_head_read(bytes, len, &head, &err), -KB_ERR_INVALID);
	assert_non_null(strstr(err.msg, words));
}

static void test_whole_images_are_taken(void **state)
{
	uint8_t bytes[KB_IMAGE_HEAD];
	struct kb_image_head head;
	struct kb_err err;

	for (unsigned version = 2; version <= 3; version++) {
		qcow2(bytes, version);
		assert_ok(kb_image_head_read(bytes, sizeof(bytes), &head, &err));
		assert_true(head.qcow2);
		assert_int_equal(head.size, MIB);
	}
	memset(bytes, 0, sizeof(bytes));
	bytes[510] = 0x55;
	bytes[511] = 0xaa;
	assert_ok(kb_image_head_read(bytes, sizeof(bytes), &head, &err));
	assert_false(head.qcow2);
}

static void test_what_names_other_files_is_refused(void **state)
{
	uint8_t bytes[KB_IMAGE_HEAD];

	qcow2(bytes, 3);
	bytes[14] = 2; /* backing_file_offset */
	refused(bytes, sizeof(bytes), "names another file");
	qcow2(bytes, 2);
	bytes[14] = 2;
	refused(bytes, sizeof(bytes), "names another file");
	qcow2(bytes, 3);
	bytes[79] = 1 << 2; /* incompatible feature: external data file */
	refused(bytes, sizeof(bytes), "names another file");
}

static void test_what_is_no_disk_is_refused(void **state)
{
	uint8_t bytes[KB_IMAGE_HEAD] = {0};

	refused(bytes, sizeof(bytes), "neither qcow2 nor");
	refused(bytes, 0, "neither qcow2 nor");
	memcpy(bytes, "KDMV", 4);
	refused(bytes, sizeof(bytes), "VMDK");
	memcpy(bytes,
		"\xfd"
		"7zXZ",
		5);
	refused(bytes, sizeof(bytes), "compressed");
	qcow2(bytes, 3);
	refused(bytes, 50, "cut off");
	bytes[35] = 1;
	refused(bytes, sizeof(bytes), "encrypted");
	qcow2(bytes, 3);
	bytes[31] = 1; /* not a number of sectors */
	refused(bytes, sizeof(bytes), "size");
	qcow2(bytes, 4);
	refused(bytes, sizeof(bytes), "version");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole_images_are_taken),
		cmocka_unit_test(test_what_names_other_files_is_refused),
		cmocka_unit_test(test_what_is_no_disk_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
