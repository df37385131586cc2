/* Whether KVM works is found by booting with it: a device that opens and even creates machines may
 * still run none (nested paravirtual KVM does that). The probe machine is one boot sector that
 * writes a byte to QEMU's debug-exit port, so a good end is an exit status nothing else gives.
 */
#include "qemu.h"

#include <stdio.h>
#include <string.h>

#include "supervisor/base/fd.h"
#include "vmctl/files.h"

#define PROBE_MS     4000
#define SECTOR	     512
#define EXIT_PORT    "isa-debug-exit,iobase=0xf4,iosize=0x04"
#define PROBE_STATUS "exit 33" /* (0x10 << 1) | 1 */

static int write_sector(const char *path, struct kb_err *err)
{
	/* mov al, 0x10; out 0xf4, al; hlt */
	uint8_t sector[SECTOR] = {0xb0, 0x10, 0xe6, 0xf4, 0xf4};

	sector[SECTOR - 2] = 0x55;
	sector[SECTOR - 1] = 0xaa;
	return kb_file_write_atomic(path, sector, sizeof(sector), 0600, err);
}

static bool kvm_boots(struct kb_vmctl *vm)
{
	char dir[PATH_MAX], path[PATH_MAX + 16], drive[PATH_MAX + 64];
	const char *const argv[] = {"qemu-system-x86_64", "-accel", "kvm", "-machine", "pc-q35-7.2",
		"-cpu", "host", "-m", "64", "-nodefaults", "-no-user-config", "-display", "none",
		"-no-reboot", "-drive", drive, "-device", EXIT_PORT, NULL};
	struct kb_err err = {0};
	KB_CLOSE int lock = -1;
	bool good;

	if (access("/dev/kvm", R_OK | W_OK) < 0 || kb_tmp_create(vm, dir, &lock, &err) < 0)
		return false;
	snprintf(path, sizeof(path), "%s/boot", dir);
	snprintf(drive, sizeof(drive), "if=ide,format=raw,readonly=on,file=%s", path);
	good = write_sector(path, &err) == 0 &&
	       kb_op_run(vm, NULL, argv, PROBE_MS, &err) == -KB_ERR_FAILED &&
	       strstr(err.msg, PROBE_STATUS);
	kb_rmtree(dir, NULL);
	return good;
}

const char *kb_qemu_accel(struct kb_vmctl *vm)
{
	if (!*vm->accel)
		snprintf(vm->accel, sizeof(vm->accel), "%s", kvm_boots(vm) ? "kvm" : "tcg");
	return vm->accel;
}
