# What the machine tests share: a base built once per build directory, private sockets, and a check
# that nothing stays behind. Sourced with VMTOOL, VMTOOL_MACHINE, VM_SOURCES and VM_CACHE set. Results
# go to standard output as TAP, one line per `section`; everything else to standard error.
# shellcheck shell=bash
set -euo pipefail
exec 3>&1 >&2

# Where `kbsup vm` looks as well, with these two variables.
VMTOOL_STATE=$VM_CACHE/kbsup/vm
WORK=$(mktemp -d /tmp/kbvm.XXXXXX)
VMTOOL_RUN=$WORK/kbsup/vm
export VMTOOL_STATE VMTOOL_RUN VMTOOL_MACHINE VMTOOL_QUIET=1
sections=0 failures=0 failures_before=0 current=

vm() { timeout "${VM_LIMIT:-120}" nice -n 5 "$VMTOOL" "$@"; }

say() { printf '%s\n' "$*" >&2; }

fail() {
	say "FAILED: $*"
	failures=$((failures + 1))
}

# section NAME: what follows is one test of its own, in the summary as well
section() {
	section_end
	current=$1
	say "-- $1"
}

section_end() {
	[ -n "$current" ] || return 0
	sections=$((sections + 1))
	[ "$failures" -eq "$failures_before" ] || printf 'not ' >&3
	printf 'ok %d - %s\n' "$sections" "$current" >&3
	failures_before=$failures
	current=
}

skip_all() { # REASON
	printf '1..0 # SKIP %s\n' "$1" >&3
	exit 0
}

# same WHAT WANTED GOT
same() {
	[ "$2" = "$3" ] || fail "$1: wanted '$2', got '$3'"
}

# contains WHAT NEEDLE TEXT
contains() {
	case $3 in
	*"$2"*) ;;
	*) fail "$1: no '$2' in '$3'" ;;
	esac
}

# state NAME: what the list says of it
state() { vm list | awk -v n="$1" '$1 == n { print $2 }'; }

# field NAME KEY: a KEY=VALUE of its line
field() { vm list | awk -v n="$1" '$1 == n' | tr ' ' '\n' | sed -n "s/^$2=//p"; }

# refused WHAT NEEDLE COMMAND…: it fails, and says so
refused() {
	local what=$1 needle=$2 text
	shift 2
	if text=$("$@" 2>&1); then
		fail "$what: it worked"
	else
		contains "$what" "$needle" "$text"
	fi
}

# guest NAME COMMAND: a shell command inside, as root
guest() { vm exec "$1" sh -c "$2"; }

# Who these machines say they are, one fact a line, in $WORK/NAME.id; and that their clocks are right.
note_identities() { # NAME…
	local n skew probe='head -c 16 /dev/urandom | od -An -tx1 | tr -d " \n"; echo
		cat /etc/machine-id /proc/sys/kernel/random/boot_id /sys/class/net/eth0/address /etc/hostname
		sha256sum </etc/ssh/ssh_host_ed25519_key
		date +%s'
	for n in "$@"; do
		guest "$n" "$probe" >"$WORK/$n.id" || fail "$n cannot be used"
		skew=$(($(date +%s) - $(sed -n 7p "$WORK/$n.id")))
		[ "${skew#-}" -le 2 ] || fail "$n: its clock is $skew s off"
		same "its name" "$n" "$(sed -n 5p "$WORK/$n.id")"
	done
}

# After note_identities: no two are alike in anything that must differ.
distinct_identities() { # NAME…
	local i n what=('random bytes' 'machine-id' 'boot id' 'MAC' 'host name' 'host key')
	for i in "${!what[@]}"; do
		same "distinct: ${what[i]}" $# "$(for n in "$@"; do sed -n "$((i + 1))p" "$WORK/$n.id"; done | sort -u | grep -c .)"
	done
}

# The words of a base change with these files: then it is built anew.
base_key() { sha256sum "$VMTOOL_MACHINE" "$VM_SOURCES"/{image/{{setup,finish,pack}.sh,pack{,ages}.c},driver/qemu.c} | sha256sum; }

base_ready() { [ "$(cat "$VM_CACHE/key" 2>/dev/null)" = "$(base_key)" ] && vm base-list | grep -q 'current=1 frozen=1'; }

base_make() {
	rm -f "$VM_CACHE/key"
	mkdir -p "$VM_CACHE"
	for m in $(vm list | awk '{ print $1 }'); do vm delete "$m"; done
	VMTOOL_QUIET='' VM_LIMIT=900 vm base-create default
	base_key >"$VM_CACHE/key"
}

# Every machine and disk of the cache: its lock makes them this test's.
clean() {
	local m
	for m in $(vm list 2>/dev/null | awk '{ print $1 }'); do
		vm delete "$m" >/dev/null 2>&1 || true
	done
	vm pool 0 >/dev/null 2>&1 || true
	for m in $(vm disk-list 2>/dev/null | awk '{ print $1 }'); do
		vm disk-delete "$m" >/dev/null 2>&1 || true
	done
}

# No process, file, lock or socket of a machine remains.
nothing_left() {
	local left
	vm collect
	left=$(find "$VMTOOL_STATE"/{machines,disks,luks,pool,tmp} "$VMTOOL_RUN" -mindepth 1 -maxdepth 1)
	same "files left" '' "$left"
	left=$(find "$VMTOOL_STATE/locks" -mindepth 1 ! -name '*@*')
	same "locks left" '' "$left"
	left=$(pgrep -f "path=$VMTOOL_RUN/" || true)
	same "processes left" '' "$left"
}

finish() {
	local code=$?
	trap - EXIT
	set +e
	[ "$code" -eq 0 ] || fail "ended with status $code in: ${current:-the preparation}"
	if [ "$failures" -ne "$failures_before" ] && [ -z "$current" ]; then current=preparation; fi
	section_end
	[ "$sections" -eq 0 ] || printf '1..%d\n' "$sections" >&3
	clean
	rm -rf "$WORK"
	[ "$failures" -eq 0 ] || exit 1
}
trap finish EXIT
for program in qemu-system-x86_64 qemu-img mmdebstrap mke2fs; do
	PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null || skip_all "no $program here"
done

# One test at a time in one cache. VM_NO_BASE: a test that brings its own base.
mkdir -p "$VM_CACHE"
exec 9>"$VM_CACHE/lock"
flock 9
[ -n "${VM_NO_BASE:-}" ] || base_ready || base_make
clean
