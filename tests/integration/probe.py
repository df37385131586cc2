#!/usr/bin/python3
"""Runs inside a session and tries to get out of it; prints what it found as one JSON document.
usage: probe.py WORKSPACE TCP-PORT ABSTRACT-NAME UNIX-PATH HOST-PID"""
import ctypes
import errno
import json
import os
import signal
import socket
import subprocess
import sys

NAME = ".kbsup-probe"
DEPTH = 3
# Endless or harmful to read, and not files one keeps things in.
SKIP = ("/proc/", "/sys/kernel/")
# Everybody may write to these: they keep nothing.
SINKS = {"/dev/" + name for name in (
    "null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts/ptmx", "console",
    "stdin", "stdout", "stderr")}

libc = ctypes.CDLL(None, use_errno=True)


def attempt(fn, *args):
    """None when it worked, else the errno's name."""
    try:
        fn(*args)
        return None
    except OSError as e:
        return errno.errorcode.get(e.errno, str(e.errno))


def call(name, *args):
    if getattr(libc, name)(*args) == 0:
        return None
    return errno.errorcode.get(ctypes.get_errno(), "?")


def tops():
    """Where to start: the root, what is usually in it, and every mount point."""
    found = {"/"} | {"/" + name for name in (
        "bin boot dev etc home lib lib64 media mnt opt proc root run sbin srv sys tmp usr var "
        ".kbsup").split()}
    with open("/proc/self/mountinfo") as f:
        found |= {line.split(" ")[4] for line in f}
    return sorted(found)


def walk():
    seen = set()
    for top in tops():
        for path, dirs, files in os.walk(top):
            depth = path.count("/")
            if depth >= DEPTH + top.count("/") or (path + "/").startswith(SKIP):
                dirs[:] = []
            if path not in seen:
                seen.add(path)
                yield path, files
        seen.add(top)


def create_in(path):
    name = os.path.join(path, NAME)
    try:
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        os.unlink(name)
        return True
    except OSError:
        return False


def open_for_writing(path):
    if path in SINKS or not (os.path.isfile(path) or path.startswith("/dev/")):
        return False
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY))
        return True
    except OSError:
        return False


def writable():
    """Directories that take a new file, and files elsewhere that open for writing."""
    dirs, files = [], []
    for path, names in walk():
        if create_in(path):
            dirs.append(path)
        elif not path.startswith("/usr/"):
            files += [f for f in (os.path.join(path, n) for n in names) if open_for_writing(f)]
    for path in ("/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/proc/sys/vm/drop_caches",
                 "/proc/1/mem", "/proc/1/environ", "/sys/fs/cgroup/cgroup.procs", "/proc/kcore"):
        if os.path.exists(path) and open_for_writing(path):
            files.append(path)
    return {"dirs": dirs, "files": files}


def status_of(pid):
    with open("/proc/%s/status" % pid) as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)


def privileges(workspace):
    setuid = os.path.join(workspace, "setuid-id")
    out = subprocess.run([setuid, "-u"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    status = status_of("self")
    return {
        "uid": os.getuid(), "euid": os.geteuid(), "setuid_id": out.stdout.strip(),
        "no_new_privs": status["NoNewPrivs"], "seccomp": status["Seccomp"],
        "caps": {name: status[name] for name in ("CapEff", "CapPrm", "CapInh", "CapAmb", "CapBnd")},
        "setuid0": attempt(os.setuid, 0),
        "chroot": attempt(os.chroot, "/tmp"),
        "mount": call("mount", b"none", b"/tmp", b"tmpfs", 0, None),
        "unshare_user": call("unshare", 0x10000000),
        "unshare_mount": call("unshare", 0x00020000),
        "mknod": attempt(os.mknod, "/tmp/sda", 0o60600, os.makedev(8, 0)),
        "ptrace_init": call("ptrace", 16, 1, 0, 0),
    }


def connect(family, address, kind=socket.SOCK_STREAM):
    s = socket.socket(family, kind)
    s.settimeout(3)
    s.connect(address)
    s.close()


def neighbours(port, abstract, unix_path, host_pid):
    return {
        "pids": {p: open("/proc/%s/comm" % p).read().strip()
                 for p in os.listdir("/proc") if p.isdigit()},
        "kill_host_pid": attempt(os.kill, host_pid, 0),
        "kill_all": attempt(os.kill, -1, signal.SIGCONT),
        "tcp": attempt(connect, socket.AF_INET, ("127.0.0.1", port)),
        "abstract": attempt(connect, socket.AF_UNIX, "\0" + abstract),
        "unix_path": attempt(connect, socket.AF_UNIX, unix_path),
        "outside": attempt(connect, socket.AF_INET, ("192.0.2.1", 443)),
        "outside6": attempt(connect, socket.AF_INET6, ("2001:db8::1", 443)),
        "raw": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close()),
        "netlink": attempt(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9).close()),
        "interfaces": sorted(name for _, name in socket.if_nameindex()),
    }


def descriptors():
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            found[fd] = os.readlink("/proc/self/fd/" + fd)
        except OSError:
            pass  # the listing's own
    return found


def main():
    workspace, port, abstract, unix_path, host_pid = sys.argv[1:]
    fds = descriptors()  # before anything of ours is open
    namespaces = {n: os.readlink("/proc/self/ns/" + n)
                  for n in ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup")}
    json.dump({
        "fds": fds,
        "environ": dict(os.environ),
        "namespaces": namespaces,
        "neighbours": neighbours(int(port), abstract, unix_path, int(host_pid)),
        "privileges": privileges(workspace),
        "writable": writable(),
        "hostname": os.uname().nodename,
    }, sys.stdout)


main()
