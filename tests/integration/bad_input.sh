#!/usr/bin/env bash
# What can go wrong outside of kbsup, and input nobody would write: one clear error, or an exact
# record, and nothing lost.
. "$(dirname "$0")/lib.sh"

refused() { # status: one error, and no session was recorded
    expect_status "$1"
    expect_one_error
}

missing_workspace() {
    run kbsup run --workspace "$WORK/nowhere" -- true
    refused 1
    expect_err "$WORK/nowhere"
    touch "$WORK/file"
    run kbsup run --workspace "$WORK/file" -- true
    refused 1
    expect_err "$WORK/file"
}

unreadable_policy() {
    run kbsup run --workspace "$WS" --policy "$WORK/none.policy" -- true
    refused 1
    expect_err "$WORK/none.policy"
    mkdir -p "$WORK/dir.policy"
    run kbsup run --workspace "$WS" --policy "$WORK/dir.policy" -- true
    refused 1
    if [ "$(id -u)" -ne 0 ]; then
        echo 'policy x {}' >"$WORK/locked.policy"
        chmod 0 "$WORK/locked.policy"
        run kbsup run --workspace "$WS" --policy "$WORK/locked.policy" -- true
        refused 1
        expect_err 'Permission denied'
    fi
}

wrong_policy() {
    printf 'policy wrong extends base {\n    fs raed "/usr"\n}\n' >"$WORK/wrong.policy"
    run kbsup run --workspace "$WS" --policy "$WORK/wrong.policy" -- true
    [ "$status" -ne 0 ] || fail 'a wrong policy was taken'
    expect_err 'wrong.policy:2:'
    head -c 100000 /dev/urandom >"$WORK/noise.policy"
    run kbsup run --workspace "$WS" --policy "$WORK/noise.policy" -- true
    [ "$status" -ne 0 ] || fail 'noise was taken for a policy'
    ! LC_ALL=C grep -q "$(printf '\033')" "$WORK/stderr" || fail 'an escape reached the terminal'
}

missing_command() {
    run kbsup run --workspace "$WS" -- /usr/bin/no-such-program
    refused 127
    expect_err /usr/bin/no-such-program
    run kbsup run --workspace "$WS" -- "$WS"
    refused 4
    expect_err 'Permission denied'
}

# In a user namespace of our own where no further one can be made.
no_user_namespaces() {
    unshare --user --map-root-user true 2>/dev/null || skip 'this machine lets nobody make user namespaces: every run is this case'
    stop_supervisor
    run unshare --user --map-root-user sh -c \
        'echo 0 >/proc/sys/user/max_user_namespaces && exec "$@"' sh \
        timeout 60 "$BIN/kbsup" run --workspace "$WS" -- true
    stop_all
    expect_status 4
    expect_one_error
}

stop_all() {
    local pid
    for pid in $(leftovers | cut -d' ' -f1); do
        kill "$pid" 2>/dev/null || true
    done
    wait_until 10 no_leftovers
}

no_runtime() {
    stop_supervisor
    # shellcheck disable=SC2016
    run unshare --user --map-root-user --mount sh -c '
        for f in /usr/sbin/runc /usr/bin/runc /usr/bin/crun /usr/local/bin/crun; do
            [ ! -e $f ] || mount --bind /dev/null $f; done
        exec "$@"' sh timeout 60 "$BIN/kbsup" run --workspace "$WS" -- true
    stop_all
    expect_status 4
    expect_one_error
    run kbsup run --workspace "$WS" --runtime "$WORK/no-runtime" -- true
    [ "$status" -ne 0 ] || fail 'a missing runtime was used'
    expect_one_error
}

full_disk() {
    local small=$WORK/small
    stop_supervisor
    mkdir -p "$small"
    # A file system of 1 MiB for the state, in a mount namespace of our own.
    # shellcheck disable=SC2016
    run unshare --user --map-root-user --mount sh -c '
        mount -t tmpfs -o size=512k,mode=700 tmpfs "$1" || exit 99
        export XDG_STATE_HOME=$1; shift
        timeout 100 "$@" run --workspace "$WS" --name full -- sh -c "
            i=0; while [ \$i -lt 60000 ]; do : >>$WS/x; i=\$((i+1)); done"
        echo "status $?"
        timeout 20 "$@" audit query full "event = exec" --json | head -n 1
        timeout 20 "$@" audit verify full; echo "verify $?"' sh "$small" "$BIN/kbsup"
    stop_all
    [ "$status" -ne 99 ] || skip 'no tmpfs in a user namespace here'
    ! grep -q '^status 0$' <<<"$out" || fail 'the session went on without a record'
    grep -q '^status [0-9]' <<<"$out" || fail 'the session never ended'
    grep -qi 'space' "$WORK/stderr" || fail 'the reason was not said'
    grep -q '"event"' <<<"$out" || fail 'what was acknowledged is gone'
    grep -Eq '^verify [03]$' <<<"$out" || fail 'the store does not verify'
}

