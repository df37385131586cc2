/* Key files as OpenSSH reads them. */
#include "kbtest.h"

#include <sys/wait.h>

#include "vmctl/hostkey.h"

static void test_openssh_derives_the_same_public_key(void **state)
{
	struct kb_err err;
	KB_FREE char *private = NULL, *public = NULL;
	PATH_IN(path, *state, "key");
	KB_FREE char *command = kb_asprintf("ssh-keygen -y -f %s", path);
	char line[256] = "";
	FILE *pipe;

	if (system("command -v ssh-keygen >/dev/null") != 0)
		skip();
	assert_ok(kb_hostkey_new("web", &private, &public, &err));
	assert_ok(kb_file_write_atomic(path, private, strlen(private), 0600, &err));
	pipe = popen(command, "r");
	assert_non_null(pipe);
	assert_non_null(fgets(line, sizeof(line), pipe));
	assert_int_equal(pclose(pipe), 0);
	assert_string_equal(line, public);
}

static void test_no_two_are_alike(void **state)
{
	struct kb_err err;
	KB_FREE char *a = NULL, *a_pub = NULL, *b = NULL, *b_pub = NULL;

	assert_ok(kb_hostkey_new("a", &a, &a_pub, &err));
	assert_ok(kb_hostkey_new("a", &b, &b_pub, &err));
	assert_string_not_equal(a, b);
	assert_string_not_equal(a_pub, b_pub);
}

static void test_a_key_matches_its_own_public_line_only(void **state)
{
	static const char *const others[] = {"", "ssh-ed25519", "ssh-ed25519 AAAA",
		"ssh-rsa AAAA x", "-----BEGIN OPENSSH PRIVATE KEY-----\n",
		"KEY-----\n=", "KEY-----\nAAAA"};
	struct kb_err err;
	KB_FREE char *a = NULL, *a_pub = NULL, *b = NULL, *b_pub = NULL;

	assert_ok(kb_hostkey_new("a", &a, &a_pub, &err));
	assert_ok(kb_hostkey_new("b", &b, &b_pub, &err));
	assert_true(kb_hostkey_match(a, a_pub));
	assert_true(kb_hostkey_match(b, b_pub));
	assert_false(kb_hostkey_match(a, b_pub));
	assert_false(kb_hostkey_match(b, a_pub));
	for (size_t i = 0; i < KB_ARRAY_LEN(others); i++) {
		assert_false(kb_hostkey_match(a, others[i]));
		assert_false(kb_hostkey_match(others[i], a_pub));
	}
	strstr(a, "KEY-----\n")[9 + 230] ^= 1; /* in the secret half */
	assert_false(kb_hostkey_match(a, a_pub));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_openssh_derives_the_same_public_key),
		cmocka_unit_test(test_no_two_are_alike),
		cmocka_unit_test(test_a_key_matches_its_own_public_line_only),
	};

	return cmocka_run_group_tests(tests, tmpdir_setup, tmpdir_teardown);
}
