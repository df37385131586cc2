#!/usr/bin/env bash
# The supervisor: how it comes, whom it serves, what it survives, how it leaves.
. "$(dirname "$0")/lib.sh"

SOCKET=$XDG_RUNTIME_DIR/kbsup/control.sock
CONTROL=$TESTS/integration/control.py

session_field() { # session, field
    kbsup audit sessions --json |
        json "[s.get('$2') for s in (L[0] if isinstance(L[0], list) else L) if s['name'] == '$1'][-1]"
}

gone() {
    [ ! -e "$SOCKET" ]
}

starts_when_needed() {
    local first
    [ ! -e "$SOCKET" ] || fail 'somebody is there already'
    run kbsup status
    expect_status 3
    session -- true
    expect_status 0
    first=$(supervisor_pid)
    [ -n "$first" ] || fail 'no supervisor after a run'
    session -- sh -c 'exit 7'
    expect_status 7
    expect_equal "$(supervisor_pid)" "$first" 'the supervisor of the second run'
    run kbsup status --json
    expect_status 0
    expect_equal "$(json 'len(set(r["pid"] for r in d["roles"]))' <<<"$out")" 3 'processes of the roles'
    for pid in $(json '[r["pid"] for r in d["roles"]]' <<<"$out"); do
        alive "$pid" || fail "role process $pid is not there"
    done
}

only_one_supervisor() {
    [ "$(leftovers | grep -c '^[0-9]* kbsupd --daemon')" = 1 ]
}

racing_starters() {
    local i pids=() lock=$XDG_RUNTIME_DIR/kbsup/kbsupd.lock
    stop_supervisor
    for i in 1 2 3 4 5 6; do
        kbsup run --workspace "$WS" -- true >/dev/null 2>"$WORK/racer.$i" </dev/null &
        pids+=($!)
    done
    for i in "${pids[@]}"; do
        wait "$i" || fail "a racer failed: $(cat "$WORK"/racer.*)"
    done
    wait_until 5 only_one_supervisor || fail "supervisors: $(leftovers | grep kbsupd)"
    alive "$(cat "$lock")" || fail 'the lock names somebody else'
}

leaves_when_idle() {
    stop_supervisor
    KBSUP_IDLE=1s session -- true
    expect_status 0
    wait_until 8 gone || fail 'it stays'
    wait_until 5 no_leftovers || fail "left: $(leftovers)"
    # A session keeps it, with nobody connected.
    KBSUP_IDLE=1s session --detach --name long -- sleep 3
    expect_status 0
    sleep 2
    [ -n "$(supervisor_pid)" ] || fail 'it left its session'
    wait_until 8 gone || fail 'it stays after the session'
}

a_bad_idle_time_is_said() {
    stop_supervisor
    KBSUP_IDLE=soon session -- true
    expect_status 2
    expect_one_error
    expect_err KBSUP_IDLE
}

one_per_user() {
    local pid
    session -- true
    pid=$(supervisor_pid)
    run timeout 20 "$BIN/kbsupd" --foreground
    expect_status 1
    expect_one_error
    expect_err "pid $pid"
    expect_equal "$(supervisor_pid)" "$pid" 'the supervisor'
}

closed_to_others() {
    session -- true
    expect_equal "$(stat -c %a "$SOCKET")" 600 'mode of the socket'
    expect_equal "$(stat -c %a "$(dirname "$SOCKET")")" 700 'mode of its directory'
    [ "$(id -u)" -eq 0 ] || skip 'the rest needs root'
    make_user || skip 'no second user'
    # Even where the modes do not stop them.
    chmod 711 "$XDG_RUNTIME_DIR" "$(dirname "$SOCKET")"
    chmod 666 "$SOCKET"
    cp "$CONTROL" "$WORK/control.py"
    chmod 644 "$WORK/control.py"
    run runuser -u "$KB_TEST_USER" -- python3 "$WORK/control.py" "$SOCKET" hello x
    expect_out 'is not served'
    chmod 700 "$XDG_RUNTIME_DIR" "$(dirname "$SOCKET")"
    chmod 600 "$SOCKET"
    session -- true
    expect_status 0
}

other_builds_are_told() {
    session -- true
    run python3 "$CONTROL" "$SOCKET" hello 9.9.9+000000000000
    expect_out 'another build'
    expect_out "kill $(supervisor_pid)"
}

survives_noise() {
    local pid hex
    session -- true
    pid=$(supervisor_pid)
    run python3 "$CONTROL" "$SOCKET" ungreeted
    expect_out 'hello'
    for hex in 474554202f20485454502f312e310d0a0d0a ffffffff0000000001000000 \
        000000000000000001010000 050000000000000001000000ffffffffff 00 \
        040000000100000002000000 0000000000000000010000000000; do
        run python3 "$CONTROL" "$SOCKET" raw "$hex"
        expect_out closed
    done
    # Connections that say nothing hold nobody up.
    for _ in 1 2 3; do python3 "$CONTROL" "$SOCKET" hold 3 & done
    session -- true
    expect_status 0
    wait
    expect_equal "$(supervisor_pid)" "$pid" 'the supervisor'
}

