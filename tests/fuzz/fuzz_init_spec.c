/* The specification of a process, as kbsup-init reads it inside the container. */
#include <stdlib.h>
#include <string.h>

#include "supervisor/init/spec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t touch(const char *s)
{
	return strlen(s);
}

/* Everything a parsed specification points to must be there. */
static void use(const struct kb_spec *spec)
{
	size_t total = touch(spec->cwd);

	for (char **a = spec->argv; *a; a++)
		total += touch(*a);
	for (char **e = spec->env; *e; e++)
		total += touch(*e);
	for (uint32_t i = 0; i < spec->header->n_landlock; i++)
		total += touch(spec->landlock_paths[i]) + (spec->landlock[i].access & 1);
	for (uint32_t i = 0; i < spec->header->n_filters; i++)
		total += spec->filters[i].code;
	for (uint32_t i = 0; i < spec->header->n_rlimits; i++)
		total += spec->rlimits[i].resource & 1;
	if (total > KB_INIT_SPEC_MAX + KB_INIT_FILTERS_MAX * 65536ull)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* As mapped: aligned, and its size in the header set right so that the rest is reached. */
	uint8_t *copy = malloc(size + 1);
	struct kb_spec spec;

	if (!copy)
		return 0;
	memcpy(copy, data, size);
	if (size >= sizeof(struct kb_init_spec))
		((struct kb_init_spec *)copy)->size = (uint32_t)size;
	if (kb_spec_parse(copy, size, &spec)) {
		use(&spec);
		kb_spec_finish(&spec);
	}
	free(copy);
	return 0;
}
