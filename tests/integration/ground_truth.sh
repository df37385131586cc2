#!/usr/bin/env bash
# A small C project is built inside a session while strace, from outside, watches the very same
# processes. What was recorded has to equal what strace saw, call for call; and the build has to come
# out as it does without a session. Needs the right to trace the session's processes: root.
. "$(dirname "$0")/lib.sh"

[ "$(id -u)" -eq 0 ] || skip_all 'tracing a session from outside needs root'
[ -z "$(command -v strace)" ] && skip_all 'strace is not installed'

CALLS=open,openat,openat2,creat,execve,execveat,unlink,unlinkat,rmdir,rename,renameat,renameat2
CALLS=$CALLS,mkdir,mkdirat,link,linkat,symlink,symlinkat,chmod,fchmodat,fchmod,truncate,chdir,fchdir

cp -r "$TESTS/demo/project" "$WS/project"
cp -r "$TESTS/demo/project" "$WORK/native"
mkfifo "$WS/gate"
cat >"$WS/build.sh" <<'END'
read -r go <gate
cd project
make && make check && mkdir out && ln -s ../wordcount out/link && ln wordcount out/hard
mv out/hard out/moved && chmod 700 out/moved && rm -r out && make clean && make
END

gated_pid() { # of the shell that waits at the gate
    local pid
    for pid in /proc/[0-9]*; do
        if tr '\0' ' ' <"$pid/cmdline" 2>/dev/null | grep -qx "sh $WS/build.sh "; then
            echo "${pid#/proc/}"
        fi
    done 2>/dev/null
}

waits_at_gate() {
    [ -n "$(gated_pid)" ]
}

build_traced() {
    local tracer session
    kbsup run --workspace "$WS" --name traced -- sh "$WS/build.sh" >"$WORK/build.out" 2>"$WORK/stderr" \
        </dev/null &
    session=$!
    wait_until 20 waits_at_gate || fail 'the session did not start'
    strace -f -y -xx -s 200000 -e "trace=$CALLS" -o "$WORK/strace.log" -p "$(gated_pid)" \
        2>"$WORK/strace.err" &
    tracer=$!
    wait_until 20 grep -q attached "$WORK/strace.err" || fail 'strace did not attach'
    sleep 0.5 # the interrupted open of the gate starts over
    echo go >"$WS/gate"
    wait "$session" || fail "the build failed in the session: $(tail -n 5 "$WORK/build.out")"
    wait "$tracer" || true
    [ -x "$WS/project/wordcount" ] || fail 'nothing was built'
}

same_output() {
    (cd "$WORK/native" && make && make check && make clean && make) >"$WORK/native.out" 2>&1
    expect_equal "$(cat "$WORK/build.out")" "$(cat "$WORK/native.out")" 'output of the build'
    cmp "$WS/project/wordcount" "$WORK/native/wordcount" || fail 'another program came out'
}

same_calls() {
    kbsup audit query traced --json >"$WORK/records.jsonl" 2>"$WORK/stderr" || fail 'no records'
    python3 "$TESTS/integration/strace_compare.py" "$WORK/strace.log" "$WORK/records.jsonl" "$WS/gate"
}

nothing_lost() {
    expect_equal "$(kbsup audit sessions --json | json '[s["lost"] for s in (L[0] if isinstance(L[0], list) else L)][-1]')" 0 'records lost'
    kbsup audit verify traced >/dev/null || fail 'the record does not verify'
}

# The comparison itself has to notice what is missing, and what is too much.
comparison_notices() {
    local records=$WORK/records.jsonl
    grep -v '"event": *"unlink"' "$records" >"$WORK/less.jsonl"
    ! python3 "$TESTS/integration/strace_compare.py" "$WORK/strace.log" "$WORK/less.jsonl" "$WS/gate" ||
        fail 'missing deletions were not noticed'
    (cat "$records" && grep '"event": *"exec"' "$records" | tail -n 1) >"$WORK/more.jsonl"
    ! python3 "$TESTS/integration/strace_compare.py" "$WORK/strace.log" "$WORK/more.jsonl" "$WS/gate" ||
        fail 'an invented exec was not noticed'
}

tap 'a C project builds in a session while strace watches' build_traced
tap 'the build says and makes the same as without a session' same_output
tap 'recorded execs, opens, deletions and the rest equal strace, call for call' same_calls
tap 'the comparison notices a missing and an invented record' comparison_notices
tap 'no record was lost, the chain is intact' nothing_lost
tap_end
