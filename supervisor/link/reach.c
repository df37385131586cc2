#include "reach.h"

#include "supervisor/base/dirs.h"

static const struct {
	enum kb_vm_state state;
	enum kb_errcode code; /* NOTFOUND: what it had is gone */
} unreachable[] = {
	{KB_VM_STOPPED, KB_ERR_NOTFOUND},
	{KB_VM_CRASHED, KB_ERR_NOTFOUND},
	{KB_VM_PANICKED, KB_ERR_NOTFOUND},
	{KB_VM_INCOMPLETE, KB_ERR_NOTFOUND},
	{KB_VM_DAMAGED, KB_ERR_NOTFOUND},
	{KB_VM_SUSPENDED, KB_ERR_CLOSED},
	{KB_VM_PAUSED, KB_ERR_CLOSED},
	{KB_VM_NO_SPACE, KB_ERR_CLOSED},
	{KB_VM_HUNG, KB_ERR_CLOSED},
};

int kb_reach_check(struct kb_reach *reach, struct kb_err *err)
{
	const char *name = reach->link->options->address;
	int r = kb_vm_query(reach->vm, name, false, &reach->info, err);

	for (size_t i = 0; r == 0 && i < KB_ARRAY_LEN(unreachable); i++)
		if (reach->info.state == unreachable[i].state)
			r = kb_err_set(err, unreachable[i].code, "machine %s is %s", name,
				kb_vm_state_name(reach->info.state));
	return r;
}

static void on_carried(bool carried, const struct kb_err *why, void *arg)
{
	struct kb_reach *reach = arg;

	kb_link_carried(reach->link, carried, why);
}

static void on_lost(const struct kb_err *why, void *arg)
{
	struct kb_reach *reach = arg;

	kb_link_fail(reach->link, why);
}

int kb_reach_open(struct kb_reach *reach, struct kb_link *link,
	int (*dial)(void *arg, int *ret_fd, struct kb_err *err), void (*hang_up)(void *arg),
	int *ret_fd, struct kb_err *err)
{
	const struct kb_lasting_ops ops = {
		.dial = dial, .hang_up = hang_up, .carried = on_carried, .lost = on_lost};
	struct kb_dirs dirs;
	struct kb_vmctl_config config = {
		.state_dir = dirs.vm, .run_dir = dirs.vm_run, .cancel_fd = -1};
	int r = kb_dirs_find(&dirs, err);

	reach->link = link;
	if (r == 0)
		r = kb_vmctl_open(&config, &reach->vm, err);
	return r < 0 ? r : kb_lasting_create(link->loop, &ops, reach, &reach->lasting, ret_fd, err);
}

void kb_reach_close(struct kb_reach *reach)
{
	kb_lasting_destroy(reach->lasting);
	kb_vmctl_close(reach->vm);
}
