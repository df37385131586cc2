#!/usr/bin/env python3
"""kbsup builds itself: natively, in a session that records it, and under strace.

usage: selfbuild.py BUILD-DIR SOURCE-DIR [ROUNDS]

Every contender configures and compiles the same copy of the sources into a fresh directory, with the
same number of jobs. `strace` runs with the set of calls that the session records. Afterwards the
session's record is compared in numbers with the programs, opens and deletions strace saw.
"""
import collections
import json
import os
import re
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import Bench, command  # noqa: E402
from kbsup import Kbsup  # noqa: E402

CALLS = ("open,openat,openat2,creat,execve,execveat,unlink,unlinkat,rmdir,rename,renameat,renameat2,"
         "mkdir,mkdirat,link,linkat,symlink,symlinkat,chmod,fchmodat,truncate,connect,bind")
BUILD = "rm -rf out && meson setup out src >/dev/null && ninja -C out >/dev/null"
# The session's own environment, for all of them.
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


def copy_sources(source, target):
    listing = subprocess.run(["git", "-c", "safe.directory=*", "-C", source, "ls-files", "-z"],
                             stdout=subprocess.PIPE, check=True).stdout
    for name in filter(None, listing.decode().split("\0")):
        os.makedirs(os.path.dirname(os.path.join(target, name)) or target, exist_ok=True)
        shutil.copy(os.path.join(source, name), os.path.join(target, name))


def strace_counts(log):
    classes = {"openat": "open", "open": "open", "openat2": "open", "creat": "open",
               "execve": "exec", "unlink": "unlink", "unlinkat": "unlink"}
    counts = collections.Counter()
    with open(log, errors="replace") as f:
        for line in f:
            match = re.match(r"^\d+\s+(?:<\.\.\. )?(\w+)", line)
            if not match or match.group(1) not in classes or "resumed>" in line:
                continue
            kind = classes[match.group(1)]
            if kind == "unlink" and "AT_REMOVEDIR" in line:
                continue
            counts[kind] += 1
    return counts


def recorded_counts(kbsup, session):
    counts = collections.Counter()
    for line in kbsup.run(["audit", "query", session, "--json"]).splitlines():
        counts[json.loads(line)["event"]] += 1
    return counts


def main():
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    with Kbsup(sys.argv[1]) as kbsup:
        work = kbsup.workspace
        copy_sources(sys.argv[2], work + "/src")
        shell = ["sh", "-c", BUILD]
        bench = Bench("selfbuild", "s")
        bench.add("native", command(shell, cwd=work, env=ENVIRONMENT), baseline=True)
        bench.add("kbsup run", kbsup.command(["run", "--"] + shell))
        if shutil.which("strace"):
            log = kbsup.dir + "/strace.log"
            for label, extra in (("strace -f --seccomp-bpf", ["--seccomp-bpf"]), ("strace -f", [])):
                argv = ["strace", "-f"] + extra + ["-e", "trace=" + CALLS, "-o", log] + shell
                bench.add(label, command(argv, cwd=work, env=ENVIRONMENT))
        else:
            bench.skip("strace -f", "not installed")
        bench.run(rounds, ["meson", "gcc", "strace"], warm_up=0)
        if shutil.which("strace"):
            seen, recorded = strace_counts(log), recorded_counts(kbsup, "last")
            for kind in ("exec", "open", "unlink"):
                print("%-8s %7d by strace (another run), %7d recorded" % (
                    kind, seen[kind], recorded[kind]))


main()
