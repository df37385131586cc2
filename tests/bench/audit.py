#!/usr/bin/env python3
"""What recording costs those who are recorded: both lanes against nothing and against the peers.

usage: audit.py OPEN_COST COLLECT_RUN

One recorded openat (p50, p99): an absolute name, a relative one, one through a symbolic link, one that
is not there. Then workloads: a C build (four times over), reading 2,000 small files, 500 processes. The
same set of calls for all; the collector encodes its records into blocks, the peers write their text to
a file. `cpu` is user and system time of everything together, collectors included. `more` is what a
contender adds to native, as a part of what the best peer adds.
Lane bpf, bpftrace and perf load first (the product loads its lane once, not for each session): what a
run of /bin/true takes under each contender is in the table too, and taken off before `more` is
reckoned. bpftrace and perf watch the whole machine. perf 6.1 prints the pointer of a name, not the name.
Goals: lane bpf within +5 % of native on the build and at most a fifth of the best peer's overhead;
lane notify below strace --seccomp-bpf everywhere, openat at most 12 µs at p50.
"""
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import Bench, machine_facts  # noqa: E402

CALLS = ("open,openat,openat2,creat,execve,execveat,exit_group,unlink,unlinkat,rmdir,rename,renameat,"
         "renameat2,link,linkat,symlink,symlinkat,mkdir,mkdirat,mknod,mknodat,truncate,ftruncate,"
         "chmod,fchmod,fchmodat,chown,fchown,lchown,fchownat,connect,bind,listen")
OPENS = 20000
FILES = 16
SMALL = 2000

