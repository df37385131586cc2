#!/usr/bin/env bash
# Lane bpf on the kernel that machines have, which is older than a developer's: it loads, its hooks are
# taken, and the tests of the lane pass. The kernel alone is booted, with the tests as its initramfs.
. "${0%/*}/lib.sh"

# One processor: the emulator may hang when code of the kernel changes under another one, see
# supervisor/guest/emulator.h.
section 'lane bpf and its hooks pass their tests on the kernel of machines'
kernel=$VMTOOL_STATE/bases/default/current/vmlinuz
cat >"$WORK/init" <<'END'
#!/bin/sh
export PATH=/bin TMPDIR=/tmp
mount -t proc p /proc
mount -t sysfs s /sys
mount -t devtmpfs d /dev
mount -t tmpfs t /tmp
ip link set lo up
echo "kernel $(uname -r)"
test_audit_bpf
echo "the tests end with $?"
# What was said leaves the serial port before the machine does.
sleep 2
echo b >/proc/sysrq-trigger
END
python3 "${0%/*}/initramfs.py" "$WORK/init" /bin/sh /bin/true /bin/sleep /bin/mount /bin/uname "$(command -v ip)" \
	"$TEST_BPF" | gzip -1 >"$WORK/initrd"
timeout 500 nice -n 5 qemu-system-x86_64 -accel tcg -cpu max -m 1024 -smp 1 -nodefaults -display none \
	-no-reboot -serial stdio -kernel "$kernel" -initrd "$WORK/initrd" \
	-append 'console=ttyS0 quiet panic=-1' </dev/null >"$WORK/log" 2>&1 || true
tr -d '\r' <"$WORK/log" >"$WORK/text"
grep -aE '^kernel |the tests end|FAILED|SKIPPED|ERROR' "$WORK/text" || true
contains 'the tests' 'the tests end with 0' "$(tail -n 100 "$WORK/text")"
! grep -q SKIPPED "$WORK/text" || fail 'the kernel did not take the hooks'
