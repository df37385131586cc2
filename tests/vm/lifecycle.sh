#!/usr/bin/env bash
# One machine through its whole life: forked, used, suspended, resumed, forked while it runs, stopped,
# booted, deleted.
# shellcheck disable=SC2016 # single quotes: the machine's shell expands
. "${0%/*}/lib.sh"

section "a start forks a usable machine"
out=$(vm start one)
contains "a start forks" 'forked=1' "$out"
same "state" running "$(state one)"
same "host name" one "$(guest one hostname)"
same "uid 1000" dev "$(guest one 'id -nu 1000')"
same "tools" ok "$(guest one 'command -v git crun ssh sudo less >/dev/null && echo ok')"
[ "$(field one disk)" -le $((1 << 20)) ] || fail "a fresh clone occupies $(field one disk) bytes"
contains "a second start finds it" "pid=$(field one pid)" "$(vm start one)"

section "sshd comes up with the key that was made here"
port=$(field one port)
for _ in $(seq 100); do
	key=$(ssh-keyscan -t ed25519 -p "$port" 127.0.0.1 2>/dev/null | awk '{ print $3 }') || true
	[ -z "$key" ] || break
	sleep 0.2
done
same "the host key is the pinned one" "$(awk '{ print $2 }' "$VMTOOL_STATE/machines/one/host_key.pub")" "$key"
echo "[127.0.0.1]:$port $(cut -d' ' -f1,2 "$VMTOOL_STATE/machines/one/host_key.pub")" >"$WORK/known"
same "a command over ssh" dev "$(ssh -F none -o BatchMode=yes -o IdentitiesOnly=yes \
	-o StrictHostKeyChecking=yes -o UserKnownHostsFile="$WORK/known" \
	-i "$VMTOOL_STATE/client_key" -p "$port" dev@127.0.0.1 whoami)"

section "suspend: on the disk, no process; resume: the same life goes on, at the right time"
guest one 'echo disk >/root/disk; echo memory >/run/memory; (sleep 1000 >/dev/null 2>&1 & echo $! >/run/pid)'
boot=$(guest one 'cat /proc/sys/kernel/random/boot_id')
vm suspend one
same "suspended" suspended "$(state one)"
same "no process" 0 "$(field one pid)"
vm suspend one || fail "suspending a suspended machine"
sleep 2
out=$(vm resume one)
contains "resumed" running "$out"
say "resume: $out"
same "memory is back" memory "$(guest one 'cat /run/memory')"
same "the process lives" alive "$(guest one 'kill -0 $(cat /run/pid) && echo alive')"
same "the same boot" "$boot" "$(guest one 'cat /proc/sys/kernel/random/boot_id')"
skew=$(($(date +%s) - $(guest one 'date +%s')))
[ "${skew#-}" -le 2 ] || fail "the clock is $skew s off after a resume"

section "a fork of a running machine: the same memory, another machine; both go on"
out=$(vm fork one two)
say "fork: $out"
same "the fork has the memory" memory "$(guest two 'cat /run/memory')"
same "the process lives there too" alive "$(guest two 'kill -0 $(cat /run/pid) && echo alive')"
same "the source lives on" alive "$(guest one 'kill -0 $(cat /run/pid) && echo alive')"
same "its name" two "$(guest two hostname)"
[ "$(guest one 'cat /etc/machine-id')" != "$(guest two 'cat /etc/machine-id')" ] || fail "one machine-id for two"
[ "$(guest one 'cat /proc/sys/kernel/random/boot_id')" != "$(guest two 'cat /proc/sys/kernel/random/boot_id')" ] || fail "one boot id for two"
guest one 'echo one >/root/disk; sync'
guest two 'echo 3 >/proc/sys/vm/drop_caches; cat /root/disk; echo two >/root/disk; sync' | grep -qx disk || fail "the fork sees the source's later writes"
same "disks are apart" one "$(guest one 'echo 3 >/proc/sys/vm/drop_caches; cat /root/disk')"
refused "a name that is taken" "there is a machine two already" vm fork one two

section "a fork can itself be suspended and outlive its source"
vm suspend two
vm delete one
same "gone" '' "$(state one)"
vm resume two >/dev/null
same "the fork's disk outlives the source" two "$(guest two 'cat /root/disk')"

section "stop and boot: the disk stays, memory does not"
VMTOOL_QUIET='' vm stop two 2>&1 | grep -q shutdown: || fail "stop does not ask the machine first"
same "stopped" stopped "$(state two)"
refused "nothing to resume" "nothing to resume" vm resume two
contains "booted" running "$(VM_LIMIT=300 vm start two)"
same "the disk after a boot" two "$(guest two 'cat /root/disk')"
same "no memory after a boot" gone "$(guest two 'cat /run/memory 2>/dev/null || echo gone')"
same "still the same machine" two "$(guest two hostname)"
vm delete two
nothing_left
