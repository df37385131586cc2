#!/usr/bin/python3
"""Does what a man page says: usage: tutorial.py PAGE. Of its literal blocks, one that begins with
"# NAME" is written to that file; in the others each line after "$ " is run by one shell, and the lines
that follow have to be in what it printed, in their order, "…" standing for anything. Prints TAP."""
import re
import subprocess
import sys

MARK = "--- the end of one command ---"


def blocks(path):
    inside, lines = False, []
    for line in open(path, encoding="utf-8").read().splitlines():
        if line == "```":
            if inside:
                yield lines
            inside, lines = not inside, []
        elif inside:
            lines.append(line)


def commands(lines):
    """(command, expected lines) of a block."""
    found = []
    for line in lines:
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


def start_shell():
    return subprocess.Popen(["bash", "--norc"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)


def say(shell, command):
    shell.stdin.write("%s\n} </dev/null\necho; echo '%s'\n" % ("{ " + command, MARK))
    shell.stdin.flush()
    said = []
    for line in shell.stdout:
        if line.rstrip("\n") == MARK:
            return "".join(said)
        said.append(line)
    raise SystemExit("Bail out! the shell ended in: " + command)


def missing(said, expected):
    """The first line that is not there, or None. Without any, nothing may be said."""
    if not expected:
        return "(nothing)" if said.strip() else None
    at = 0
    for line in expected:
        pattern = ".*".join(re.escape(part.strip()) for part in line.split("…"))
        match = re.compile(pattern).search(said, at)
        if not match:
            return line
        at = match.end()
    return None


def main():
    shell, n, failed = start_shell(), 0, False
    for lines in blocks(sys.argv[1]):
        if lines[0].startswith("# "):
            text = "\n".join(lines[1:]) + "\n"
            say(shell, "cat >%s <<'END_OF_FILE'\n%sEND_OF_FILE" % (lines[0][2:], text))
            continue
        for command, expected in commands(lines):
            n += 1
            said = say(shell, command)
            lacks = missing(said, expected)
            print("%sok %d - %s" % ("not " if lacks else "", n, command.replace("#", "")))
            if lacks:
                failed = True
                print("# lacks: %s\n# said:\n# %s" % (lacks, said.replace("\n", "\n# ")))
    print("1..%d" % n)
    sys.exit(failed or n == 0)


main()
