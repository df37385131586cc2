/* Figures: what a machine is busy with, for lists and to tell whether it is idle. */
#include "guest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "supervisor/base/util.h"

#define SAMPLE_MS   100 /* over which the load of the processors is taken */
#define ESTABLISHED 1	/* TCP_ESTABLISHED in /proc/net/tcp */

struct ticks {
	long long busy, all;
};

/* The first line of /proc/stat: user nice system idle iowait irq softirq steal, in clock ticks. */
static int cpu_ticks(struct ticks *ret, struct kb_err *err)
{
	long long v[8] = {0};
	FILE *file = fopen("/proc/stat", "re");
	int n = file ? fscanf(file, "cpu %lld %lld %lld %lld %lld %lld %lld %lld", &v[0], &v[1],
			       &v[2], &v[3], &v[4], &v[5], &v[6], &v[7])
		     : 0;

	if (file)
		fclose(file);
	if (n < 4)
		return kb_err_set(err, KB_ERR_FAILED, "/proc/stat cannot be read");
	ret->all = 0;
	for (size_t i = 0; i < KB_ARRAY_LEN(v); i++)
		ret->all += v[i];
	ret->busy = ret->all - v[3] - v[4];
	return 0;
}

static long long permille(const struct ticks *before, const struct ticks *after)
{
	long long all = after->all - before->all;

	return all > 0 ? (after->busy - before->busy) * 1000 / all : 0;
}

/* Lines of /proc/net/tcp{,6} after the header: number, local, remote (hex address:port), state.
 * Those to the machine itself do not count. */
static long long connections_in(const char *path, const char *loopback)
{
	FILE *file = fopen(path, "re");
	char line[256], remote[64];
	unsigned state;
	long long n = 0;

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, " %*[^:]: %*s %63s %x", remote, &state) == 2 &&
			state == ESTABLISHED && strncmp(remote, loopback, strlen(loopback)) != 0)
			n++;
	if (file)
		fclose(file);
	return n;
}

static long long connections(void)
{
	return connections_in("/proc/net/tcp", "0100007F:") +
	       connections_in("/proc/net/tcp6", "00000000000000000000000001000000:");
}

static json_int_t meminfo_kib(const char *key)
{
	FILE *file = fopen("/proc/meminfo", "re");
	char line[128];
	long long value = -1;

	while (file && value < 0 && fgets(line, sizeof(line), file))
		if (strncmp(line, key, strlen(key)) == 0)
			value = strtoll(line + strlen(key) + 1, NULL, 10); /* past the colon */
	if (file)
		fclose(file);
	return value;
}

int kbm_stats(const json_t *request, json_t *reply, struct kb_err *err)
{
	static const struct timespec sample = {0, SAMPLE_MS * 1000000L};
	struct ticks before, after;
	struct statvfs fs;
	double load[3] = {0};
	int r = cpu_ticks(&before, err);

	nanosleep(&sample, NULL);
	if (r < 0 || (r = cpu_ticks(&after, err)) < 0)
		return r;
	if (statvfs("/", &fs) < 0)
		return kb_err_sys(err, errno, "/ cannot be measured");
	if (getloadavg(load, 3) < 0)
		return kb_err_set(err, KB_ERR_FAILED, "the load cannot be read");
	json_object_set_new(reply, "mem_total_kib", json_integer(meminfo_kib("MemTotal")));
	json_object_set_new(reply, "mem_available_kib", json_integer(meminfo_kib("MemAvailable")));
	json_object_set_new(reply, "cpu_permille", json_integer(permille(&before, &after)));
	json_object_set_new(
		reply, "cpu_busy_ms", json_integer(after.busy * 1000 / sysconf(_SC_CLK_TCK)));
	json_object_set_new(reply, "connections", json_integer(connections()));
	json_object_set_new(reply, "cpus", json_integer(sysconf(_SC_NPROCESSORS_ONLN)));
	json_object_set_new(reply, "load1", json_real(load[0]));
	json_object_set_new(reply, "load5", json_real(load[1]));
	json_object_set_new(reply, "load15", json_real(load[2]));
	json_object_set_new(reply, "disk_total",
		json_integer((json_int_t)fs.f_blocks * (json_int_t)fs.f_frsize));
	json_object_set_new(reply, "disk_free",
		json_integer((json_int_t)fs.f_bavail * (json_int_t)fs.f_frsize));
	json_object_set_new(reply, "uptime_ms", json_integer(kb_now_mono() / 1000000));
	return 0;
}
