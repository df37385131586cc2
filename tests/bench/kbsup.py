"""A private kbsup for a benchmark: its own directories, its supervisor running, gone at the end."""
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time

from harness import command


class Kbsup:
    def __init__(self, build):
        self.program = os.path.join(os.path.abspath(build), "supervisor/cli/kbsup")
        self.dir = tempfile.mkdtemp(prefix="kbb.")
        self.workspace = os.path.join(self.dir, "ws")
        self.env = {"HOME": self.dir + "/home", "XDG_RUNTIME_DIR": self.dir + "/run",
                    "XDG_STATE_HOME": self.dir + "/state", "XDG_CONFIG_HOME": self.dir + "/config"}
        for path in list(self.env.values()) + [self.workspace]:
            os.mkdir(path, 0o700)

    def __enter__(self):
        self.run(["run", "--", "/bin/true"])
        return self

    def run(self, args, check=True):
        """The standard output of `kbsup ARGS` in the workspace."""
        done = subprocess.run([self.program] + args, cwd=self.workspace,
                              env=dict(os.environ, **self.env), stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if check and done.returncode != 0:
            raise RuntimeError("kbsup %s: %s" % (" ".join(args), done.stderr.strip()))
        return done.stdout

    def works(self, args):
        return subprocess.run([self.program] + args, cwd=self.workspace, env=dict(os.environ, **self.env),
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL).returncode == 0

    def command(self, args, cwd=None, check=True):
        return command([self.program] + args, env=self.env, cwd=cwd or self.workspace, check=check)

    def __exit__(self, *_):
        try:
            pid = json.loads(self.run(["status", "--json"]))["pid"]
            os.kill(pid, signal.SIGTERM)
            for _ in range(100):
                if not os.path.exists("/proc/%d" % pid):
                    break
                time.sleep(0.05)
        except (RuntimeError, ValueError, OSError):
            pass
        shutil.rmtree(self.dir, ignore_errors=True)
