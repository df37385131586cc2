/* Bad policies and what is said about them: golden/NAME.policy, golden/NAME.expected. With
 * KB_GOLDEN_UPDATE set the expectations are written instead; read the diff before keeping it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>

#include "supervisor/base/fd.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"
#include "tests/policy/support.h"

#define CASES_MIN 60

/* The text of what the compiler says; always an error. */
static char *diagnose(const char *path, const char *name)
{
	struct kb_diags *diags = kb_diags_create();
	struct kb_policy *policy = NULL;
	struct kb_err err = {0};
	struct kb_buf text, out;
	int r;

	kb_buf_init(&text, 1 << 20);
	kb_buf_init(&out, 1 << 20);
	assert_true(kb_file_read(path, &text, NULL) >= 0);
	r = kb_policy_load_text((const char *)kb_buf_data(&text), kb_buf_len(&text), name,
		&test_options, &policy, diags, &err);
	if (r >= 0)
		fail_msg("%s: accepted", name);
	assert_int_equal(r, -KB_ERR_INVALID);
	assert_null(policy);
	assert_true(err.msg[0] != '\0');
	assert_true(kb_diags_errors(diags) > 0);
	assert_true(kb_diags_render(diags, false, &out, NULL) >= 0);
	kb_buf_finish(&text);
	kb_diags_destroy(diags);
	return kb_buf_steal_string(&out);
}

static void check(const char *dir, const char *name)
{
	size_t stem = strlen(name) - strlen(".policy");
	char *path KB_FREE = kb_asprintf("%s/%s", dir, name);
	char *want_path KB_FREE = kb_asprintf("%s/%.*s.expected", dir, (int)stem, name);
	char *said KB_FREE = diagnose(path, name);
	struct kb_buf want KB_BUF_CLEANUP;

	kb_buf_init(&want, 1 << 20);
	if (getenv("KB_GOLDEN_UPDATE")) {
		assert_true(kb_file_write_atomic(want_path, said, strlen(said), 0644, NULL) >= 0);
		return;
	}
	if (kb_file_read(want_path, &want, NULL) < 0)
		fail_msg("%s is missing", want_path);
	if (kb_buf_len(&want) != strlen(said) ||
		memcmp(kb_buf_data(&want), said, strlen(said)) != 0)
		fail_msg("%s:\n%s\nexpected:\n%.*s", name, said, (int)kb_buf_len(&want),
			kb_buf_data(&want));
}

static void golden(void **state)
{
	DIR *dir = opendir(POLICY_GOLDEN);
	unsigned n = 0;

	(void)state;
	assert_non_null(dir);
	for (struct dirent *entry; (entry = readdir(dir));) {
		size_t len = strlen(entry->d_name);

		if (len < 8 || strcmp(entry->d_name + len - 7, ".policy") != 0)
			continue;
		check(POLICY_GOLDEN, entry->d_name);
		n++;
	}
	closedir(dir);
	print_message("%u bad policies\n", n);
	assert_true(n >= CASES_MIN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(golden)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
