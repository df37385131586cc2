#!/usr/bin/env python3
"""Do the host-side sources compile for macOS? They are compiled, not linked, by `zig cc`, which brings
macOS's own headers; those of the libraries are this machine's, which say the same everywhere.

usage: darwin.py SOURCE-DIR BUILD-DIR

Exit status 77 where zig is not there: ./bootstrap test installs it from npm.
"""
import concurrent.futures
import glob
import os
import subprocess
import sys
import tempfile

TARGET = "aarch64-macos"
# Folders of the host side, and what in them is for another system.
FOLDERS = ("supervisor/base", "supervisor/broker", "supervisor/cli", "supervisor/daemon",
           "supervisor/link", "policy", "audit", "audit/export", "audit/import", "audit/output",
           "audit/query", "audit/report", "vmctl", "vmctl/driver", "vmctl/image")
LINUX_ONLY = ("supervisor/base/os_linux.c", "supervisor/cli/probe_linux.c")
DARWIN_NAMES = ("os_darwin.c", "probe_darwin.c")
HEADERS = ("event2", "google/protobuf-c", "protobuf-c", "jansson.h", "jansson_config.h", "lmdb.h", "libssh2.h",
           "libssh2_sftp.h", "libssh2_publickey.h", "openssl")
DEFINES = ("_GNU_SOURCE", "_DARWIN_C_SOURCE", 'KB_VERSION="0"', 'KB_LIBEXECDIR="/"')


def find_zig(build):
    pattern = os.path.join(build, "..", "npm", "node_modules", "@*", "zig-linux-x64", "zig")
    found = sorted(glob.glob(pattern))
    if found:
        return found[0]
    for folder in os.environ.get("PATH", "").split(":"):
        if os.access(os.path.join(folder, "zig"), os.X_OK):
            return os.path.join(folder, "zig")
    return None


def link_headers(target):
    """The libraries' headers and nothing else of /usr/include."""
    tops = ["/usr/include"] + glob.glob("/usr/include/*-linux-gnu")
    for name in HEADERS:
        for top in tops:
            path = os.path.join(top, name)
            for file in glob.glob(path + "/*") if os.path.isdir(path) else glob.glob(path):
                link = os.path.join(target, os.path.relpath(file, top))
                os.makedirs(os.path.dirname(link), exist_ok=True)
                if not os.path.lexists(link):
                    os.symlink(file, link)


def sources(root, build):
    found = []
    for folder in FOLDERS:
        found += glob.glob(os.path.join(root, folder, "*.c"))
    found += glob.glob(os.path.join(build, "proto", "*.pb-c.c"))
    return sorted(f for f in found if os.path.relpath(f, root) not in LINUX_ONLY)


def main():
    root, build = (os.path.abspath(a) for a in sys.argv[1:])
    zig = find_zig(build)
    if not zig:
        print("zig is not there: ./bootstrap test installs it from npm")
        return 77
    with tempfile.TemporaryDirectory() as work:
        link_headers(work)
        environment = dict(os.environ, ZIG_GLOBAL_CACHE_DIR=work + "/cache", ZIG_LOCAL_CACHE_DIR=work + "/cache")
        flags = ["-target", TARGET, "-std=gnu11", "-O0", "-g0", "-fno-sanitize=undefined", "-Wall", "-Wextra", "-Wno-unused-parameter",
                 "-Wno-missing-field-initializers", "-Werror=implicit-function-declaration",
                 "-Werror=incompatible-pointer-types", "-Werror=int-conversion",
                 "-I", root, "-I", build, "-isystem", work]
        for folder in ("supervisor/base", "vmctl/image"):
            flags += ["-I", os.path.join(build, folder)]
        os.mkdir(os.path.join(work, "objects"))
        flags += ["-D" + d for d in DEFINES]

        def compile_one(path):
            target = os.path.join(work, "objects", os.path.relpath(path, root).replace("/", "-") + ".o")
            done = subprocess.run([zig, "cc"] + flags + ["-c", path, "-o", target], env=environment,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            return path, done.returncode, done.stdout

        failed = 0
        every = sources(root, build)
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for path, status, text in pool.map(compile_one, every):
                if status != 0:
                    failed += 1
                    print(os.path.relpath(path, root))
                    print("\n".join(text.splitlines()[:12]))
        print("darwin: %d sources, %d do not compile for %s" % (len(every), failed, TARGET))
        return 1 if failed or len(every) < 100 else 0


sys.exit(main())
