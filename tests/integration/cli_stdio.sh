#!/usr/bin/env bash
# A session through pipes: what goes in, what comes out, signals and statuses, byte for byte.
# shellcheck disable=SC2016 # what stands in single quotes is for the shell of the session
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"

BIG=$((20 * 1024 * 1024))

# Bytes of every kind, the same every time.
random_bytes() {
    openssl enc -aes-128-ctr -K 00 -iv 00 -in /dev/zero 2>/dev/null | head -c "$1"
}

apart_and_exact() {
    status=0
    kbsup run -- sh -c 'printf "o\0\377\r\n"; printf "e\0\376" >&2; exit 3' \
        >"$WORK/stdout" 2>"$WORK/stderr" </dev/null || status=$?
    expect_status 3
    expect_equal "$(od -An -tx1 <"$WORK/stdout" | tr -d ' \n')" 6f00ff0d0a 'standard output'
    expect_equal "$(od -An -tx1 <"$WORK/stderr" | tr -d ' \n')" 6500fe 'standard error'
}

large_both_ways() {
    random_bytes "$BIG" | kbsup run -- sh -c 'tee /dev/fd/2' 2>"$WORK/copy" | sha256sum >"$WORK/sum"
    expect_equal "$(cat "$WORK/sum")" "$(random_bytes "$BIG" | sha256sum)" 'standard output'
    expect_equal "$(sha256sum <"$WORK/copy")" "$(cat "$WORK/sum")" 'standard error'
}

# The reader sleeps first: everything in between fills up and has to wait.
slow_reader() {
    local sum
    sum=$(random_bytes "$BIG" | kbsup run -- cat | { sleep 2; sha256sum; })
    expect_equal "$sum" "$(random_bytes "$BIG" | sha256sum)"
}

from_and_to_files() {
    random_bytes "$BIG" >"$WORK/in"
    kbsup run -- cat <"$WORK/in" >"$WORK/out"
    cmp "$WORK/in" "$WORK/out"
    kbsup run -- sh -c 'echo more' >>"$WORK/out"
    expect_equal "$(stat -c %s "$WORK/out")" $((BIG + 5)) 'appended size'
}

no_input() {
    expect_equal "$(kbsup run -- wc -c </dev/null)" 0
    expect_equal "$(kbsup run -- wc -c <&-)" 0 'closed input'
    expect_equal "$(printf x | kbsup run -- wc -c)" 1
}

# A command that does not read: its input must not hold anything up.
input_nobody_reads() {
    status=0
    yes | kbsup run -- sh -c 'exit 5' || status=$?
    expect_status 5
}

# head closes the pipe: the command gets its SIGPIPE, and nobody waits for yes to end.
output_nobody_reads() {
    expect_equal "$(kbsup run -- yes 2>"$WORK/stderr" | head -n 1)" y
    expect_equal "$(cat "$WORK/stderr")" '' 'standard error'
}

full_disk_behind_output() {
    status=0
    kbsup run -- sh -c 'echo x' >/dev/full 2>"$WORK/stderr" || status=$?
    [ "$status" -ne 0 ] || fail 'a lost output read as success'
}

statuses_pass() {
    local code
    for code in 0 1 2 3 4 42 125 255; do
        run kbsup run -- sh -c "exit $code"
        expect_status "$code"
    done
    run kbsup run -- sh -c 'kill -TERM $$'
    expect_status 143
    run kbsup run -- sh -c 'kill -KILL $$'
    expect_status 137
    run kbsup run -- /no/such/program
    [ "$status" -eq 127 ] || fail "status $status"
    expect_one_error
}

# start COMMAND…: in the background, ready when the command has written "ready".
start() {
    : >"$WORK/stdout"
    "$BIN/kbsup" run --name "$name" -- "$@" >"$WORK/stdout" 2>"$WORK/stderr" </dev/null &
    pid=$!
    wait_until 20 grep -q ready "$WORK/stdout" || fail 'the command did not start'
}

ends_with() { # status
    status=0
    wait "$pid" || status=$?
    expect_status "$1"
}

signals_pass() {
    local signal name pid
    for signal in INT TERM HUP QUIT USR1 USR2; do
        name=sig-$signal
        start sh -c "trap 'echo got $signal; exit 7' $signal; echo ready; while :; do sleep 0.1; done"
        kill -"$signal" "$pid"
        ends_with 7
        grep -q "got $signal" "$WORK/stdout" || fail "$signal did not arrive"
    done
    name=sig-default
    start sh -c 'echo ready; exec sleep 60'
    kill -TERM "$pid"
    ends_with 143
}

a_stubborn_command_is_killed() {
    local name=stubborn pid
    start sh -c "trap '' INT TERM; echo ready; while :; do sleep 0.1; done"
    kill -INT "$pid"
    sleep 0.2
    kill -INT "$pid"
    sleep 0.2
    kill -INT "$pid"
    ends_with 137
}

stopping_and_going_on() {
    local name=paused pid count
    start sh -c 'echo ready; i=0; while [ $i -lt 600 ]; do i=$((i + 1)); echo $i; sleep 0.05; done'
    kill -TSTP "$pid"
    wait_until 5 grep -q '^State:.T' "/proc/$pid/status" || fail 'kbsup did not stop'
    sleep 0.5
    count=$(wc -l <"$WORK/stdout")
    sleep 1
    expect_equal "$(wc -l <"$WORK/stdout")" "$count" 'lines while stopped'
    kill -CONT "$pid"
    more_lines() { [ "$(wc -l <"$WORK/stdout")" -gt $((count + 5)) ]; }
    wait_until 10 more_lines || fail 'the command did not go on'
    kill -TERM "$pid"
    ends_with 143
}

