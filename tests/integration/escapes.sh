#!/usr/bin/env bash
# What has led out of sandboxes elsewhere, tried in a session: each has to be refused, and where it is
# a deed, to be in the record as such. The numbers are those of the list of techniques that such
# sandboxes were tested with (host trust 1 to 10, sockets 11 to 15, privilege 16 to 23, paths 26 to
# 28, control 41 to 46, resources 55 to 58); what confinement.sh, bad_input.sh and profiles.sh show is
# not shown again.
# shellcheck disable=SC2016 # what is in single quotes is for the shell of the session
. "$(dirname "$0")/lib.sh"

PYTHON=/usr/bin/python3
SECRET=$WORK/secret
echo 'secret of the host' >"$SECRET"
cp "$TESTS/integration/escapes.py" "$WS/"
cc -O1 -pthread -o "$WS/escapes" "$TESTS/integration/escapes.c" || { echo 'Bail out! the probes do not compile'; exit 1; }
cp "$WS/escapes" "$WORK/escapes"
echo 'public' >"$WS/public"
printf 'policy p version 1 extends shell, project { }\n' >"$WORK/project.policy"

LANES=notify
[ "$(id -u)" -ne 0 ] || ! kbsup run --lane bpf --workspace "$WS" -- true >/dev/null 2>&1 || LANES='notify bpf'

# A socket of the host's where services have theirs, as far as this user can put one there.
HOST_SOCKET=$XDG_RUNTIME_DIR/service.sock
"$PYTHON" -c '
import socket, sys, time
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()
time.sleep(300)' "$HOST_SOCKET" &
HOST_PID=$!
wait_until 10 test -S "$HOST_SOCKET" || { echo 'Bail out! no socket'; exit 1; }

# ---- The probes, once for each lane --------------------------------------------------------------

probe() {
    rm -f "$WS"/a-*link
    kbsup run --lane "$LANE" --workspace "$WS" --name "probe-$LANE" -- "$PYTHON" "$WS/escapes.py" "$WS" \
        "$SECRET" "$HOST_SOCKET" "$XDG_RUNTIME_DIR/kbsup/control.sock" \
        >"$WORK/probe-$LANE.json" 2>"$WORK/stderr" </dev/null || fail 'the probe did not run'
    kbsup run --lane "$LANE" --workspace "$WS" --name "calls-$LANE" -- "$WS/escapes" "$WS/public" "$SECRET" \
        >"$WORK/calls-$LANE" 2>"$WORK/stderr" </dev/null || fail 'the calls were not made'
}

fact() { # EXPR
    json "$1" <"$WORK/probe-$LANE.json"
}

made() { # NAME: what came of a call
    sed -n "s/^$1 //p" "$WORK/calls-$LANE"
}

recorded() { # SESSION EXPR: at least one such record; ends the case without
    is_recorded "$@" || fail "no record in $1: $2"
}

is_recorded() {
    [ -n "$(kbsup audit query "$1" "$2" --json --limit 1)" ]
}

denied() { # SESSION CALL…
    local session=$1 call
    shift
    for call in "$@"; do
        recorded "$session" "syscall = $call and decision = denied"
    done
}

no_socket_is_found() { # 11, 12, 13
    expect_equal "$(fact 'd["sockets"]')" '' 'socket files'
    expect_equal "$(fact 'd["abstract"]')" '' 'abstract names'
    expect_equal "$(fact '[p for p, e in d["connect"].items() if e is None]')" '' 'connected'
    recorded "probe-$LANE" 'event = connect and outcome = failed'
}

other_conventions_are_closed() { # 16
    local name
    [ "$(uname -m)" = x86_64 ] || skip 'x86_64 alone has them'
    for name in mount ptrace socket getpid; do
        expect_equal "$(made "x32.$name")" 38 "x32 $name"
    done
    for name in socketcall mount ptrace open; do
        expect_equal "$(made "int80.$name")" 'signal 31' "int80 $name"
    done
    # 0x40000000 + 165: mount of x32. Who used the 32-bit entry was killed, and that is recorded.
    recorded "calls-$LANE" 'syscall = 1073741989 and decision = denied'
    expect_equal "$(kbsup audit query "calls-$LANE" 'event = exit and signal = SIGSYS' --json | wc -l)" 4 'killed'
}

unknown_calls_are_closed() {
    expect_equal "$(made unknown.number)$(made unknown.negative)" 3838 'made-up numbers'
    recorded "calls-$LANE" 'syscall = 5120 and decision = denied'
}

