#!/usr/bin/env bash
# What a session cannot do, one claim per case. A probe runs inside, first as the session's command,
# then by `kbsup exec` in a running session: the same claims must hold for both.
. "$(dirname "$0")/lib.sh"

PORT_FILE=$WORK/port
UNIX_PATH=$WORK/host.sock
ABSTRACT=kbsup-test-$$
CANARY=KB_CANARY_$$
# Things of the host that a session must not see: a listener on loopback, on an abstract name, on a
# path; a process; an open file; a variable; files outside the workspace.
/usr/bin/python3 -c '
import socket, sys, time
port_file, path, abstract = sys.argv[1:]
tcp = socket.create_server(("127.0.0.1", 0))
unix, anon = (socket.socket(socket.AF_UNIX) for _ in range(2))
unix.bind(path); unix.listen(); anon.bind("\0" + abstract); anon.listen()
open(port_file + ".new", "w").write(str(tcp.getsockname()[1]))
import os; os.rename(port_file + ".new", port_file)
time.sleep(300)
' "$PORT_FILE" "$UNIX_PATH" "$ABSTRACT" &
HOST_PID=$!
wait_until 10 test -s "$PORT_FILE" || { echo 'Bail out! no listener'; exit 1; }
echo secret >"$WORK/outside"
cp "$TESTS/integration/probe.py" "$WS/probe.py"
cp /usr/bin/id "$WS/setuid-id"
chmod 4755 "$WS/setuid-id"
export KB_CANARY_NAME=$CANARY SSH_AUTH_SOCK=$UNIX_PATH AWS_SECRET_ACCESS_KEY=$CANARY

probe_args() {
    echo /usr/bin/python3 "$WS/probe.py" "$WS" "$(cat "$PORT_FILE")" "$ABSTRACT" "$UNIX_PATH" "$HOST_PID"
}

# fact EXPR: of the probe's report, for the session's command and for exec alike
fact() {
    json "$1" <"$WORK/$REPORT.json"
}

probe_run() {
    # shellcheck disable=SC2046 # words without blanks
    kbsup run --workspace "$WS" -- $(probe_args) >"$WORK/run.json" 2>"$WORK/stderr" \
        7<"$WORK/outside" </dev/null || fail 'the probe did not run'
}

probe_exec() {
    kbsup run --workspace "$WS" --name probed --detach -- sleep 300 >/dev/null 2>"$WORK/stderr" ||
        fail 'no session'
    # shellcheck disable=SC2046
    kbsup exec probed -- $(probe_args) >"$WORK/exec.json" 2>"$WORK/stderr" \
        7<"$WORK/outside" </dev/null || fail 'the probe did not run'
    kbsup stop probed >/dev/null 2>&1
}

