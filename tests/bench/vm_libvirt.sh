# What libvirt's own ways to the same ends cost, for the table of vm.sh: a domain of the machine's shape
# on the same QEMU, its disk on top of the suite's base. The daemon is an ordinary user's, with all its
# files below $WORK; root, whose daemon would be the whole machine's, becomes such a user for it. While
# kbsup is measured, no domain runs. Sourced.
# shellcheck shell=bash
lv=$WORK/lv
lv_env=(env HOME="$lv" XDG_CONFIG_HOME="$lv/c" XDG_CACHE_HOME="$lv/cache" XDG_DATA_HOME="$lv/data"
	XDG_RUNTIME_DIR="$lv/run" LC_ALL=C.UTF-8
	LIBVIRT_DEFAULT_URI="qemu+unix:///session?socket=$lv/run/libvirt/libvirt-sock" nice -n 5)
lv_pid='' lv_none='' lv_disk=0 lv_pss=0

lv_virsh() { timeout 120 "${lv_env[@]}" virsh -q "$@" >/dev/null 2>>"$lv/err" </dev/null; }

lv_timed() { # COMMAND…: its milliseconds, if it works
	local start
	start=$(now_ms)
	"$@" && echo $(($(now_ms) - start))
}

# lv_answers NAME VERB…: milliseconds until virsh is done and the domain's machine service answers
lv_answers() {
	"${lv_env[@]}" python3 "${BASH_SOURCE[0]%.sh}.py" \
		"$lv/c/libvirt/qemu/channel/target/domain-*-$1/org.kbsup.machine" \
		virsh -q "${@:2}" 2>>"$lv/err" </dev/null
}

lv_base() { # DIRECTORY KEY: what its description says
	python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$1/base.json" "$2"
}

lv_domain() { # NAME: shut off; its shape is that of vmctl/driver/qemu.c
	local base
	base=$(realpath "$VMTOOL_STATE/bases/default/current")
	qemu-img create -q -f qcow2 -o extended_l2=on -b "$base/root.img" -F raw "$lv/$1.qcow2"
	cat >"$lv/$1.xml" <<XML
<domain type='qemu'>
  <name>$1</name>
  <memory unit='MiB'>$(lv_base "$base" memory_mib)</memory>
  <vcpu>$(lv_base "$base" cpus)</vcpu>
  <genid/>
  <os>
    <type arch='x86_64' machine='pc-q35-7.2'>hvm</type>
    <kernel>$base/vmlinuz</kernel>
    <initrd>$base/initrd</initrd>
    <cmdline>console=ttyS0 root=/dev/vda rw quiet panic=-1 net.ifnames=0</cmdline>
  </os>
  <features><acpi/><apic/><tcg><tb-cache unit='MiB'>128</tb-cache></tcg></features>
  <cpu mode='maximum'><feature policy='disable' name='la57'/></cpu>
  <on_crash>preserve</on_crash>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' discard='unmap' error_policy='stop'/>
      <source file='$lv/$1.qcow2'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <controller type='usb' model='none'/>
    <controller type='scsi' model='virtio-scsi'/>
    <interface type='user'><model type='virtio'/><rom enabled='no'/></interface>
    <channel type='unix'><target type='virtio' name='org.kbsup.machine'/></channel>
    <channel type='unix'><target type='virtio' name='org.kbsup.guest'/></channel>
    <serial type='pty'/>
    <rng model='virtio'><backend model='builtin'/></rng>
    <panic model='isa'/>
    <memballoon model='none'/>
  </devices>
</domain>
XML
	lv_virsh define "$lv/$1.xml"
}

lv_clone() {
	"${lv_env[@]}" virt-clone --original golden --name clone --file "$lv/clone.qcow2" \
		>/dev/null 2>>"$lv/err" </dev/null
}

lv_costs() { # of the clone, which runs
	lv_disk=$(($(stat -c %b "$lv/clone.qcow2") * 512))
	lv_pss=$(awk '/^Pss:/ { print $2 * 1024 }' "/proc/$(cat "$lv/run/libvirt/qemu/run/clone.pid")/smaps_rollup")
}

