# shellcheck shell=bash
# What the black-box tests share. A test is a bash script, started as: SCRIPT BUILD-DIR [--as-user]
#
#   . "$(dirname "$0")/lib.sh"        # private directories, the programs, cleanup
#   case_one() { run kbsup version; expect_status 0; }
#   tap 'what it shows' case_one      # one TAP line each; a case runs in a subshell under set -e
#   tap_end
#
# Everything a test makes lies under $WORK: HOME, the XDG directories, a workspace $WS, and copies of
# the programs, so that an ordinary user can run them from a tree it could not even enter. At the end
# the supervisor is stopped and whatever is left (a process, a mount) is named, removed, and fails the
# test. With --as-user, a test started by root runs again as an ordinary user, made when missing.

set -u
KB_TEST_USER=kbtest
KB_TIMEOUT=${KB_TIMEOUT:-60} # seconds any one command may take

if [ $# -lt 1 ] || [ ! -d "$1" ]; then
    echo "usage: $0 BUILD-DIR [--as-user]" >&2
    exit 2
fi

# ---- Private directories -------------------------------------------------------------------------

TESTS=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BUILD=$(cd "$1" && pwd)
WORK=$(mktemp -d "${TMPDIR:-/tmp}/kbt.XXXXXX")
chmod 755 "$WORK"
BIN=$WORK/bin
WS=$WORK/ws
mkdir "$BIN"

copy_programs() {
    local program
    for program in cli/kbsup daemon/kbsupd guest/kbsup-guest init/kbsup-init; do
        cp "$BUILD/supervisor/$program" "$BIN/" || exit 1
    done
    chmod 755 "$BIN"/*
}

use_private_dirs() {
    export HOME=$WORK/home XDG_RUNTIME_DIR=$WORK/run XDG_STATE_HOME=$WORK/state
    export XDG_CONFIG_HOME=$WORK/config TMPDIR=$WORK/tmp KBSUP_TEST_WORK=$WORK
    mkdir -m 700 "$HOME" "$XDG_RUNTIME_DIR" "$XDG_STATE_HOME" "$XDG_CONFIG_HOME"
    mkdir "$TMPDIR" "$WS"
    unset KBSUP_LOG KBSUP_LIBEXEC KBSUP_SESSION XDG_DATA_HOME
}

skip_all() { # reason
    echo "1..0 # SKIP $1"
    rm -rf "$WORK"
    exit 0
}

# ---- The same test as an ordinary user -----------------------------------------------------------

# The user stays for the next test: tests run side by side.
make_user() {
    (
        flock 9
        id "$KB_TEST_USER" >/dev/null 2>&1 && exit 0
        useradd --create-home --shell /bin/sh "$KB_TEST_USER"
    ) 9>/tmp/.kbsup-test-user.lock
}

rerun_as_user() {
    local script status
    script=$(cd "$(dirname "$0")" && pwd)/$(basename "$0")
    script=${script#"$TESTS/"}
    [ "$(id -u)" -eq 0 ] || skip_all 'not root: the plain run was the run as an ordinary user'
    make_user || skip_all "the user $KB_TEST_USER cannot be made"
    # What the user needs to read: the programs and the tests, in the layout of the build.
    mkdir -p "$WORK/build/supervisor/"{cli,daemon,guest,init} "$WORK/tests" "$WORK/tmp"
    cp "$BUILD/supervisor/cli/kbsup" "$WORK/build/supervisor/cli/"
    cp "$BUILD/supervisor/daemon/kbsupd" "$WORK/build/supervisor/daemon/"
    cp "$BUILD/supervisor/guest/kbsup-guest" "$WORK/build/supervisor/guest/"
    cp "$BUILD/supervisor/init/kbsup-init" "$WORK/build/supervisor/init/"
    cp -r "$TESTS/integration" "$WORK/tests/"
    [ "${script%%/*}" = integration ] || cp -r "$TESTS/${script%%/*}" "$WORK/tests/"
    [ ! -d "$TESTS/demo" ] || cp -r "$TESTS/demo" "$WORK/tests/"
    chmod -R a+rX "$WORK/build" "$WORK/tests"
    chmod 1777 "$WORK/tmp"
    cd / || exit 1
    runuser -u "$KB_TEST_USER" -- env -i "PATH=$PATH" LANG=C.UTF-8 "TMPDIR=$WORK/tmp" \
        "USER=$KB_TEST_USER" "LOGNAME=$KB_TEST_USER" "KB_TIMEOUT=$KB_TIMEOUT" \
        ${KB_WORLD:+"KB_WORLD=$KB_WORLD" KB_WORLD_INSIDE=yes "SSL_CERT_FILE=$KB_WORLD/trust.pem"} \
        ${KB_AGENTS:+"KB_AGENTS=$KB_AGENTS"} \
        ${ASAN_OPTIONS:+"ASAN_OPTIONS=$ASAN_OPTIONS"} \
        ${UBSAN_OPTIONS:+"UBSAN_OPTIONS=$UBSAN_OPTIONS"} \
        bash "$WORK/tests/$script" "$WORK/build"
    status=$?
    rm -rf "$WORK"
    exit $status
}

[ "${2:-}" != --as-user ] || rerun_as_user
copy_programs
use_private_dirs
export WS
cd "$WS" || exit 1

# ---- Running -------------------------------------------------------------------------------------

kbsup() {
    timeout -k 5 "$KB_TIMEOUT" "$BIN/kbsup" "$@"
}

# Run a command; $out, $err and $status hold what came of it. Bytes are exact in the files.
run() {
    status=0
    "$@" >"$WORK/stdout" 2>"$WORK/stderr" </dev/null || status=$?
    out=$(tr -d '\0' <"$WORK/stdout")
    err=$(tr -d '\0' <"$WORK/stderr")
}

# A session, with what the command printed in $out.
session() {
    run kbsup run --workspace "$WS" "$@"
}

# Processes of this test that still run: "PID command line" each.
leftovers() {
    python3 "$TESTS/integration/leftovers.py" "$WORK"
}

# The supervisor's pid, or nothing. Never starts one.
supervisor_pid() {
    [ -S "$XDG_RUNTIME_DIR/kbsup/control.sock" ] || return 0
    kbsup status --json 2>/dev/null | json 'd.get("pid") or ""'
}

stop_supervisor() {
    local pid
    pid=$(supervisor_pid)
    [ -n "$pid" ] || return 0
    kill "$pid" 2>/dev/null || return 0
    wait_until 10 not alive "$pid"
}

alive() {
    [ -d "/proc/$1" ] && ! grep -qs '^State:[[:space:]]*Z' "/proc/$1/status"
}

not() {
    ! "$@"
}

wait_until() { # seconds, condition…
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.05
    done
}

# ---- Looking at results --------------------------------------------------------------------------

# json EXPR: a Python expression over the document d (or the list of lines L) on standard input.
json() {
    python3 -c '
import json, sys
text = sys.stdin.read()
try:
    d = json.loads(text)
    L = [d]
except ValueError:
    L = [json.loads(line) for line in text.splitlines() if line.strip()]
    d = L
r = eval(sys.argv[1])
if isinstance(r, (list, tuple)):
    print("\n".join(str(x) for x in r))
elif r is not None:
    print(r)
' "$1"
}

fail() {
    echo "$*"
    [ ! -s "$WORK/stdout" ] || { echo '--- stdout'; tail -n 30 "$WORK/stdout"; }
    [ ! -s "$WORK/stderr" ] || { echo '--- stderr'; tail -n 30 "$WORK/stderr"; }
    exit 1
}

expect_status() {
    [ "$status" = "$1" ] || fail "status $status, expected $1"
}

expect_out() { # text that must appear on stdout
    case $out in *"$1"*) ;; *) fail "stdout lacks: $1" ;; esac
}

expect_err() {
    case $err in *"$1"*) ;; *) fail "stderr lacks: $1" ;; esac
}

expect_equal() { # actual, expected, what
    [ "$1" = "$2" ] || fail "${3:-value}: '$1', expected '$2'"
}

# The error contract on the screen: one line what and why, at most one line of remedy, nothing else.
expect_one_error() {
    local lines
    lines=$(grep -c . "$WORK/stderr") || true
    if [ "$lines" -lt 1 ] || [ "$lines" -gt 2 ]; then
        fail "expected one error of one or two lines, got $lines"
    fi
    if LC_ALL=C grep -q "[[:cntrl:]]" <(tr -d '\n\t' <"$WORK/stderr"); then
        fail 'the error holds control characters'
    fi
}

# ---- TAP -----------------------------------------------------------------------------------------

tap_count=0
tap_failed=0

tap() { # description, function, arguments…
    local what=$1 rc
    shift
    tap_count=$((tap_count + 1))
    (
        set -e
        "$@"
    ) >"$WORK/case.log" 2>&1
    rc=$?
    if [ $rc -eq 0 ]; then
        echo "ok $tap_count - $what"
    elif [ $rc -eq 77 ]; then
        echo "ok $tap_count - $what # SKIP $(tail -n 1 "$WORK/case.log")"
    else
        echo "not ok $tap_count - $what"
        tail -n 60 "$WORK/case.log" | sed 's/^/# /'
        tap_failed=1
    fi
}

skip() { # in a case: reason
    echo "$1"
    exit 77
}

# Nothing may be left: stop the supervisor, then look.
nothing_left() {
    local processes mounts
    stop_supervisor || echo 'the supervisor did not stop within 10 s of SIGTERM'
    wait_until 5 no_leftovers || true
    processes=$(leftovers)
    mounts=$(grep -F " $WORK/" /proc/self/mountinfo | cut -d' ' -f5) || true
    [ -n "$processes$mounts" ] || return 0
    [ -z "$processes" ] || echo "left behind: processes $processes"
    [ -z "$mounts" ] || echo "left behind: mounts $mounts"
    return 1
}

no_leftovers() {
    [ -z "$(leftovers)" ]
}

remove_work() {
    local pid
    for pid in $(leftovers | cut -d' ' -f1); do
        kill -KILL "$pid" 2>/dev/null
    done
    cd /
    chmod -R u+rwX "$WORK" 2>/dev/null
    rm -rf "$WORK"
}
trap remove_work EXIT

tap_end() {
    tap 'nothing is left behind' nothing_left
    echo "1..$tap_count"
    exit $tap_failed
}
