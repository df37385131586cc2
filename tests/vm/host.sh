# shellcheck shell=bash
# `kbsup` as a user of the host has it, over the machines of the cache: directories of its own, a store
# of this test's alone, the supervisor stopped at the end. Sourced after lib.sh.
export XDG_STATE_HOME=$VM_CACHE XDG_RUNTIME_DIR=$WORK XDG_CONFIG_HOME=$WORK/config HOME=$WORK/home
mkdir -p "$HOME/code/app" "$XDG_CONFIG_HOME/kbsup"
cd "$HOME/code/app" || exit 1
rm -rf "$VM_CACHE/kbsup/store"

kb() { timeout "${VM_LIMIT:-120}" nice -n 5 "$KBSUP" "$@"; }

configure() { printf '%s\n' "$@" >"$XDG_CONFIG_HOME/kbsup/config"; } # SETTING…

# json EXPR: of the document d or the list of lines L on standard input
json() { python3 -c "import json,sys; t=sys.stdin.read(); d=json.loads(t) if t.strip()[:1] == '[' or t.count('\n') < 2 else None; L=[json.loads(l) for l in t.splitlines()] if d is None else d; print($1)"; }

stop_supervisor() {
	local pid
	pid=$(kb status --json 2>/dev/null | json 'd["pid"]') || return 0
	kill "$pid" 2>/dev/null || return 0
	for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || return 0; sleep 0.1; done
	fail "the supervisor does not end"
}

at_end() {
	local code=$?
	set +e
	stop_supervisor
	rm -rf "$VM_CACHE/kbsup/store"
	(exit "$code")
	finish
}
trap at_end EXIT
