/* The file that guards a disk's key: what opens it, what does not, and that other programs can. */
#include "kbtest.h"

#include "vmctl/diskkey.h"

static struct kb_passphrase words(const char *text)
{
	struct kb_passphrase p = {.len = strlen(text)};

	memcpy(p.bytes, text, p.len);
	return p;
}

static void test_only_its_passphrase_opens_it(void **state)
{
	const struct kb_passphrase right = words("p\xc3\xa4ss \x01 word"),
				   wrong = words("password");
	struct kb_diskkey key, got;
	KB_FREE char *text = NULL;
	struct kb_err err;

	assert_ok(kb_diskkey_new(&key, &err));
	assert_int_equal(strspn(key.text, "0123456789abcdef"), 2 * KB_DISKKEY_SIZE);
	assert_ok(kb_diskkey_seal(&key, &right, &text, &err));
	assert_null(strstr(text, key.text));
	assert_ok(kb_diskkey_unseal(text, &right, &got, &err));
	assert_string_equal(got.text, key.text);
	assert_int_equal(kb_diskkey_unseal(text, &wrong, &got, &err), -KB_ERR_INVALID);
	assert_string_equal(err.msg, "wrong passphrase");
}

static void test_a_longer_one_is_another(void **state)
{
	struct kb_passphrase p = words("pass");
	struct kb_diskkey key, got;
	KB_FREE char *text = NULL;
	struct kb_err err;

	memset(p.bytes, 'x', sizeof(p.bytes));
	p.len = sizeof(p.bytes);
	assert_ok(kb_diskkey_new(&key, &err));
	assert_ok(kb_diskkey_seal(&key, &p, &text, &err));
	p.len--;
	assert_int_equal(kb_diskkey_unseal(text, &p, &got, &err), -KB_ERR_INVALID);
	p.len++;
	assert_ok(kb_diskkey_unseal(text, &p, &got, &err));
}

/* A cut or changed file is not mistaken for a wrong passphrase where that can be told, and never
 * opens. */
static void test_damage_is_noticed(void **state)
{
	const struct kb_passphrase p = words("x");
	struct kb_diskkey key, got;
	KB_FREE char *text = NULL;
	struct kb_err err;

	assert_ok(kb_diskkey_new(&key, &err));
	assert_ok(kb_diskkey_seal(&key, &p, &text, &err));
	assert_int_equal(kb_diskkey_unseal("", &p, &got, &err), -KB_ERR_FAILED);
	text[strlen(text) / 2] = '!';
	assert_int_equal(kb_diskkey_unseal(text, &p, &got, &err), -KB_ERR_FAILED);
	text[strlen(text) / 4] = '\0';
	assert_int_equal(kb_diskkey_unseal(text, &p, &got, &err), -KB_ERR_FAILED);
}

static void test_no_two_are_alike(void **state)
{
	const struct kb_passphrase p = words("x");
	struct kb_diskkey a, b;
	KB_FREE char *first = NULL, *second = NULL;
	struct kb_err err;

	assert_ok(kb_diskkey_new(&a, &err));
	assert_ok(kb_diskkey_new(&b, &err));
	assert_string_not_equal(a.text, b.text);
	assert_ok(kb_diskkey_seal(&a, &p, &first, &err));
	assert_ok(kb_diskkey_seal(&a, &p, &second, &err));
	assert_string_not_equal(first, second);
}

/* The way round kbsup that the manual gives. */
static void test_openssl_reads_it(void **state)
{
	const struct kb_passphrase p = words("secret");
	PATH_IN(path, *state, "key.pem");
	KB_FREE char *command = kb_asprintf("openssl pkey -in %s -passin pass:secret -outform DER "
					    "| tail -c 32 | od -An -v -tx1 "
					    "| tr -d ' \n'",
		path);
	struct kb_diskkey key;
	KB_FREE char *text = NULL;
	char got[KB_DISKKEY_TEXT] = "";
	struct kb_err err;
	FILE *pipe;

	if (system("command -v openssl >/dev/null") != 0)
		skip();
	assert_ok(kb_diskkey_new(&key, &err));
	assert_ok(kb_diskkey_seal(&key, &p, &text, &err));
	assert_ok(kb_file_write_atomic(path, text, strlen(text), 0600, &err));
	pipe = popen(command, "r");
	assert_non_null(pipe);
	assert_non_null(fgets(got, sizeof(got), pipe));
	assert_int_equal(pclose(pipe), 0);
	assert_string_equal(got, key.text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_only_its_passphrase_opens_it),
		cmocka_unit_test(test_a_longer_one_is_another),
		cmocka_unit_test(test_damage_is_noticed),
		cmocka_unit_test(test_no_two_are_alike),
		cmocka_unit_test(test_openssl_reads_it),
	};

	return cmocka_run_group_tests(tests, tmpdir_setup, tmpdir_teardown);
}