writable_only_here() {
    local dir bad=''
    for dir in $(fact 'd["writable"]["dirs"]'); do
        case $dir in
        "$WS" | "$WS"/* | /tmp | /tmp/* | "$HOME" | "$HOME"/* | /var/tmp | /dev/shm | /dev/mqueue | /run | /run/*) ;;
        *) bad="$bad $dir" ;;
        esac
    done
    expect_equal "$bad" '' 'directories that take files'
    expect_equal "$(fact 'd["writable"]["files"]')" '' 'files that open for writing'
    case " $(fact 'd["writable"]["dirs"]' | tr '\n' ' ') " in
    *" $WS "*) ;;
    *) fail 'the workspace is not writable' ;;
    esac
}

# What is writable besides the workspace is private: it never reaches the host, and is gone after.
private_places_vanish() {
    local marker=kbsup-marker-$$-$RANDOM
    session -- sh -c "for d in /tmp \"\$HOME\" /dev/shm /run; do echo x >\$d/$marker 2>/dev/null; done; ls /tmp/$marker \"\$HOME/$marker\""
    expect_status 0
    for dir in /tmp "$HOME" "$TMPDIR" /dev/shm /run "$WORK"; do
        [ ! -e "$dir/$marker" ] || fail "$dir/$marker reached the host"
    done
    session -- sh -c "ls -a /tmp \"\$HOME\""
    case $out in *"$marker"*) fail 'the next session sees it' ;; esac
}

no_setuid_gain() {
    expect_equal "$(fact 'd["privileges"]["setuid_id"]')" "$(fact 'd["privileges"]["uid"]')" 'setuid uid'
    expect_equal "$(fact 'd["privileges"]["no_new_privs"]')" 1 no_new_privs
    [ "$(fact 'd["privileges"]["setuid0"]')" != None ] || fail 'setuid(0) worked'
}

no_capabilities() {
    expect_equal "$(fact 'sorted(set(d["privileges"]["caps"].values()))')" 0000000000000000 capabilities
    expect_equal "$(fact 'd["privileges"]["seccomp"]')" 2 'seccomp mode'
    for what in chroot mount unshare_mount unshare_user mknod ptrace_init; do
        [ -n "$(fact "d['privileges']['$what'] or ''")" ] || fail "$what worked"
    done
    [ "$(fact 'd["privileges"]["uid"]')" != 0 ] || fail 'the uid inside is 0'
}

own_namespaces() {
    local ns
    for ns in user pid mnt net ipc uts cgroup; do
        [ "$(fact "d['namespaces']['$ns']")" != "$(readlink /proc/self/ns/"$ns")" ] ||
            fail "the session shares the host's $ns namespace"
    done
}

no_host_process() {
    # init, the probe and what the session runs: a handful, with init first.
    local count
    count=$(fact 'len(d["neighbours"]["pids"])')
    [ "$count" -le 4 ] || fail "$count processes are visible: $(fact 'd["neighbours"]["pids"]')"
    expect_equal "$(fact 'd["neighbours"]["kill_host_pid"]')" ESRCH 'signal to a host process'
    alive "$HOST_PID" || fail 'the host process died'
}

no_host_socket() {
    for what in tcp abstract unix_path outside outside6; do
        [ -n "$(fact "d['neighbours']['$what'] or ''")" ] || fail "$what: connected"
    done
    for what in raw netlink; do
        [ -n "$(fact "d['neighbours']['$what'] or ''")" ] || fail "$what: a socket was made"
    done
    expect_equal "$(fact 'd["neighbours"]["interfaces"]')" lo interfaces
}

no_host_fd() {
    expect_equal "$(fact '[k for k in sorted(d["fds"]) if k not in "012"]')" '' 'descriptors beyond 0, 1, 2'
    case $(fact '" ".join(d["fds"].values())') in
    *outside* | *socket:*control*) fail "a host file is open inside: $(fact 'd["fds"]')" ;;
    esac
}

no_host_environment() {
    case $(fact 'str(d["environ"])') in
    *"$CANARY"*) fail 'a variable of the host is inside' ;;
    *SSH_AUTH_SOCK*) fail 'SSH_AUTH_SOCK is inside' ;;
    esac
    [ -n "$(fact 'd["environ"].get("KBSUP_SESSION", "")')" ] || fail 'KBSUP_SESSION is not set'
    [ "$(fact 'd["hostname"]')" != "$(uname -n)" ] || fail "the host's name is inside"
}

no_host_file() {
    echo hidden >"$HOME/hidden"
    session -- cat "$WORK/outside"
    [ "$status" -ne 0 ] || fail 'a file beside the workspace was read'
    session -- cat "$HOME/hidden"
    [ "$status" -ne 0 ] || fail "a file of the home directory was read"
    # What must not be made there is hidden by empty places.
    mkdir -p "$HOME/.ssh"
    echo hidden >"$HOME/.ssh/hidden-key"
    session -- find "$HOME" -name '*hidden*' -o -path "$WS" -prune -o -type f -size +0 -print
    [ -z "$out" ] || fail "of the host's home directory inside: $out"
    session -- cat /etc/shadow
    [ "$status" -ne 0 ] || fail '/etc/shadow was read'
    case $(kbsup run --workspace "$WS" -- cat /etc/passwd 2>/dev/null) in
    *sync:* | *games:* | *daemon:*) fail "the host's user list is inside" ;;
    esac
}

# The place is there, is readable and holds a program; no line says that it may be executed. No mount
# option stops that, and the collector leaves it to the kernel: Landlock alone refuses. Where an
# ordinary user can write, the preset lets programs be executed: so this needs a place of root's.
ungranted_is_refused() {
    local place
    place=$(mktemp -d /srv/kbt.XXXXXX)
    cp /usr/bin/true "$place/tool"
    chmod -R a+rX "$place"
    printf 'policy tight extends shell {\n    fs read "%s"\n}\n' "$place" >"$WORK/tight.policy"
    printf 'policy loose extends shell {\n    fs read "%s"\n    exec allow "%s"\n}\n' \
        "$place" "$place" >"$WORK/loose.policy"
    session --policy "$WORK/tight.policy" -- sh -c "$place/tool"
    cp "$WORK/stderr" "$WORK/tight.err"
    tight=$status
    session --policy "$WORK/loose.policy" -- sh -c "$place/tool"
    rm -r "$place"
    expect_status 0
    expect_equal "$tight" 126 'status without a line'
    grep -q 'Permission denied' "$WORK/tight.err" || fail 'refused for another reason'
}

# What is left running dies with the session, however well it hid from its parent.
daemons_die() {
    local mark=31415$RANDOM
    session -- sh -c "setsid sh -c 'trap \"\" HUP TERM; sleep $mark & sleep $mark' >/dev/null 2>&1 & sleep 0.2"
    expect_status 0
    wait_until 5 not sleeping "$mark" || fail 'a daemonised child outlived its session'
}

# Two layers each, as no_new_privs and Landlock stand behind them: asked of the mounts themselves.
mounts_are_plain() {
    local bad
    session -- cat /proc/self/mountinfo
    expect_status 0
    # The runtime's own empty covers over parts of /proc hold nothing that could be run.
    bad=$(awk '$6 !~ /(^|,)nosuid(,|$)/ && !($5 ~ "^/proc/" && $6 ~ /(^|,)ro(,|$)/) {print $5}' <<<"$out")
    expect_equal "$bad" '' 'mounts without nosuid'
    bad=$(awk -v ws="$WS" -v home="$HOME" '$6 !~ /(^|,)ro(,|$)/ && $5 != ws && $5 != home &&
        $5 !~ "^/(tmp|run|var/tmp|proc|proc/(keys|timer_list|kallsyms|kmsg|kcore|sched_debug)|dev/.*)$" {print $5}' <<<"$out")
    expect_equal "$bad" '' 'system mounts that are not read-only'
    awk '$5 == "/usr" {found = 1} END {exit !found}' <<<"$out" || fail 'no /usr among the mounts'
}

sleeping() { # with this argument
    local file
    while IFS= read -r file; do
        [ "$(cat "${file%cmdline}comm" 2>/dev/null)" != sleep ] || return 0
    done < <(grep -lzxF -- "$1" /proc/[0-9]*/cmdline 2>/dev/null)
    return 1
}

