#!/usr/bin/env python3
"""Searches for secrets where they must not be: canary.py NEEDLES COMMAND…

NEEDLES is a file of lines "NAME HEX"; each is looked for as it is, in hex and in base64. Prints a
line per find and exits 1 if there was any.

  files PATH…       every file below the paths; holes are skipped
  memory PID        what that process has in memory (to see that the search finds what is there)
  watch FILE        every process's arguments and environment, again and again, until FILE is gone
"""
import base64
import os
import sys
import time

CHUNK = 64 << 20


def read_needles(path):
    needles = []
    with open(path) as lines:
        for line in lines:
            name, text = line.split()
            raw = bytes.fromhex(text)
            forms = {raw, text.encode(), text.upper().encode(), base64.b64encode(raw)}
            needles += [(name, form) for form in forms]
    return needles


def find(needles, data):
    return {name for name, form in needles if form in data}


def data_ranges(file):
    at, size = 0, os.fstat(file.fileno()).st_size
    while at < size:
        try:
            at = os.lseek(file.fileno(), at, os.SEEK_DATA)
        except OSError:
            return
        end = os.lseek(file.fileno(), at, os.SEEK_HOLE)
        yield at, end
        at = end


def search_range(needles, file, start, end):
    found, tail, overlap = set(), b"", max(len(form) for _, form in needles)
    while start < end:
        file.seek(start)
        chunk = file.read(min(CHUNK, end - start))
        if not chunk:
            break
        found |= find(needles, tail + chunk)
        tail = chunk[-overlap:]
        start += len(chunk)
    return found


def search_file(needles, path):
    found = set()
    with open(path, "rb", buffering=0) as file:
        for start, end in data_ranges(file):
            found |= search_range(needles, file, start, end)
    return found


def files(needles, paths):
    for top in paths:
        entries = [(os.path.dirname(top), [], [os.path.basename(top)])]
        for folder, _, names in os.walk(top) if os.path.isdir(top) else entries:
            for name in names:
                path = os.path.join(folder, name)
                if os.path.isfile(path):
                    yield from ((path, hit) for hit in search_file(needles, path))


def memory(needles, pid):
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as mem:
        for line in maps:
            span, rights = line.split()[:2]
            start, end = (int(x, 16) for x in span.split("-"))
            if "r" not in rights or "[v" in line or end - start > 256 << 20:
                continue
            try:
                found = search_range(needles, mem, start, end)
            except OSError:
                continue
            yield from ((line.split()[-1], hit) for hit in found)


def processes(needles):
    for pid in filter(str.isdigit, os.listdir("/proc")):
        for what in ("cmdline", "environ"):
            try:
                with open(f"/proc/{pid}/{what}", "rb") as file:
                    yield from ((f"{pid}/{what}", hit) for hit in find(needles, file.read()))
            except OSError:
                pass


def watch(needles, path):
    seen = set()
    while os.path.exists(path):
        seen |= set(processes(needles))
        time.sleep(0.005)
    return seen


def main():
    needles, command, rest = read_needles(sys.argv[1]), sys.argv[2], sys.argv[3:]
    finds = {
        "files": lambda: files(needles, rest),
        "memory": lambda: memory(needles, rest[0]),
        "watch": lambda: watch(needles, rest[0]),
    }[command]()
    hits = 0
    for where, name in finds:
        print(f"{name} in {where}")
        hits += 1
    return 1 if hits else 0


sys.exit(main())
