#!/usr/bin/env bash
# Eight clones at once: all usable, no two alike in anything that must differ.
. "${0%/*}/lib.sh"

section "eight at once are all usable, at the right time"
names=(c1 c2 c3 c4 c5 c6 c7 c8)
start=$(date +%s%N)
for n in "${names[@]}"; do
	vm start "$n" >"$WORK/$n" &
done
wait
say "eight forks in parallel: $((($(date +%s%N) - start) / 1000000)) ms"

note_identities "${names[@]}"
section "no two alike in anything that must differ"
distinct_identities "${names[@]}"
same "distinct ports" 8 "$(vm list | grep -o 'port=[0-9]*' | sort -u | grep -c .)"
section "none has anything to finish that its template began"
for n in "${names[@]}"; do
	guest "$n" 'udevadm settle --timeout=0' || fail "$n: devices are still being set up"
	same "$n: jobs" 'No jobs running.' "$(guest "$n" 'systemctl list-jobs' 2>&1)"
done
section "files of its identity take the place of links, and leave what these led to"
guest c1 'echo kept >/srv/elsewhere; ln -sf /srv/elsewhere /etc/resolv.conf; ln /etc/hostname /srv/other'
vm fork c1 d1 >/dev/null
same "where the link led" kept "$(guest d1 'cat /srv/elsewhere')"
same "the file in its place" 'nameserver 10.0.2.3' "$(guest d1 '[ -L /etc/resolv.conf ] || cat /etc/resolv.conf')"
same "the other name of a file" 'c1 d1 ' "$(guest d1 'cat /srv/other /etc/hostname' | tr '\n' ' ')"
vm delete d1
section "they are small, and nothing is left of them"
for n in "${names[@]}"; do
	[ "$(field "$n" disk)" -le $((1 << 20)) ] || say "$n occupies $(field "$n" disk) bytes"
	vm delete "$n" &
done
wait
rm -f "$WORK"/c*
nothing_left
