#!/usr/bin/env python3
"""Compares what a session recorded with what strace saw of the very same processes, call for call.

usage: strace_compare.py STRACE-LOG RECORDS.jsonl GATE-PATH

The log comes from `strace -f -y -xx` on the session's first process; the records from
`audit query --json`. The process waits at GATE-PATH (a fifo) until strace is there: records up to the
last open of it, and calls on it, are left out on both sides. Prints every call that one side has and
the other has not, and totals per class. Exit status 0 only when there is none, and something of every
class was seen.
"""
import base64
import collections
import json
import os
import re
import sys

CLASSES = {
    "open": "open", "openat": "open", "openat2": "open", "creat": "open",
    "execve": "exec", "execveat": "exec",
    "unlink": "unlink", "unlinkat": "unlink", "rmdir": "rmdir",
    "rename": "rename", "renameat": "rename", "renameat2": "rename",
    "mkdir": "mkdir", "mkdirat": "mkdir", "link": "link", "linkat": "link",
    "symlink": "symlink", "symlinkat": "symlink",
    "chmod": "chmod", "fchmodat": "chmod", "fchmod": "chmod", "truncate": "truncate",
}
REQUIRED = ("open", "exec", "unlink")

LINE = re.compile(rb"^(\d+)\s+(\w+)\((.*)$", re.S)
RESUMED = re.compile(rb"^(\d+)\s+<\.\.\. (\w+) resumed>(.*)$", re.S)
UNFINISHED = b" <unfinished ...>"
STRING = re.compile(rb'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
PROC = re.compile(rb"^/proc/(self|thread-self|\d+)(?=/|$)")
DIRFD = re.compile(rb"^(AT_FDCWD|-?\d+)(?:<((?:\\x[0-9a-f]{2}|[^>])*)>)?$")


def unhex(text):
    return bytes.fromhex(text.replace(rb"\x", b"").decode())


def fd_path(text):
    """The path strace -y shows in <…>: hexadecimal where -xx is given."""
    if text is None:
        return None
    return unhex(text) if re.fullmatch(rb"(\\x[0-9a-f]{2})+", text) else text


def whole_calls(path):
    """(pid, syscall, arguments and result) of every call, unfinished ones joined."""
    pending = {}
    with open(path, "rb") as f:
        for line in f:
            line = line.rstrip(b"\n")
            match = RESUMED.match(line)
            if match:
                start = pending.pop((match.group(1), match.group(2)), None)
                if start is not None:
                    yield match.group(1), match.group(2).decode(), start + match.group(3)
                continue
            match = LINE.match(line)
            if not match:
                continue
            pid, name, rest = match.groups()
            if rest.endswith(UNFINISHED):
                pending[pid, name] = rest[:-len(UNFINISHED)]
            else:
                yield pid, name.decode(), rest
    # A process that was killed, or replaced by exec of another thread, never resumes.
    for (pid, name), start in pending.items():
        yield pid, name.decode(), start + b") = ?"


def split_arguments(text):
    """The arguments before the closing parenthesis; strings and brackets hold no loose commas."""
    out, depth, start, i, quoted = [], 0, 0, 0, False
    while i < len(text):
        c = text[i:i + 1]
        if c == b'"':
            quoted = not quoted
        elif not quoted and c in b"([{<":
            depth += 1
        elif not quoted and c in b"]}>":
            depth -= 1
        elif not quoted and c == b")":
            if depth == 0:
                break
            depth -= 1
        elif not quoted and c == b"," and depth == 0:
            out.append(text[start:i].strip())
            start = i + 1
        i += 1
    out.append(text[start:i].strip())
    return out, text[i + 1:]


def canonical(path):
    """The place a path names: symbolic links of its directory followed, as the kernel does. Process
    numbers are different inside and outside."""
    path = PROC.sub(rb"/proc/PID", path)
    parent, name = os.path.split(os.path.normpath(path))
    if name in (b"", b".", b".."):
        return os.path.realpath(path)
    return os.path.join(os.path.realpath(parent), name)


def string_of(argument):
    match = STRING.match(argument)
    return unhex(match.group(1)) if match else None


def strace_paths(name, args, cwd):
    """Absolute paths of a call's arguments, in order. A symlink's target stays as it is."""
    found, base = [], cwd
    for argument in args:
        match = DIRFD.match(argument)
        text = string_of(argument)
        if match and name == "fchmod":
            return [fd_path(match.group(2)) or b"?"]
        if match and match.group(2):
            base = fd_path(match.group(2))
        elif text is not None:
            is_target = name.startswith("symlink") and not found
            found.append(text if is_target else os.path.join(base, text))
    return found


def new_cwd(name, rest, cwd):
    """Where a process is, as far as one of its calls tells; plain unlink(2) does not say."""
    args, tail = split_arguments(rest)
    if name == "chdir" and result_of(tail)[0] == b"0":
        return os.path.join(cwd, string_of(args[0]) or b"")
    match = DIRFD.match(args[0])
    if match and match.group(1) == b"AT_FDCWD" and match.group(2):
        return fd_path(match.group(2))
    return cwd


def result_of(tail):
    match = re.match(rb"\s*=\s*(-?\d+|\?)(?:<((?:\\x[0-9a-f]{2}|[^>])*)>)?\s*([A-Z]\w*)?", tail)
    if not match:
        return None, None, None
    return match.group(1), fd_path(match.group(2)), match.group(3)


def strace_key(name, rest, cwd):
    kind = CLASSES[name]
    args, tail = split_arguments(rest)
    number, opened, error = result_of(tail)
    if error and error.startswith(b"ERESTART"):
        return None
    if kind == "exec":
        if error is None and number != b"0":
            return None
        argv = tuple(unhex(m) for m, _ in STRING.findall(args[1] if name == "execve" else args[2]))
        return ("exec", argv)
    paths = strace_paths(name, args, cwd)
    if kind == "unlink" and b"AT_REMOVEDIR" in rest:
        kind = "rmdir"
    if kind == "open" and opened:
        return (kind, PROC.sub(rb"/proc/PID", opened.removesuffix(b" (deleted)")))
    if kind == "symlink":
        return (kind, paths[0], canonical(paths[1]))
    return (kind,) + tuple(canonical(p) for p in paths)


def bytes_of(record, field):
    if field + "_b64" in record:
        return base64.b64decode(record[field + "_b64"])
    value = record.get(field)
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else None


def record_argv(record):
    if "argv_b64" in record:
        return tuple(base64.b64decode(a) for a in record["argv_b64"])
    return tuple(a.encode() for a in record.get("argv", []))


def record_key(record):
    kind = record["event"]
    if kind == "exec":
        return ("exec", record_argv(record))
    path, path2 = bytes_of(record, "path"), bytes_of(record, "path2")
    if path is None:
        return (kind, b"?")
    if kind in ("rename", "link"):
        return (kind, canonical(path), canonical(path2 or b"?"))
    if kind == "symlink":
        return (kind, path2, canonical(path))
    return (kind, canonical(path))


def show(key):
    return " ".join(repr(part)[1:] if isinstance(part, bytes) else str(part) for part in key)


def main():
    log, records_file, gate = sys.argv[1], sys.argv[2], os.fsencode(sys.argv[3])
    seen, cwd = collections.Counter(), collections.defaultdict(lambda: os.path.dirname(gate))
    for pid, name, rest in whole_calls(log):
        cwd[pid] = new_cwd(name, rest, cwd[pid])
        if name in CLASSES:
            key = strace_key(name, rest, cwd[pid])
            if key and gate not in key:
                seen[key] += 1
    with open(records_file) as f:
        records = [json.loads(line) for line in f if line.strip()]
    start = max([i for i, r in enumerate(records) if bytes_of(r, "path") == gate] or [-1])
    recorded = collections.Counter(
        record_key(r) for r in records[start + 1:] if r["event"] in set(CLASSES.values()))
    good = start >= 0
    if not good:
        print("the gate was never recorded")
    for key, count in (seen - recorded).items():
        print("only strace   %d × %s" % (count, show(key)))
        good = False
    for key, count in (recorded - seen).items():
        print("only recorded %d × %s" % (count, show(key)))
        good = False
    for kind in sorted(set(k[0] for k in seen) | set(REQUIRED)):
        total = sum(n for k, n in seen.items() if k[0] == kind)
        print("%-8s %6d seen, %6d recorded" % (
            kind, total, sum(n for k, n in recorded.items() if k[0] == kind)))
        if kind in REQUIRED and total == 0:
            print("no %s was seen: the comparison shows nothing" % kind)
            good = False
    sys.exit(0 if good else 1)


main()
