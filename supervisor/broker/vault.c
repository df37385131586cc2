#include "vault.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "proto/role.pb-c.h"
#include "supervisor/base/guarded.h"
#include "supervisor/base/os.h"

#define ROOM	 (256u << 10)
#define BLOB_MAX (96u << 10) /* encoded */

struct kb_vault {
	struct kb_guarded memory;
	Kb__Role__Secrets *secrets; /* in it too */
};

void kb_vault_harden(void)
{
	const struct rlimit none = {0, 0};

	kb_os_keep_private();
	(void)setrlimit(RLIMIT_CORE, &none);
}

void *kb_vault_alloc(struct kb_vault *v, size_t len)
{
	return kb_guarded_alloc(&v->memory, len);
}

static void *alloc_for_proto(void *data, size_t size)
{
	return kb_vault_alloc(data, size);
}

static void free_nothing(void *data, void *pointer)
{
}

/* *ret_len bytes, BLOB_MAX at most. The writer has written all of it before the fd was sent. */
static int read_all(int fd, uint8_t *blob, size_t *ret_len, struct kb_err *err)
{
	size_t n = 0;

	for (;;) {
		ssize_t got = read(fd, blob + n, BLOB_MAX - n);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return kb_err_sys(err, errno, "the session's secrets cannot be read");
		if (got == 0)
			break;
		n += (size_t)got;
		if (n == BLOB_MAX)
			return kb_err_set(err, KB_ERR_LIMIT,
				"the session's secrets have more than %u bytes", BLOB_MAX);
	}
	*ret_len = n;
	return 0;
}

static int fill(struct kb_vault *v, int fd, struct kb_err *err)
{
	ProtobufCAllocator allocator = {alloc_for_proto, free_nothing, v};
	uint8_t *blob = kb_vault_alloc(v, BLOB_MAX);
	size_t len = 0;
	int r = read_all(fd, blob, &len, err);

	if (r < 0)
		return r;
	v->secrets = kb__role__secrets__unpack(&allocator, len, blob);
	kb_os_wipe(blob, len);
	return v->secrets ? 0
			  : kb_err_set(err, KB_ERR_INVALID,
				    "the session's secrets are "
				    "malformed");
}

int kb_vault_open(int fd, struct kb_vault **ret, struct kb_err *err)
{
	struct kb_vault *v = calloc(1, sizeof(*v));
	int r = v ? kb_guarded_init(&v->memory, ROOM, err) : kb_err_nomem(err);

	if (r == 0)
		r = fill(v, fd, err);
	if (r < 0)
		kb_vault_destroy(v);
	else
		*ret = v;
	return r;
}

void kb_vault_destroy(struct kb_vault *v)
{
	if (!v)
		return;
	kb_guarded_finish(&v->memory);
	free(v);
}

static struct kb_slice slice(ProtobufCBinaryData data)
{
	return (struct kb_slice){(const char *)data.data, data.len};
}

struct kb_slice kb_vault_find(const struct kb_vault *v, const char *name)
{
	for (size_t i = 0; v && i < v->secrets->n_values; i++)
		if (strcmp(v->secrets->values[i]->name, name) == 0)
			return slice(v->secrets->values[i]->value);
	return (struct kb_slice){0};
}

struct kb_slice kb_vault_authority_key(const struct kb_vault *v)
{
	return v ? slice(v->secrets->authority_key) : (struct kb_slice){0};
}

struct kb_slice kb_vault_authority_cert(const struct kb_vault *v)
{
	return v ? slice(v->secrets->authority_cert) : (struct kb_slice){0};
}