rings_are_closed() { # 17
    local call
    for call in setup enter register; do
        expect_equal "$(fact "d['calls']['io_uring_$call']")" ENOSYS "io_uring_$call"
        denied "probe-$LANE" "io_uring_$call"
    done
}

no_namespaces() { # 19
    expect_equal "$(fact 'sorted(set(d["unshare_flags"].values()))')" EPERM unshare
    expect_equal "$(fact 'd["calls"]["clone3"]')" ENOSYS 'clone3 makes libraries fall back'
    for call in mount umount2 pivot_root open_tree fsopen move_mount mount_setattr setns; do
        expect_equal "$(fact "d['calls']['$call']")" EPERM "$call"
    done
    [ "$(fact 'd["umount_usr"]')" != 0 ] || fail '/usr was unmounted'
    [ "$(fact 'd["remount_usr"]')" != 0 ] || fail '/usr was made writable'
    denied "probe-$LANE" unshare setns mount umount2 pivot_root move_mount
}

no_other_process() { # 20
    for call in ptrace process_vm_readv pidfd_getfd kcmp; do
        expect_equal "$(fact "d['calls']['$call']")" EPERM "$call"
    done
    for call in mem read write pidfd root ns; do
        [ "$(made "init.$call")" != ok ] || fail "pid 1: $call"
    done
    denied "probe-$LANE" ptrace process_vm_readv pidfd_getfd
    recorded "calls-$LANE" 'path = /proc/1/mem and decision = denied'
}

exec_has_the_filters() { # 21
    kbsup run --lane "$LANE" --workspace "$WS" --name "long-$LANE" --detach -- sleep 60 >/dev/null 2>&1
    run kbsup exec "long-$LANE" -- grep -E '^(Seccomp|NoNewPrivs|CapEff|CapBnd):' /proc/self/status
    expect_equal "$(tr -d '\t' <<<"$out" | sort | tr '\n' ' ')" \
        'CapBnd:0000000000000000 CapEff:0000000000000000 NoNewPrivs:1 Seccomp:2 '
    run kbsup exec "long-$LANE" -- sh -c 'cat "$1"; unshare -U true' sh "$SECRET"
    [ "$status" -ne 0 ] || fail 'exec can more than the session'
    wait_until 10 is_recorded "long-$LANE" 'syscall = unshare and decision = denied' || fail 'no record'
    kbsup stop --now "long-$LANE" >/dev/null 2>&1
}

nothing_of_the_kernel_is_set() { # 22
    expect_equal "$(fact '[p for p, e in d["proc"].items() if e is None]')" '' 'written'
    recorded "probe-$LANE" 'path = /proc/sys/kernel/core_pattern and decision = denied'
    recorded "probe-$LANE" 'path = /proc/sysrq-trigger and decision = denied'
}

nothing_gains() { # 23
    expect_equal "$(fact 'd["setuid"]')" '' 'programs that ran as somebody else'
    expect_equal "$(fact 'd["filters"]' | tr -d '\t' | tr '\n' ' ')" 'NoNewPrivs:1 Seccomp:2 '
}

odd_families_are_closed() { # 49 as far as a container goes
    for family in vsock packet alg; do
        expect_equal "$(fact "d['$family']")" EAFNOSUPPORT "AF_$family"
    done
    denied "probe-$LANE" socket
}

other_calls_are_closed() {
    local call
    for call in bpf keyctl add_key perf_event_open userfaultfd init_module kexec_load \
        open_by_handle_at reboot settimeofday swapon quotactl acct; do
        expect_equal "$(fact "d['calls']['$call']")" EPERM "$call"
        denied "probe-$LANE" "$call"
    done
    expect_equal "$(fact 'd["calls"]["seccomp"], d["calls"]["memfd_secret"]')" 'EINVAL
ENOSYS'
    denied "probe-$LANE" seccomp memfd_secret
}

names_that_flip_open_nothing() { # 26
    expect_equal "$(made flips.read)" 0 'times that the secret was read'
    recorded "calls-$LANE" "path = $SECRET and decision = denied"
}

what_cannot_be_read_is_refused() { # 27
    for call in path exec connect; do
        [ "$(made "broken.$call")" != ok ] || fail "an unreadable $call went through"
    done
}

