/* What one openat costs its caller: p50, p99 and p99.9 in nanoseconds, on one line.
 *
 *	open_cost PATH COUNT
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "supervisor/base/str.h"
#include "supervisor/base/util.h"

#define COUNT_MAX 1000000u

static int compare(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	uint64_t count;
	int64_t *times;

	if (argc != 3 || !kb_parse_u64(argv[2], &count) || count < 1 || count > COUNT_MAX) {
		fprintf(stderr, "open_cost PATH COUNT\n");
		return 2;
	}
	times = calloc(count, sizeof(*times));
	if (!times)
		return 1;
	for (uint64_t i = 0; i < count; i++) {
		int64_t before = kb_now_mono();
		int fd = openat(AT_FDCWD, argv[1], O_RDONLY | O_CLOEXEC);

		times[i] = kb_now_mono() - before;
		if (fd >= 0)
			close(fd);
		else if (errno != ENOENT)
			return 1;
	}
	qsort(times, count, sizeof(*times), compare);
	printf("%lld %lld %lld\n", (long long)times[count / 2], (long long)times[count * 99 / 100],
		(long long)times[count * 999 / 1000]);
	free(times);
	return 0;
}
