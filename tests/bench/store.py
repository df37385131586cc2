"""The audit store against SQLite with equal indexes and ripgrep over the strace text, on the records of
a real build (a compiler run under strace, read by the importer, repeated until there are enough), and
ausearch over the same calls in the audit daemon's own log format, with what that format can say.

Ingest commits as role store does under load, every 20 ms; the row below shows a commit for every 1,000
records, which measures the disk.

usage: store.py STORE_KBSUP STORE_SQLITE|- SOURCE_ROOT
KB_BENCH_RECORDS: how many records (1,000,000); KB_BENCH_ROUNDS: how often (3).
"""
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

CALLS = ("execve,execveat,openat,open,creat,unlink,unlinkat,rename,renameat,renameat2,mkdir,rmdir,link,"
         "symlink,chmod,connect,bind,exit_group,vfork,fork,clone,clone3")
ROWS = (("pack", "packing, records/s of CPU", "{:,.0f}"),
        ("store_cpu", "ingest, records/s of CPU", "{:,.0f}"),
        ("store_wall", "ingest, records/s of wall clock", "{:,.0f}"),
        ("each_wall", "  the same, a commit each 1,000", "{:,.0f}"),
        ("bytes", "bytes a record, indexes included", "{:,.1f}"),
        ("verify", "verify, records/s", "{:,.0f}"),
        ("scan", "full scan, records/s", "{:,.0f}"),
        ("path_ms", "first answer by path prefix, ms", "{:,.2f}"),
        ("pid_ms", "by pid, ms", "{:,.2f}"),
        ("host_ms", "by host (there is none), ms", "{:,.2f}"),
        ("denied_ms", "denials (there are none), ms", "{:,.2f}"),
        ("time_ms", "by time (none so late), ms", "{:,.2f}"),
        ("exe_ms", "by executable (there is none), ms", "{:,.2f}"))


def trace(root, work):
    """strace of the compiler over some of our own sources."""
    log = os.path.join(work, "build.strace")
    files = ["supervisor/base/" + f for f in ("buf.c", "err.c", "str.c", "util.c", "fd.c", "log.c")]
    script = "for f in %s; do cc -D_GNU_SOURCE -I. -c $f -o %s/o.o; done" % (" ".join(files), work)
    subprocess.run(["strace", "-f", "-ttt", "-y", "-s", "65536", "-e", "trace=" + CALLS, "-o", log,
                    "sh", "-c", script], cwd=root, check=True, stderr=subprocess.DEVNULL)
    return log


def load(program, log, records, place, commit_ms):
    shutil.rmtree(place, ignore_errors=True)
    os.makedirs(place)
    out = subprocess.run([program, log, str(records), os.path.join(place, "store"), "1000", commit_ms],
                         check=True, stdout=subprocess.PIPE).stdout
    shutil.rmtree(place)
    return json.loads(out)


