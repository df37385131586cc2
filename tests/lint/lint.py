#!/usr/bin/env python3
"""The house rules that a program can check. usage: lint.py CHECK ROOT [BUILD-DIR]"""
import sys

import borders
import sizes
import text
import tools
from tree import Tree

CHECKS = {
    "borders": borders.run,
    "text": text.run,
    "sizes": sizes.run,
    "format": tools.run_format,
    "shellcheck": tools.run_shellcheck,
    "tidy": lambda tree: tools.run_tidy(tree, sys.argv[3]),
}


def main():
    if len(sys.argv) < 3 or sys.argv[1] not in CHECKS:
        sys.exit("usage: lint.py %s ROOT [BUILD-DIR]" % "|".join(CHECKS))
    tree = Tree(sys.argv[2])
    if not tree.files:
        sys.exit("%s holds no sources" % tree.root)
    CHECKS[sys.argv[1]](tree)
    for finding in tree.findings:
        print(finding)
    print("%s: %d files, %d findings" % (sys.argv[1], len(tree.files), len(tree.findings)))
    sys.exit(1 if tree.findings else 0)


main()
