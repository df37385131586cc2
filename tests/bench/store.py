"""The audit store against SQLite with equal indexes and ripgrep over the strace text, on the records of
a real build (a compiler run under strace, read by the importer, repeated until there are enough).

usage: store.py STORE_KBSUP STORE_SQLITE|- SOURCE_ROOT
KB_BENCH_RECORDS: how many records (1,000,000); KB_BENCH_ROUNDS: how often (3).
"""
import json
import os
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


def contender(program, log, records, place):
    shutil.rmtree(place, ignore_errors=True)
    os.makedirs(place)
    out = subprocess.run([program, log, str(records), os.path.join(place, "store"), "1000"],
                         check=True, stdout=subprocess.PIPE).stdout
    shutil.rmtree(place)
    return json.loads(out)


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
            for name, run in runs:
                results.setdefault(name, []).append(run())
    finally:
        shutil.rmtree(work)
    print("%s records, 1,000 a commit, median of %d" % (format(records, ","), rounds))
    print("%-38s" % "" + "".join("%16s" % name for name in results))
    for key, title, form in ROWS:
        cells = []
        for name in results:
            values = [r[key] for r in results[name] if key in r]
            cells.append(form.format(statistics.median(values)) if values else "-")
        print("%-38s" % title + "".join("%16s" % c for c in cells))


if __name__ == "__main__":
    main()
