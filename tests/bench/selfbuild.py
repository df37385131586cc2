#!/usr/bin/env python3
"""kbsup builds itself: natively, in a session that records it, and under strace.

usage: selfbuild.py BUILD-DIR SOURCE-DIR [ROUNDS]

Every contender configures and compiles the same copy of the sources into a fresh directory, with the
same number of jobs. `strace` runs with the set of calls that the session records. That the record equals
what strace sees, call for call, is the benchmark `selfbuild truth`.
"""
import os
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


def main():
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    with Kbsup(sys.argv[1]) as kbsup:
        work = kbsup.workspace
        copy_sources(sys.argv[2], work + "/src")
        shell = ["sh", "-c", BUILD]
        bench = Bench("selfbuild", "s")
        bench.add("native", command(shell, cwd=work, env=ENVIRONMENT), baseline=True)
        for lane in ("bpf", "notify"):
            if kbsup.works(["run", "--lane", lane, "--", "true"]):
                bench.add("kbsup run, lane " + lane, kbsup.command(["run", "--lane", lane, "--"] + shell))
            else:
                bench.skip("kbsup run, lane " + lane, "does not work here")
        if shutil.which("strace"):
            log = kbsup.dir + "/strace.log"
            for label, extra in (("strace -f --seccomp-bpf", ["--seccomp-bpf"]), ("strace -f", [])):
                argv = ["strace", "-f"] + extra + ["-e", "trace=" + CALLS, "-o", log] + shell
                bench.add(label, command(argv, cwd=work, env=ENVIRONMENT))
        else:
            bench.skip("strace -f", "not installed")
        bench.run(rounds, ["meson", "gcc", "strace"], warm_up=0)


main()