no_spelling_opens() { # 28
    expect_equal "$(fact '[how for t in d["spelling"].values() for how, e in t.items() if e is None]')" '' 'spellings'
    recorded "probe-$LANE" "path = $SECRET and decision = denied"
}

terminal_takes_nothing_from_inside() {
    expect_equal "$(fact 'd["tiocsti"]')" EPERM TIOCSTI
    denied "probe-$LANE" ioctl
}

# ---- What outlives a session ---------------------------------------------------------------------

protected_files_stay() { # 1, 2, 5
    mkdir -p "$WS/repo/.git/hooks" "$WS/repo/vendor/s/.git/hooks" "$WS/repo/.husky"
    echo '[core]' >"$WS/repo/.git/config"
    echo 'plain' >"$WS/repo/.envrc"
    run kbsup run --workspace "$WS/repo" --policy "$WORK/project.policy" --name planter -- sh -c '
        for f in .git/hooks/pre-commit vendor/s/.git/hooks/post-checkout .git/config .envrc .husky/x; do
            echo x 2>/dev/null >$f && echo "wrote $f"
        done; rm -rf .git/hooks .husky 2>/dev/null; ls -d .git/hooks .husky; cat .envrc'
    expect_equal "$out" ".git/hooks
.husky
plain"
    expect_equal "$(find "$WS/repo/.git/hooks" "$WS/repo/vendor/s/.git/hooks" -type f)" '' 'planted hooks'
    for path in .git/hooks/pre-commit vendor/s/.git/hooks/post-checkout .git/config .envrc; do
        recorded planter "path = $WS/repo/$path and decision = denied"
    done
}

# One word of a policy holds against every call that means the same, the old and the newest ones.
no_other_call_changes_it() {
    local guarded=$WS/repo2/.git/hooks before call
    rm -rf "$WS/repo2"
    mkdir -p "$guarded" "$WS/repo2/plain"
    echo mine | tee "$guarded/file" >"$WS/repo2/plain/file"
    cp "$WS/escapes.py" "$WS/repo2/"
    session -- "$PYTHON" repo2/escapes.py --changes "$WS/repo2/plain"
    expect_equal "$(json 'sum(e is None for e in d.values()) >= 10' <"$WORK/stdout")" True 'calls that work elsewhere'
    before=$(stat -c '%n %i %a %u %s %Y' "$guarded" "$guarded"/*)
    kbsup run --lane "$LANE" --workspace "$WS/repo2" --policy "$WORK/project.policy" --name "changes-$LANE" -- \
        "$PYTHON" escapes.py --changes "$guarded" >"$WORK/stdout" 2>"$WORK/stderr" </dev/null ||
        fail 'the calls were not made'
    expect_equal "$(json '[c for c, e in d.items() if e is None]' <"$WORK/stdout")" '' 'calls that worked'
    expect_equal "$(json 'len(d) >= 20' <"$WORK/stdout")" True 'calls that were made'
    expect_equal "$(stat -c '%n %i %a %u %s %Y' "$guarded" "$guarded"/*)" "$before" 'what is protected'
    expect_equal "$(cat "$guarded/file")" mine
    for call in openat openat2 truncate unlinkat renameat2 linkat symlinkat mkdirat mknodat fchmodat fchownat \
        $([ "$(uname -m)" != x86_64 ] || echo open creat unlink rename link symlink mkdir chmod chown); do
        recorded "changes-$LANE" "syscall = $call and outcome = failed"
    done
}

# Made anew in the session they cannot be protected: then the record tells.
new_traps_are_told() { # 1, 3, 4, 6
    run kbsup run --workspace "$WS/repo" --name maker -- sh -c '
        mkdir -p new/.git/hooks .vscode .venv/bin && echo x >new/.git/hooks/pre-commit &&
        echo x >.vscode/tasks.json && echo x >.venv/bin/python && mv .git old && echo "gitdir: ../x" >.git'
    expect_status 0
    for path in new/.git/hooks/pre-commit .vscode/tasks.json .venv/bin/python .git; do
        recorded maker "event = open and path = $WS/repo/$path"
    done
    recorded maker "event = rename and path2 = $WS/repo/old"
    rm -rf "$WS/repo"
}

workspace_that_is_swapped() { # 10
    local i stop=$WORK/stop
    mkdir -p "$WORK/real"
    echo mine >"$WORK/real/mark"
    mkdir -p "$WORK/victim"
    echo theirs >"$WORK/victim/mark"
    "$PYTHON" - "$WORK" <<'END' &
import os, sys, time
os.chdir(sys.argv[1])
end = time.time() + 60
os.rename("real", "spare") if os.path.isdir("real") else None
while time.time() < end and not os.path.exists("stop"):
    os.rename("spare", "real")
    time.sleep(0.002)
    os.rename("real", "spare")
    os.symlink("victim", "real")
    time.sleep(0.002)
    os.unlink("real")
END
    for ((i = 0; i < 25; i++)); do
        # Where it was a link when the name was looked up, the session knows that it is elsewhere.
        run kbsup run --workspace "$WORK/real" -- sh -c 'cat mark; pwd'
        case $out in theirs*/real) touch "$stop"; fail 'another directory was inside' ;; esac
    done
    touch "$stop"
    wait $!
}

