#!/usr/bin/env bash
# What goes wrong: every case ends in a true, named state, is mended by one command, leaves nothing.
. "${0%/*}/lib.sh"

await() { # NAME STATE
	local _
	for _ in $(seq 60); do
		[ "$(state "$1")" != "$2" ] || return 0
		sleep 0.2
	done
	fail "$1 is $(state "$1"), not $2"
}

section "QEMU killed"
vm start f >/dev/null
guest f 'echo kept >/root/kept; sync'
kill -9 "$(field f pid)"
await f crashed
VM_LIMIT=300 vm start f >/dev/null
same "recovered by start" running "$(state f)"
same "its disk is there" kept "$(guest f 'cat /root/kept')"

section "QEMU does not answer"
pid=$(field f pid)
kill -STOP "$pid"
start=$(date +%s%N)
same "named" hung "$(state f)"
[ $(($(date +%s%N) - start)) -lt 3000000000 ] || fail "looking at a hung machine takes seconds"
vm stop f
same "stop ends it" stopped "$(state f)"
case $(ps -o stat= -p "$pid") in "" | Z*) ;; *) fail "the hung QEMU is still there" ;; esac
vm delete f

section "the guest's kernel panics"
vm start p >/dev/null
guest p 'echo 1 >/proc/sys/kernel/sysrq; (sleep 0.2; echo c >/proc/sysrq-trigger) >/dev/null 2>&1 &' || true
await p panicked
refused "no start" "panicked" vm start p
vm stop p
same "stopped" stopped "$(state p)"
vm delete p

section "the machine service dies"
vm start a >/dev/null
guest a 'systemctl mask --runtime --now kbsup-machine >/dev/null 2>&1 &' || true
sleep 1
start=$(date +%s%N)
vm list live | grep -q '^a running' || fail "the list depends on the machine's service"
[ $(($(date +%s%N) - start)) -lt 3000000000 ] || fail "a list waits for a dead service"
vm stop a
same "stop works without it" stopped "$(state a)"
vm delete a

section "operations killed in the middle"
for after in 0.02 0.1 0.2 0.4 0.8; do
	nice -n 5 "$VMTOOL" start k >/dev/null 2>&1 &
	op=$!
	sleep "$after"
	kill -9 "$op" 2>/dev/null || true
	wait "$op" 2>/dev/null || true
	case $(state k) in
	'' | incomplete | running) ;;
	*) fail "killed after $after s: the state is $(state k)" ;;
	esac
	vm start k >/dev/null || fail "start does not mend what was killed after $after s"
	same "mended" k "$(guest k hostname)"
	vm delete k
done
vm start k >/dev/null
for after in 0.1 0.5 1 2; do
	nice -n 5 "$VMTOOL" suspend k >/dev/null 2>&1 &
	op=$!
	sleep "$after"
	kill -9 "$op" 2>/dev/null || true
	wait "$op" 2>/dev/null || true
	VM_LIMIT=300 vm start k >/dev/null || fail "start does not mend a suspend killed after $after s"
	same "running after a suspend killed at $after s" running "$(state k)"
	same "answers" k "$(guest k hostname)"
done

section "two starts at once"
vm delete k
vm start twice >"$WORK/1" &
vm start twice >"$WORK/2" &
wait
same "one process" "$(grep -o 'pid=[0-9]*' "$WORK/1")" "$(grep -o 'pid=[0-9]*' "$WORK/2")"
rm -f "$WORK"/[12]

section "no room to suspend"
guest twice 'echo still >/run/here'
(
	ulimit -f 1024
	refused "the reason" "" vm suspend twice
)
same "it runs on" running "$(state twice)"
same "untouched" still "$(guest twice 'cat /run/here')"

section "saved state that does not fit"
vm suspend twice
saved=$VMTOOL_STATE/machines/twice/suspended
cp "$saved/state" "$saved/state.good"
printf x | dd of="$saved/state" bs=1 seek=1000 conv=notrunc status=none
refused "damaged" "damaged" vm start twice
same "still suspended" suspended "$(state twice)"
truncate -s 1000 "$saved/state"
refused "cut" "cut" vm start twice
mv "$saved/state.good" "$saved/state"
cp "$saved/frozen.json" "$saved/frozen.good"
sed -i 's/"qemu": "[^"]*"/"qemu": "9.9.9"/' "$saved/frozen.json"
refused "another QEMU" "QEMU 9.9.9 saved it" vm start twice
sed 's/"512"/"256"/' "$saved/frozen.good" >"$saved/frozen.json"
refused "another machine" "defined differently" vm start twice
mv "$saved/frozen.good" "$saved/frozen.json"
vm start twice >/dev/null
same "whole again" still "$(guest twice 'cat /run/here')"
vm suspend twice
truncate -s 0 "$saved/ram"
refused "memory cut" "memory file" vm start twice
contains "cold on request" running "$(VM_LIMIT=300 vm start twice cold)"
refused "a base in use" "needed by" vm base-delete default
vm delete twice

section "nothing is left"
nothing_left
