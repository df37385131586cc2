"""Is what the collector records what happened? The same build is run twice, once under the collector
and once under strace, and compared call for call: every exec with its arguments and outcome, every
open with its flags, every name made, moved or deleted, and the tree of processes. TAP.

    truth.py COLLECT_RUN [--bpf] [WORKLOAD]

WORKLOAD: `build` (a C build, the default), or what a benchmark run adds: `forks`, `git`, `go`, `npm`,
`python`.
"""
import collections
import os
import re
import shutil
import subprocess
import sys
import tempfile

CALLS = ("open,openat,openat2,creat,execve,execveat,unlink,unlinkat,rmdir,rename,renameat,renameat2,"
         "link,linkat,symlink,symlinkat,mkdir,mkdirat,mknod,mknodat,chmod,fchmodat,truncate,"
         "chown,lchown,fchownat,connect,bind")
FORKS = "clone,clone3,fork,vfork"

# Event and the argument that holds the name (the second one is what it becomes).
SHAPES = {
    "open": ("open", 0, None), "openat": ("open", 1, None), "openat2": ("open", 1, None),
    "creat": ("open", 0, None), "unlink": ("unlink", 0, None), "unlinkat": ("unlink", 1, None),
    "rmdir": ("rmdir", 0, None), "rename": ("rename", 0, 1), "renameat": ("rename", 1, 3),
    "renameat2": ("rename", 1, 3), "link": ("link", 0, 1), "linkat": ("link", 1, 3),
    "symlink": ("symlink", 1, 0), "symlinkat": ("symlink", 2, 0), "mkdir": ("mkdir", 0, None),
    "mkdirat": ("mkdir", 1, None), "mknod": ("mknod", 0, None), "mknodat": ("mknod", 1, None),
    "chmod": ("chmod", 0, None), "fchmodat": ("chmod", 1, None),
    "truncate": ("truncate", 0, None), "chown": ("chown", 0, None),
    "lchown": ("chown", 0, None), "fchownat": ("chown", 1, None),
}
FLAGS_AT = {"open": 1, "openat": 2}
AT_REMOVEDIR = 0x200
CLONE_THREAD = 0x10000

MAKEFILE = """\
objects = $(patsubst %.c,%.o,$(wildcard *.c))
all: prog libx.a made
prog: $(objects)
\tgcc -o $@ $(objects)
libx.a: $(objects)
\tar rcs $@ $(objects)
%.o: %.c
\tgcc -O1 -c -o $@ $<
made: prog
\t./prog | sed s/1/2/ > out.txt; mkdir -p made.d/sub && cp out.txt made.d/sub/copy
\tln -s sub made.d/link; ln made.d/link/copy made.d/hard; mv made.d/hard made.d/moved
\tchmod 700 made.d/moved; rm made.d/link; mv made.d made
\tsh ./steps.sh
\tcd made && cat sub/../moved ../out.txt /dev/fd/0 < /dev/null > all
\t-cat nowhere/at/all 2> /dev/null
"""

STEPS = """\
#!/bin/sh
for i in 1 2 3; do
\t(exec sh -c "exit $i")
\techo "$i" | while read -r x; do : > "loop-$x"; done
done
nosuchcommand 2> /dev/null
./notexecutable 2> /dev/null
./script one 'two words' ''
rm -f loop-*
true &
wait
exit 0
"""


def make_project(where):
    for i in range(4):
        with open(os.path.join(where, "f%d.c" % i), "w") as f:
            f.write("#include <stdio.h>\n#include <stdlib.h>\nint f%d(int x) { return x + %d; }\n"
                    % (i, i))
    files = {"main.c": "#include <stdio.h>\nint main(void) { return puts(\"1\") < 0; }\n",
             "Makefile": MAKEFILE, "main.go": GO, "steps.sh": STEPS, "notexecutable": "",
             "script": "#!/bin/sh\nexec true \"$@\"\n"}
    for name, text in files.items():
        with open(os.path.join(where, name), "w") as f:
            f.write(text)
    os.chmod(os.path.join(where, "script"), 0o755)


