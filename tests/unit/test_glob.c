/* What a pattern stands for in a real tree. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants those first */
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "supervisor/base/fd.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"
#include "supervisor/guest/glob.h"

static char top[] = "/tmp/kbsup-glob-XXXXXX";

struct found {
	char text[4096]; /* paths without top, each followed by a blank */
	int stop;
};

static int collect(const char *path, void *arg, struct kb_err *err)
{
	struct found *f = arg;
	const char *rest = path + strlen(top);

	assert_memory_equal(path, top, strlen(top));
	size_t used = strlen(f->text);

	snprintf(f->text + used, sizeof(f->text) - used, "%s ", rest);
	return f->stop;
}

static const char *walk(const char *pattern)
{
	static struct found f;
	KB_FREE char *full = kb_asprintf("%s/%s", top, pattern);

	f = (struct found){0};
	assert_int_equal(kb_glob_walk(full, collect, &f, NULL), 0);
	return f.text;
}

static void make(const char *path, bool dir)
{
	KB_FREE char *full = kb_asprintf("%s/%s", top, path);

	if (dir)
		assert_int_equal(mkdir(full, 0755), 0);
	else
		close(open(full, O_CREAT | O_WRONLY, 0644));
}

static int set_up(void **state)
{
	KB_FREE char *link = NULL;

	assert_non_null(mkdtemp(top));
	make("a", true);
	make("a/b", true);
	make("a/b/.env", false);
	make("a/x.pem", false);
	make(".env", false);
	make("odd\nname.pem", false);
	link = kb_asprintf("%s/link", top);
	return symlink("a", link);
}

static int tear_down(void **state)
{
	return kb_rmtree(top, NULL);
}

static void test_components(void **state)
{
	assert_string_equal(walk("a"), "/a ");
	assert_string_equal(walk("a/x.???"), "/a/x.pem ");
	assert_string_equal(walk("*/*.pem"), "/a/x.pem ");
	assert_string_equal(walk("*.pem"), "/odd\nname.pem ");
	assert_string_equal(walk("nothing/*"), "");
	assert_string_equal(walk("a/x.pem/*"), "");
}

static void test_any_depth(void **state)
{
	const char *all = walk("**/.env");

	assert_non_null(strstr(all, "/a/b/.env "));
	assert_int_equal(strlen(all), strlen("/a/b/.env /.env "));
	assert_string_equal(walk("a/**/.env"), "/a/b/.env ");
}

/* A link is matched, never followed. */
static void test_links(void **state)
{
	assert_string_equal(walk("li*"), "/link ");
	assert_string_equal(walk("link/*"), "");
	assert_null(strstr(walk("**/x.pem"), "/link"));
}

static void test_stop(void **state)
{
	KB_FREE char *full = kb_asprintf("%s/**", top);
	struct found f = {.stop = -KB_ERR_LIMIT};

	assert_int_equal(kb_glob_walk(full, collect, &f, NULL), -KB_ERR_LIMIT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_components),
		cmocka_unit_test(test_any_depth),
		cmocka_unit_test(test_links),
		cmocka_unit_test(test_stop),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
