#!/usr/bin/env bash
# Rules that ask: the call waits, the person decides, the record says both.
# shellcheck disable=SC2016 # what stands in single quotes is for other shells
# shellcheck source=tests/integration/lib.sh
. "$(dirname "$0")/lib.sh"

# A call that base denies, and that fails with EPERM of its own when it is let through: what tells
# the two apart is the errno. getpriority succeeds where it is allowed.
write_policy() { # file, limit
    cat >"$1" <<END
policy asks version 1 extends shell {
    syscall getpriority ask "how nice it is?" override
    limit answer $2
}
END
}

cat >"$WS/try.py" <<'END'
import os
import sys

for _ in range(int(sys.argv[1])):
    try:
        os.getpriority(os.PRIO_PROCESS, 0)
        print("went through", flush=True)
    except OSError as error:
        print("refused", error.errno, flush=True)
END
write_policy "$WORK/asks.policy" 60s
write_policy "$WORK/hasty.policy" 1s

# Starts a session with somebody attached (without a terminal) in the background.
attached() { # name, tries, policy
    "$BIN/kbsup" run --workspace "$WS" --name "$1" --policy "$3" -- \
        /usr/bin/python3 "$WS/try.py" "$2" >"$WORK/$1.out" 2>"$WORK/$1.err" </dev/null &
    asker=$!
}

open_question() { # session
    kbsup answer "$1" --json 2>/dev/null | json 'd[0]["number"] if d else ""'
}

asks() {
    [ -n "$(open_question "$1")" ]
}

await_question() {
    wait_until 40 asks "$1" || fail "session $1 asks nothing: $(cat "$WORK/$1.err")"
}

the_end() { # session, output
    wait "$asker" || true
    expect_equal "$(cat "$WORK/$1.out")" "$2" "what $1 got"
}

asked_records() { # session
    kbsup audit query "$1" 'decision = asked and syscall = getpriority' --json
}

allowed_once() {
    attached once 2 "$WORK/asks.policy"
    await_question once
    grep -q 'how nice it is?' "$WORK/once.err" || fail 'whoever is attached was not told'
    grep -q 'kbsup answer once 1 ' "$WORK/once.err" || fail 'nor how to answer'
    expect_equal "$(kbsup ps --json | json 'd[0]["questions"]')" 1 'questions in ps'
    run kbsup answer once
    expect_out 'getpriority('
    expect_out "by asks.policy:2"
    run kbsup answer once 1 allow
    expect_status 0
    await_question once
    run kbsup answer once 2 deny
    expect_status 0
    the_end once "$(printf 'went through\nrefused 1')"
    expect_equal "$(asked_records once | json '[r["text"].split(" by ")[0] for r in L]')" \
        "$(printf 'allowed once\ndenied')" 'the answers in the record'
    expect_equal "$(asked_records once | json '[r["outcome"] for r in L][1]')" failed outcome
    case $(asked_records once | json 'L[0]["rule"]') in
    *asks.policy:2*) ;;
    *) fail 'the record lacks the rule' ;;
    esac
}

for_the_session() {
    attached often 3 "$WORK/asks.policy"
    await_question often
    run kbsup answer often 1 session
    expect_status 0
    the_end often "$(printf 'went through\nwent through\nwent through')"
    attached refused 3 "$WORK/asks.policy"
    await_question refused
    run kbsup answer refused 1 never
    expect_status 0
    the_end refused "$(printf 'refused 1\nrefused 1\nrefused 1')"
}

always() {
    cp "$WORK/asks.policy" "$WORK/learns.policy"
    attached learns 1 "$WORK/learns.policy"
    await_question learns
    run kbsup answer learns 1 always
    expect_status 0
    expect_out 'learns.policy:2 now says'
    the_end learns 'went through'
    grep -q 'getpriority allow reason "how nice it is?" override' "$WORK/learns.policy" ||
        fail "the policy says: $(cat "$WORK/learns.policy")"
    session --policy "$WORK/learns.policy" -- /usr/bin/python3 "$WS/try.py" 1
    expect_equal "$out" 'went through' 'the next session'
}

time_out_denies() {
    attached late 1 "$WORK/hasty.policy"
    the_end late 'refused 1'
    expect_equal "$(asked_records late | json 'L[0]["text"]')" 'nobody answered in time' 'the reason'
    run kbsup answer late 1 allow
    [ "$status" -ne 0 ] || fail 'a question of an ended session took an answer'
    expect_one_error
}

nobody_attached_denies() {
    kbsup run --workspace "$WS" --name alone --policy "$WORK/asks.policy" --detach -- \
        sh -c "/usr/bin/python3 $WS/try.py 1 >$WS/alone.out; sleep 60" >/dev/null 2>"$WORK/stderr"
    wait_until 40 test -s "$WS/alone.out" || fail 'the call waits'
    expect_equal "$(cat "$WS/alone.out")" 'refused 1' 'what it got'
    kbsup stop alone --now >/dev/null 2>&1
    expect_equal "$(asked_records alone | json 'L[0]["text"]')" 'nobody was attached to be asked' reason
}

# The asker is killed: the question goes with it, and the session is not held up.
gone_caller() {
    "$BIN/kbsup" run --workspace "$WS" --name gone --policy "$WORK/asks.policy" -- \
        sh -c "/usr/bin/python3 $WS/try.py 1 & read -r _ <$WS/go; kill -9 \$!; wait; echo over" \
        >"$WORK/gone.out" 2>"$WORK/gone.err" </dev/null &
    asker=$!
    await_question gone
    echo >"$WS/go"
    the_end gone over
}

bad_words() {
    run kbsup answer nosuch 1 allow
    [ "$status" -ne 0 ] || fail 'answered nobody'
    run kbsup answer x 1
    expect_status 2
    run kbsup answer x 1 perhaps
    expect_status 2
}

mkfifo "$WS/go"
tap 'allowed once, then denied' allowed_once
tap 'an answer for the session' for_the_session
tap 'always: as a line of the policy' always
tap 'a time-out denies' time_out_denies
tap 'where nobody is attached, it is denied' nobody_attached_denies
tap 'a caller that is killed takes its question along' gone_caller
tap 'what is no answer is refused' bad_words
tap_end