# ---- The supervisor ------------------------------------------------------------------------------

# Even where the workspace holds them.
control_and_record_are_out_of_reach() { # 41, 42
    run kbsup run --workspace "$WORK" --name keeper -- sh -c '
        ls -A "$1/kbsup" "$2/kbsup" "$3/kbsup" 2>/dev/null; echo x >"$2/kbsup/store/x"; find / -name "control.sock" -o -name "*.mdb" 2>/dev/null' \
        sh "$XDG_RUNTIME_DIR" "$XDG_STATE_HOME" "$XDG_CONFIG_HOME"
    case $out in *sock* | *mdb* | *log*) fail "seen: $out" ;; esac
    [ ! -e "$XDG_STATE_HOME/kbsup/store/x" ] || fail 'the store was written'
}

flood_leaves_no_gap() { # 43
    run kbsup run --workspace "$WS" --name flood -- "$PYTHON" -c '
import os
for _ in range(60000):
    try: os.open("/nonexistent", 0)
    except OSError: pass
    os.getpid()'
    expect_status 0
    kbsup audit query flood --json >"$WORK/flood.jsonl"
    expect_equal "$(json '[r["seq"] for r in L] == list(range(1, len(L) + 1))' <"$WORK/flood.jsonl")" True 'sequence'
    expect_equal "$(json 'sum(r.get("path") == "/nonexistent" for r in L) + sum(r.get("count", 0) for r in L if r["event"] in ("loss", "throttle")) >= 60000' <"$WORK/flood.jsonl")" True 'opens accounted for'
    run kbsup audit verify flood
    expect_status 0
}

# What `policy explain` says is what the kernel does.
explained_as_enforced() { # 45
    local question word live
    while read -r word question; do
        run kbsup policy explain shell "$question"
        live=allowed
        session -- "$PYTHON" -c "
import errno, os, socket, sys
$(cat "$WORK/live-$word")" || true
        [ "$status" -eq 0 ] || live=denied
        run kbsup policy explain shell "$question"
        case "$live:$out" in
        allowed:allowed* | denied:denied* | allowed:recorded*) ;;
        *) fail "$question: it is $live, and explained as: $(head -n 1 <<<"$out")" ;;
        esac
    done <"$WORK/questions"
}
live() { # WORD QUESTION, then Python on standard input
    printf '%s %s\n' "$1" "$2" >>"$WORK/questions"
    cat >"$WORK/live-$1"
}
live shadow 'openat("/etc/shadow", O_RDONLY)' <<<'open("/etc/shadow")'
live libc 'openat("/usr/bin/env", O_RDONLY)' <<<'open("/usr/bin/env")'
live usr 'openat("/usr/bin/env", O_WRONLY)' <<<'os.open("/usr/bin/env", os.O_WRONLY)'
live tmp 'openat("/tmp/x", O_WRONLY|O_CREAT)' <<<'open("/tmp/x", "w")'
live mount 'mount("a", "/tmp/x", "tmpfs", 0, 0)' <<'END'
import ctypes
sys.exit(ctypes.CDLL(None).mount(b"a", b"/tmp", b"tmpfs", 0, 0) != 0)
END
live net 'connect 10.0.0.1:22' <<<'socket.create_connection(("10.0.0.1", 22), 2)'
live listen 'socket(AF_INET, SOCK_STREAM, 0)' <<<'socket.socket()'
live vsock 'socket(AF_VSOCK, SOCK_STREAM, 0)' <<<'socket.socket(40, 1)'
live ssh 'openat("~/.ssh/id_ed25519", O_RDONLY)' <<<'open(os.path.expanduser("~/.ssh/id_ed25519"))'

