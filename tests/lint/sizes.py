"""How long files and functions are. Prints the longest; fails past the bounds, which leave room for
a table or a theory of operation, and none for a second subject in one file."""
import re

FILE_MAX = 800
FUNCTION_MAX = 120
REPORT = 5

# clang-format puts a function's braces in column 0, and nothing else's.
NAME = re.compile(r"(\w+)\s*\(")


def functions(lines):
    """(name, first line, length) of every function of a formatted C file."""
    start, name = 0, ""
    for number, text in lines:
        if text and not text[0].isspace() and text[0] not in "{}#/":
            match = NAME.search(text)
            if match:
                start, name = number, match.group(1)
        if text == "}" and start:
            yield name, start, number - start + 1
            start = 0


def run(tree):
    files, found = [], []
    for source in tree.c_files():
        lines = tree.lines(source)
        files.append((len(lines) - 1, source))
        found += [(length, name, source, start) for name, start, length in functions(lines)]
    product = [f for f in found if not f[2].startswith("tests/")]
    for length, source in files:
        if length > FILE_MAX:
            tree.finding(source, 1, "%d lines; %d is the bound for a file" % (length, FILE_MAX))
    for length, name, source, start in found:
        if length > FUNCTION_MAX:
            tree.finding(source, start, "%s() has %d lines; %d is the bound"
                         % (name, length, FUNCTION_MAX))
    report(files, product)


def report(files, product):
    if not product:
        return
    lengths = sorted(length for length, *_ in product)
    print("%d files, %d functions; a function's median is %d lines, nine in ten are under %d"
          % (len(files), len(lengths), lengths[len(lengths) // 2], lengths[len(lengths) * 9 // 10]))
    for length, source in sorted(files, reverse=True)[:REPORT]:
        print("  %4d lines  %s" % (length, source))
    for length, name, source, start in sorted(product, reverse=True)[:REPORT]:
        print("  %4d lines  %s() %s:%d" % (length, name, source, start))
