#!/usr/bin/env bash
# The seccomp object that `policy compile --emit oci` writes, given to a plain OCI runtime: its sessions
# meet the errors that `policy explain` foretells, and calls the policy allows reach the kernel.
. "$(dirname "$0")/lib.sh"

[ "$(id -u)" -eq 0 ] || skip_all 'a plain runtime is run as root'
[ "$(uname -m)" = x86_64 ] || skip_all 'the numbers of the calls are those of x86_64'
PATH=$PATH:/usr/sbin

# Where the kernel alone would have answered otherwise to root: see without_it_they_differ.
cat >"$WORK/questions" <<'E2'
getppid() = 110
personality(0xffffffff) = 135 0xffffffff
personality(8) = 135 8
socket(AF_UNIX, SOCK_STREAM, 0) = 41 1 1 0
socket(AF_INET, SOCK_STREAM, 0) = 41 2 1 0
socket(AF_INET, SOCK_RAW, 1) = 41 2 3 1
socket(AF_INET6, 0x80803, 58) = 41 10 0x80803 58
socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE) = 41 16 3 0
socket(AF_NETLINK, SOCK_RAW, 15) = 41 16 3 15
socket(AF_PACKET, SOCK_RAW, 0) = 41 17 3 0
socket(0x100000011, SOCK_RAW, 0) = 41 0x100000011 3 0
ioctl(0, TIOCSTI, 0) = 16 0 0x5412 0
ioctl(0, 0x100005412, 0) = 16 0 0x100005412 0
ioctl(0, FIONREAD, 0) = 16 0 0x541b 0
prctl(PR_SET_SECCOMP, 2, 0) = 157 22 2 0
prctl(PR_GET_NO_NEW_PRIVS, 0, 0) = 157 39 0 0
clone(CLONE_NEWUSER, 0, 0, 0, 0) = 56 0x10000000 0 0 0 0
unshare(CLONE_NEWUTS) = 272 0x04000000
clone3(0, 0) = 435 0 0
seccomp(0, 0, 0) = 317 0 0 0
ptrace(0, 0, 0, 0) = 101 0 0 0 0
keyctl(0, 0xfffffffd, 0, 0, 0) = 250 0 -3 0 0 0
mount(0, 0, 0, 0, 0) = 165 0 0 0 0 0
umount2(0, 0) = 166 0 0
bpf(0, 0, 0) = 321 0 0 0
perf_event_open(0, 0, 0, 0, 0) = 298 0 0 0 0 0
io_uring_setup(1, 0) = 425 1 0
memfd_secret(0) = 447 0
name_to_handle_at(-1, 0, 0, 0, 0) = 303 -1 0 0 0 0
swapon(0, 0) = 167 0 0
acct(0) = 163 0
settimeofday(0, 0) = 164 0 0
kexec_load(0, 0, 0, 0) = 246 0 0 0 0
memfd_create(0, 0) = 319 0 0
E2

make_bundle() { # RUNTIME
    local name
    mkdir -p "$WORK/bundle/rootfs/"{usr,proc,tmp}
    for name in bin sbin lib lib64; do
        [ ! -L "/$name" ] || ln -sfn "$(readlink "/$name")" "$WORK/bundle/rootfs/$name"
    done
    cp "$TESTS/integration/oci_profile.py" "$WORK/bundle/rootfs/"
    (cd "$WORK/bundle" && rm -f config.json && "$1" spec)
}

# Root with capabilities: what is refused is refused by the profile.
with_profile() { # RUNTIME PROFILE, nothing: none
    make_bundle "$1"
    "$PYTHON" - "$WORK/bundle/config.json" "${2:-}" <<'E2'
import json, sys
config = json.load(open(sys.argv[1]))
config["process"].update(terminal=False, args=["/usr/bin/python3", "-I", "/oci_profile.py"], noNewPrivileges=True)
caps = ["CAP_SYS_ADMIN", "CAP_NET_RAW", "CAP_SYS_PTRACE", "CAP_NET_ADMIN"]
config["process"]["capabilities"] = {k: caps for k in config["process"]["capabilities"]}
config["process"].pop("rlimits", None)
config["root"] = {"path": "rootfs", "readonly": True}
config["mounts"] = [m for m in config["mounts"] if m["destination"] == "/proc"] + [
    {"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]}]
config["linux"]["namespaces"] = [n for n in config["linux"]["namespaces"] if n["type"] not in ("cgroup",)]
config["linux"].pop("resources", None)
if sys.argv[2]:
    config["linux"]["seccomp"] = json.load(open(sys.argv[2]))
json.dump(config, open(sys.argv[1], "w"))
E2
}

under() { # RUNTIME
    timeout -k 5 60 "$1" --root "$WORK/runtime" run --bundle "$WORK/bundle" "kbt-$$" <"$WORK/questions"
}

foretold() { # PRESET
    local question errno
    while IFS='=' read -r question _; do
        question=${question% }
        kbsup policy explain "$1" "$question" --json >"$WORK/answer" || fail "$question is not understood"
        errno=$(sed -n 's/^  "errno": "\(.*\)",$/\1/p' "$WORK/answer")
        printf '%s = %s\n' "$question" "${errno:-ok}"
    done <"$WORK/questions"
}

# An allowed call may fail for reasons of the kernel's, which then are the same without the profile.
as_foretold() { # RUNTIME PRESET
    run kbsup policy compile "$2" --emit oci --output "$WORK/profile.json"
    expect_status 0
    foretold "$2" >"$WORK/foretold"
    with_profile "$1"
    run under "$1"
    expect_status 0
    cp "$WORK/stdout" "$WORK/without"
    with_profile "$1" "$WORK/profile.json"
    run under "$1"
    expect_status 0
    "$PYTHON" - "$WORK/foretold" "$WORK/without" "$WORK/stdout" <<'E2'
import sys
foretold, without, met = ([line.rstrip("\n").rsplit(" = ", 1) for line in open(f)] for f in sys.argv[1:])
assert len(foretold) == len(without) == len(met) >= 30
wrong, denied, differ = [], 0, 0
for (question, want), (_, bare), (_, got) in zip(foretold, without, met):
    if got != (bare if want == "ok" else want):
        wrong.append("%s: foretold %s, met %s, without the profile %s" % (question, want, got, bare))
    denied += want != "ok"
    differ += got != bare
print("\n".join(wrong) or "%d calls, %d denied, %d of them by the profile alone" % (len(met), denied, differ))
assert not wrong and differ >= 12, differ
E2
}

PYTHON=/usr/bin/python3
for runtime in runc crun; do
    command -v "$runtime" >/dev/null || continue
    with_profile "$runtime"
    # Not every runtime takes every machine: crun refuses hybrid control groups.
    under "$runtime" >/dev/null 2>&1 || continue
    for preset in base claude-code; do
        tap "$runtime: a container under the profile of $preset meets what is explained" as_foretold "$runtime" "$preset"
    done
done
[ "$tap_count" -gt 0 ] || skip_all 'neither runc nor crun runs a container here'
tap_end
