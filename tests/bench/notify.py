#!/usr/bin/env python3
"""What recording costs those who are recorded: both lanes against nothing and against strace.

usage: notify.py OPEN_COST COLLECT_RUN

One trapped openat (p50, p99): an absolute name, a relative one, one through a symbolic link, one that
is not there. And a C build, of files like ours. The same set of calls for all; the collector encodes
its records into blocks, strace writes its text to a file.
Goals: openat at most 12 µs at p50; the build within +15 % of native; below --seccomp-bpf everywhere.
"""
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import Bench, command, machine_facts  # noqa: E402

CALLS = ("open,openat,openat2,creat,execve,execveat,exit_group,unlink,unlinkat,rmdir,rename,renameat,"
         "renameat2,link,linkat,symlink,symlinkat,mkdir,mkdirat,mknod,mknodat,truncate,ftruncate,"
         "chmod,fchmod,fchmodat,chown,fchown,lchown,fchownat,connect,bind,listen")
OPENS = 20000
FILES = 16

MAKEFILE = """\
objects = $(patsubst %.c,%.o,$(wildcard *.c))
prog: $(objects)
\tgcc -o $@ $(objects)
%.o: %.c
\tgcc -O2 -g -Wall -c -o $@ $<
clean:
\trm -f *.o prog
"""

SOURCE = """\
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
struct item%(n)d { struct item%(n)d *next; char name[32]; int value; };
"""

FUNCTION = """\
static int find%(n)d_%(k)d(struct item%(n)d *list, const char *name, int *ret)
{
	for (struct item%(n)d *i = list; i; i = i->next)
		if (strcmp(i->name, name) == 0 && i->value > %(k)d) {
			*ret = i->value * %(k)d + (int)strlen(i->name);
			return snprintf(i->name, sizeof(i->name), "%%d-%%s", *ret, name) > %(k)d;
		}
	return list ? -ENOENT : open(name, O_RDONLY) + (int)getpid() + %(k)d;
}
"""


def make_project(where):
    for n in range(FILES):
        text = SOURCE % {"n": n} + "".join(FUNCTION % {"n": n, "k": k} for k in range(40))
        calls = " + ".join("find%d_%d(0, \"x\", &r)" % (n, k) for k in range(40))
        text += "int all%d(void);\nint all%d(void)\n{\n\tint r = 0;\n\treturn %s + r;\n}\n" % (
            n, n, calls)
        with open(os.path.join(where, "f%d.c" % n), "w") as f:
            f.write(text)
    with open(os.path.join(where, "main.c"), "w") as f:
        f.write("int main(void) { return 0; }\n")
    with open(os.path.join(where, "Makefile"), "w") as f:
        f.write(MAKEFILE)


def wrappers(collect_run, top):
    """What a command is put behind, by contender."""
    out = os.path.join(top, "strace.out")
    found = {"native": [], "kbsup notify": [collect_run], "kbsup bpf": [collect_run, "--bpf"]}
    if subprocess.run(found["kbsup bpf"] + ["/bin/true"], stderr=subprocess.DEVNULL).returncode:
        del found["kbsup bpf"]
    if shutil.which("strace"):
        strace = [shutil.which("strace"), "-f", "-q", "-o", out, "-e", "trace=" + CALLS]
        found["strace -f --seccomp-bpf"] = strace[:2] + ["--seccomp-bpf"] + strace[2:]
        found["strace -f"] = strace
    return found


def opens(title, path, behind, open_cost, where, rounds):
    results = {label: [] for label in behind}
    for number in range(rounds):
        for label, wrapper in behind.items():
            out = subprocess.run(wrapper + [open_cost, path, str(OPENS)], cwd=where, check=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
            results[label].append([int(x) / 1000 for x in out.split()])
    print("# openat of %s: median of %d alternating runs of %d calls, µs (p50 least–most)"
          % (title, rounds, OPENS))
    for label, runs in results.items():
        p50 = [r[0] for r in runs]
        print("%-24s p50 %7.2f (%.2f–%.2f)  p99 %7.2f  p99.9 %8.2f" % (
            label, statistics.median(p50), min(p50), max(p50),
            statistics.median(r[1] for r in runs), statistics.median(r[2] for r in runs)))
    sys.stdout.flush()


def main():
    open_cost, collect_run = (os.path.abspath(p) for p in sys.argv[1:3])
    rounds = int(os.environ.get("KB_BENCH_ROUNDS", 5))
    with tempfile.TemporaryDirectory(prefix="kbsup-bench-") as top:
        behind = wrappers(collect_run, top)
        for fact in machine_facts("strace", "gcc"):
            print("# " + fact)
        os.symlink("file", os.path.join(top, "link"))
        open(os.path.join(top, "file"), "w").close()
        absolute = os.path.join(top, "file")
        for title, path in (("an absolute name", absolute), ("a relative name", "file"),
                            ("a symbolic link", os.path.join(top, "link")),
                            ("what is not there", os.path.join(top, "none"))):
            opens(title, path, behind, open_cost, top, rounds)
        make_project(top)
        bench = Bench("C build of %d files (make)" % FILES, "ms")
        clean = ["make", "-s", "clean"]

        def build(wrapper):
            timed = command((wrapper + ["/usr/bin/make", "-s"]), cwd=top)

            def once():
                subprocess.run(clean, cwd=top, check=True)
                return timed()
            return once

        for label, wrapper in behind.items():
            bench.add(label, build(wrapper), baseline=label == "native")
        bench.run(rounds=rounds)
    return 0


sys.exit(main())