ends_in_order() {
    local pid
    session --detach --name cut -- sleep 1000
    expect_status 0
    pid=$(supervisor_pid)
    kill "$pid"
    wait_until 20 not alive "$pid" || fail 'it does not end'
    wait_until 5 no_leftovers || fail "left: $(leftovers)"
    [ ! -e "$SOCKET" ] || fail 'its socket stays'
    [ -n "$(session_field cut ended)" ] || fail 'the session is not ended'
    run kbsup audit sessions --json
    expect_out 'ended by a signal'
    run kbsup audit verify cut
    expect_status 0
}

activated_by_socket() {
    local pid
    stop_supervisor
    KBSUP_IDLE=1s python3 "$TESTS/integration/activate.py" "$SOCKET" "$BIN/kbsupd" --foreground \
        2>"$WORK/activated.log" &
    pid=$!
    wait_until 5 test -S "$SOCKET" || fail 'no socket'
    session -- sh -c 'exit 9'
    expect_status 9
    expect_equal "$(supervisor_pid)" "$pid" 'the supervisor'
    wait "$pid" || fail "it failed: $(tail -n 3 "$WORK/activated.log")"
    [ -S "$SOCKET" ] || fail "it removed systemd's socket"
    rm -f "$SOCKET"
}

a_store_that_cannot_be() {
    local store=$XDG_STATE_HOME/kbsup/store pid
    stop_supervisor
    mv "$store" "$store.away"
    echo 'not a directory' >"$store"
    session -- true
    expect_status 1
    expect_one_error
    expect_err store
    # No new supervisor is needed once the cause is gone.
    pid=$(supervisor_pid)
    rm "$store"
    mv "$store.away" "$store"
    session -- true
    expect_status 0
    expect_equal "$(supervisor_pid)" "$pid" 'the supervisor'
}

full_disk() {
    local small=$WORK/small
    stop_supervisor
    mkdir -p "$small"
    # A file system of 1 MiB for the state, in a mount namespace of our own.
    # shellcheck disable=SC2016
    run unshare --user --map-current-user --keep-caps --mount sh -c '
        mount -t tmpfs -o size=1m,mode=700 tmpfs "$1" || exit 99
        export XDG_STATE_HOME=$1; shift
        timeout 60 "$@" run --workspace "$WS" --name full -- sh -c "
            i=0; while [ \$i -lt 200000 ]; do : >>$WS/x; i=\$((i+1)); done" 2>&1
        echo "status $?"
        timeout 20 "$@" audit query full "event = exec" --json | head -n 1
        timeout 20 "$@" audit verify full; echo "verify $?"
        kill "$(cat "$XDG_RUNTIME_DIR/kbsup/kbsupd.lock")"' sh "$small" "$BIN/kbsup"
    [ "$status" -ne 99 ] || skip 'no tmpfs in a user namespace here'
    ! grep -q '^status 0$' <<<"$out" || fail 'the session went on without a record'
    grep -q '^status [0-9]' <<<"$out" || fail 'the session never ended'
    grep -qi 'space\|full' <<<"$out" || fail 'the reason was not said'
    grep -q '"event"' <<<"$out" || fail 'what was acknowledged is gone'
    grep -Eq '^verify [03]$' <<<"$out" || fail 'the store does not verify'
}

a_client_that_vanishes() {
    local client
    session -- true
    # Without a terminal the session goes with whoever asked for it.
    "$BIN/kbsup" run --workspace "$WS" --name left -- sleep 1000 </dev/null >/dev/null 2>&1 &
    client=$!
    wait_until 10 running left || fail 'it does not run'
    kill -KILL "$client"
    wait_until 15 not running left || fail 'the session goes on without its client'
    # With --detach it does not.
    session --detach --name stays -- sleep 1000
    expect_status 0
    sleep 0.5
    running stays || fail 'a detached session ended'
    run kbsup stop stays
    expect_status 0
    not running stays
}

running() {
    kbsup ps --json 2>/dev/null | json "[s['name'] for s in (L[0] if L and isinstance(L[0], list) else L) if s['state'] == 'running']" | grep -qx "$1"
}

exec_and_stop() {
    session --detach --name base -- sleep 1000
    expect_status 0
    run kbsup exec base -- sh -c 'echo inside; echo aside >&2; exit 6'
    expect_status 6
    expect_equal "$out" inside 'output'
    expect_err aside
    run kbsup exec base -- /nonexistent
    [ "$status" -ne 0 ] || fail 'a missing command ran'
    run kbsup stop base
    expect_status 0
    run kbsup exec base -- true
    expect_status 1
    expect_one_error
    run kbsup stop base
    expect_status 1
}

tap 'it starts when needed, once, and its roles are processes' starts_when_needed
tap 'starters that race end up with one' racing_starters
tap 'it leaves when idle, and not before' leaves_when_idle
tap 'a time that is none is refused' a_bad_idle_time_is_said
tap 'a second one is refused and names the first' one_per_user
tap 'its socket is closed to others, by mode and by credentials' closed_to_others
tap 'a client of another build is told the remedy' other_builds_are_told
tap 'malformed and silent clients do it no harm' survives_noise
tap 'SIGTERM ends sessions with the reason and records whole' ends_in_order
tap 'socket activation' activated_by_socket
tap 'a store that cannot be opened is said, and mended without a restart' a_store_that_cannot_be
tap 'a full disk ends the session and says why' full_disk
tap 'a client that vanishes takes its session along, unless detached' a_client_that_vanishes
tap 'exec and stop' exec_and_stop
tap_end
