#!/usr/bin/env python3
"""Compile tables/*.tab and the presets into C.

Usage: gen_tables.py SYSCALLS.tab CONSTANTS.tab GROUPS.tab OUT.c PRESET.policy...

The tables say what the kernel's headers say; so that they cannot drift, every number is compared
with libseccomp's resolver where the library is installed, and calls that libseccomp knows and the
table lacks end the build. tests/policy checks the constants against the system's own headers.
"""
import ctypes
import ctypes.util
import os
import sys

ARCHES = [("x86_64", 0xC000003E), ("aarch64", 0xC00000B7)]
TYPES = {"u16": 16, "i32": 32, "u32": 32, "i64": 64, "u64": 64, "ptr": 64}
NEWEST_TO_COMPARE = 449  # later calls may be missing from the installed libseccomp


def die(msg):
    sys.exit("gen_tables.py: " + msg)


def lines(path):
    with open(path, encoding="ascii") as f:
        for number, line in enumerate(f, 1):
            text = line.split("#", 1)[0].rstrip()
            if text:
                yield number, text


def number(text):
    return None if text == "-" else int(text, 0)


def read_constants(path):
    sets, order, current = {}, [], None
    for no, text in lines(path):
        words = text.split()
        if not text.startswith("\t"):
            current = words[0]
            sets[current] = {"flags": words[1:] == ["flags"], "items": []}
            order.append(current)
            continue
        for word in words:
            name, _, value = word.partition("=")
            values = [number(v) for v in value.split("/")]
            if len(values) == 1:
                values *= 2
            if len(values) != 2:
                die("%s:%d: %s" % (path, no, word))
            sets[current]["items"].append((name, values))
    return sets, order


def read_syscalls(path, sets):
    calls = []
    for no, text in lines(path):
        words = text.split()
        args = []
        for word in words[3:]:
            name, _, rest = word.partition(":")
            ctype, _, cset = rest.partition("=")
            if ctype not in TYPES or (cset and cset not in sets):
                die("%s:%d: %s" % (path, no, word))
            args.append((name, ctype, cset or None))
        if len(args) > 6:
            die("%s:%d: more than six arguments" % (path, no))
        calls.append((words[0], [number(words[1]), number(words[2])], args))
    names = [c[0] for c in calls]
    if names != sorted(names) or len(set(names)) != len(names):
        die("%s: not sorted by name, or a name twice" % path)
    return calls


def read_groups(path, calls):
    known = {c[0] for c in calls}
    version, groups, current = None, {}, None
    for no, text in lines(path):
        words = text.split()
        if words[0] == "version":
            version = words[1]
            continue
        if not text.startswith("\t"):
            current = words.pop(0)
            groups[current] = []
        for word in words:
            if word not in known:
                die("%s:%d: no such call: %s" % (path, no, word))
            groups[current].append(word)
    return version, groups


def check_numbers(calls):
    library = ctypes.util.find_library("seccomp") or "libseccomp.so.2"
    try:
        lib = ctypes.CDLL(library)
    except OSError:
        return "not compared: no libseccomp here"
    lib.seccomp_syscall_resolve_num_arch.restype = ctypes.c_char_p
    for column, (arch, token) in enumerate(ARCHES):
        ours = {c[1][column]: c[0] for c in calls if c[1][column] is not None}
        for nr in range(NEWEST_TO_COMPARE + 1):
            raw = lib.seccomp_syscall_resolve_num_arch(ctypes.c_uint32(token), nr)
            theirs = raw.decode() if raw else None
            if theirs and ours.get(nr) != theirs:
                die("%s %d: %s here, %s in libseccomp" % (arch, nr, ours.get(nr), theirs))
    return "compared with libseccomp"


def c_string(text):
    out = []
    for byte in text:
        char = chr(byte)
        if char == "\n":
            out.append('\\n"\n\t"')
        elif char in '"\\':
            out.append("\\" + char)
        elif 32 <= byte < 127:
            out.append(char)
        elif char == "\t":
            out.append("\\t")
        else:
            out.append("\\%03o" % byte)
    return '"' + "".join(out) + '"'


