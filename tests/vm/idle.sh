#!/usr/bin/env bash
# Machines that nobody uses are suspended by themselves, those in use are not, and who looks after them
# leaves nothing behind.
# shellcheck disable=SC2016 # single quotes: the machine's shell expands
. "${0%/*}/lib.sh"
. "${0%/*}/host.sh"

# Its own processes only: their environment has this test's directory.
keepers() {
	local pid
	for pid in $(pgrep -f '^kbsup __keep$' || true); do
		if grep -qzx "XDG_RUNTIME_DIR=$WORK" "/proc/$pid/environ" 2>/dev/null; then echo "$pid"; fi
	done
}

no_keeper() {
	for _ in $(seq 100); do
		[ -n "$(keepers)" ] || return 0
		sleep 0.1
	done
	fail "a keeper is still there: $(keepers)"
}

# becomes NAME STATE SECONDS: without a command of kbsup, which would count as one that finds it
becomes() {
	for _ in $(seq $(($3 * 2))); do
		[ "$(state "$1")" != "$2" ] || return 0
		sleep 0.5
	done
	fail "$1 is not $2 after $3 s but $(state "$1"): $(cat "$VMTOOL_STATE/keeper.log" 2>/dev/null)"
}

# stays NAME STATE SECONDS
stays() {
	local until=$((SECONDS + $3))
	while [ "$SECONDS" -lt "$until" ]; do
		if [ "$(state "$1")" != "$2" ]; then
			fail "$1 became $(state "$1"): $(cat "$VMTOOL_STATE/keeper.log")"
			return 0
		fi
		sleep 1
	done
}
end() {
	local code=$?
	keepers | xargs -r kill
	(exit "$code")
	at_end
}
trap end EXIT
rm -f "$VMTOOL_STATE/keeper.log"

section "without a setting nobody looks"
kb vm start web
same "no keeper" '' "$(keepers)"

section "a setting that is wrong is said, with the remedy"
configure 'idle-suspend = soon'
contains "what" "idle-suspend is 'soon'" "$(kb vm list 2>&1)"
contains "remedy" "like 30m" "$(kb vm list 2>&1)"
same "no keeper" '' "$(keepers)"

section "a machine that nobody uses is suspended, and says so"
configure 'idle-suspend = 5s'
kb vm list >/dev/null
same "a keeper" 1 "$(keepers | wc -l)"
kb vm list >/dev/null
kb vm status web >/dev/null
same "still one" 1 "$(keepers | wc -l)"
same "in config show" 5s "$(kb config show --json | json '[s["value"] for s in d if s["setting"] == "idle-suspend"][0]')"
becomes web suspended 60
contains "why" "nobody used it for 5 s" "$(kb vm status web --json | json 'd["why"]')"
contains "for people" "nobody used it" "$(kb vm status web)"
contains "the log" "web was unused, and is suspended" "$(cat "$VMTOOL_STATE/keeper.log")"
no_keeper

section "it goes on, and then is not idle at once"
kb vm resume web
same "why is gone" None "$(kb vm status web --json | json 'd["why"]')"
stays web running 3

section "an ssh connection is use"
kb vm ssh web -- 'sleep 18' &
login=$!
stays web running 14
wait "$login" || fail "the login ended with $?"

section "a busy processor is use"
guest web 'nohup sh -c "end=\$((\$(date +%s) + 17)); while [ \$(date +%s) -lt \$end ]; do :; done" >/dev/null 2>&1 &'
stays web running 14

section "its console is use"
mkfifo "$WORK/keys"
"$KBSUP" vm console web <"$WORK/keys" >/dev/null &
console=$!
exec 4>"$WORK/keys"
sleep 5 # what the processor did is over
stays web running 12
exec 4>&-
kill "$console" 2>/dev/null || true
wait "$console" || true
becomes web suspended 60
no_keeper

section "a keeper that was killed is replaced by the next command"
kb vm resume web
for pid in $(keepers); do kill -KILL "$pid"; done
no_keeper
stays web running 6
kb vm list >/dev/null
same "a keeper" 1 "$(keepers | wc -l)"
becomes web suspended 60

section "a machine that cannot be suspended goes on, and the log says why"
if [ "$(id -u)" -eq 0 ] && mkdir "$WORK/small" && mount -t tmpfs -o size=64m,mode=700 none "$WORK/small" 2>/dev/null; then
	kb vm resume web
	mount --bind "$WORK/small" "$VMTOOL_STATE/tmp"
	for _ in $(seq 120); do
		! grep -q "cannot be suspended" "$VMTOOL_STATE/keeper.log" || break
		sleep 0.5
	done
	same "state" running "$(state web)"
	umount -l "$VMTOOL_STATE/tmp"
	umount -l "$WORK/small"
	contains "the log" "web was unused, but cannot be suspended" "$(cat "$VMTOOL_STATE/keeper.log")"
	becomes web suspended 60
else
	say "a small file system cannot be mounted here"
fi

section "no setting any more, no keeper"
kb vm resume web
same "a keeper" 1 "$(keepers | wc -l)"
configure '# nothing'
no_keeper
same "state" running "$(state web)"
kb vm delete web
nothing_left
