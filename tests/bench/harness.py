"""What the benchmarks share: contenders take turns, so that a busy minute hits all of them alike; the
result is a median with its range; the machine's facts stand above every table.

    bench = Bench("session_start", "ms")
    bench.add("kbsup run", command(["kbsup", "run", "--", "/bin/true"]))
    bench.add("runc run", ..., baseline=True)
    bench.skip("podman run", "not installed")
    bench.run(rounds=15)

Nothing here passes or fails by time: numbers are for people. KB_BENCH_ROUNDS changes the rounds,
KB_BENCH_PAUSE the seconds of rest before each turn.
"""
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time


def command(argv, env=None, cwd=None, check=True):
    """A contender that runs argv with its output thrown away and returns the seconds it took."""
    path = argv[0] if os.path.isabs(argv[0]) else shutil.which(argv[0])
    environment = dict(os.environ, **(env or {}))

    def once():
        started = time.perf_counter()
        done = subprocess.run([path] + argv[1:], env=environment, cwd=cwd,
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE)
        took = time.perf_counter() - started
        if check and done.returncode != 0:
            raise RuntimeError("%s: status %d: %s" % (
                " ".join(argv), done.returncode, done.stderr.decode("utf-8", "replace")[-500:]))
        return took

    return once


def first_line(argv):
    try:
        out = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=10)
        return out.stdout.decode("utf-8", "replace").split("\n")[0].strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def cpu_model():
    with open("/proc/cpuinfo") as f:
        for line in f:
            if line.startswith(("model name", "Model", "CPU part")):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def machine_facts(*programs):
    """Lines that say on what and with what this was measured."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    facts = ["%s, %d CPUs, %d MiB, Linux %s, load %.2f" % (
        cpu_model(), len(os.sched_getaffinity(0)), memory, platform.release(), os.getloadavg()[0])]
    for name in programs:
        if shutil.which(name):
            option = "-v" if name == "tinyproxy" else "--version"
            facts.append("%s: %s" % (name, first_line([name, option])))
    return facts


class Bench:
    def __init__(self, name, unit, scale=None):
        self.name, self.unit = name, unit
        self.scale = scale or {"s": 1, "ms": 1e3, "us": 1e6}[unit]
        self.contenders, self.times, self.skipped, self.baseline = {}, {}, [], None

    def add(self, label, once, baseline=False):
        """once() does the work and returns the seconds it took."""
        self.contenders[label] = once
        if baseline:
            self.baseline = label

    def skip(self, label, reason):
        self.skipped.append((label, reason))

    def run(self, rounds, programs=(), warm_up=1, pause=0.0):
        pause = float(os.environ.get("KB_BENCH_PAUSE", pause))
        rounds = int(os.environ.get("KB_BENCH_ROUNDS", rounds))
        for fact in machine_facts(*programs):
            print("# " + fact)
        self.times = {label: [] for label in self.contenders}
        for number in range(-warm_up, rounds):
            # A different one goes first each time.
            order = list(self.times)
            order = order[number % len(order):] + order[:number % len(order)] if order else []
            for label in order:
                time.sleep(pause)
                took = self.turn(label)
                if took is not None and number >= 0:
                    self.times[label].append(took)
        if pause:
            print("# %g s of rest before each" % pause)
        self.table(rounds)

    def turn(self, label):
        """One run; a contender that fails is out, with its reason in the table."""
        try:
            return self.contenders[label]()
        except (RuntimeError, OSError) as reason:
            self.skip(label, str(reason).strip().replace("\n", " ")[-160:])
            del self.times[label]
            return None

    def median(self, label):
        return statistics.median(self.times[label])

    def table(self, rounds):
        print("# %s: median of %d alternating runs (least–most), %s"
              % (self.name, rounds, self.unit))
        width = max([len(x) for x in self.times] + [len(x) for x, _ in self.skipped] + [1])
        base = self.median(self.baseline) if self.baseline in self.times else None
        for label, times in self.times.items():
            ratio = "  %6.2f ×" % (self.median(label) / base) if base else ""
            print("%-*s  %10.2f  (%.2f–%.2f)%s" % (
                width, label, self.median(label) * self.scale, min(times) * self.scale,
                max(times) * self.scale, ratio))
        for label, reason in self.skipped:
            print("%-*s  not run: %s" % (width, label, reason))
        sys.stdout.flush()