exec_dies_with_the_session() {
    local mark=27182$RANDOM
    kbsup run --workspace "$WS" --name mortal --detach -- sleep 300 >/dev/null 2>"$WORK/stderr"
    kbsup exec mortal -- sleep "$mark" >/dev/null 2>&1 </dev/null &
    wait_until 10 sleeping "$mark" || fail 'exec did not start'
    kbsup stop mortal >/dev/null 2>"$WORK/stderr" || fail 'not stopped'
    wait_until 5 not sleeping "$mark" || fail 'a process started by exec outlived the session'
    wait $! || true
}

tap 'the probe runs as the command of a session' probe_run
tap 'the probe runs by exec' probe_exec
for REPORT in run exec; do
    tap "$REPORT: nothing outside the workspace is writable" writable_only_here
    tap "$REPORT: a setuid program gains nothing" no_setuid_gain
    tap "$REPORT: no capabilities, no way to get any" no_capabilities
    tap "$REPORT: every namespace is its own" own_namespaces
    tap "$REPORT: no process of the host is visible" no_host_process
    tap "$REPORT: no socket of the host or of the network is reachable" no_host_socket
    tap "$REPORT: no descriptor of the host is open" no_host_fd
    tap "$REPORT: no variable or name of the host is inside" no_host_environment
done
tap 'no file of the host outside the workspace can be read' no_host_file
[ "$(id -u)" -ne 0 ] ||
    tap 'what no line lets be executed is not, wherever it lies' ungranted_is_refused
tap 'mounts take no setuid bits, those of the system no writes' mounts_are_plain
tap 'what is written to private places stays private and vanishes' private_places_vanish
tap 'a daemonised child dies with its session' daemons_die
tap 'a process started by exec dies with the session' exec_dies_with_the_session
kill "$HOST_PID"
wait "$HOST_PID" 2>/dev/null
tap_end
