/* The error contract of supervisor/base/ERRORS.md. */
#include "kbtest.h"

#include <errno.h>

#include "supervisor/base/err.h"

static void test_set_fills_and_returns_the_code(void **state)
{
	struct kb_err err = {.errnum = 7, .hint = "old"};

	assert_int_equal(kb_err_set(&err, KB_ERR_LIMIT, "%d is %s", 5, "much"), -KB_ERR_LIMIT);
	assert_int_equal(err.code, KB_ERR_LIMIT);
	assert_int_equal(err.errnum, 0);
	assert_string_equal(err.msg, "5 is much");
	assert_string_equal(err.hint, "");
}

static void test_sys_adds_the_reason(void **state)
{
	struct kb_err err;

	assert_int_equal(kb_err_sys(&err, ENOENT, "%s cannot be read", "x"), -KB_ERR_SYSTEM);
	assert_int_equal(err.errnum, ENOENT);
	assert_string_equal(err.msg, "x cannot be read: No such file or directory");
	assert_int_equal(kb_err_sys(&err, ENOMEM, "x"), -KB_ERR_NOMEM);
	assert_int_equal(kb_err_nomem(&err), -KB_ERR_NOMEM);
}

static void test_a_null_error_is_allowed(void **state)
{
	assert_int_equal(kb_err_set(NULL, KB_ERR_USAGE, "x"), -KB_ERR_USAGE);
	assert_int_equal(kb_err_sys(NULL, EPERM, "x"), -KB_ERR_SYSTEM);
	assert_int_equal(kb_err_hint(NULL, "x"), -KB_ERR_FAILED);
	assert_int_equal(kb_err_prefix(NULL, "x"), -KB_ERR_FAILED);
}

static void test_hint_and_prefix_keep_the_code(void **state)
{
	struct kb_err err;

	kb_err_set(&err, KB_ERR_EXISTS, "taken");
	assert_int_equal(kb_err_hint(&err, "choose %s", "another"), -KB_ERR_EXISTS);
	assert_int_equal(kb_err_prefix(&err, "session %s", "a"), -KB_ERR_EXISTS);
	assert_string_equal(err.msg, "session a: taken");
	assert_string_equal(err.hint, "choose another");
}

static void test_foreign_bytes_are_escaped(void **state)
{
	struct kb_err err;

	kb_err_set(&err, KB_ERR_FAILED, "%s", "a\033[2Jb\nc");
	assert_string_equal(err.msg, "a\\x1b[2Jb\\nc");
	kb_err_hint(&err, "%s", "\r");
	assert_string_equal(err.hint, "\\r");
	kb_err_prefix(&err, "%s", "\a");
	assert_string_equal(err.msg, "\\x07: a\\x1b[2Jb\\nc");
}

static void test_long_texts_are_cut(void **state)
{
	struct kb_err err;
	char text[2 * KB_ERR_MSG_MAX];

	memset(text, '\n', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	kb_err_sys(&err, EIO, "%s", text);
	kb_err_hint(&err, "%s", text);
	kb_err_prefix(&err, "%s", text);
	assert_true(strlen(err.msg) < KB_ERR_MSG_MAX);
	assert_true(strlen(err.hint) < KB_ERR_HINT_MAX);
	assert_null(strchr(err.msg, '\n'));
}

static void test_names_and_exit_status(void **state)
{
	static const struct {
		enum kb_errcode code;
		const char *name;
		int status;
	} rows[] = {
		{KB_ERR_FAILED, "failed", 1},
		{KB_ERR_USAGE, "usage", 2},
		{KB_ERR_UNREACHABLE, "unreachable", 3},
		{KB_ERR_REFUSED, "refused", 4},
		{KB_ERR_SYSTEM, "system", 1},
		{KB_ERR_NOMEM, "nomem", 1},
		{KB_ERR_INVALID, "invalid", 1},
		{KB_ERR_LIMIT, "limit", 1},
		{KB_ERR_NOTFOUND, "notfound", 1},
		{KB_ERR_EXISTS, "exists", 1},
		{KB_ERR_TIMEOUT, "timeout", 1},
		{KB_ERR_CLOSED, "closed", 1},
		{KB_ERR_NOCOMMAND, "nocommand", 127},
	};
	struct kb_err err;

	assert_int_equal(KB_ARRAY_LEN(rows), KB_ERR_MAX_ - 1);
	for (size_t i = 0; i < KB_ARRAY_LEN(rows); i++) {
		kb_err_set(&err, rows[i].code, "x");
		assert_string_equal(kb_errcode_name(rows[i].code), rows[i].name);
		assert_int_equal(kb_err_exit_status(&err), rows[i].status);
	}
	assert_string_equal(kb_errcode_name(KB_ERR_MAX_), "unknown");
	assert_string_equal(kb_errcode_name(0), "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_set_fills_and_returns_the_code),
		cmocka_unit_test(test_sys_adds_the_reason),
		cmocka_unit_test(test_a_null_error_is_allowed),
		cmocka_unit_test(test_hint_and_prefix_keep_the_code),
		cmocka_unit_test(test_foreign_bytes_are_escaped),
		cmocka_unit_test(test_long_texts_are_cut),
		cmocka_unit_test(test_names_and_exit_status),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
