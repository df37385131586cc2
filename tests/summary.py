#!/usr/bin/env python3
"""Counts the tests of one or more meson builds. usage: summary.py BUILD-DIR…

A TAP or cmocka program counts with its subtests, any other as one. Names what failed with the end of
its output, and what was skipped with its reason. The last line is "N passed, N failed, N skipped".
"""
import json
import os
import re
import sys

TAP = re.compile(r"^(not )?ok\b(?! *\d* *- *$)(.*)$", re.M)
CMOCKA = re.compile(r"^\[ +(OK|FAILED|SKIPPED) +\] (\w+)$", re.M)
SKIP = re.compile(r"#\s*skip\S*\s*(.*)$", re.I)
TAIL = 25


def subtests(log):
    """(name, state, reason) of what a TAP or cmocka program reports; empty for others."""
    found = []
    if re.search(r"^(TAP version|\d+\.\.\d+)", log, re.M):
        for bad, rest in TAP.findall(log):
            skip = SKIP.search(rest)
            state = "skipped" if skip else "failed" if bad else "passed"
            found.append((rest.strip(" -0123456789"), state, skip.group(1) if skip else ""))
        return found
    seen = {}
    for word, name in CMOCKA.findall(log):
        seen[name] = {"OK": "passed", "FAILED": "failed", "SKIPPED": "skipped"}[word]
    return [(name, state, "said by the test") for name, state in seen.items()]


def whole(test, log):
    """The result of a program that does not report parts."""
    result = test["result"]
    if result in ("OK", "EXPECTEDFAIL"):
        return [(test["name"], "passed", "")]
    if result == "SKIP":
        last = [line for line in log.strip().splitlines() if line.strip()]
        return [(test["name"], "skipped", last[-1] if last else "no reason given")]
    return [(test["name"], "failed", result)]


def results(build):
    """(test name, parts, log) of every test of a build."""
    path = os.path.join(build, "meson-logs", "testlog.json")
    with open(path) as f:
        for line in f:
            test = json.loads(line)
            log = test.get("stdout", "") + "\n" + test.get("stderr", "")
            parts = subtests(log)
            good = test["result"] in ("OK", "EXPECTEDFAIL", "SKIP")
            if not parts:
                parts = whole(test, log)
            elif not good and not any(state == "failed" for _, state, _ in parts):
                parts.append((test["name"], "failed", test["result"]))
            yield test["name"], parts, log


def main():
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for build in sys.argv[1:]:
        label = os.path.basename(build)
        for name, parts, log in results(build):
            for part, state, reason in parts:
                counts[state] += 1
                if state == "skipped" and not reason:
                    state, reason = "failed", "skipped without a reason"
                    counts["skipped"] -= 1
                    counts["failed"] += 1
                if state != "passed":
                    what = name if part == name else name + ": " + part
                    print("%s: %s: %s%s" % (state.upper(), label, what,
                                            reason and " (%s)" % reason))
            if any(state == "failed" for _, state, _ in parts):
                print("".join("    | %s\n" % line for line in log.rstrip().splitlines()[-TAIL:]),
                      end="")
    if not sum(counts.values()):
        counts["failed"] = 1
        print("FAILED: no test ran")
    print("%(passed)d passed, %(failed)d failed, %(skipped)d skipped" % counts)
    sys.exit(1 if counts["failed"] else 0)


main()
