#!/usr/bin/env bash
# What an agent's session costs from the command to its end, machine and all, in one table: medians of
# ROUNDS with their ranges, milliseconds. The contenders take turns. Machines are those of suite `vm`,
# under TCG where there is no KVM; podman, which has no machine below it, stands beside them.
. "${0%/*}/../vm/lib.sh"
. "${0%/*}/../vm/host.sh"

rounds=${ROUNDS:-5}
project=/home/dev/code/app

# timed NAME COMMAND…: one more of its times
timed() {
	local name=$1 start
	shift
	start=$(date +%s%N)
	"$@" >/dev/null 2>"$WORK/err" </dev/null || fail "$name: $(cat "$WORK/err")"
	echo $((($(date +%s%N) - start) / 1000000)) >>"$WORK/$name.ms"
}

row() { # NAME TEXT
	[ -s "$WORK/$1.ms" ] || return 0
	sort -n "$WORK/$1.ms" | awk -v text="$2" '{ v[NR] = $1 }
		END { printf "%-58s %8d  (%d to %d)\n", text, v[int((NR + 1) / 2)], v[1], v[NR] }'
}

# Its own directory of the machine: the host's is not there.
in_place() { guest "$1" "runuser -u dev -- mkdir -p $project"; }

cold() {
	vm start cold cold && in_place cold && kb run --vm cold -- true && vm delete cold
}

podman_root() {
	local file
	mkdir -p "$WORK/root/"{proc,dev,sys,etc,run}
	for file in /bin/true $(ldd /bin/true | grep -o '/[^ ]*'); do
		mkdir -p "$WORK/root/$(dirname "$file")"
		cp "$file" "$WORK/root/$file"
	done
}

in_podman() {
	podman --root "$WORK/storage" --runroot "$WORK/runroot" --runtime runc --cgroup-manager=cgroupfs \
		run --rm --network none --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 \
		--rootfs "$WORK/root" /bin/true
}

VM_LIMIT=300
vm start box >/dev/null
in_place box
podman_root
kb run --vm box -- true
say "load average before: $(cut -d' ' -f1-3 /proc/loadavg), $(nproc) processors, $rounds rounds"
for round in $(seq "$rounds"); do
	timed running kb run --vm box -- true
	timed fresh kb run --vm box --fresh -- true
	timed here kb run -- true
	! command -v podman >/dev/null || timed podman in_podman
	[ "$round" -gt 2 ] || timed cold cold
done
row running "session in a machine that runs"
row fresh "machine forked for the session, session, both gone"
row cold "machine booted for the session, session, both gone"
row here "session on this machine"
row podman "podman run --rm on this machine (no machine, no record)"
