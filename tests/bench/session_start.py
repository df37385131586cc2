#!/usr/bin/env python3
"""How long a session takes to start, run /bin/true and end, against what it is built on.

usage: session_start.py BUILD-DIR [ROUNDS]

  kbsup run      with the supervisor running; everything recorded, the record durable at the end
  runc run       a bundle of the same mounts, namespaces and limits, written once before; no seccomp,
  crun run       no Landlock, no record
  bwrap          the same namespaces and binds
  podman run     --rm, with a local root directory and the same runtime

Each starts on a machine that has rested for a moment, as when a person starts one: right after a
container, the next one's control groups cost some milliseconds less, and it would matter who comes
after whom.

Goal: kbsup at most 1.5 times the bare runtime it uses.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import Bench, command  # noqa: E402
from kbsup import Kbsup  # noqa: E402

NAMESPACES = ("pid", "network", "ipc", "uts", "mount", "cgroup", "user")
COMMAND = "/bin/true"
# What a runtime mounts by itself, in every bundle.
OWN = {"/", "/proc", "/dev", "/dev/pts", "/dev/mqueue", "/dev/shm", "/sys"}


def session_mounts(kbsup):
    """(destination, type, read-only) of what a session has mounted, as it sees it."""
    out = kbsup.run(["run", "--", "cat", "/proc/self/mountinfo"])
    found = []
    for line in out.splitlines():
        fields = line.split(" ")
        dash = fields.index("-")
        found.append((fields[4], fields[dash + 1], "ro" in fields[5].split(",")))
    return found


def bundle_mounts(mounts, workspace):
    """The same mounts for a config.json: the machine's paths bound, private ones as tmpfs."""
    plain = ["nosuid", "nodev"]
    result = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
         "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue"},
    ]
    for path, kind, readonly in mounts:
        if path in OWN or path.startswith(("/proc/", "/sys/", "/dev/", "/.kbsup", "/etc")):
            continue
        if kind == "tmpfs" and not path.startswith("/usr") and path != workspace:
            result.append({"destination": path, "type": "tmpfs", "source": "tmpfs", "options": plain})
        elif os.path.exists(path):
            result.append({"destination": path, "type": "bind", "source": path,
                           "options": ["rbind"] + plain + (["ro"] if readonly else [])})
    return result


def limits():
    """Those of the preset `base`, on what this machine's control groups have."""
    memory = {"limit": 8 << 30}
    if os.path.exists("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes"):
        memory["swap"] = memory["limit"]
    return {"memory": memory, "pids": {"limit": 4096}}


def write_bundle(path, mounts, workspace):
    rootfs = os.path.join(path, "rootfs")
    os.makedirs(rootfs)
    for name in ("bin", "sbin", "lib", "lib64", "lib32", "libx32"):
        if os.path.islink("/" + name):
            os.symlink(os.readlink("/" + name), os.path.join(rootfs, name))
    uid, gid = os.getuid(), os.getgid()
    config = {
        "ociVersion": "1.0.2",
        "process": {"terminal": False, "user": {"uid": 0, "gid": 0}, "args": [COMMAND],
                    "env": ["PATH=/usr/bin:/bin"], "cwd": "/", "noNewPrivileges": True,
                    "capabilities": {k: [] for k in (
                        "bounding", "effective", "inheritable", "permitted", "ambient")}},
        "root": {"path": "rootfs", "readonly": False},
        "hostname": "bench",
        "mounts": bundle_mounts(mounts, workspace),
        "linux": {"namespaces": [{"type": n} for n in NAMESPACES], "resources": limits(),
                  "uidMappings": [{"containerID": 0, "hostID": uid, "size": 1}],
                  "gidMappings": [{"containerID": 0, "hostID": gid, "size": 1}],
                  "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list"],
                  "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"]},
    }
    with open(os.path.join(path, "config.json"), "w") as f:
        json.dump(config, f)


def bwrap_command(mounts, workspace):
    argv = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL",
            "--clearenv", "--hostname", "bench", "--proc", "/proc", "--dev", "/dev"]
    for name in ("bin", "sbin", "lib", "lib64", "lib32", "libx32"):
        if os.path.islink("/" + name):
            argv += ["--symlink", os.readlink("/" + name), "/" + name]
    for mount in bundle_mounts(mounts, workspace)[4:]:
        if mount["type"] == "tmpfs":
            argv += ["--tmpfs", mount["destination"]]
        else:
            argv += ["--ro-bind" if "ro" in mount["options"] else "--bind",
                     mount["source"], mount["destination"]]
    return argv + ["--", COMMAND]


def podman_root(path):
    """A root directory for podman: the machine's /bin/true and what it is linked with."""
    out = subprocess.run(["ldd", COMMAND], stdout=subprocess.PIPE, text=True).stdout
    needed = {COMMAND} | {word for word in out.split() if word.startswith("/")}
    for name in needed:
        target = path + name
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copy(name, target)
    for name in ("proc", "dev", "sys", "etc", "run"):
        os.makedirs(os.path.join(path, name), exist_ok=True)
    return path


def add_runtimes(bench, mounts, work, workspace):
    bundle = os.path.join(work, "bundle")
    write_bundle(bundle, mounts, workspace)
    baseline = True
    for name in ("runc", "crun"):
        path = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")
        if not path:
            bench.skip(name + " run", "not installed")
            continue
        state = os.path.join(work, name)
        argv = [path, "--root", state, "run", "--bundle", bundle, "bench-%d" % os.getpid()]
        bench.add(name + " run", command(argv), baseline)
        baseline = False


def add_podman(bench, work):
    if not shutil.which("podman"):
        bench.skip("podman run", "not installed")
        return
    root = podman_root(os.path.join(work, "podman-root"))
    bench.add("podman run", command([
        "podman", "--root", os.path.join(work, "storage"), "--runroot", os.path.join(work, "runroot"),
        "--runtime", "runc", "--cgroup-manager=cgroupfs", "run", "--rm", "--network", "none",
        "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096",
        "--rootfs", root, COMMAND]))


def main():
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 21
    with Kbsup(sys.argv[1]) as kbsup, tempfile.TemporaryDirectory() as work:
        mounts = session_mounts(kbsup)
        bench = Bench("session_start", "ms")
        bench.add("kbsup run", kbsup.command(["run", "--", COMMAND]))
        add_runtimes(bench, mounts, work, kbsup.workspace)
        if shutil.which("bwrap"):
            bench.add("bwrap", command(bwrap_command(mounts, kbsup.workspace)))
        else:
            bench.skip("bwrap", "not installed")
        add_podman(bench, work)
        bench.run(rounds, ["runc", "crun", "bwrap", "podman"], warm_up=2, pause=0.3)


main()