def unescape(field):
    return re.sub(rb"\\(?:x([0-9a-f]{2})|(.))",
                  lambda m: bytes([int(m[1], 16)]) if m[1]
                  else {b"n": b"\n", b"t": b"\t", b"r": b"\r"}.get(m[2], m[2]), field)


def same_names(name):
    """Names drawn at random, the same in both runs."""
    for drawn in (rb"((?:^|/)(?:cc|st))[A-Za-z0-9]{6}(?![A-Za-z0-9])",
                  rb"(\.git/t|/tmp_(?:obj|pack|idx)_)[A-Za-z0-9]{6}(?![A-Za-z0-9])",
                  rb"(_cacache/tmp/)(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[A-Za-z0-9]{6})",
                  rb"(/node_modules/\.[a-z]+-)[A-Za-z0-9]{8}(?![A-Za-z0-9])",
                  rb"(/_update-notifier-last-checked|\.json|/[0-9a-f]{60})\.[0-9]{6,}$"):
        name = re.sub(drawn, rb"\1XXXXXX", name)
    return name


class Run:
    def __init__(self):
        self.calls = collections.Counter()
        self.execs = collections.Counter()
        self.parent = {}
        self.programs = collections.defaultdict(list)
        self.codes = {}

    def call(self, event, names, extra=None):
        self.calls[(event, tuple(same_names(n) for n in names), extra)] += 1

    def exec(self, pid, path, argv, done):
        argv = tuple(same_names(a) for a in argv)
        self.execs[(path, argv, done)] += 1
        if done:
            self.programs[pid].append((path, argv))

    def tree(self):
        """Every process by what it ran and how it ended, with its children: as a value."""
        children = collections.defaultdict(list)
        for pid, parent in self.parent.items():
            children[parent].append(pid)

        def node(pid):
            below = sorted(node(c) for c in children[pid])
            return (tuple(self.programs[pid]), self.codes.get(pid, -1), tuple(below))

        roots = [p for p in self.parent if self.parent[p] not in self.parent]
        return sorted(node(r) for r in roots)


def read_collected(path):
    run = Run()
    for line in open(path, "rb").read().split(b"\n")[:-1]:
        fields = line.split(b"\t")
        event, pid, parent = fields[0].decode(), int(fields[1]), int(fields[2])
        outcome, code, flags = int(fields[3]), int(fields[6]), int(fields[7], 16)
        path, path_arg, path2, path2_arg = (unescape(f) for f in fields[9:13])
        # The first process of a pid namespace has none.
        if parent or event in ("exec", "exit"):
            run.parent.setdefault(pid, parent)
        if event == "exec":
            if outcome not in (1, 2):
                raise SystemExit("an exec without an outcome: %r" % line)
            run.exec(pid, path_arg or path, [unescape(f) for f in fields[14:]], outcome == 1)
        elif event == "exit":
            run.codes[pid] = code
        elif event in {s[0] for s in SHAPES.values()}:
            names = [path_arg or path]
            if event in ("rename", "link", "symlink"):
                names.append(path2_arg or path2)
            run.call(event, names, flags if event == "open" else None)
    return run


def split_arguments(text):
    """The arguments of one call as strace -xx -X raw prints them."""
    out, depth, start, quoted = [], 0, 0, False
    for i, c in enumerate(text):
        if c == '"':
            quoted = not quoted
        elif not quoted and c in "[{(":
            depth += 1
        elif not quoted and c in "]})":
            if depth == 0:
                out.append(text[start:i].strip())
                return out, text[i + 1:]
            depth -= 1
        elif not quoted and c == "," and depth == 0:
            out.append(text[start:i].strip())
            start = i + 1
    out.append(text[start:].strip())
    return out, ""


def string(argument):
    m = re.match(r'"((?:\\x[0-9a-f]{2})*)"', argument)
    return bytes.fromhex(m[1].replace("\\x", "")) if m else b"?"


def strings(argument):
    return [string(a) for a in re.findall(r'"(?:\\x[0-9a-f]{2})*"', argument)]