environment() {
    expect_equal "$(A=mine kbsup run --env A --env B='b c' -- sh -c 'echo "$A,$B,$C"')" 'mine,b c,'
    [ -n "$(kbsup run -- sh -c 'echo $KBSUP_SESSION')" ] || fail 'KBSUP_SESSION is not set'
    expect_equal "$(kbsup run --name named -- sh -c 'echo $KBSUP_SESSION')" named
    expect_equal "$(SECRET=x kbsup run -- sh -c 'echo "[$SECRET]"')" '[]' 'a variable nobody passed'
    expect_equal "$(kbsup run -- sh -c 'test -r "$KBSUP_FACTS" && grep -c . "$KBSUP_FACTS" >/dev/null && echo yes')" yes
}

where_it_runs() {
    mkdir -p sub
    expect_equal "$(kbsup run -- pwd)" "$WS"
    expect_equal "$(cd sub && kbsup run --workspace .. -- pwd)" "$WS/sub" 'below the workspace'
    expect_equal "$(cd / && kbsup run --workspace "$WS" -- pwd)" "$WS" 'elsewhere'
    kbsup run -- sh -c 'echo hello >made-inside'
    expect_equal "$(cat made-inside)" hello
}

words_arrive() {
    local big
    expect_equal "$(kbsup run -- printf '[%s]' 'a b' '' "$(printf 'n\nl')" "$(printf '\377')" -- -x | od -An -c | tr -d ' \n')" \
        "$(printf '[%s]' 'a b' '' "$(printf 'n\nl')" "$(printf '\377')" -- -x | od -An -c | tr -d ' \n')"
    big=$(head -c 100000 /dev/zero | tr '\0' x)
    # 1 MiB of arguments in ten words.
    expect_equal "$(kbsup run -- sh -c 'echo $# ${#1}' sh "$big" "$big" "$big" "$big" "$big" \
        "$big" "$big" "$big" "$big" "$big")" '10 100000'
}

detached() {
    local name
    run kbsup run --detach -- sh -c 'echo begun >begun; sleep 60'
    expect_status 0
    name=$out
    expect_equal "$err" '' 'standard error'
    expect_equal "$(kbsup ps --json | json '[s["name"] for s in d if s["state"] == "running"]')" "$name"
    wait_until 10 test -e begun
    expect_equal "$(echo text | kbsup exec "$name" -- cat)" text
    run kbsup exec "$name" -- sh -c 'exit 9'
    expect_status 9
    run kbsup exec last -- true
    expect_status 0
    run kbsup exec "${name%?}" -- true
    expect_status 1
    expect_one_error
    expect_err "did you mean: $name"
    run kbsup stop --now "$name"
    expect_status 0
    expect_equal "$(kbsup ps --json | json 'len(d)')" 0
    # The newest of that name: names of ended sessions may come again.
    expect_equal "$(kbsup ps -a --json | json '[s["state"] for s in d if s["name"] == "'"$name"'"][-1]')" ended
    run kbsup stop "$name"
    expect_status 1
    expect_one_error
    run kbsup run --detach --json --name kept -- sleep 60
    expect_equal "$(json 'd["name"]' <"$WORK/stdout")" kept
    run kbsup run --name kept -- true
    expect_status 1
    expect_one_error
    kbsup stop --now kept
}

following() {
    local pid
    kbsup run --detach --name watched -- sh -c 'sleep 1; touch one; sleep 1; touch two' >/dev/null
    "$BIN/kbsup" logs -f watched --json >"$WORK/followed" 2>"$WORK/stderr" &
    pid=$!
    status=0
    wait "$pid" || status=$?
    expect_status 0
    expect_equal "$(json 'L[0]["event"]' <"$WORK/followed")" start
    expect_equal "$(json 'L[-1]["event"]' <"$WORK/followed")" end
    expect_equal "$(json '[r["seq"] for r in L] == list(range(1, len(L) + 1))' <"$WORK/followed")" True
    kbsup logs watched --json >"$WORK/after"
    cmp "$WORK/followed" "$WORK/after"
}

quiet_without_terminal() {
    run kbsup run -- sh -c 'cat /etc/shadow; exit 0'
    expect_status 0
    case $err in *kbsup:*) fail 'kbsup spoke' ;; esac
}

tap 'output and error apart, every byte' apart_and_exact
tap '20 MiB both ways' large_both_ways
tap 'a reader that sleeps' slow_reader
tap 'files' from_and_to_files
tap 'no input' no_input
tap 'input that nobody reads' input_nobody_reads
tap 'output that nobody reads' output_nobody_reads
tap 'a full disk behind the output' full_disk_behind_output
tap 'statuses pass' statuses_pass
tap 'signals pass' signals_pass
tap 'the third interrupt in a row kills' a_stubborn_command_is_killed
tap 'stopping and going on' stopping_and_going_on
tap 'environment' environment
tap 'where it runs' where_it_runs
tap 'words arrive as given' words_arrive
tap 'detached sessions, exec, ps, stop' detached
tap 'logs -f' following
tap 'nothing of its own without a terminal' quiet_without_terminal
tap_end
