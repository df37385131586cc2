/* A build without clang or libbpf: everything is lane notify. */
#include "audit/audit.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/util.h"

int kb_bpf_probe(struct kb_err *err)
{
	kb_err_set(err, KB_ERR_NOTFOUND, "this build has no lane bpf");
	return kb_err_hint(err, "build it where clang and libbpf are installed");
}

int kb_bpf_create(struct kb_loop *loop, const struct kb_notify_options *options,
	const struct kb_notify_ops *ops, void *arg, struct kb_bpf **ret, struct kb_err *err)
{
	KB_CLOSE int root_fd = options->root_fd;

	return kb_bpf_probe(err);
}

void kb_bpf_pause(struct kb_bpf *bpf, bool paused)
{
}

void kb_bpf_destroy(struct kb_bpf *bpf)
{
}
