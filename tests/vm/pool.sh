#!/usr/bin/env bash
# Forks that wait for a name: a start takes one, no two are alike, they are filled up behind it, and
# they go when they are of no use.
# shellcheck disable=SC2016 # single quotes: the machine's shell expands
. "${0%/*}/lib.sh"
. "${0%/*}/host.sh"

ready() { vm pool-list | grep -c ' ready ' || true; }
ids() { vm pool-list | sed -n 's/^pool:\([^ ]*\) .*/\1/p'; }

pids() { vm pool-list | grep -o 'pid=[0-9]*' | cut -d= -f2; }

# fills_to N
fills_to() {
	for _ in $(seq 120); do
		[ "$(ready)" != "$1" ] || return 0
		sleep 0.25
	done
	fail "not $1 but $(ready) forks are ready: $(cat "$VMTOOL_STATE/keeper.log" 2>/dev/null)"
}
rm -f "$VMTOOL_STATE/keeper.log"

section "a wrong setting is said"
configure 'pool = many'
contains "what" "pool is 'many'" "$(kb vm list 2>&1)"
contains "remedy" "a number of forks" "$(kb vm list 2>&1)"

section "completion fills nothing"
configure 'pool = 2'
for kind in machine disk base; do kb __complete "$kind" >/dev/null; done
sleep 1
same "no keeper" '' "$(ls "$VMTOOL_STATE/keeper.log" 2>/dev/null)"

section "a command fills it, and the list shows it"
kb vm list >/dev/null
fills_to 2
kb vm list --json >"$WORK/list"
same "two rows" "ready ready" "$(json '" ".join(m["state"] for m in d)' <"$WORK/list")"
same "names no machine can have" True "$(json 'all(m["name"].startswith("pool:") for m in d)' <"$WORK/list")"
same "memory is stated" True "$(json 'all(m["host_memory"] > 0 for m in d)' <"$WORK/list")"
same "disk is stated, and small" True "$(json 'all(0 < m["disk_bytes"] < 2 << 20 for m in d)' <"$WORK/list")"
say "a waiting fork takes $(json '[m["host_memory"] >> 20 for m in d]' <"$WORK/list") MiB of memory, $(json '[m["disk_bytes"] >> 10 for m in d]' <"$WORK/list") KiB of disk"
contains "for people" "pool:" "$(kb vm list)"
same "no name to complete" "" "$(kb __complete machine)"

section "a start takes one, and it is filled up behind it"
before=$(pids | tr '\n' ' ')
kb vm start one 2>"$WORK/said"
say "$(tail -n 1 "$WORK/said")"
contains "how it came up" "one taken from the pool of default" "$(cat "$WORK/said")"
contains "it was one of them" "$(kb vm status one --json | json 'd["pid"]')" "$before"
fills_to 2

section "no two are alike, nor like those that are forked as ever"
for name in two three four; do kb vm start "$name" & done
wait
configure 'pool = 0'
kb vm start five
same "nothing waits any more" 0 "$(for _ in $(seq 40); do [ "$(ready)" = 0 ] && break; sleep 0.25; done; ready)"
names=(one two three four five)
note_identities "${names[@]}"
distinct_identities "${names[@]}"
same "the MAC that is known" "$(sed -n 4p "$WORK/one.id")" "$(kb vm status one --json | json 'd["mac"]')"

section "one that was taken lives as any other"
same "ssh" "in one" "$(kb vm ssh one -- 'echo in $(hostname)' 2>/dev/null)"
kb vm suspend one
kb vm resume one
guest one 'echo kept >/root/kept; sync'
kb vm stop one
kb vm start one
same "its disk" kept "$(guest one 'cat /root/kept')"
for n in "${names[@]}"; do kb vm delete "$n"; done
nothing_left

section "what the pool does not have is made as ever"
vm pool 1
vm start apart isolated >/dev/null
same "isolated: it was left" 1 "$(ready)"
vm delete apart

section "one that died goes, and is not taken"
kill -KILL "$(pids)"
sleep 0.3
vm start other >/dev/null
same "a machine all the same" running "$(state other)"
same "it is gone" '' "$(ids)"
vm delete other
nothing_left

section "one that does not answer is replaced by a fork"
vm pool 1
kill -STOP "$(pids)"
vm start other >/dev/null
same "a machine all the same" running "$(state other)"
same "which works" other "$(guest other hostname)"
vm delete other
nothing_left

section "a fill that is killed leaves nothing"
for ms in 50 150 300 500; do
	"$VMTOOL" pool 3 &
	filler=$!
	sleep "0.$(printf '%03d' "$ms")"
	kill -KILL "$filler" 2>/dev/null || true
	wait "$filler" 2>/dev/null || true
done
vm pool 2
same "and the next one is whole" 2 "$(ready)"
vm pool 0
sleep 12 # what is in the making has ten seconds to be locked, in whole ones
nothing_left

section "eight starts at once share three forks"
vm pool 3
for n in 1 2 3 4 5 6 7 8; do vm start "m$n" >/dev/null & done
wait
same "all run" 8 "$(vm list | grep -c ' running ')"
same "the pool is empty" 0 "$(ready)"
same "eight processes" 8 "$(vm list | grep -o 'pid=[0-9]*' | sort -u | grep -c .)"
for n in 1 2 3 4 5 6 7 8; do vm delete "m$n" & done
wait
nothing_left

section "forks go with their base"
# Its own state: the cache's base is for others, too.
VMTOOL_STATE=$WORK/state/kbsup/vm
mkdir -p "$VMTOOL_STATE"
cp -a --sparse=always --reflink=auto "$VM_CACHE/kbsup/vm/bases" "$VMTOOL_STATE/"
# The template's disks are named by their paths.
generation=$(readlink "$VMTOOL_STATE/bases/default/current")
template=$VMTOOL_STATE/bases/default/$generation
qemu-img rebase -u -f qcow2 -F raw -b "$template/root.img" "$template/template/root.qcow2"
qemu-img rebase -u -f qcow2 -F qcow2 -b "$template/template/root.qcow2" "$template/template/clone.qcow2"
vm pool 2
same "they do not hold it" 2 "$(ready)"
vm base-delete default
same "they are gone" '' "$(ids)"
nothing_left
VMTOOL_STATE=$VM_CACHE/kbsup/vm
