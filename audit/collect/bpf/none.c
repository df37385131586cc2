/* A build without clang or libbpf: everything is lane notify. */
#include "audit/audit.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/util.h"

static int refuse(struct kb_err *err)
{
	kb_err_set(err, KB_ERR_NOTFOUND, "this build has no lane bpf");
	return kb_err_hint(err, "build it where clang and libbpf are installed");
}

int kb_bpf_probe(struct kb_err *err)
{
	return refuse(err);
}

int kb_bpf_hub_create(struct kb_bpf_hub **ret, struct kb_err *err)
{
	return refuse(err);
}

void kb_bpf_hub_destroy(struct kb_bpf_hub *hub)
{
}

int kb_bpf_hub_probe(struct kb_bpf_hub *hub, struct kb_err *err)
{
	return refuse(err);
}

int kb_bpf_hub_attach(struct kb_bpf_hub *hub, struct kb_err *err)
{
	return refuse(err);
}

void kb_bpf_hub_detach(struct kb_bpf_hub *hub)
{
}

bool kb_bpf_hub_hooked(const struct kb_bpf_hub *hub)
{
	return false;
}

void kb_bpf_hub_fds(const struct kb_bpf_hub *hub, int ret[KB_BPF_HUB_FDS])
{
}

void kb_bpf_hub_release(struct kb_bpf_hub *hub, unsigned seat)
{
}

int kb_bpf_seat_create(const int hub[KB_BPF_HUB_FDS], unsigned number, struct kb_bpf_seat **ret,
	struct kb_err *err)
{
	return refuse(err);
}

void kb_bpf_seat_destroy(struct kb_bpf_seat *seat)
{
}

int kb_bpf_create(struct kb_loop *loop, const struct kb_notify_options *options,
	struct kb_bpf_seat *seat, const struct kb_notify_ops *ops, void *arg, struct kb_bpf **ret,
	struct kb_err *err)
{
	KB_CLOSE int root_fd = options->root_fd;

	return refuse(err);
}

void kb_bpf_look(struct kb_bpf *bpf)
{
}

void kb_bpf_pause(struct kb_bpf *bpf, bool paused)
{
}

void kb_bpf_destroy(struct kb_bpf *bpf)
{
}