second_supervisor() {
    session -- true
    run timeout 20 "$BIN/kbsupd" --foreground
    case $status in
    0 | 124) fail 'a second supervisor ran' ;;
    esac
    expect_one_error
    session -- sh -c 'exit 5'
    expect_status 5
}

huge_argv() {
    python3 - "$BIN/kbsup" "$WS" <<'END' || fail 'the arguments did not arrive'
import subprocess, sys
words = ["%01023d" % n for n in range(1024)]         # 1024 bytes each with their NUL: 1 MiB
script = 'import sys; print(len(sys.argv) - 1, int(sys.argv[1]), int(sys.argv[-1]))'
out = subprocess.run([sys.argv[1], "run", "--workspace", sys.argv[2], "--name", "huge", "--",
                      "/usr/bin/python3", "-c", script] + words, stdout=subprocess.PIPE, timeout=60)
sys.exit(out.stdout != b"1024 0 1023\n" or out.returncode != 0)
END
    kbsup audit query huge 'event = exec' --json >"$WORK/huge.jsonl" || fail 'no record'
    python3 - "$WORK/huge.jsonl" <<'END'
import json, sys
records = [json.loads(line) for line in open(sys.argv[1])]
argv = max((r["argv"] for r in records), key=len)
lost = max(r.get("argv_lost", 0) for r in records)
words = ["%01023d" % n for n in range(1024)]
kept = argv[3:]
print(len(kept), "arguments recorded,", lost, "bytes said to be lost")
# Exact, or cut with the loss stated in bytes: never silently.
sys.exit(0 if kept == words[:len(kept)] and (len(kept) == len(words) or lost > 0) else 1)
END
}

hostile_names() {
    python3 - "$BIN/kbsup" "$WS" <<'END' || fail 'the session'
import os, subprocess, sys
ws = os.fsencode(sys.argv[2])
name = b"new\nline \xff\xfe \x1b[31m\xe2\x80\xae"
script = b'import os, sys; p = os.fsencode(sys.argv[1]); open(p, "w").close(); os.unlink(p)'
sys.exit(subprocess.run([sys.argv[1], "run", "--workspace", ws, "--name", "hostile", "--",
                         "/usr/bin/python3", "-c", script, os.path.join(ws, name)], timeout=60).returncode)
END
    kbsup audit query hostile 'event = unlink' --json >"$WORK/hostile.jsonl" || fail 'no record'
    python3 - "$WORK/hostile.jsonl" "$WS" <<'END' || fail "not exact: $(cat "$WORK/hostile.jsonl")"
import base64, json, os, sys
want = os.path.join(os.fsencode(sys.argv[2]), b"new\nline \xff\xfe \x1b[31m\xe2\x80\xae")
records = [json.loads(line) for line in open(sys.argv[1])]
sys.exit(want not in [base64.b64decode(r.get("path_b64", "")) for r in records])
END
    for verb in 'query hostile' 'tree hostile' 'sessions'; do
        # shellcheck disable=SC2086
        kbsup audit $verb >"$WORK/screen" || fail "$verb"
        ! LC_ALL=C grep -q "$(printf '[\033\377]')" "$WORK/screen" || fail "$verb lets foreign bytes through"
    done
}

wrong_words() {
    run kbsup stauts
    expect_status 2
    expect_err 'status'
    run kbsup run --no-such-option -- true
    expect_status 2
    run kbsup attach no-such-session
    expect_status 1
    expect_one_error
    run kbsup audit query last 'event ='
    [ "$status" -ne 0 ] || fail 'half an expression was taken'
}

tap 'a missing workspace, or a file for one' missing_workspace
tap 'a policy that cannot be read' unreadable_policy
tap 'a policy that is wrong, or noise' wrong_policy
tap 'a command that is missing or cannot be run' missing_command
tap 'no user namespaces' no_user_namespaces
tap 'no runtime' no_runtime
tap 'a full disk for the store' full_disk
tap 'a second supervisor' second_supervisor
tap 'arguments of 1 MiB' huge_argv
tap 'a path with a newline, an escape and invalid UTF-8' hostile_names
tap 'wrong words' wrong_words
tap_end
