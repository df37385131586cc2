#include "store_load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "audit/audit.h"

#define ROUND_NS   UINT64_C(60000000000)
#define ROUND_PIDS 20000u

struct load {
	struct kb_record *records;
	size_t n, cap;
	struct kb_record now;
	char path[8192];
};

static struct kb_bytes copy(struct kb_bytes b)
{
	uint8_t *mem = b.data ? malloc(b.len + 1) : NULL;

	if (mem)
		memcpy(mem, b.data, b.len);
	return (struct kb_bytes){mem, b.len};
}

static int take(const struct kb_record *record, void *arg, struct kb_err *err)
{
	struct load *load = arg;
	struct kb_bytes *argv = calloc(record->argc + 1, sizeof(*argv));
	struct kb_record *r;

	if (load->n == load->cap) {
		load->cap = load->cap ? 2 * load->cap : 4096;
		load->records = realloc(load->records, load->cap * sizeof(*load->records));
	}
	r = &load->records[load->n++];
	*r = *record;
	r->path = copy(r->path);
	r->path2 = copy(r->path2);
	r->path_arg = copy(r->path_arg);
	r->path2_arg = copy(r->path2_arg);
	r->exe = copy(r->exe);
	r->comm = copy(r->comm);
	r->cwd = copy(r->cwd);
	r->address = copy(r->address);
	r->host = copy(r->host);
	r->text = copy(r->text);
	for (size_t i = 0; i < r->argc; i++)
		argv[i] = copy(r->argv[i]);
	r->argv = argv;
	return 0;
}

struct load *load_read(const char *strace_log)
{
	struct load *load = calloc(1, sizeof(*load));
	struct kb_strace_stats stats;
	FILE *in = fopen(strace_log, "re");
	struct kb_err err;

	if (!load || !in ||
		kb_strace_read(in, UINT64_C(1764000000000000000), take, load, &stats, &err) < 0 ||
		load->n == 0) {
		fprintf(stderr, "%s is not an strace log\n", strace_log);
		exit(1);
	}
	fclose(in);
	return load;
}

size_t load_size(const struct load *load)
{
	return load->n;
}

const struct kb_record *load_record(struct load *load, size_t i, uint64_t round)
{
	static const char mark[] = "/home/";
	struct kb_record *r = &load->now;
	int len;

	*r = load->records[i];
	r->time += round * ROUND_NS;
	if (r->pid)
		r->pid = (uint32_t)(r->pid % ROUND_PIDS + round % 100000 * ROUND_PIDS + 1);
	if (r->ppid)
		r->ppid = (uint32_t)(r->ppid % ROUND_PIDS + round % 100000 * ROUND_PIDS + 1);
	r->tid = r->pid;
	/* A build elsewhere: what it writes and reads of its own lies in another directory. */
	if (r->path.len > 5 && r->path.len < 4096 && memcmp(r->path.data, "/usr/", 5) != 0) {
		len = snprintf(load->path, sizeof(load->path), "%s%llu%.*s", mark,
			(unsigned long long)round, (int)r->path.len, (const char *)r->path.data);
		r->path = (struct kb_bytes){(const uint8_t *)load->path, (size_t)len};
	}
	return r;
}
