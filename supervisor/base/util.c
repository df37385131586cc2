#include "util.h"

#include <errno.h>
#include <time.h>

void kb_close(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	errno = saved;
}

static int64_t now(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int64_t kb_now_real(void)
{
	return now(CLOCK_REALTIME);
}

int64_t kb_now_mono(void)
{
	return now(CLOCK_MONOTONIC);
}
