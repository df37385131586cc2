#!/usr/bin/env bash
# What machines cost, in one table: medians of ROUNDS, milliseconds unless said. Runs under TCG with
# the suite's base. QEMU's own savevm/loadvm stands beside it, on the same machine, and libvirt where it
# is installed; they take turns.
. "${0%/*}/../vm/lib.sh"
. "${0%/*}/vm_libvirt.sh"

rounds=${ROUNDS:-5}

now_ms() { echo $(($(date +%s%N) / 1000000)); }

median() { sort -n | awk '{ v[NR] = $1 } END { print NR ? v[int((NR + 1) / 2)] : "-" }'; }

# timed COMMAND…: its milliseconds
timed() {
	local start
	start=$(now_ms)
	"$@" >/dev/null 2>&1
	echo $(($(now_ms) - start))
}

row() { printf '%-46s %10s\n' "$1" "$2"; }

ssh_once() { # NAME: until a command has run over ssh
	local port
	port=$(field "$1" port)
	until ssh -F none -o BatchMode=yes -o IdentitiesOnly=yes -o StrictHostKeyChecking=no \
		-o UserKnownHostsFile=/dev/null -o ConnectTimeout=20 -i "$VMTOOL_STATE/client_key" \
		-p "$port" dev@127.0.0.1 true 2>/dev/null; do
		sleep 0.02
	done
}

fork_and_run() { vm start "$1" && guest "$1" true; }

qmp_human() { # ID COMMAND
	python3 - "$VMTOOL_RUN/$1/spare.sock" "$2" <<'PY'
import json, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
f = s.makefile("rw")
f.readline()
for c in ({"execute": "qmp_capabilities"},
          {"execute": "human-monitor-command", "arguments": {"command-line": sys.argv[2]}}):
    print(json.dumps(c), file=f, flush=True)
    while "event" in (r := json.loads(f.readline())):
        pass
    if "error" in r or r["return"]:
        sys.exit(str(r))
PY
}

bench_end() {
	local code=$?
	set +e
	lv_stop
	(exit "$code")
	finish
}
trap bench_end EXIT

say "load average before: $(cut -d' ' -f1-3 /proc/loadavg), $(nproc) processors, $rounds rounds"
lv_start
row "cold boot until it answers" "$(timed vm start cold cold)"
vm delete cold
for _ in $(seq "$rounds"); do
	timed vm start f >>"$WORK/answers"
	row_disk=$(field f disk) row_pss=$(field f pss)
	vm delete f
	timed fork_and_run f >>"$WORK/command"
	vm delete f
	start=$(now_ms)
	vm start f >/dev/null
	ssh_once f
	echo $(($(now_ms) - start)) >>"$WORK/ssh"
	timed vm suspend f >>"$WORK/suspend"
	timed vm resume f >>"$WORK/resume"
	vm fork f g | sed -n 's/^pause_ms=\([0-9]*\).*/\1/p' >>"$WORK/pause"
	vm delete g
	id=$(vm list | sed -n 's/^f .*pid=\([0-9]*\).*/\1/p')
	id=$(tr '\0' '\n' <"/proc/$id/cmdline" | sed -n 's|.*/\([^/]*\)/pid$|\1|p')
	timed qmp_human "$id" "savevm bench" >>"$WORK/savevm"
	timed qmp_human "$id" "loadvm bench" >>"$WORK/loadvm"
	vm delete f
	lv_round
done
row "warm fork until it answers" "$(median <"$WORK/answers")"
row "warm fork until a command has run" "$(median <"$WORK/command")"
row "warm fork until an ssh command has run" "$(median <"$WORK/ssh")"
for _ in $(seq "$rounds"); do
	start=$(now_ms)
	for n in 1 2 3 4 5 6 7 8; do vm start "p$n" >/dev/null & done
	wait
	echo $(($(now_ms) - start)) >>"$WORK/eight"
	for n in 1 2 3 4 5 6 7 8; do vm delete "p$n"; done
done
row "8 forks in parallel until all answer" "$(median <"$WORK/eight")"
row "suspend" "$(median <"$WORK/suspend")"
row "resume" "$(median <"$WORK/resume")"
row "live fork: the source stands still" "$(median <"$WORK/pause")"
row "QEMU savevm (the machine stands still)" "$(median <"$WORK/savevm")"
row "QEMU loadvm (into a running process)" "$(median <"$WORK/loadvm")"
row "disk of a fresh clone, KiB" "$((row_disk >> 10))"
row "memory of a fresh clone (PSS, MiB)" "$((row_pss >> 20))"
lv_rows
