#!/usr/bin/env bash
# Several sessions at once: each keeps its own workspace, name, exit status and record.
. "$(dirname "$0")/lib.sh"

COUNT=4

start_together() {
    local n pids=() status
    for n in $(seq "$COUNT"); do
        mkdir -p "$WORK/ws$n"
        # Each waits for the gate, so that all of them live at the same time.
        kbsup run --workspace "$WORK/ws$n" --name "many-$n" -- sh -c \
            "touch up; while ! [ -e go ]; do sleep 0.05; done; echo $n >mine; ls .. >around 2>&1; exit $n" \
            >"$WORK/out$n" 2>"$WORK/err$n" </dev/null &
        pids+=($!)
    done
    for n in $(seq "$COUNT"); do
        wait_until 30 test -e "$WORK/ws$n/up" || fail "session $n did not start: $(cat "$WORK/err$n")"
    done
    kbsup ps --json >"$WORK/ps.json"
    for n in $(seq "$COUNT"); do touch "$WORK/ws$n/go"; done
    for n in $(seq "$COUNT"); do
        status=0
        wait "${pids[$((n - 1))]}" || status=$?
        expect_equal "$status" "$n" "exit status of session $n"
        expect_equal "$(cat "$WORK/ws$n/mine")" "$n" "what session $n wrote"
    done
}

listed_while_running() {
    local n names
    names=$(json '[s["name"] for s in (L[0] if isinstance(L[0], list) else L) if s["state"] == "running"]' <"$WORK/ps.json")
    for n in $(seq "$COUNT"); do
        grep -qx "many-$n" <<<"$names" || fail "ps did not list many-$n: $names"
    done
}

apart_from_each_other() {
    local n
    for n in $(seq "$COUNT"); do
        ! grep -q "ws[0-9]" <(grep -v "ws$n" "$WORK/ws$n/around") ||
            fail "session $n saw another workspace: $(cat "$WORK/ws$n/around")"
    done
}

recorded_apart() {
    local n other
    for n in $(seq "$COUNT"); do
        kbsup audit query "many-$n" --json >"$WORK/records$n.jsonl" || fail "no record of many-$n"
        grep -q "ws$n/mine" "$WORK/records$n.jsonl" || fail "many-$n has no record of its own file"
        for other in $(seq "$COUNT"); do
            [ "$other" = "$n" ] || ! grep -q "ws$other/mine" "$WORK/records$n.jsonl" ||
                fail "many-$n holds a record of many-$other"
        done
        expect_equal "$(json '[r["seq"] for r in L] == list(range(1, len(L) + 1))' <"$WORK/records$n.jsonl")" \
            True "sequence numbers of many-$n without a gap"
        expect_equal "$(json '[L[0]["event"], L[-1]["event"]]' <"$WORK/records$n.jsonl" | tr '\n' ' ')" \
            'start end ' "first and last record of many-$n"
    done
    kbsup audit verify all >/dev/null || fail 'verify'
}

a_name_is_taken_once() {
    kbsup run --workspace "$WORK/ws1" --name twice --detach -- sleep 60 >/dev/null 2>"$WORK/stderr"
    run kbsup run --workspace "$WORK/ws2" --name twice -- true
    expect_status 1
    expect_one_error
    kbsup stop twice >/dev/null
}

tap "$COUNT sessions start, work and end together, each with its own status" start_together
tap 'ps lists them while they run' listed_while_running
tap 'none sees the workspace of another' apart_from_each_other
tap 'each has its own complete record' recorded_apart
tap 'a running session keeps its name to itself' a_name_is_taken_once
tap_end