def read_strace(path, first_parent):
    run, waiting, process = Run(), {}, {}
    for line in open(path):
        m = re.match(r"(\d+) +(.*)", line)
        tid, rest = int(m[1]), m[2]
        pid = process.get(tid, tid)
        if not run.parent:
            run.parent[pid] = first_parent
        ended = re.match(r"\+\+\+ exited with (\d+)", rest)
        killed = re.match(r"\+\+\+ killed by", rest)
        if ended and tid == pid:
            run.codes[pid] = int(ended[1])
        if ended or killed or rest.startswith("---"):
            continue
        resumed = re.match(r"<\.\.\. \w+ resumed>(.*)", rest)
        if resumed:
            rest = waiting.pop(tid) + resumed[1]
        elif rest.endswith("<unfinished ...>"):
            waiting[tid] = rest[:-len("<unfinished ...>")]
            continue
        name, _, text = rest.partition("(")
        args, tail = split_arguments(text)
        result = re.search(r"= (-?\d+|0x[0-9a-f]+)", tail)
        result = int(result[1], 0) if result else None
        if name not in FORKS.split(","):
            add_call(run, pid, name, args, result)
        elif result and result > 0 and is_thread(args):
            process[result] = pid
        elif result and result > 0:
            run.parent[result] = pid
            process.pop(result, None)  # a number used again
    return run


def is_thread(args):
    flags = re.search(r"flags=(0x[0-9a-f]+|\d+)", ",".join(args))
    return bool(flags and int(flags[1], 0) & CLONE_THREAD)


def add_call(run, pid, name, args, result):
    if name in ("execve", "execveat"):
        at = 0 if name == "execve" else 1
        run.exec(pid, string(args[at]), strings(args[at + 1]), result == 0)
    elif name in SHAPES:
        event, first, second = SHAPES[name]
        names = [string(args[first])]
        if second is not None:
            names.append(string(args[second]))
        if name == "unlinkat" and int(args[2], 0) & AT_REMOVEDIR:
            event = "rmdir"
        flags = None
        if event == "open":
            flags = int(args[FLAGS_AT[name]], 0) if name in FLAGS_AT else 0
        run.call(event, names, flags)


def report(number, what, problems):
    print("%s %d - %s" % ("not ok" if problems else "ok", number, what))
    for p in problems[:20]:
        print("# %s" % (p,))
    return bool(problems)


def difference(ours, truth):
    missing, extra = truth - ours, ours - truth
    return (["missing, %d times: %r" % (n, k) for k, n in missing.items()] +
            ["too many, %d times: %r" % (n, k) for k, n in extra.items()])


# Many threads, each with files of its own, while the runtime interrupts them all the time.
GO = """\
package main

import (
	"fmt"
	"os"
	"os/exec"
	"sync"
)

func work(n int, wait *sync.WaitGroup) {
	defer wait.Done()
	for i := 0; i < 25; i++ {
		name := fmt.Sprintf("g%d-%d", n, i)
		if os.WriteFile(name, []byte(name), 0600) != nil || os.Rename(name, name+".new") != nil {
			os.Exit(1)
		}
		for sum := 0; sum < 3000000; sum++ {
		}
		os.Remove(name + ".new")
	}
}

func main() {
	var wait sync.WaitGroup
	for n := 0; n < 8; n++ {
		wait.Add(1)
		go work(n, &wait)
	}
	wait.Wait()
	for i := 0; i < 5; i++ {
		exec.Command("/bin/sh", "-c", fmt.Sprintf("exit %d", i)).Run()
	}
}
"""

