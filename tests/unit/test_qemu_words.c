/* What a machine of each architecture is to QEMU, booted either way. */
#include "kbtest.h"

#include "vmctl/driver/qemu.h"

static json_t *words_of(const char *arch, const char *accel, bool firmware)
{
	struct kb_qemu_shape shape = {
		.arch = arch, .accel = accel, .firmware = firmware, .memory_mib = 512, .cpus = 2};
	struct kb_err err;
	json_t *words = NULL;

	assert_ok(kb_qemu_shape_words(&shape, &words, &err));
	return words;
}

/* The word after `option` whose beginning is `start`; NULL: none. */
static const char *value_of(const json_t *words, const char *option, const char *start)
{
	for (size_t i = 0; i + 1 < json_array_size(words); i++) {
		const char *value = json_string_value(json_array_get(words, i + 1));

		if (strcmp(json_string_value(json_array_get(words, i)), option) == 0 &&
			strncmp(value, start, strlen(start)) == 0)
			return value;
	}
	return NULL;
}

static void check(const char *arch, bool firmware, const char *machine, const char *console)
{
	KB_JSON json_t *words = words_of(arch, "tcg", firmware);
	const char *append = value_of(words, "-append", "");
	const char *disk = value_of(words, "-device", "virtio-blk-pci,drive=root");

	assert_non_null(value_of(words, "-machine", machine));
	assert_non_null(disk);
	assert_true(!!strstr(disk, "bootindex=0") == firmware);
	assert_true(!append == firmware);
	assert_true(!value_of(words, "-kernel", "") == firmware);
	assert_true(!value_of(words, "-initrd", "") == firmware);
	if (append)
		assert_non_null(strstr(append, console));
	assert_non_null(value_of(words, "-device", "virtserialport,bus=vs.0,nr=1"));
}

static void test_each_architecture_boots_either_way(void **state)
{
	for (int firmware = 0; firmware < 2; firmware++) {
		check("x86_64", firmware, "pc-q35-7.2,", "console=ttyS0 ");
		check("aarch64", firmware, "virt-7.2,", "console=ttyAMA0 ");
		/* Bases of older kbsups do not say. */
		check(NULL, firmware, "pc-q35-7.2,", "console=ttyS0 ");
	}
}

static void test_firmware_is_named_where_qemu_has_none(void **state)
{
	KB_JSON json_t *arm = words_of("aarch64", "tcg", true);
	KB_JSON json_t *kernel = words_of("aarch64", "tcg", false);
	KB_JSON json_t *x86 = words_of("x86_64", "tcg", true);

	assert_non_null(value_of(arm, "-bios", ""));
	assert_null(value_of(kernel, "-bios", ""));
	assert_null(value_of(x86, "-bios", ""));
}

static void test_only_x86_has_its_devices_and_processors(void **state)
{
	KB_JSON json_t *arm = words_of("aarch64", "tcg", false);
	KB_JSON json_t *x86 = words_of("x86_64", "tcg", false);
	KB_JSON json_t *kvm = words_of("x86_64", "kvm", false);

	assert_non_null(value_of(x86, "-device", "vmgenid"));
	assert_null(value_of(arm, "-device", "vmgenid"));
	assert_string_equal(value_of(x86, "-cpu", ""), "max,la57=off");
	assert_string_equal(value_of(arm, "-cpu", ""), "max,pauth-impdef=on");
	assert_string_equal(value_of(kvm, "-cpu", ""), "host");
}

static void test_a_screen_is_one_more_device_and_the_console_stays(void **state)
{
	static const char *const cards[][2] = {{"x86_64", "VGA"}, {"aarch64", "virtio-gpu-pci"}};

	for (size_t i = 0; i < 2; i++) {
		struct kb_qemu_shape shape = {.arch = cards[i][0],
			.accel = "tcg",
			.screen = true,
			.memory_mib = 512,
			.cpus = 2};
		KB_JSON json_t *plain = words_of(cards[i][0], "tcg", false), *words = NULL;
		struct kb_err err;

		assert_ok(kb_qemu_shape_words(&shape, &words, &err));
		assert_true(kb_qemu_has_screen(words));
		assert_false(kb_qemu_has_screen(plain));
		assert_string_equal(value_of(words, "-vnc", ""), "unix:@RUN@/screen.sock");
		assert_non_null(value_of(words, "-device", cards[i][1]));
		/* What the kernel says last is where /dev/console is. */
		assert_non_null(value_of(words, "-append", "console=tty0 console=tty"));
		assert_null(strstr(value_of(plain, "-append", ""), "tty0"));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_architecture_boots_either_way),
		cmocka_unit_test(test_firmware_is_named_where_qemu_has_none),
		cmocka_unit_test(test_only_x86_has_its_devices_and_processors),
		cmocka_unit_test(test_a_screen_is_one_more_device_and_the_console_stays),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
