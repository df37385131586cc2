#!/usr/bin/env python3
"""Are constants.tab's values the system's own? Writes C that asks the compiler.

Usage: check_constants.py CONSTANTS.tab OUT.c
Only what the native headers define as macros is compared; the other architecture's column rests on
the same table having been right here.
"""
import platform
import sys

HEADERS = """fcntl.h sched.h signal.h sys/socket.h sys/mman.h sys/prctl.h sys/ioctl.h sys/mount.h
sys/personality.h sys/ptrace.h sys/resource.h sys/wait.h netinet/in.h linux/netlink.h linux/futex.h
linux/seccomp.h linux/fs.h linux/keyctl.h linux/falloc.h linux/random.h linux/memfd.h sys/stat.h
sys/eventfd.h sys/epoll.h sys/ipc.h sys/file.h time.h unistd.h linux/landlock.h""".split()
# glibc gives these other values than the kernel has.
# … or cannot be asked for: their macro needs a type that these headers do not give.
NOT_THE_KERNELS = {"TCGETS2", "TCSETS2", "O_LARGEFILE", "F_GETLK", "F_SETLK", "F_SETLKW", "SCHED_OTHER"}

column = 0 if platform.machine() == "x86_64" else 1
out = ["#include <%s>" % h for h in HEADERS] + ["int main(void)", "{", "\tint compared = 0;"]
for line in open(sys.argv[1], encoding="ascii"):
    for word in line.split("#")[0].split():
        name, eq, value = word.partition("=")
        value = value.split("/")[-1 if column else 0]
        if not eq or value == "-" or name in NOT_THE_KERNELS:
            continue
        out.append("#ifdef %s" % name)
        out.append('\t_Static_assert((unsigned)(%s) == (unsigned)(%s), "%s");' % (name, value, name))
        out.append("\tcompared++;\n#endif")
out.append("\treturn compared < 400;\n}")
with open(sys.argv[2], "w", encoding="ascii") as f:
    f.write("\n".join(out) + "\n")
