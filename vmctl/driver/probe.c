/* Whether KVM works is found by booting with it: a device that opens and even creates machines may
 * still run none (nested paravirtual KVM does that). The probe machine is one boot sector that
 * writes a byte to QEMU's debug-exit port, so a good end is an exit status nothing else gives. Its
 * disk is writable, for an IDE disk cannot be anything else.
 */
#include "qemu.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "supervisor/base/fd.h"
#include "vmctl/arch.h"
#include "vmctl/files.h"

#define PROBE_MS     10000
#define SECTOR	     512
#define DISK_SIZE    (1 << 20) /* the firmware reads no disk that is shorter than a cylinder */
#define EXIT_PORT    "isa-debug-exit,iobase=0xf4,iosize=0x04"
#define PROBE_STATUS "exit 33" /* (0x10 << 1) | 1 */

static int write_sector(const char *path, struct kb_err *err)
{
	/* mov al, 0x10; out 0xf4, al; hlt */
	const uint8_t sector[SECTOR] = {
		0xb0, 0x10, 0xe6, 0xf4, 0xf4, [SECTOR - 2] = 0x55, [SECTOR - 1] = 0xaa};

	int r = kb_file_write_atomic(path, sector, sizeof(sector), 0600, err);

	if (r == 0 && truncate(path, DISK_SIZE) < 0)
		r = kb_err_sys(err, errno, "%s cannot be given its size", path);
	return r;
}

static int run_probe(struct kb_vmctl *vm, const char *accel, const char *dir, struct kb_err *err)
{
	char path[PATH_MAX + 16], drive[PATH_MAX + 64];
	const char *cpu = strcmp(accel, "kvm") == 0 ? "host" : "max";
	const char *const argv[] = {"qemu-system-x86_64", "-accel", accel, "-machine", "pc-q35-7.2",
		"-cpu", cpu, "-m", "64", "-nodefaults", "-no-user-config", "-display", "none",
		"-no-reboot", "-drive", drive, "-device", EXIT_PORT, NULL};
	struct kb_err why = {0};
	int r;

	snprintf(path, sizeof(path), "%s/boot", dir);
	snprintf(drive, sizeof(drive), "if=ide,format=raw,file=%s", path);
	if ((r = write_sector(path, err)) < 0)
		return r;
	r = kb_op_run(vm, NULL, argv, PROBE_MS, &why);
	if (r == -KB_ERR_FAILED && strstr(why.msg, PROBE_STATUS))
		return 0;
	if (r == 0)
		r = kb_err_set(&why, KB_ERR_FAILED, "it ended before it had booted");
	if (err)
		*err = why;
	return r;
}

int kb_qemu_boots(struct kb_vmctl *vm, const char *accel, int64_t *ret_ns, struct kb_err *err)
{
	int64_t start = kb_now_mono();
	char dir[PATH_MAX];
	KB_CLOSE int lock = -1;
	int r = kb_tmp_create(vm, dir, &lock, err);

	if (r < 0)
		return r;
	r = run_probe(vm, accel, dir, err);
	*ret_ns = kb_now_mono() - start;
	kb_rmtree(dir, NULL);
	return r;
}

static bool kvm_boots(struct kb_vmctl *vm)
{
	int64_t ns;

	return access(KB_KVM_DEVICE, R_OK | W_OK) == 0 && kb_qemu_boots(vm, "kvm", &ns, NULL) == 0;
}

const char *kb_qemu_accel(struct kb_vmctl *vm, const char *arch)
{
	const struct kb_arch *found;

	if (kb_arch_find(arch, &found, NULL) < 0 || !kb_arch_is_native(found))
		return "tcg";
	if (!*vm->accel)
		snprintf(vm->accel, sizeof(vm->accel), "%s", kvm_boots(vm) ? "kvm" : "tcg");
	return vm->accel;
}