def emit_constants(out, sets, order):
    for name in order:
        out.append("static const struct kb_constant set_%s[] = {" % name)
        for item, values in sets[name]["items"]:
            has = [v is not None for v in values]
            value = ["%dULL" % ((v or 0) % 2**64) for v in values]
            out.append('\t{"%s", {%s, %s}, {%d, %d}},' % (item, value[0], value[1], *has))
        out.append("};")
    out.append("const struct kb_constant_set kb_constant_sets[] = {")
    for name in order:
        out.append('\t{"%s", %d, set_%s, %d},'
                   % (name, sets[name]["flags"], name, len(sets[name]["items"])))
    out.append("};\nconst size_t kb_constant_sets_len = %d;" % len(order))


def emit_calls(out, calls, order):
    out.append("const struct kb_call kb_calls[] = {")
    for name, numbers, args in calls:
        nr = [-1 if n is None else n for n in numbers]
        text = ", ".join('{"%s", KB_T_%s, %s}' % (a, t.upper(),
                         "&kb_constant_sets[%d]" % order.index(s) if s else "NULL")
                         for a, t, s in args)
        out.append('\t{"%s", {%d, %d}, %d, {%s}},' % (name, *nr, len(args), text))
    out.append("};\nconst size_t kb_calls_len = %d;" % len(calls))
    for column, (arch, _) in enumerate(ARCHES):
        top = max(c[1][column] for c in calls if c[1][column] is not None)
        index = {c[1][column]: i for i, c in enumerate(calls)}
        out.append("const int16_t kb_calls_by_nr_%s[] = {" % arch)
        row = [str(index.get(n, -1)) for n in range(top + 1)]
        for i in range(0, len(row), 20):
            out.append("\t" + ", ".join(row[i:i + 20]) + ",")
        out.append("};\nconst size_t kb_calls_by_nr_%s_len = %d;" % (arch, top + 1))


def emit_groups(out, version, groups, calls):
    index = {c[0]: i for i, c in enumerate(calls)}
    for name, members in groups.items():
        out.append("static const int16_t group_%s[] = {%s};" % (
            name[1:].replace("-", "_"), ", ".join(str(index[m]) for m in members)))
    out.append("const struct kb_group kb_groups[] = {")
    for name, members in groups.items():
        out.append('\t{"%s", group_%s, %d},' % (name, name[1:].replace("-", "_"), len(members)))
    out.append('};\nconst size_t kb_groups_len = %d;' % len(groups))
    out.append('const char kb_groups_version[] = "%s";' % version)


def emit_presets(out, paths):
    out.append("const struct kb_preset kb_presets[] = {")
    names = []
    for path in paths:
        name = os.path.basename(path)
        if not name.endswith(".policy"):
            die("%s: a preset's file ends in .policy" % path)
        names.append(name[:-7])
        with open(path, "rb") as f:
            data = f.read()
        out.append('\t{"%s", %d,\n\t%s},' % (name[:-7], len(data), c_string(data)))
    out.append("};")
    out.append("const char *const kb_preset_name_list[] = {%sNULL};"
               % "".join('"%s", ' % n for n in names))


def main():
    if len(sys.argv) < 5:
        die("usage: gen_tables.py SYSCALLS CONSTANTS GROUPS OUT PRESET...")
    sets, order = read_constants(sys.argv[2])
    calls = read_syscalls(sys.argv[1], sets)
    version, groups = read_groups(sys.argv[3], calls)
    note = check_numbers(calls)
    out = ["/* Generated by gen_tables.py (%s). */" % note, '#include "policy/tables.h"', ""]
    emit_constants(out, sets, order)
    emit_calls(out, calls, order)
    emit_groups(out, version, groups, calls)
    emit_presets(out, sys.argv[5:])
    with open(sys.argv[4], "w", encoding="ascii") as f:
        f.write("\n".join(out) + "\n")


main()
