#!/usr/bin/env python3
"""Looks at a machine's screen through VNC on a socket, and types on its keyboard.

usage: screen.py SOCKET [TEXT]

Prints the screen's size and how many of its pixels are lit, after typing TEXT and a line end.
"""
import socket
import struct
import sys
import time


def receive(s, n):
    data = b""
    while len(data) < n:
        more = s.recv(n - len(data))
        if not more:
            raise EOFError("the screen hung up")
        data += more
    return data


def greet(s):
    version = receive(s, 12)
    s.sendall(version)
    kinds = receive(s, receive(s, 1)[0])
    if 1 not in kinds:
        raise ValueError("it wants a password")
    s.sendall(b"\x01")
    if struct.unpack(">I", receive(s, 4))[0] != 0:
        raise ValueError("refused")
    s.sendall(b"\x01")  # others may look, too
    width, height = struct.unpack(">HH", receive(s, 4))
    receive(s, 16)
    receive(s, struct.unpack(">I", receive(s, 4))[0])
    return width, height


def type_text(s, text):
    for char in text + "\n":
        key = 0xff0d if char == "\n" else ord(char)
        for down in (1, 0):
            s.sendall(struct.pack(">BBxxI", 4, down, key))
            time.sleep(0.05)


def lit(s, width, height):
    """Pixels that are not black, of one whole picture in raw form, 32 bits a pixel."""
    s.sendall(struct.pack(">BxxxBBBBHHHBBBxxx", 0, 32, 24, 0, 1, 255, 255, 255, 16, 8, 0))
    s.sendall(struct.pack(">BxHi", 2, 1, 0))
    s.sendall(struct.pack(">BBHHHH", 3, 0, 0, 0, width, height))
    while receive(s, 1) != b"\0":
        pass  # a bell
    count = 0
    for _ in range(struct.unpack(">xH", receive(s, 3))[0]):
        _, _, w, h, encoding = struct.unpack(">HHHHi", receive(s, 12))
        if encoding != 0:
            raise ValueError("encoding %d" % encoding)
        pixels = receive(s, w * h * 4)
        count += sum(1 for i in range(0, len(pixels), 4) if pixels[i:i + 3] != b"\0\0\0")
    return count


def main():
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(30)
        s.connect(sys.argv[1])
        width, height = greet(s)
        if len(sys.argv) > 2:
            type_text(s, sys.argv[2])
            time.sleep(1)
        print("%dx%d %d" % (width, height, lit(s, width, height)))


main()
