#include "guarded.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "log.h"
#include "os.h"

int kb_guarded_init(struct kb_guarded *g, size_t size, struct kb_err *err)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		return kb_err_sys(err, errno, "memory for secrets cannot be had");
	*g = (struct kb_guarded){.memory = memory, .size = size};
	if (mlock(memory, size) < 0)
		kb_log_debug("memory of secrets is not locked: %s", strerror(errno));
#ifdef MADV_DONTDUMP
	(void)madvise(memory, size, MADV_DONTDUMP);
	(void)madvise(memory, size, MADV_DONTFORK);
#endif
	return 0;
}

void kb_guarded_finish(struct kb_guarded *g)
{
	if (!g->memory)
		return;
	kb_os_wipe(g->memory, g->size);
	(void)munmap(g->memory, g->size);
	*g = (struct kb_guarded){0};
}

void *kb_guarded_alloc(struct kb_guarded *g, size_t len)
{
	size_t need = (len + 15) & ~(size_t)15;
	void *ret;

	if (len > g->size || need > g->size - g->used)
		return NULL;
	ret = g->memory + g->used;
	g->used += need;
	return ret;
}
