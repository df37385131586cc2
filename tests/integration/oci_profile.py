#!/usr/bin/python3
"""Runs under an OCI runtime and makes each system call of the questions on standard input, in a child of
its own; prints the question and how the call ended. A question is one of `policy explain`:
NAME(ARGUMENT, ...) = NUMBERS, the numbers being what is really passed, the first one the call's."""
import ctypes
import errno
import os
import sys

libc = ctypes.CDLL(None, use_errno=True)


def ended(numbers):
    ctypes.set_errno(0)
    if libc.syscall(*(ctypes.c_long(n) for n in numbers)) >= 0:
        return "ok"
    return errno.errorcode.get(ctypes.get_errno(), "other")


for line in sys.stdin:
    question, numbers = line.rstrip("\n").split(" = ")
    read, write = os.pipe()
    if os.fork() == 0:
        os.write(write, ended([int(n, 0) for n in numbers.split()]).encode())
        os._exit(0)
    os.close(write)
    status = os.wait()[1]
    said = os.read(read, 64).decode()
    os.close(read)
    print(question, "=", "killed" if os.WIFSIGNALED(status) else said)
