#!/usr/bin/env python3
"""What a session's way out costs: relay, link and broker against a direct connection and a proxy.

usage: egress.py BUILD-DIR [ROUNDS]

  direct       client and server on the same loopback, nothing between
  session      the same client in a session, whose policy names the server: transparent
  proxy        the same, asking the session's HTTP proxy
  tinyproxy    (or squid, privoxy) a common proxy on the same loopback, if one is installed

All in a network namespace of its own, taking turns. Twice: on the CPUs there are, and all of it on
one (client, server and everything between). Goals: at least 2 Gbit/s on one core; the first byte
within 1 ms of direct.
"""
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import machine_facts  # noqa: E402
from kbsup import Kbsup  # noqa: E402

ADDRESS, PORT, PROXY_PORT = "93.184.215.14", 8000, 8888
SIZE, TIMES = 1 << 30, 30
HERE = os.path.dirname(os.path.abspath(__file__))
CLIENT = os.path.join(HERE, "egress_client.py")
PYTHON = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable


def client_argv(script, size, *more):
    return [PYTHON, script, ADDRESS, str(PORT), str(size), str(TIMES)] + list(more)


def run(argv):
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise RuntimeError("%s: %s" % (" ".join(argv), done.stderr.strip()[-300:]))
    return json.loads(done.stdout)


class Session:
    """Contender in a kbsup session."""

    def __init__(self, kbsup, proxied):
        self.kbsup = kbsup
        self.more = ["198.18.0.1", "3128"] if proxied else []

    def __call__(self):
        argv = ["run", "--quiet", "--policy", "./net.policy", "--"]
        argv += client_argv("egress_client.py", SIZE, *self.more)
        return json.loads(self.kbsup.run(argv))


def start_proxy(work):
    """(name, process) of a common proxy, or (None, why not)."""
    if shutil.which("tinyproxy"):
        config = os.path.join(work, "tinyproxy.conf")
        with open(config, "w") as f:
            f.write("Port %d\nListen 127.0.0.1\nTimeout 60\nMaxClients 200\nLogLevel Critical\n"
                    "DisableViaHeader Yes\n" % PROXY_PORT)
        return "tinyproxy", subprocess.Popen(["tinyproxy", "-d", "-c", config],
                                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if shutil.which("privoxy"):
        config = os.path.join(work, "privoxy.conf")
        with open(config, "w") as f:
            f.write("listen-address 127.0.0.1:%d\ntoggle 0\nconfdir %s\n" % (PROXY_PORT, work))
        return "privoxy", subprocess.Popen(["privoxy", "--no-daemon", config],
                                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if shutil.which("squid"):
        config = os.path.join(work, "squid.conf")
        with open(config, "w") as f:
            f.write("http_port 127.0.0.1:%d\nhttp_access allow all\ncache deny all\n"
                    "pid_filename none\naccess_log none\ncache_log /dev/null\n" % PROXY_PORT)
        return "squid", subprocess.Popen(["squid", "-N", "-f", config], stdout=subprocess.DEVNULL,
                                         stderr=subprocess.DEVNULL)
    return None, "none of tinyproxy, privoxy and squid is installed"


def row(values, scale, text):
    return text % (statistics.median(values) * scale, min(values) * scale, max(values) * scale)


def measure(title, contenders, rounds):
    results = {name: {"first": [], "whole": []} for name in contenders}
    for number in range(-1, rounds):
        order = list(contenders)
        order = order[number % len(order):] + order[:number % len(order)]
        for name in order:
            once = contenders[name]()
            if number >= 0:
                results[name]["first"].append(statistics.median(once["first"]))
                results[name]["whole"].append(once["whole"])
    print("# %s: median of %d alternating runs (least–most)" % (title, rounds))
    direct = statistics.median(results["direct"]["first"])
    for name, r in results.items():
        speeds = [8 * SIZE / whole / 1e9 for whole in r["whole"]]
        print("%-10s %s Gbit/s   first byte %s ms  (direct + %.2f ms)" % (
            name, row(speeds, 1, "%6.2f (%.2f–%.2f)"), row(r["first"], 1e3, "%.2f (%.2f–%.2f)"),
            (statistics.median(r["first"]) - direct) * 1e3))
    sys.stdout.flush()


def contend(build, rounds):
    with Kbsup(build) as kbsup, tempfile.TemporaryDirectory() as work:
        shutil.copy(CLIENT, kbsup.workspace)
        with open(os.path.join(kbsup.workspace, "net.policy"), "w") as f:
            f.write('policy net version 1 extends shell { net connect tcp "%s:%d" }\n' % (
                ADDRESS, PORT))
        server = subprocess.Popen([PYTHON, os.path.join(HERE, "egress_server.py"), ADDRESS,
                                   str(PORT)], stdout=subprocess.PIPE, text=True)
        server.stdout.readline()
        contenders = {"direct": lambda: run(client_argv(CLIENT, SIZE)),
                      "session": Session(kbsup, False), "proxy": Session(kbsup, True)}
        name, proxy = start_proxy(work)
        if name:
            time.sleep(1)
            contenders[name] = lambda: run(
                client_argv(CLIENT, SIZE, "127.0.0.1", str(PROXY_PORT)))
        else:
            print("# no other proxy: " + proxy)
        try:
            cpus = len(os.sched_getaffinity(0))
            measure("%d CPU%s" % (cpus, "" if cpus == 1 else "s"), contenders, rounds)
        finally:
            server.kill()
            if name:
                proxy.kill()


def main():
    rounds = int(os.environ.get("KB_BENCH_ROUNDS", sys.argv[2] if len(sys.argv) > 2 else 7))
    if os.environ.get("KB_BENCH_INSIDE") == "yes":
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        subprocess.run(["ip", "address", "add", ADDRESS + "/32", "dev", "lo"], check=True)
        contend(sys.argv[1], rounds)
        return
    for program in ("ip", "unshare", "nft", "taskset"):
        if not shutil.which(program):
            print("# not run: %s is not there" % program)
            return
    if os.getuid() != 0:
        print("# not run: it makes a network namespace, as root")
        return
    for fact in machine_facts("tinyproxy", "privoxy", "squid"):
        print("# " + fact)
    sys.stdout.flush()
    inside = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
              sys.executable, os.path.abspath(__file__), sys.argv[1], str(rounds)]
    env = dict(os.environ, KB_BENCH_INSIDE="yes", KB_BENCH_ROUNDS=str(rounds))
    for prefix in ([], ["taskset", "1"]):
        subprocess.run(prefix + inside, env=env, check=True)


main()