MAKEFILE = """\
objects = $(patsubst %.c,%.o,$(wildcard *.c))
prog: $(objects)
\tgcc -o $@ $(objects)
%.o: %.c
\tgcc -O2 -g -Wall -c -o $@ $<
clean:
\trm -f *.o prog
again:
\tfor i in 1 2 3 4; do $(MAKE) -s clean && $(MAKE) -s || exit 1; done
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


def bpftrace_program():
    """Every call of the set with its first name, or its number where it has none."""
    named = {"execve": "filename", "open": "filename", "openat": "filename", "openat2": "filename",
             "creat": "pathname", "unlink": "pathname", "unlinkat": "pathname", "rmdir": "pathname",
             "rename": "oldname", "renameat": "oldname", "renameat2": "oldname", "mkdir": "pathname",
             "mkdirat": "pathname", "chmod": "filename", "fchmodat": "filename"}
    probes = []
    for call in CALLS.split(","):
        if not os.path.isdir("/sys/kernel/tracing/events/syscalls/sys_enter_" + call):
            continue
        what = "str(args->%s)" % named[call] if call in named else '"-"'
        probes.append('tracepoint:syscalls:sys_enter_%s { printf("%%d %s %%s\\n", pid, %s); }'
                      % (call, call, what))
    return " ".join(probes)


def works(wrapper):
    try:
        return wrapper(["/bin/true"]) and subprocess.run(
            wrapper(["/bin/true"]), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def wrappers(collect_run, top):
    """What a command is run as, by contender; None where it does not work here."""
    out = os.path.join(top, "peer.out")
    strace = ["strace", "-f", "-q", "-o", out, "-e", "trace=" + CALLS]
    program = os.path.join(top, "peer.bt")
    with open(program, "w") as f:
        f.write(bpftrace_program())
    found = {
        "native": lambda argv: argv,
        "kbsup bpf": lambda argv: [collect_run, "--bpf"] + argv,
        "kbsup notify": lambda argv: [collect_run] + argv,
        "strace -f --seccomp-bpf": lambda argv: strace[:2] + ["--seccomp-bpf"] + strace[2:] + argv,
        "strace -f": lambda argv: strace + argv,
        "bpftrace": lambda argv: ["bpftrace", "-q", "-o", out, "-c", " ".join(argv), program],
        "perf trace": lambda argv: ["perf", "trace", "-o", out, "-e", CALLS.replace("openat2,", ""),
                                    "--"] + argv,
    }
    return {label: wrapper if works(wrapper) else None for label, wrapper in found.items()}


def opens(title, path, behind, open_cost, where, rounds):
    results = {label: [] for label, wrapper in behind.items() if wrapper}
    for number in range(rounds):
        for label in results:
            out = subprocess.run(behind[label]([open_cost, path, str(OPENS)]), cwd=where, check=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
            results[label].append([int(x) / 1000 for x in out.split()[-3:]])
    print("# openat of %s: median of %d alternating runs of %d calls, µs (p50 least–most)"
          % (title, rounds, OPENS))
    for label, runs in results.items():
        p50 = [r[0] for r in runs]
        print("%-24s p50 %7.2f (%.2f–%.2f)  p99 %7.2f  p99.9 %8.2f" % (
            label, statistics.median(p50), min(p50), max(p50),
            statistics.median(r[1] for r in runs), statistics.median(r[2] for r in runs)))
    sys.stdout.flush()


PEERS = ("strace -f --seccomp-bpf", "strace -f", "bpftrace", "perf trace")
starts = {}  # what a run of nothing takes: seconds of wall and of processor


def medians(times):
    return {label: statistics.median(t) for label, t in times.items()}


def shares(title, found, which):
    """What each adds to native, its start taken off, as a part of what the best peer adds."""
    rest = {label: t - starts[label][which] for label, t in found.items() if label in starts}
    added = {label: t - rest["native"] for label, t in rest.items() if label != "native"}
    # perf does not wait for what it starts: its processor time is not known.
    best = min((added[p], p) for p in PEERS if added.get(p, 0) > 0)
    for label, t in added.items():
        print("%-24s more %-5s %8.2f ms  %+6.1f %%  %5.2f of %s" % (
            label, title, t * 1e3, 100 * t / rest["native"], t / best[0], best[1]))


def cpu_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def workload(title, argv, behind, where, rounds, before=None):
    """Wall time as every bench has it, and the processor time of the same runs."""
    bench, cpu = Bench(title, "ms"), {}

    def timed(label, wrapper):
        cpu[label] = []

        def once():
            if before:
                subprocess.run(before, cwd=where, check=True)
            used, started = cpu_seconds(), time.perf_counter()
            subprocess.run(wrapper(argv), cwd=where, check=True, stdin=subprocess.DEVNULL,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            took = time.perf_counter() - started
            cpu[label].append(cpu_seconds() - used)
            return took
        return once

    for label, wrapper in behind.items():
        if wrapper:
            bench.add(label, timed(label, wrapper), baseline=label == "native")
        else:
            bench.skip(label, "does not work here")
    bench.run(rounds=rounds)
    base = statistics.median(cpu["native"])
    for label, times in cpu.items():
        print("%-24s cpu %9.2f ms  %6.2f ×" % (
            label, statistics.median(times) * 1e3, statistics.median(times) / base))
    wall = medians(bench.times)
    if not starts:
        starts.update({label: (wall[label], statistics.median(cpu[label])) for label in wall})
    else:
        shares("wall", wall, 0)
        shares("cpu", medians(cpu), 1)
    sys.stdout.flush()


def main():
    open_cost, collect_run = (os.path.abspath(p) for p in sys.argv[1:3])
    rounds = int(os.environ.get("KB_BENCH_ROUNDS", 5))
    with tempfile.TemporaryDirectory(prefix="kbsup-bench-") as top:
        behind = wrappers(collect_run, top)
        for fact in machine_facts("strace", "bpftrace", "perf", "gcc"):
            print("# " + fact)
        os.symlink("file", os.path.join(top, "link"))
        open(os.path.join(top, "file"), "w").close()
        absolute = os.path.join(top, "file")
        for title, path in (("an absolute name", absolute), ("a relative name", "file"),
                            ("a symbolic link", os.path.join(top, "link")),
                            ("what is not there", os.path.join(top, "none"))):
            opens(title, path, behind, open_cost, top, rounds)
        make_project(top)
        os.mkdir(os.path.join(top, "small"))
        for n in range(SMALL):
            with open(os.path.join(top, "small", str(n)), "w") as f:
                f.write("text\n")
        with open(os.path.join(top, "forks.sh"), "w") as f:
            f.write("i=0; while [ $i -lt 500 ]; do /bin/true; i=$((i+1)); done\n")
        workload("/bin/true", ["/bin/true"], behind, top, rounds)
        workload("C build of %d files, four times (make)" % FILES, ["/usr/bin/make", "-s", "again"],
                 behind, top, rounds)
        workload("reading %d files (find, cat)" % SMALL,
                 ["/usr/bin/find", "small", "-type", "f", "-exec", "/bin/cat", "{}", "+"],
                 behind, top, rounds)
        workload("500 processes (sh)", ["/bin/sh", "forks.sh"], behind, top, rounds)
    return 0


sys.exit(main())