# What is compared: a shell's steps after some that prepare, and how much there must be of it.
GIT = "git -c safe.directory=* -c gc.auto=0 -c user.name=a -c user.email=a@b.c"
WORKLOADS = {
    "build": ("true", "exec make -j2", 40, 500),
    "forks": ("true", "i=0; while [ $i -lt 1000 ]; do (exit $((i % 256))); /bin/true $i; i=$((i+1));"
              " done", 2000, 1000),
    "git": (GIT + " init -q repo && cp f0.c f1.c repo && cd repo && " + GIT + " add -A && " + GIT +
            " commit -qm one", GIT + " clone -q --no-hardlinks repo copy && cd copy && echo >>f0.c &&"
            " " + GIT + " status", 5, 200),
    "go": ("GOCACHE=$PWD/cache GOFLAGS=-mod=mod go build -o prog main.go", "exec ./prog", 6, 500),
    "npm": ("mkdir -p package && echo '{\"name\":\"small\",\"version\":\"1.0.0\"}'"
            " >package/package.json && tar c --sort=name --mtime=@0 --owner=0 --group=0 package | gzip -n >small.tgz",
            "npm install --offline --no-audit --no-fund --no-update-notifier --cache ./cache"
            " --logs-max=0 ./small.tgz", 2, 200),
    "python": ("true", "/usr/bin/python3 -B -I -c 'import json, os, subprocess, tempfile\n"
               "for i in range(50): open(\"p%d\" % i, \"w\").write(json.dumps(i))\n"
               "for i in range(50): os.rename(\"p%d\" % i, \"q%d\" % i); os.unlink(\"q%d\" % i)\n"
               "subprocess.run([\"/bin/sh\", \"-c\", \"ls >/dev/null; exit 3\"])'", 3, 200),
}


def run_in(where, argv, prepare):
    """In a directory of the same name both times, so that the same names are asked for."""
    shutil.rmtree(where, ignore_errors=True)
    os.mkdir(where)
    make_project(where)
    # How many arenas malloc makes, and asks the number of processors for, is chance otherwise.
    env = {"PATH": "/usr/bin:/bin", "HOME": where, "LC_ALL": "C", "MALLOC_ARENA_MAX": "1",
           "GIT_AUTHOR_DATE": "@1 +0000", "GIT_COMMITTER_DATE": "@1 +0000"}
    subprocess.run(["/bin/sh", "-ec", prepare], cwd=where, env=env, check=True)
    done = subprocess.run(argv, cwd=where, env=env, stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=120)
    if done.returncode:
        raise SystemExit("%s: %d: %s" % (argv[0], done.returncode, done.stderr.decode()))


def main():
    collect_run = [os.path.abspath(sys.argv[1])] + [a for a in sys.argv[2:] if a == "--bpf"]
    name = ([a for a in sys.argv[2:] if a != "--bpf"] or ["build"])[0]
    prepare, steps, processes, calls = WORKLOADS[name]
    work = ["/bin/sh", "-c", steps]
    needed = ["strace", "gcc", "make"] + [name] * (name in ("git", "go", "npm"))
    if not all(shutil.which(p) for p in needed):
        print("1..0 # SKIP needed: %s" % " ".join(needed))
        return 0
    able = subprocess.run(collect_run + ["/bin/true"], stderr=subprocess.PIPE)
    if "--bpf" in collect_run and able.returncode == 99:
        print("1..0 # SKIP %s" % able.stderr.decode().strip())
        return 0
    with tempfile.TemporaryDirectory(prefix="kbsup-truth-") as top:
        where, ours, truth = (os.path.join(top, n) for n in ("project", "ours", "truth"))
        run_in(where, collect_run + ["-o", ours] + work, prepare)
        run_in(where, [shutil.which("strace"), "-f", "-q", "-xx", "-X", "raw", "-s", "65536",
                       "-e", "trace=" + CALLS + "," + FORKS, "-o", truth] + work, prepare)
        ours, truth = read_collected(ours), read_strace(truth, 1)
    print("1..4")
    bad = report(1, "%d execs with arguments and outcome" % sum(truth.execs.values()),
                 difference(ours.execs, truth.execs))
    bad |= report(2, "%d opens, deletions, renames and so on" % sum(truth.calls.values()),
                  difference(ours.calls, truth.calls))
    same = ours.tree() == truth.tree()
    bad |= report(3, "the tree of %d processes, with every program and exit code"
                  % len(truth.parent),
                  [] if same else ["ours: %r" % (ours.tree(),), "truth: %r" % (truth.tree(),)])
    bad |= report(4, "there was something to compare",
                  [] if len(truth.parent) >= processes and sum(truth.calls.values()) >= calls
                  else ["too little: %d, %d" % (len(truth.parent), sum(truth.calls.values()))])
    return 0


sys.exit(main())
