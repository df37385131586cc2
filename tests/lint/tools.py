"""The lints other programs do: clang-format, shellcheck, clang-tidy."""
import concurrent.futures
import json
import os
import re
import shutil
import subprocess

from tree import skip

# Another version formats a few constructs otherwise, and has other checks; the tree is kept in this
# one's form.
CLANG_VERSION = 14


def clang_tool(tool):
    for name in ("%s-%d" % (tool, CLANG_VERSION), tool):
        path = shutil.which(name)
        if not path:
            continue
        out = subprocess.run([path, "--version"], stdout=subprocess.PIPE, text=True).stdout
        match = re.search(r"version (\d+)", out)
        if match and int(match.group(1)) == CLANG_VERSION:
            return path
    skip("%s %d is not installed" % (tool, CLANG_VERSION))


def run_format(tree):
    program = clang_tool("clang-format")
    sources = tree.c_files()
    if not sources:
        return
    out = subprocess.run([program, "--dry-run", "-Werror", "--style=file"] + sources,
                         cwd=tree.root, stderr=subprocess.PIPE, text=True)
    for match in re.finditer(r"^(\S+?):(\d+):\d+: error: .*$", out.stderr, re.M):
        tree.finding(match.group(1), int(match.group(2)),
                     "not formatted: clang-format -i " + match.group(1))
    if out.returncode != 0 and not tree.findings:
        tree.finding(".clang-format", 1, out.stderr.strip())


def run_shellcheck(tree):
    program = shutil.which("shellcheck")
    if not program:
        skip("shellcheck is not installed")
    scripts = tree.scripts()
    if not scripts:
        return
    out = subprocess.run([program, "--format=gcc", "--external-sources",
                          "--source-path=SCRIPTDIR"] + scripts,
                         cwd=tree.root, stdout=subprocess.PIPE, text=True)
    for line in out.stdout.splitlines():
        name, number, _, text = line.split(":", 3)
        tree.finding(name, int(number), text.strip())


def tidy_one(program, build, root, source):
    # The database may be gcc's; clang-tidy need not know every warning gcc has.
    out = subprocess.run(
        [program, "-p", build, "--quiet", "--extra-arg=-Wno-unknown-warning-option", source],
        cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return source, out.returncode, out.stdout, out.stderr


def run_tidy(tree, build):
    program = clang_tool("clang-tidy")
    with open(os.path.join(build, "compile_commands.json")) as f:
        known = {os.path.realpath(os.path.join(c["directory"], c["file"])) for c in json.load(f)}
    sources = [s for s in tree.c_files() if s.endswith(".c")
               and os.path.realpath(tree.path(s)) in known]
    if not sources:
        tree.finding("compile_commands.json", 1, "names no source of this tree")
    jobs = len(os.sched_getaffinity(0))
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for source, status, out, errors in pool.map(
                lambda s: tidy_one(program, build, tree.root, s), sources):
            report_tidy(tree, build, source, status, out + errors)
    print("%d sources examined" % len(sources))


def report_tidy(tree, build, source, status, out):
    seen = False
    for match in re.finditer(r"^(\S+?):(\d+):\d+: (?:warning|error): (.*)$", out, re.M):
        # clang-tidy names files as the database does: from the build directory.
        path = os.path.realpath(os.path.join(build, match.group(1)))
        text = "%s:%s: %s" % (os.path.relpath(path, tree.root), match.group(2), match.group(3))
        seen = True
        if text not in tree.findings:
            tree.findings.append(text)
    if status != 0 and not seen:
        tree.finding(source, 1, "clang-tidy failed: " + out.strip()[-300:])
