"""Makes an initramfs of a script and a few programs with their libraries: initramfs.py INIT PROGRAM…
writes it (cpio, "newc") to standard output. Like Debian's root, it has all of them below /usr.
"""
import os
import subprocess
import sys

FIELDS = "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x"
DIRECTORY, FILE, LINK = 0o040755, 0o100755, 0o120777
LINKS = {"bin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64"}


def entry(number, name, mode, data=b""):
    head = FIELDS % (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    named = head.encode() + name.encode() + b"\0"
    return named + b"\0" * (-len(named) % 4) + data + b"\0" * (-len(data) % 4)


def libraries(program):
    found = subprocess.run(["ldd", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return {w for w in found.stdout.decode().split() if w.startswith("/")}


def below_usr(path):
    first, _, rest = path.lstrip("/").partition("/")
    return "%s/%s" % (LINKS.get(first, first), rest)


def collect(programs):
    """Name in the initramfs → contents, or → where a link leads."""
    files, links = {}, dict(LINKS)
    for program in programs:
        real = os.path.realpath(program)
        files["usr/bin/" + os.path.basename(real)] = real
        if os.path.basename(real) != os.path.basename(program):
            links["usr/bin/" + os.path.basename(program)] = os.path.basename(real)
        for library in libraries(real):
            files[below_usr(library)] = library
    return files, links


def main():
    files, links = collect(sys.argv[2:])
    files["init"] = sys.argv[1]
    directories = {"proc", "sys", "dev", "tmp"}
    for name in files:
        while "/" in name:
            name = os.path.dirname(name)
            directories.add(name)
    entries = [(name, DIRECTORY, b"") for name in sorted(directories, key=lambda n: n.count("/"))]
    entries += [(name, LINK, target.encode()) for name, target in links.items()]
    for name, source in files.items():
        with open(source, "rb") as f:
            entries.append((name, FILE, f.read()))
    entries.append(("TRAILER!!!", 0, b""))
    for number, (name, mode, data) in enumerate(entries, 1):
        sys.stdout.buffer.write(entry(number, name, mode, data))


main()