# ---- Resources -----------------------------------------------------------------------------------

limits_hold() { # 55
    printf 'policy small version 1 extends shell {\n    limit pids 64 if-available\n    limit disk 4M\n    limit open-files 64\n    limit memory 200M if-available\n}\n' >"$WORK/small.policy"
    # As many as it can, five seconds long at most.
    session --policy "$WORK/small.policy" --name bomb -- "$PYTHON" -c '
import os, time
n = 0
try:
    for _ in range(400):
        if os.fork() == 0:
            time.sleep(3); os._exit(0)
        n += 1
except OSError as e: print("forks", n, e.errno)'
    case $out in "forks "*) ;; *) [ "$(id -u)" -ne 0 ] || fail "forks went on: $out" ;; esac
    session --policy "$WORK/small.policy" -- "$PYTHON" -c '
import os
try:
    for _ in range(1000): os.open("/dev/null", 0)
except OSError as e: print("files", e.errno)
try:
    with open("/tmp/big", "wb") as f:
        for _ in range(100): f.write(b"x" * 1048576)
except OSError as e: print("disk", e.errno)'
    expect_out 'files 24'
    session -- true
    expect_status 0
}

missing_mechanism_refuses() { # 57; MECHANISM
    stop_supervisor
    run timeout 60 "$WORK/escapes" --without "$1" "$BIN/kbsup" run --workspace "$WS" -- touch "$WS/ran"
    stop_supervisor
    [ ! -e "$WS/ran" ] || fail "it ran without $1"
    expect_status 4
    expect_one_error
}

no_word_inside_widens() { # 58
    local word
    for word in KBSUP_DISABLE=1 KBSUP_LANE=none KBSUP_POLICY=/dev/null KBSUP_SANDBOX=off; do
        session --env "$word" -- sh -c "export $word; cat '$SECRET'"
        [ "$status" -ne 0 ] || fail "$word opened the secret"
    done
    session --env KBSUP_SESSION=other -- sh -c 'echo "$KBSUP_SESSION"'
    [ "$out" != other ] || fail 'a session goes by another name'
}

for LANE in $LANES; do
    tap "$LANE: the probes run" probe
    tap "$LANE: 11–13 no socket of the host's is found, none connects" no_socket_is_found
    tap "$LANE: 16 other calling conventions lead nowhere" other_conventions_are_closed
    tap "$LANE: calls nobody knows are refused and recorded" unknown_calls_are_closed
    tap "$LANE: 17 io_uring is not there" rings_are_closed
    tap "$LANE: 19 no namespaces, no mounts of its own" no_namespaces
    tap "$LANE: 20 no other process is read, written or traced" no_other_process
    tap "$LANE: 21 exec has the same filters" exec_has_the_filters
    tap "$LANE: 22 nothing of the kernel's is set" nothing_of_the_kernel_is_set
    tap "$LANE: 23 no program gains anything" nothing_gains
    tap "$LANE: sockets of odd families are refused" odd_families_are_closed
    tap "$LANE: calls for administrators are refused and recorded" other_calls_are_closed
    tap "$LANE: 26 a name that flips while it is looked at opens nothing" names_that_flip_open_nothing
    tap "$LANE: 27 what the collector cannot read is refused" what_cannot_be_read_is_refused
    tap "$LANE: 28 no other spelling of a path opens it" no_spelling_opens
    tap "$LANE: 1 no other call changes what is protected" no_other_call_changes_it
    tap "$LANE: a terminal takes nothing from inside" terminal_takes_nothing_from_inside
done
tap '1, 2, 5 hooks and settings that the host would run stay as they are' protected_files_stay
tap '1, 3, 4, 6 those made anew are in the record' new_traps_are_told
tap '10 a workspace that is swapped for a link is never another one' workspace_that_is_swapped
tap '41, 42 neither the supervisor nor the record can be reached' control_and_record_are_out_of_reach
tap '43 a flood of calls leaves no gap' flood_leaves_no_gap
tap '45 what is explained is what is enforced' explained_as_enforced
tap '55 limits hold, and the next session starts' limits_hold
for mechanism in landlock seccomp; do
    tap "57 without $mechanism nothing runs" missing_mechanism_refuses $mechanism
done
tap '58 no word inside widens anything' no_word_inside_widens
kill "$HOST_PID"
wait "$HOST_PID" 2>/dev/null
tap_end
