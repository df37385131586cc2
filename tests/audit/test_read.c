/* What the collectors read of other processes: strings, argument vectors, addresses, /proc. */
#include "tests/unit/kbtest.h"

#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "audit/collect/held.h"
#include "audit/collect/memory.h"
#include "audit/collect/proc.h"
#include "audit/collect/sockaddr.h"

#define PAGES 4

/* PAGES readable pages with nothing mapped behind them. */
static char *pages(void)
{
	size_t size = (PAGES + 1) * 4096;
	char *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_true(at != MAP_FAILED);
	assert_int_equal(munmap(at + PAGES * 4096, 4096), 0);
	return at;
}

static uint64_t addr(const void *at)
{
	return (uint64_t)(uintptr_t)at;
}

static void test_string_at_the_end_of_memory(void **state)
{
	char *map = pages(), *at = map + PAGES * 4096 - 6, buf[PATH_MAX];

	memcpy(at, "/a\n\xff\x01", 6);
	assert_int_equal(kb_mem_string(getpid(), addr(at), buf, sizeof(buf)), 5);
	assert_memory_equal(buf, "/a\n\xff\x01", 6);
	munmap(map, PAGES * 4096);
}

static void test_string_over_pages(void **state)
{
	char *map = pages(), *at = map + 4096 - 300, buf[PATH_MAX];

	memset(at, 'x', 700);
	assert_int_equal(kb_mem_string(getpid(), addr(at), buf, sizeof(buf)), 700);
	assert_int_equal(strlen(buf), 700);
	munmap(map, PAGES * 4096);
}

static void test_string_without_an_end(void **state)
{
	char *map = pages(), buf[PATH_MAX];

	memset(map, 'x', PAGES * 4096);
	/* Memory ends first. */
	assert_int_equal(
		kb_mem_string(getpid(), addr(map + PAGES * 4096 - 100), buf, sizeof(buf)), -EFAULT);
	/* The bound comes first. */
	assert_int_equal(kb_mem_string(getpid(), addr(map), buf, sizeof(buf)), -ENAMETOOLONG);
	munmap(map, PAGES * 4096);
	assert_int_equal(kb_mem_string(getpid(), addr(map), buf, sizeof(buf)), -EFAULT);
	assert_int_equal(kb_mem_string(getpid(), 0, buf, sizeof(buf)), -EFAULT);
	assert_int_equal(kb_mem_string(getpid(), UINT64_MAX - 3, buf, sizeof(buf)), -EFAULT);
}

static void test_vector(void **state)
{
	static char long_one[200000];
	const char *argv[100] = {"prog", "", "a b", "\xff\n", long_one};
	struct kb_argv got;

	memset(long_one, 'y', sizeof(long_one) - 1);
	for (int i = 5; i < 99; i++)
		argv[i] = "n";
	kb_argv_init(&got);
	assert_int_equal(kb_mem_argv(getpid(), addr(argv), &got), 0);
	assert_int_equal(got.count, 99);
	assert_int_equal(got.lost, 0);
	for (size_t i = 0; i < got.count; i++) {
		assert_int_equal(got.items[i].len, strlen(argv[i]));
		assert_memory_equal(got.items[i].data, argv[i], got.items[i].len);
	}
	/* Used again, nothing is left of the last one. */
	assert_int_equal(kb_mem_argv(getpid(), 0, &got), 0);
	assert_int_equal(got.count, 0);
	kb_argv_finish(&got);
}

static void test_vector_past_its_bound(void **state)
{
	size_t n = 3 * KB_ARGV_MAX / 100000;
	const char **argv = calloc(n + 1, sizeof(*argv));
	static char arg[100001];
	struct kb_argv got;

	memset(arg, 'z', sizeof(arg) - 1);
	for (size_t i = 0; i < n; i++)
		argv[i] = arg;
	kb_argv_init(&got);
	assert_int_equal(kb_mem_argv(getpid(), addr(argv), &got), 0);
	assert_int_equal(got.count, KB_ARGV_MAX / (100000 + KB_ARGV_FRAMING));
	assert_int_equal(got.lost + got.count * 100000, n * 100000);
	kb_argv_finish(&got);
	free(argv);
}

static void test_vector_that_is_broken(void **state)
{
	char *map = pages();
	const char **argv = (const char **)(void *)(map + PAGES * 4096 - 2 * sizeof(char *));
	struct kb_argv got;

	kb_argv_init(&got);
	/* Memory ends before the vector does: what was there is kept. */
	argv[0] = argv[1] = "x";
	assert_int_equal(kb_mem_argv(getpid(), addr(argv), &got), -EFAULT);
	assert_int_equal(got.count, 2);
	argv[0] = "ok";
	argv[1] = (const char *)8;
	assert_int_equal(kb_mem_argv(getpid(), addr(argv), &got), -EFAULT);
	assert_int_equal(got.count, 1);
	kb_argv_finish(&got);
	munmap(map, PAGES * 4096);
}

