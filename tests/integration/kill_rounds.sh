#!/usr/bin/env bash
# kill_rounds.sh BUILD-DIR [--as-user]: random SIGKILLs. Each round starts sessions, kills one part of
# kbsup at a random moment, and then: nothing of the sessions runs on, every session has an end, no
# record that could be read before is gone, none is damaged, and the next command works with no
# cleaning by hand.
#   ROUNDS=300 SEED=7 kill_rounds.sh BUILD-DIR     more of them, or the same again
. "$(dirname "$0")/lib.sh"

ROUNDS=${ROUNDS:-20}
SEED=${SEED:-$RANDOM}
RANDOM=$SEED
PARTS=(main store link guest)

# From the lock and the process table: status would start nothing, but may have nobody to ask.
pid_of() {
    local main
    main=$(cat "$XDG_RUNTIME_DIR/kbsup/kbsupd.lock" 2>/dev/null) || return 0
    case $1 in
    main) echo "$main" ;;
    store | link) child_of "$main" "--role=$1" ;;
    guest) child_of "$(child_of "$main" --role=link)" --link-fd ;;
    esac
}

child_of() { # parent, a word of its arguments
    local stat_file
    [ -n "$1" ] || return 0
    for stat_file in /proc/[0-9]*/status; do
        grep -qs "^PPid:[[:space:]]$1\$" "$stat_file" || continue
        tr '\0' ' ' <"${stat_file%status}cmdline" 2>/dev/null | grep -q -- "$2" || continue
        basename "$(dirname "$stat_file")"
    done | head -n 1
}

sleepers() { # with this argument
    grep -lzxF -- "$1" /proc/[0-9]*/cmdline 2>/dev/null | while IFS= read -r file; do
        [ "$(cat "${file%cmdline}comm" 2>/dev/null)" != sleep ] || echo "$file"
    done
}

none_sleeps() {
    [ -z "$(sleepers "$1")" ]
}

all_ended() {
    [ -z "$(kbsup audit sessions --json |
        json '[s["name"] for s in (L[0] if L and isinstance(L[0], list) else L) if not s.get("ended")]')" ]
}

# How many records of each session there are to read: what can be read is committed.
count_records() {
    kbsup audit sessions --json 2>/dev/null |
        json '["%s %d" % (s["id"], s["records"]) for s in (L[0] if L and isinstance(L[0], list) else L)]' || true
}

none_is_gone() { # counts of before
    local id count now
    while read -r id count; do
        [ -n "$id" ] || continue
        now=$(count_records | sed -n "s/^$id //p")
        [ "${now:-0}" -ge "$count" ] || fail "session $id had $count records and has ${now:-none}"
    done <<<"$1"
}

one_round() {
    local part=${PARTS[RANDOM % ${#PARTS[@]}]} mark=27182$RANDOM delay victim deadline before i
    delay=$(printf '0.%03d' $((RANDOM % 400)))
    echo "round $1 of seed $SEED: $part after $delay s"
    for i in 1 2; do
        "$BIN/kbsup" run --workspace "$WS" -- sh -c \
            "sleep $mark & i=0; while [ \$i -lt 300 ]; do : >f$i; rm f$i; i=\$((i+1)); done; sleep $mark" \
            </dev/null >/dev/null 2>&1 &
    done
    before=$(count_records | tail -n 4)
    sleep "$delay"
    victim=$(pid_of "$part")
    [ -z "$victim" ] || kill -KILL "$victim" 2>/dev/null || true
    # A session that was asked for but had not started survives, under the parts that follow: it is
    # ended in the open, however late it comes.
    sleep 0.5
    deadline=$((SECONDS + 60))
    while [ -n "$(jobs -rp)" ]; do
        [ "$SECONDS" -lt "$deadline" ] || fail 'a run does not come back'
        for i in $(kbsup ps --json | json '[s["name"] for s in (L[0] if L and isinstance(L[0], list) else L)]'); do
            kbsup stop --now "$i" >/dev/null 2>&1 || true
        done
        sleep 0.2
    done
    wait
    wait_until 20 none_sleeps "$mark" || fail "still running: $(sleepers "$mark")"
    session -- sh -c 'exit 11'
    expect_status 11
    wait_until 10 all_ended || fail 'a session has no end'
    run kbsup audit verify all
    [ "$status" = 0 ] || [ "$status" = 3 ] || fail "verify says $status"
    none_is_gone "$before"
}

rounds() {
    local i
    for ((i = 1; i <= ROUNDS; i++)); do
        one_round "$i"
    done
}

tap "$ROUNDS random kills, seed $SEED" rounds
tap_end
