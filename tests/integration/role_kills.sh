#!/usr/bin/env bash
# Any part of kbsup is killed with SIGKILL while a session runs. Each time: the session ends, nothing of
# it runs on, its record says that it was cut short, and the next command works with no cleaning by
# hand.
. "$(dirname "$0")/lib.sh"

role_pid() { # name of a role in `kbsup status --json`
    kbsup status --json | json "([d['pid']] if '$1' == 'main' else [r['pid'] for r in d['roles'] if r['role'] == '$1'])[0]"
}

guest_pid() {
    kbsup status --json | json 'd["local"]["guest_pid"]'
}

victim() {
    case $1 in
    main | store | link) role_pid "$1" ;;
    guest) guest_pid ;;
    session) parents_among "$(children_of "$(guest_pid)")" ;;
    init) children_of "$(victim session)" | head -n 1 ;;
    esac
}

# The processes that have children: a session's, not the spare one that waits for the next.
parents_among() {
    local pid
    for pid in $1; do
        [ -z "$(children_of "$pid")" ] || echo "$pid"
    done | head -n 1
}

children_of() {
    local dir
    for dir in /proc/[0-9]*; do
        if grep -qs "^PPid:[[:space:]]*$1\$" "$dir/status"; then
            echo "${dir#/proc/}"
        fi
    done
}

sleeping() { # with this argument
    local file
    while IFS= read -r file; do
        [ "$(cat "${file%cmdline}comm" 2>/dev/null)" != sleep ] || return 0
    done < <(grep -lzxF -- "$1" /proc/[0-9]*/cmdline 2>/dev/null)
    return 1
}

session_field() { # session, field
    kbsup audit sessions --json |
        json "[s['$2'] for s in (L[0] if isinstance(L[0], list) else L) if s['name'] == '$1'][-1]"
}

kill_role() {
    local role=$1 mark=16180$RANDOM name=cut-$1 pid before
    kbsup run --workspace "$WS" --name "$name" --detach -- sh -c "echo x >written-$role; sleep $mark & sleep $mark" \
        >/dev/null 2>"$WORK/stderr" || fail 'no session'
    wait_until 10 sleeping "$mark" || fail 'the session does not run'
    wait_until 10 test -e "$WS/written-$role"
    sleep 0.5 # what is acknowledged by then must survive
    before=$(kbsup audit query "$name" 'event = exec' --json | grep -c .)
    [ "$before" -ge 1 ] || fail 'nothing was recorded before the kill'
    pid=$(victim "$role")
    [ -n "$pid" ] || fail "no process for $role"
    kill -KILL "$pid"
    wait_until 10 not sleeping "$mark" || fail "the session runs on without its $role"
    # No cleaning by hand: the next commands just work, and tell the truth.
    wait_until 20 ended "$name" || fail "the session is not ended: $(kbsup ps -a --json)"
    [ "$(kbsup audit query "$name" 'event = exec' --json | grep -c .)" -ge "$before" ] ||
        fail 'an acknowledged record is gone'
    expect_equal "$(kbsup audit query "$name" --json | json 'L[-1]["event"]')" end 'last record'
    status=0
    kbsup audit verify "$name" >"$WORK/stdout" 2>"$WORK/stderr" || status=$?
    case $status in
    0 | 3) ;;
    *) fail "verify: status $status" ;;
    esac
    session -- sh -c 'exit 7'
    expect_status 7
}

ended() {
    case $(session_field "$1" state 2>/dev/null) in
    ended) ;;
    *) return 1 ;;
    esac
}

clean_stop() {
    local pid
    pid=$(role_pid main)
    kill -TERM "$pid"
    wait_until 10 not alive "$pid" || fail 'main did not stop on SIGTERM'
    wait_until 5 no_leftovers || fail "left: $(leftovers)"
    [ ! -e "$XDG_RUNTIME_DIR/kbsup/control.sock" ] || fail 'the socket is left'
    session -- true
    expect_status 0
}

for role in main store link guest session init; do
    tap "kill -9 of $role: the session ends, its record stands, the next one works" kill_role "$role"
done
tap 'SIGTERM stops everything, and it starts again' clean_stop
tap_end
