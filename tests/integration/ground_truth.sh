#!/usr/bin/env bash
# A C project is built inside a session while strace, from outside, watches the very same processes.
# What was recorded has to equal what strace saw, call for call, in either lane; and the build has to
# come out as it does without a session. Needs the right to trace the session's processes: root.
#
# The project is a small one. With KB_TRUTH_SOURCES=DIR it is kbsup itself, from that checkout.
. "$(dirname "$0")/lib.sh"

[ "$(id -u)" -eq 0 ] || skip_all 'tracing a session from outside needs root'
[ -n "$(command -v strace)" ] || skip_all 'strace is not installed'

CALLS=open,openat,openat2,creat,execve,execveat,unlink,unlinkat,rmdir,rename,renameat,renameat2
CALLS=$CALLS,mkdir,mkdirat,link,linkat,symlink,symlinkat,chmod,fchmodat,fchmod,truncate,chdir,fchdir
LANES=notify
! kbsup run --lane bpf --workspace "$WS" -- true >/dev/null 2>&1 || LANES='notify bpf'

if [ -z "${KB_TRUTH_SOURCES:-}" ]; then
    MINUTES=1
    cp -r "$TESTS/demo/project" "$WS/project"
    cat >"$WS/steps.sh" <<'END'
cd project
make && make check && mkdir out && ln -s ../wordcount out/link && ln wordcount out/hard
mv out/hard out/moved && chmod 700 out/moved && rm -r out && make clean && make
END
else
    MINUTES=15
    mkdir "$WS/project"
    git -c safe.directory='*' -C "$KB_TRUTH_SOURCES" ls-files -z |
        (cd "$KB_TRUTH_SOURCES" && xargs -0 cp --parents -t "$WS/project")
    cat >"$WS/steps.sh" <<'END'
cd project
meson setup out && ninja -C out
END
fi
mkfifo "$WS/gate"
printf 'read -r go <gate\n. ./steps.sh\n' >"$WS/build.sh"
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# The same build without a session, at the same place; then the place is as it was before.
build_natively() {
    cp -a "$WS/project" "$WORK/pristine"
    (cd "$WS" && sh steps.sh) >"$WORK/native.out" 2>&1 || fail "$(tail -n 5 "$WORK/native.out")"
    mv "$WS/project" "$WORK/native"
}

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
    cp -a "$WORK/pristine" "$WS/project"
    rm -f "$WORK/strace.err" "$WORK/strace.log"
    KB_TIMEOUT=$((MINUTES * 60)) kbsup run --lane "$LANE" --workspace "$WS" --name "traced-$LANE" -- sh "$WS/build.sh" \
        >"$WORK/build.out" 2>"$WORK/stderr" </dev/null &
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
    rm -rf "$WORK/made"
    mv "$WS/project" "$WORK/made"
}

# Steps that run side by side are said in any order, and counted.
said() {
    sed 's/^\[[0-9]*\/[0-9]*\] //; s/[0-9.]* s$//' "$1" | sort
}

# But for the build tool's own notes of when what was made.
same_build() {
    diff <(said "$WORK/native.out") <(said "$WORK/build.out") || fail 'the build says something else'
    diff -r --exclude=meson-logs --exclude=meson-private --exclude=meson-info --exclude='.ninja*' \
        "$WORK/native" "$WORK/made" || fail 'something else was made'
}

same_calls() {
    kbsup audit query "traced-$LANE" --json >"$WORK/records.jsonl" 2>"$WORK/stderr" || fail 'no records'
    echo "$(wc -l <"$WORK/records.jsonl") records"
    python3 "$TESTS/integration/strace_compare.py" "$WORK/strace.log" "$WORK/records.jsonl" "$WS/gate"
}

nothing_lost() {
    expect_equal "$(kbsup audit sessions --json | json '[s["lost"] for s in (L[0] if isinstance(L[0], list) else L)][-1]')" 0 'records lost'
    kbsup audit verify "traced-$LANE" >/dev/null || fail 'the record does not verify'
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

tap 'the project builds without a session' build_natively
for LANE in $LANES; do
    tap "$LANE: it builds in a session while strace watches" build_traced
    tap "$LANE: the build says and makes the same as without a session" same_build
    tap "$LANE: recorded execs, opens, deletions and the rest equal strace, call for call" same_calls
    tap "$LANE: no record was lost, the chain is intact" nothing_lost
done
tap 'the comparison notices a missing and an invented record' comparison_notices
tap_end
