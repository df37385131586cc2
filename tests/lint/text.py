"""What no file may hold: names of this or that machine, things left open, unbounded calls, and text
that the editor settings (.editorconfig) would change."""
import re

# The lints name what they forbid.
EXEMPT = ("tests/lint/",)

# A policy says which hosts may be reached: there a registry's name is the subject.
POLICY_FILES = re.compile(r"\.policy$|^policy/presets/|^tests/policy/|^supervisor/man/")

REGISTRIES = re.compile(
    r"\b(deb|security|snapshot|ftp)\.debian\.org|\b(archive|security|ports)\.ubuntu\.com"
    r"|registry\.(npmjs|yarnpkg)|\bpypi\.org|files\.pythonhosted|proxy\.golang|\bcrates\.io"
    r"|\brubygems\.org|artifactory|\bnexus\.|\bquay\.io|\bdocker\.io|\bghcr\.io", re.I)
MACHINE_PATHS = re.compile(r"(?<![\w.])/(work/(wt|main|shared)|tmp/build-|var/lib/jenkins)")
LEFT_OPEN = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")

# Characters that reorder or hide what a reviewer sees.
HIDDEN = re.compile("[\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")

# Calls without a bound, through a shell, or that cannot report an error.
UNBOUNDED = re.compile(
    r"(?<![\w>.])(gets|strcpy|strcat|sprintf|vsprintf|strtok|system|popen|tmpnam|mktemp"
    r"|atoi|atol|atof|rand|random)\s*\(")

# What clang-format makes of a list in a comment whose lines are too long.
RUN_TOGETHER = re.compile(r"^ \*[A-Za-z(`]")

COMMENT = re.compile(r'//.*|/\*.*?\*/|^\s*\*.*|"(\\.|[^"\\])*"')


def check_line(tree, name, line, text):
    if REGISTRIES.search(text) and not POLICY_FILES.search(name):
        tree.finding(name, line, "a registry's host name: take it from the machine's own settings")
    if MACHINE_PATHS.search(text):
        tree.finding(name, line, "a path of one machine")
    if LEFT_OPEN.search(text):
        tree.finding(name, line, "left open: " + LEFT_OPEN.search(text).group(0))
    if HIDDEN.search(text):
        tree.finding(name, line, "a character that hides or reorders text")
    if text.rstrip() != text and not name.endswith(".md"):
        tree.finding(name, line, "white space at the end")


def check_code(tree, name, line, text):
    match = UNBOUNDED.search(COMMENT.sub("", text))
    if match:
        tree.finding(name, line, "%s() has no bound or no errors; see supervisor/base" % match.group(1))


def run(tree):
    for name in tree.files:
        if name.startswith(EXEMPT):
            continue
        raw = tree.read(name)
        if b"\0" in raw:
            continue
        if b"\r" in raw:
            tree.finding(name, 1, "carriage returns")
        if raw and not raw.endswith(b"\n"):
            tree.finding(name, raw.count(b"\n") + 1, "no newline at the end")
        for line, text in tree.lines(name):
            check_line(tree, name, line, text)
            if name.endswith((".c", ".h")) and RUN_TOGETHER.search(text):
                tree.finding(name, line, "a comment's lines were run together: make them shorter")
            if name.endswith((".c", ".h")) and not name.startswith("tests/"):
                check_code(tree, name, line, text)
