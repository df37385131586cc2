#!/usr/bin/env python3
"""Processes that belong to a test's work directory. usage: leftovers.py WORK-DIR

A process belongs to it when it runs a program from there, has it in its environment, arguments or
working directory, sees it mounted in a mount namespace of its own (a session's container does), or
is the child of one that belongs. Our own ancestors do not count: they are the test itself. Prints
one "PID command line" each.
"""
import os
import sys


def read(path):
    try:
        with open(path, "rb") as f:
            return f.read()
    except OSError:
        return b""


def link(path):
    try:
        return os.fsencode(os.readlink(path))
    except OSError:
        return b""


def parent(pid):
    stat = read("/proc/%d/stat" % pid)
    fields = stat[stat.rfind(b")") + 2:].split()
    return int(fields[1]) if len(fields) > 1 else 0


def is_dead(pid):
    stat = read("/proc/%d/stat" % pid)
    return not stat or stat[stat.rfind(b")") + 2:][:1] in (b"Z", b"X")


def ancestors():
    pid, found = os.getpid(), set()
    while pid > 0:
        found.add(pid)
        pid = parent(pid)
    return found


def belongs(pid, work, own_mounts):
    proc = "/proc/%d/" % pid
    inside = work + b"/"
    if link(proc + "exe").startswith(inside) or (link(proc + "cwd") + b"/").startswith(inside):
        return True
    if b"KBSUP_TEST_WORK=" + work in read(proc + "environ").split(b"\0"):
        return True
    if inside in read(proc + "cmdline"):
        return True
    mounts = link(proc + "ns/mnt")
    return mounts not in (b"", own_mounts) and b" " + inside in read(proc + "mountinfo")


def main():
    work = os.fsencode(os.path.realpath(sys.argv[1]))
    own_mounts = link("/proc/self/ns/mnt")
    ours = ancestors()
    pids = [int(p) for p in os.listdir("/proc") if p.isdigit()]
    pids = [p for p in pids if p not in ours and not is_dead(p)]
    # A shell that pipes into us is no leftover: its parent is the test.
    found = {p for p in pids if belongs(p, work, own_mounts)
             and not (parent(p) in ours and link("/proc/%d/exe" % p).endswith((b"/bash", b"/sh")))}
    grown = True
    while grown:
        more = {p for p in pids if p not in found and parent(p) in found}
        found |= more
        grown = bool(more)
    for pid in sorted(found):
        text = read("/proc/%d/cmdline" % pid).replace(b"\0", b" ").decode("utf-8", "backslashreplace")
        print(pid, text.strip())


main()
