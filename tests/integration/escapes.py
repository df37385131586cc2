#!/usr/bin/python3
"""Runs inside a session and tries what is known to have led out of other sandboxes; prints one JSON
object: what was tried → null when it worked, else the errno's name (or what was found).
usage: escapes.py WORKSPACE HOST-PATH... | escapes.py --changes PROTECTED-FOLDER"""
import ctypes
import errno
import json
import os
import socket
import stat
import subprocess
import sys

libc = ctypes.CDLL(None, use_errno=True)
CALLS = {  # x86_64, aarch64
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "clone3": (435, 435), "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40),
    "umount2": (166, 39), "pivot_root": (155, 41), "open_tree": (428, 428), "fsopen": (430, 430),
    "move_mount": (429, 429), "mount_setattr": (442, 442), "ptrace": (101, 117), "bpf": (321, 280),
    "keyctl": (250, 219), "add_key": (248, 217), "perf_event_open": (298, 241),
    "userfaultfd": (323, 282), "init_module": (175, 105), "kexec_load": (246, 104),
    "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264), "reboot": (169, 142),
    "settimeofday": (164, 170), "swapon": (167, 224), "quotactl": (179, 60), "acct": (163, 89),
    "process_vm_readv": (310, 270), "pidfd_getfd": (438, 438), "kcmp": (312, 272),
    "seccomp": (317, 277), "memfd_secret": (447, 447), "landlock_create_ruleset": (444, 444),
}
COLUMN = 0 if os.uname().machine == "x86_64" else 1


def name_of(number):
    return errno.errorcode.get(number, str(number))


def attempt(fn, *args):
    try:
        fn(*args)
        return None
    except OSError as e:
        return name_of(e.errno)


def call(name, *args):
    args = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    if libc.syscall(ctypes.c_long(CALLS[name][COLUMN]), *args) >= 0:
        return None
    return name_of(ctypes.get_errno())


def sockets():
    """Every socket file there is; none may belong to anybody outside."""
    found = []
    for top, dirs, files in os.walk("/"):
        if top.startswith(("/proc", "/sys")):
            dirs[:] = []
            continue
        for name in files + dirs:
            path = os.path.join(top, name)
            try:
                if stat.S_ISSOCK(os.lstat(path).st_mode):
                    found.append(path)
            except OSError:
                pass
    return found


def connect(path):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(2)
    s.connect(path)


def write(path, text):
    with open(path, "w") as f:
        f.write(text)


def read(path):
    with open(path, "rb") as f:
        f.read(1)


def abstract_names():
    try:
        with open("/proc/net/unix") as f:
            return [line.split()[-1] for line in f if line.split()[-1].startswith("@")]
    except OSError:
        return []


def spellings(path):
    """The same file by other names."""
    folder, name = os.path.split(path)
    upper = os.path.join(folder, name.upper())
    yield "plain", path
    yield "dots", os.path.join(folder, "..", os.path.basename(folder), ".", name)
    yield "slashes", path.replace("/", "//")
    yield "proc", "/proc/self/root" + path
    yield "case", upper
    yield "link", None


def read_by_spelling(workspace, path):
    tried = {}
    for how, spelt in spellings(path):
        if how == "link":
            spelt = os.path.join(workspace, "a-link")
            os.symlink(path, spelt)
        tried[how] = attempt(read, spelt)
    tried["hard"] = attempt(os.link, path, os.path.join(workspace, "a-hard-link"))
    tried["directory"] = attempt(lambda: os.open("x", os.O_RDONLY, dir_fd=os.open(os.path.dirname(path), os.O_PATH)))
    return tried


