#include "builder.h"

#include <stdio.h>
#include <string.h>

#include "base.h"
#include "driver/qemu.h"
#include "files.h"
#include "supervisor/base/fd.h"

#define OPEN_MS	    10000
#define QUIT_MS	    20000
#define CONSOLE_MAX (8u << 20)

static int launch(struct kb_builder *b, pid_t *ret_pid, struct kb_err *err)
{
	KB_FREE char *disk = kb_asprintf("%s/root.qcow2", b->dir);
	KB_FREE char *ram = kb_asprintf("%s/ram", b->dir);
	KB_FREE char *log = kb_asprintf("%s/qemu.log", b->dir);
	KB_FREE char *kernel = kb_asprintf("%s/vmlinuz", b->base);
	KB_FREE char *initrd = kb_asprintf("%s/initrd", b->base);
	KB_FREE char *root = kb_asprintf("%s/root.img", b->base);
	struct kb_qemu_run run = {.arch = b->arch,
		.id = kb_tmp_id(b->dir),
		.log = log,
		.kernel = kernel,
		.initrd = initrd,
		.disk = disk,
		.ram = b->ram ? ram : NULL,
		.ram_shared = true,
		.mac = KB_TEMPLATE_MAC,
		.isolated = b->isolated,
		.seed = b->seed};
	int r;

	if (!disk || !ram || !log || !kernel || !initrd || !root)
		return kb_err_nomem(err);
	if ((r = kb_qemu_overlay(b->vm, root, "raw", disk, err)) < 0)
		return r;
	return kb_qemu_start(b->vm, b->words, &run, ret_pid, err);
}

/* What the console showed, into the tail: the only word of a machine that does not come up. */
static void show_console(struct kb_builder *b)
{
	struct kb_op_lines lines = {.vm = b->vm, .step = "console"};
	struct kb_buf text KB_BUF_CLEANUP;
	char path[PATH_MAX];

	kb_buf_init(&text, CONSOLE_MAX);
	if (kb_vm_path(b->vm, path, NULL, "%s/%s/console.log", b->vm->run, kb_tmp_id(b->dir)) < 0 ||
		kb_file_read(path, &text, NULL) < 0)
		return;
	kb_op_lines_take(&lines, (const char *)kb_buf_data(&text), kb_buf_len(&text));
	kb_op_lines_end(&lines);
}

int kb_builder_boot(struct kb_builder *b, const char *detail, int64_t wait_ms, struct kb_err *err)
{
	const char *id = kb_tmp_id(b->dir);
	pid_t pid;
	int r;

	b->agent.fd = -1;
	kb_op_progress(b->vm, "boot", "%s", detail);
	if ((r = launch(b, &pid, err)) < 0 ||
		(r = kb_mon_open(b->vm, id, "qmp", pid, OPEN_MS, &b->mon, err)) < 0 ||
		(r = kb_agent_open(b->vm, id, &b->agent, err)) < 0)
		return r;
	r = kb_agent_sync(&b->agent, wait_ms, err);
	if (r == -KB_ERR_TIMEOUT)
		show_console(b);
	return r;
}

int kb_builder_quit(struct kb_builder *b, struct kb_err *err)
{
	int r = kb_mon_call(&b->mon, "quit", NULL, NULL, err);

	return r < 0 ? r : kb_qemu_wait_end(b->vm, kb_tmp_id(b->dir), QUIT_MS, err);
}

void kb_builder_stop(struct kb_builder *b)
{
	if (b->agent.vm)
		kb_agent_close(&b->agent);
	kb_mon_close(&b->mon);
	kb_qemu_kill(b->vm, kb_tmp_id(b->dir), NULL);
}