lv_daemon() {
	local tries=100 as=()
	[ "$(id -u)" -ne 0 ] || as=(unshare --user --map-user=1 --map-group=1)
	mkdir -p "$lv/c/libvirt" "$lv/run"
	printf '%s\n' 'cgroup_controllers = []' 'security_driver = "none"' 'stdio_handler = "file"' \
		'remember_owner = 0' >"$lv/c/libvirt/qemu.conf"
	"${lv_env[@]}" "${as[@]}" libvirtd >"$lv/log" 2>&1 </dev/null 3>&- 9>&- &
	lv_pid=$!
	disown "$lv_pid" # nobody else's `wait` is for it
	until lv_virsh uri; do
		if ! kill -0 "$lv_pid" 2>/dev/null || [ $((tries -= 1)) -eq 0 ]; then
			: >"$lv/err" # the daemon's own log says why
			return 1
		fi
		sleep 0.1
	done
	: >"$lv/err"
}

# What the rounds begin with: a domain that was never started, and one that is saved.
lv_prepare() {
	lv_daemon && lv_domain golden && lv_domain origin &&
		lv_answers origin start origin >/dev/null && lv_virsh save origin "$lv/saved"
}

lv_start() {
	local program
	mkdir -p "$lv"
	for program in libvirtd virsh virt-clone; do
		PATH=$PATH:/usr/sbin command -v "$program" >/dev/null || lv_none="no $program here"
	done
	[ -n "$lv_none" ] || lv_prepare || lv_failed "does not run here"
}

lv_failed() { lv_none="$1: $(cat "$lv/log" "$lv/err" 2>/dev/null | grep . | tail -n 1 || true)"; }

lv_once() {
	lv_answers origin restore "$lv/saved" >>"$lv/restore.ms" &&
		lv_timed lv_virsh snapshot-create-as origin bench >>"$lv/snapshot.ms" &&
		lv_answers origin snapshot-revert origin bench --running >>"$lv/revert.ms" &&
		lv_virsh snapshot-delete origin bench &&
		lv_timed lv_virsh save origin "$lv/saved" >>"$lv/save.ms" &&
		lv_timed lv_clone >>"$lv/clone.ms" &&
		lv_answers clone start clone >>"$lv/boot.ms" &&
		lv_costs &&
		lv_virsh destroy clone && lv_virsh undefine clone && rm -f "$lv/clone.qcow2"
}

lv_round() { [ -n "$lv_none" ] || lv_once || lv_failed "failed in a round"; }

lv_rows() {
	if [ -n "$lv_none" ]; then
		say "libvirt: $lv_none"
		return 0
	fi
	row "libvirt: virsh save" "$(median <"$lv/save.ms")"
	row "libvirt: virsh restore until it answers" "$(median <"$lv/restore.ms")"
	row "libvirt: snapshot (the machine stands still)" "$(median <"$lv/snapshot.ms")"
	row "libvirt: revert to it until it answers" "$(median <"$lv/revert.ms")"
	row "libvirt: virt-clone (copies the disk)" "$(median <"$lv/clone.ms")"
	row "libvirt: cold boot of it until it answers" "$(median <"$lv/boot.ms")"
	row "libvirt: disk of a fresh virt-clone, KiB" "$((lv_disk >> 10))"
	row "libvirt: memory of that (PSS, MiB)" "$((lv_pss >> 20))"
}

lv_stop() {
	local file
	[ -n "$lv_pid" ] || return 0
	lv_virsh destroy origin
	lv_virsh destroy clone
	# Where the daemon came to its end first, its domains run on.
	for file in "$lv"/run/libvirt/qemu/run/{origin,clone}.pid; do
		[ ! -s "$file" ] || kill "$(cat "$file")"
	done
	kill "$lv_pid" 2>/dev/null
	while kill -0 "$lv_pid" 2>/dev/null; do sleep 0.1; done
}