AT = -100
WRITE, CREATE = os.O_WRONLY, os.O_WRONLY | os.O_CREAT
CHANGES = {  # call: its numbers, and how it would change the file f, or the folder d that holds it
    "open": (2, None, "f", WRITE), "creat": (85, None, "f", 0o644), "openat": (257, 56, AT, "f", WRITE),
    "openat2": (437, 437, AT, "f", "how", 24), "open new": (2, None, "d/new", CREATE, 0o644),
    "openat new": (257, 56, AT, "d/new", CREATE, 0o644), "truncate": (76, 45, "f", 0),
    "unlink": (87, None, "f"), "unlinkat": (263, 35, AT, "f", 0), "rmdir": (84, None, "d"),
    "rename": (82, None, "f", "gone"), "renameat": (264, None, AT, "f", AT, "gone"),
    "renameat2": (316, 276, AT, "f", AT, "gone", 0), "rename onto": (82, None, "other", "f"),
    "renameat2 exchange": (316, 276, AT, "other", AT, "f", 2), "rename into": (82, None, "other", "d/new"),
    "link into": (86, None, "other", "d/new"), "linkat into": (265, 37, AT, "other", AT, "d/new", 0),
    "link out": (86, None, "f", "alias"), "linkat out": (265, 37, AT, "f", AT, "alias", 0),
    "symlink": (88, None, "other", "d/new"), "symlinkat": (266, 36, "other", AT, "d/new"),
    "mkdir": (83, None, "d/new", 0o755), "mkdirat": (258, 34, AT, "d/new", 0o755),
    "mknod": (133, None, "d/new", stat.S_IFIFO | 0o644, 0),
    "mknodat": (259, 33, AT, "d/new", stat.S_IFIFO | 0o644, 0),
    "chmod": (90, None, "f", 0o777), "fchmodat": (268, 53, AT, "f", 0o777),
    "fchmodat2": (452, 452, AT, "f", 0o777, 0), "chown": (92, None, "f", 7, 7),
    "lchown": (94, None, "f", 7, 7), "fchownat": (260, 54, AT, "f", 7, 7, 0),
    "utime": (132, None, "f", None), "utimes": (235, None, "f", None),
    "futimesat": (261, None, AT, "f", None), "utimensat": (280, 88, AT, "f", None, 0),
    "setxattr": (188, 5, "f", "user.x", b"x", 1, 0), "lsetxattr": (189, 6, "f", "user.x", b"x", 1, 0),
}


def changes(guarded):
    """Every call that changes a name, a file or its attributes, tried on what is protected."""
    how = ctypes.create_string_buffer(WRITE.to_bytes(8, sys.byteorder) + bytes(16))
    places = {"f": guarded + "/file", "d": guarded, "d/new": guarded + "/new"}
    tried = {}
    for name, (*numbers, first, second) in ((n, (*c[:2], c[2], c[3:])) for n, c in CHANGES.items()):
        if numbers[COLUMN] is None:
            continue
        with open("other", "w") as f:
            f.write("other")
        args = [how if a == "how" else places.get(a, a).encode() if isinstance(a, str) else
                a if a is None or isinstance(a, bytes) else ctypes.c_long(a) for a in (first, *second)]
        tried[name] = None if libc.syscall(ctypes.c_long(numbers[COLUMN]), *args) >= 0 \
            else name_of(ctypes.get_errno())
    return tried


def proc_writes():
    return {path: attempt(write, path, "x") for path in (
        "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/kernel/modprobe",
        "/proc/sys/kernel/hostname", "/proc/sys/vm/overcommit_memory", "/sys/kernel/uevent_helper",
        "/sys/fs/cgroup/release_agent", "/proc/self/oom_score_adj", "/proc/1/oom_score_adj",
        "/proc/self/uid_map", "/proc/self/gid_map", "/proc/self/setgroups", "/dev/kmsg", "/dev/mem")}


def shell(command):
    return subprocess.run(["sh", "-c", command], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL).returncode


def main():
    if sys.argv[1] == "--changes":
        json.dump(changes(sys.argv[2]), sys.stdout)
        return
    workspace, paths = sys.argv[1], sys.argv[2:]
    status = open("/proc/self/status").read()
    json.dump({
        "calls": {name: call(name, *([0] * 6)) for name in CALLS},
        "unshare_flags": {hex(f): call("unshare", f) for f in (
            0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)},
        "sockets": sockets(),
        "abstract": abstract_names(),
        "connect": {p: attempt(connect, p) for p in paths},
        "read": {p: attempt(read, p) for p in paths},
        "spelling": {p: read_by_spelling(workspace, p) for p in paths[:1]},
        "proc": proc_writes(),
        "setuid": [p for p in ("/usr/bin/sudo", "/usr/bin/su", "/usr/bin/passwd", "/usr/bin/mount")
                   if os.path.exists(p) and shell(p + " -n true || " + p + " -c true") == 0],
        "umount_usr": shell("umount /usr || umount -l /usr"),
        "remount_usr": shell("mount -o remount,rw /usr"),
        "vsock": attempt(lambda: socket.socket(40, socket.SOCK_STREAM)),
        "packet": attempt(lambda: socket.socket(17, socket.SOCK_RAW)),
        "alg": attempt(lambda: socket.socket(38, socket.SOCK_SEQPACKET)),
        "netlink": {n: attempt(lambda n=n: socket.socket(16, socket.SOCK_RAW, n)) for n in (9, 12, 15)},
        "filters": [line for line in status.splitlines() if line.startswith(("Seccomp:", "NoNewPrivs:"))],
        "tiocsti": attempt(lambda: __import__("fcntl").ioctl(0, 0x5412, b"x")),
    }, sys.stdout)


main()