def contender(program, log, records, place):
    result = load(program, log, records, place, "20")
    result["each_wall"] = load(program, log, max(1000, records // 10), place, "0")["store_wall"]
    return result


def first_answers(questions, bytes_a_record):
    """How long each command takes to its first line, or to saying that there is none."""
    result = {"bytes": bytes_a_record}
    for name, argv in questions:
        started = time.perf_counter()
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as p:
            p.stdout.readline()
            result[name] = (time.perf_counter() - started) * 1e3
            p.kill()
    return result


AUSEARCH_RECORDS = 20000  # it reads some thousand a second, and all of them for most questions

CALL = re.compile(r'^(\d+) +(\d+)\.(\d+) (\w+)\(.*?"([^"]*)".* = (-?\d+)')
NUMBERS = {"execve": 59, "openat": 257, "unlink": 87, "unlinkat": 263, "rename": 82, "mkdir": 83,
           "chmod": 90}


def audit_lines(log):
    """The calls of a strace log as pairs of SYSCALL and PATH records. No host name, no rule and no
    policy decision has a place in them, and ausearch has no index: it reads what there is."""
    with open(log, encoding="utf-8", errors="replace") as f:
        for line in f:
            m = CALL.match(line)
            if not m or m[4] not in NUMBERS:
                continue
            yield (m[2], m[3][:3],
                   'arch=c000003e syscall=%d success=%s exit=%s ppid=1 pid=%s auid=0 uid=0 tty=(none) '
                   'ses=1 comm="cc" exe="/usr/bin/cc" key=(null)'
                   % (NUMBERS[m[4]], "no" if m[6].startswith("-") else "yes", m[6], m[1]), m[5])


def ausearch(log, work):
    text = os.path.join(work, "audit.log")
    one, serial = list(audit_lines(log)), 0
    with open(text, "w", encoding="utf-8") as f:
        while one and serial < AUSEARCH_RECORDS:
            for seconds, ms, call, path in one:
                serial += 1
                f.write("type=SYSCALL msg=audit(%s.%s:%d): %s\ntype=PATH msg=audit(%s.%s:%d): item=0 "
                        'name="%s" inode=1 dev=fe:01 mode=0100644 nametype=NORMAL\n'
                        % (seconds, ms, serial, call, seconds, ms, serial, path))
    questions = [(name, ["ausearch", "-if", text, "--just-one"] + argv) for name, argv in (
        ("path_ms", ["-f", "/home/424242/"]), ("pid_ms", ["-p", "424242"]),
        ("denied_ms", ["-m", "AVC"]), ("exe_ms", ["-x", "/usr/bin/nothing"]))]
    result = first_answers(questions, os.path.getsize(text) / max(1, serial))
    os.unlink(text)
    return result


def ripgrep(log, records, work):
    """The text a person would have instead, and how long one search through all of it takes."""
    text = os.path.join(work, "all.strace")
    with open(log, "rb") as f:
        one = f.read()
    times = max(1, records // max(1, one.count(b"\n")))
    with open(text, "wb") as f:
        for _ in range(times):
            f.write(one)
    size = os.path.getsize(text)
    result = {"bytes": size / (times * one.count(b"\n"))}
    for name, pattern in (("path_ms", "/home/424242/"), ("host_ms", "nowhere.example"),
                          ("denied_ms", "EACCES"), ("exe_ms", "execve\\(./usr/bin/nothing")):
        started = time.perf_counter()
        subprocess.run(["rg", "-m", "1", pattern, text], stdout=subprocess.DEVNULL)
        result[name] = (time.perf_counter() - started) * 1e3
    os.unlink(text)
    return result


def main():
    kbsup, sqlite, root = sys.argv[1:4]
    records = int(os.environ.get("KB_BENCH_RECORDS", "1000000"))
    rounds = int(os.environ.get("KB_BENCH_ROUNDS", "3"))
    work = tempfile.mkdtemp(prefix="kbsup-bench-")
    results = {}
    try:
        log = trace(root, work)
        for _ in range(rounds):
            runs = [("kbsup", lambda: contender(kbsup, log, records, work + "/k"))]
            if sqlite != "-":
                runs.append(("SQLite", lambda: contender(sqlite, log, records, work + "/s")))
            if shutil.which("rg"):
                runs.append(("ripgrep", lambda: ripgrep(log, records, work)))
            if shutil.which("ausearch"):
                runs.append(("ausearch (%d)" % AUSEARCH_RECORDS, lambda: ausearch(log, work)))
            for name, run in runs:
                results.setdefault(name, []).append(run())
    finally:
        shutil.rmtree(work)
    print("%s records, 1,000 a block, median of %d" % (format(records, ","), rounds))
    print("%-38s" % "" + "".join("%18s" % name for name in results))
    for key, title, form in ROWS:
        cells = []
        for name in results:
            values = [r[key] for r in results[name] if key in r]
            cells.append(form.format(statistics.median(values)) if values else "-")
        print("%-38s" % title + "".join("%18s" % c for c in cells))


if __name__ == "__main__":
    main()
