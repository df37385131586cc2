#!/usr/bin/env bash
# A machine of another architecture than this host's: built, booted, frozen, forked and suspended by the
# same code, emulated throughout.
# shellcheck disable=SC2016 # single quotes: the machine's shell expands
VM_NO_BASE=1
# Of its own: a pool's forks are those of the only base.
VM_CACHE=$VM_CACHE/aarch64
. "${0%/*}/lib.sh"
command -v qemu-system-aarch64 >/dev/null || skip_all "no qemu-system-aarch64 here"
[ "$(uname -m)" != aarch64 ] || skip_all "this host is one"
KBSUP_LIBEXEC=$WORK/libexec
export KBSUP_LIBEXEC
mkdir -p "$KBSUP_LIBEXEC/aarch64"
for program in supervisor/guest/kbsup-guest supervisor/init/kbsup-init vmctl/guest/kbsup-machine; do
	cp "$GUEST_BUILDS/aarch64/$program" "$KBSUP_LIBEXEC/aarch64/" ||
		skip_all "no programs for aarch64 here (./bootstrap guest aarch64)"
done
vm base-delete arm 2>/dev/null || true # what a run that was cut short left

section "a base of it is built, booted and frozen"
VMTOOL_QUIET='' VM_LIMIT=2400 vm base-create arm arch=aarch64
contains "the list" 'arm generation=1 current=1 frozen=1' "$(vm base-list)"

section "its machines are forked, and are their own"
contains "forked" forked=1 "$(vm start one base=arm)"
contains "another" forked=1 "$(vm start two base=arm)"
same "what it is" aarch64 "$(guest one 'uname -m')"
same "its name" one "$(guest one hostname)"
[ "$(guest one 'cat /etc/machine-id')" != "$(guest two 'cat /etc/machine-id')" ] || fail "one machine-id for two"
same "our programs run there" ok "$(guest one 'pidof kbsup-guest >/dev/null && echo ok')"
port=$(field one port)
for _ in $(seq 100); do
	out=$(ssh -F none -o BatchMode=yes -o IdentitiesOnly=yes -o StrictHostKeyChecking=no \
		-o UserKnownHostsFile=/dev/null -i "$VMTOOL_STATE/client_key" -p "$port" dev@127.0.0.1 \
		'uname -m' 2>/dev/null) && break
	sleep 0.3
done
same "over ssh" aarch64 "$out"

section "one is suspended and resumed, one boots"
guest one 'echo memory >/run/memory'
vm suspend one
contains "resumed" running "$(vm resume one)"
same "its memory" memory "$(guest one 'cat /run/memory')"
vm stop two
contains "booted" running "$(VM_LIMIT=600 vm start two)"
same "its name" two "$(guest two hostname)"
vm delete one
vm delete two

section "forks of it wait in a pool"
vm pool 1
contains "one waits" ' ready ' "$(vm pool-list)"
waits=$(vm pool-list | grep -o 'pid=[0-9]*')
contains "it is the one that is taken" "$waits" "$(vm start three base=arm)"
same "what it is" aarch64 "$(guest three 'uname -m')"
same "its name" three "$(guest three hostname)"
vm delete three
vm pool 0
vm base-delete arm
nothing_left
