"""Looks for a text where a secret must not be.

usage: canary.py FILE-WITH-THE-TEXT [--not-pid PID]... [--tree DIR]... [--image FILE]... [--pid PID]...

  --tree   every file below DIR: store, logs, state, core files
  --image  one large file: a suspended machine's memory or disk
  --pid    the memory, environment and command line of a process, and of those below it

What is found is printed, one place a line; the exit status is 1 then. Also in the spellings in which
a value would be sent (base64 in its three positions). Reads a file's bytes and a process's memory as
they are, in pieces that overlap. A process that may not be looked into is said to be skipped on
standard error.
"""
import base64
import os
import re
import sys

PIECE = 1 << 20
# AddressSanitizer's shadow is mapped in terabytes, and has no bytes of the program in it.
MAPPING_MAX = 1 << 36


def spellings(text):
    found = {text}
    for shift in range(3):
        encoded = base64.b64encode(b"x" * shift + text)
        # The characters that no neighbour has a part in.
        found.add(encoded[4 if shift else 0:len(encoded) - 4])
    return found


def search(stream, size, wanted):
    """Offsets in a seekable stream; size None: to its end."""
    overlap, tail, at = max(len(w) for w in wanted), b"", 0
    while size is None or at < size:
        data = stream.read(PIECE if size is None else min(PIECE, size - at))
        if not data:
            break
        window = tail + data
        for text in wanted:
            if text in window:
                yield at - len(tail) + window.find(text)
        tail = window[-overlap:]
        at += len(data)


def search_file(path, wanted):
    try:
        with open(path, "rb") as f:
            for offset in search(f, None, wanted):
                yield "%s at byte %d" % (path, offset)
    except OSError:
        pass


def search_tree(top, wanted):
    for folder, _, names in os.walk(top):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not os.path.islink(path):
                yield from search_file(path, wanted)


def children(pid):
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open("/proc/%s/stat" % name, "rb") as f:
                if int(f.read().rpartition(b")")[2].split()[1]) == pid:
                    yield int(name)
        except OSError:
            pass


def has_sanitizer(pid):
    with open("/proc/%d/maps" % pid) as maps:
        return any(high - low > MAPPING_MAX for low, high in (span(line) for line in maps))


def span(line):
    return (int(x, 16) for x in line.split()[0].split("-"))


def is_environment(memory, page):
    """AddressSanitizer keeps a copy of /proc/self/environ as it was at the start, from a page's beginning."""
    memory.seek(page)
    return re.match(rb"[A-Za-z_][A-Za-z0-9_]*=", memory.read(256)) is not None


def search_process(pid, wanted, skipped):
    for name in ("environ", "cmdline"):
        yield from search_file("/proc/%d/%s" % (pid, name), wanted)
    try:
        sanitizer = has_sanitizer(pid)
        with open("/proc/%d/maps" % pid) as maps, open("/proc/%d/mem" % pid, "rb", 0) as memory:
            for line in maps:
                low, high = span(line)
                if line.split()[1][0] != "r" or "[v" in line or high - low > MAPPING_MAX:
                    continue
                try:
                    memory.seek(low)
                    for offset in list(search(memory, high - low, wanted)):
                        if sanitizer and is_environment(memory, low + offset & -4096):
                            continue
                        yield "process %d (%s) at %#x" % (pid, comm(pid), low + offset)
                except (OSError, ValueError, OverflowError):
                    pass
    except OSError as why:
        skipped.append("process %d (%s): %s" % (pid, comm(pid), why))


def comm(pid):
    try:
        with open("/proc/%d/comm" % pid) as f:
            return f.read().strip()
    except OSError:
        return "?"


def search_below(pid, wanted, spared, skipped):
    if pid in spared:
        return
    yield from search_process(pid, wanted, skipped)
    for child in children(pid):
        yield from search_below(child, wanted, spared, skipped)


def main():
    with open(sys.argv[1], "rb") as f:
        wanted = spellings(f.read().strip())
    todo, spared, found, skipped = [], set(), [], []
    for option, value in zip(sys.argv[2::2], sys.argv[3::2]):
        if option == "--not-pid":
            spared.add(int(value))
        else:
            todo.append((option, value))
    for option, value in todo:
        if option == "--tree":
            found += search_tree(value, wanted)
        elif option == "--image":
            found += search_file(value, wanted)
        elif option == "--pid":
            found += search_below(int(value), wanted, spared, skipped)
        else:
            sys.exit("unknown option " + option)
    for line in skipped:
        print("not looked into: " + line, file=sys.stderr)
    for line in found:
        print(line)
    sys.exit(1 if found else 0)


main()