static void test_addresses(void **state)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(443)};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(8080)};
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct kb_sockaddr got;

	in.sin_addr.s_addr = htonl(0x7f000001);
	assert_true(kb_sockaddr_parse((uint8_t *)&in, sizeof(in), &got));
	assert_int_equal(got.port, 443);
	assert_memory_equal(got.address.data, "\x7f\0\0\1", 4);
	assert_false(kb_sockaddr_parse((uint8_t *)&in, sizeof(in) - 1, &got));
	assert_int_equal(got.family, AF_INET);

	in6.sin6_addr.s6_addr[15] = 1;
	assert_true(kb_sockaddr_parse((uint8_t *)&in6, sizeof(in6), &got));
	assert_int_equal(got.port, 8080);
	assert_int_equal(got.address.len, 16);
	assert_int_equal(got.address.data[15], 1);

	strcpy(un.sun_path, "/run/x");
	assert_true(kb_sockaddr_parse((uint8_t *)&un, sizeof(un), &got));
	assert_int_equal(got.address.len, 6);
	memcpy(un.sun_path, "\0a\0b", 4);
	assert_true(kb_sockaddr_parse((uint8_t *)&un, 2 + 4, &got));
	assert_int_equal(got.address.len, 4);
	/* Unnamed, and a path that fills the field without a NUL. */
	assert_true(kb_sockaddr_parse((uint8_t *)&un, 2, &got));
	assert_null(got.address.data);
	memset(un.sun_path, 'p', sizeof(un.sun_path));
	assert_true(kb_sockaddr_parse((uint8_t *)&un, sizeof(un), &got));
	assert_int_equal(got.address.len, sizeof(un.sun_path));
	assert_false(kb_sockaddr_parse((uint8_t *)&un, 1, &got));
}

static void test_status(void **state)
{
	static const char text[] = "Name:\ta\\nb\\\\c\nUmask:\t0022\nState:\tS (sleeping)\n"
				   "Tgid:\t700\nNgid:\t0\nPid:\t702\nPPid:\t690\nTracerPid:\t0\n"
				   "NStgid:\t700\t12\t3\nNSpid:\t702\t14\t5\n";
	struct kb_status st;

	assert_true(kb_status_parse(text, sizeof(text) - 1, 1, &st));
	assert_string_equal(st.comm, "a\nb\\c");
	assert_int_equal(st.tgid, 700);
	assert_int_equal(st.pid, 702);
	assert_int_equal(st.ppid, 690);
	assert_int_equal(st.vtgid, 12);
	assert_int_equal(st.vpid, 14);
	assert_int_equal(st.levels, 3);
	/* Not of a namespace that deep. */
	assert_true(kb_status_parse(text, sizeof(text) - 1, 3, &st));
	assert_int_equal(st.vpid, 0);
	assert_false(kb_status_parse("Name:\tx\n", 8, 0, &st));
	assert_false(kb_status_parse("", 0, 0, &st));
}

static void test_held_is_a_whole_copy(void **state)
{
	char path[] = "/x", arg0[] = "one", arg1[] = "";
	struct kb_bytes argv[] = {{(uint8_t *)arg0, 3}, {(uint8_t *)arg1, 0}};
	struct kb_record record = {.event = KB_EVENT_EXEC,
		.pid = 7,
		.path = {(uint8_t *)path, 2},
		.argv = argv,
		.argc = 2};
	KB_FREE struct kb_held *held = kb_held_create(&record);

	memset(path, 'q', sizeof(path));
	memset(arg0, 'q', sizeof(arg0));
	memset(argv, 0, sizeof(argv));
	assert_int_equal(held->record.pid, 7);
	assert_memory_equal(held->record.path.data, "/x", 2);
	assert_int_equal(held->record.argc, 2);
	assert_memory_equal(held->record.argv[0].data, "one", 3);
	assert_int_equal(held->record.argv[1].len, 0);
	assert_null(held->record.exe.data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_string_at_the_end_of_memory),
		cmocka_unit_test(test_string_over_pages),
		cmocka_unit_test(test_string_without_an_end),
		cmocka_unit_test(test_vector),
		cmocka_unit_test(test_vector_past_its_bound),
		cmocka_unit_test(test_vector_that_is_broken),
		cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_status),
		cmocka_unit_test(test_held_is_a_whole_copy),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
