"""The source tree as the lints see it: which files there are, and how a finding is reported."""
import os
import subprocess
import sys

# Inputs and golden outputs are bytes, not source.
DATA_DIRS = ("tests/fuzz/corpus/", "tests/golden/", "tests/policy/golden/")


class Tree:
    """root: the top folder. Files are what git would commit; without git, all there is."""

    def __init__(self, root):
        self.root = os.path.abspath(root)
        self.files = sorted(f for f in self._list() if self._is_source(f))
        self.findings = []

    def _list(self):
        if os.path.exists(os.path.join(self.root, ".git")):
            out = subprocess.run(
                ["git", "-c", "safe.directory=*", "-C", self.root, "ls-files", "-z",
                 "--cached", "--others", "--exclude-standard"],
                check=True, stdout=subprocess.PIPE).stdout
            return [f for f in out.decode("utf-8", "surrogateescape").split("\0") if f]
        found = []
        for top, dirs, names in os.walk(self.root):
            dirs[:] = [d for d in dirs if not d.startswith("build") and d != ".git"]
            found += [os.path.relpath(os.path.join(top, n), self.root) for n in names]
        return found

    def _is_source(self, path):
        full = os.path.join(self.root, path)
        return (not path.startswith(DATA_DIRS) and "/golden/" not in path
                and os.path.isfile(full) and not os.path.islink(full))

    def path(self, name):
        return os.path.join(self.root, name)

    def read(self, name):
        with open(self.path(name), "rb") as f:
            return f.read()

    def lines(self, name):
        """(number, text) of every line."""
        text = self.read(name).decode("utf-8", "replace")
        return list(enumerate(text.split("\n"), 1))

    def c_files(self):
        return [f for f in self.files if f.endswith((".c", ".h"))]

    def scripts(self):
        """Shell scripts, by their first line or their ending."""
        found = []
        for name in self.files:
            head = self.read(name)[:64].split(b"\n")[0]
            shell = head.startswith(b"#!") and head.split(b"/")[-1].split()[-1] in (
                b"sh", b"bash", b"dash")
            if shell or name.endswith((".sh", ".bash")):
                found.append(name)
        return found

    def finding(self, name, line, text):
        self.findings.append("%s:%d: %s" % (name, line, text))


def skip(reason):
    """meson's word for a test that could not run here."""
    print("skipped: " + reason)
    sys.exit(77)
