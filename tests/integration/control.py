"""Speaks to the control socket by hand, for what the client library would never send.

usage: control.py SOCKET hello BUILD      greet as another build; prints what is answered
       control.py SOCKET raw HEX…         send bytes; prints "closed" or what is answered
       control.py SOCKET ungreeted        a request before hello
       control.py SOCKET hold SECONDS     greet by nothing, stay connected
"""
import socket
import struct
import sys
import time


def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def send(s, data):
    try:
        s.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        pass    # it may have said its word and closed already


def frame(payload, stream=0, kind=1, flags=0):
    return struct.pack("<IIBBH", len(payload), stream, kind, flags, 0) + payload


def answer(s):
    s.settimeout(10)
    data = b""
    try:
        while True:
            piece = s.recv(65536)
            if not piece:
                break
            data += piece
            if len(data) >= 12 and len(data) >= 12 + struct.unpack("<I", data[:4])[0]:
                break
    except ConnectionResetError:
        pass
    return data


def show(data):
    text = "".join(chr(b) if 32 <= b < 127 else " " for b in data[12:])
    print(text if data else "closed")


def main():
    s = socket.socket(socket.AF_UNIX)
    s.connect(sys.argv[1])
    what = sys.argv[2]
    if what == "hello":
        send(s, frame(field(1, 1) + field(2, field(1, 1) + field(2, sys.argv[3].encode()))))
        show(answer(s))
    elif what == "ungreeted":
        send(s, frame(field(1, 7) + field(3, b"")))
        show(answer(s))
    elif what == "raw":
        send(s, bytes.fromhex("".join(sys.argv[3:])))
        try:
            s.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        show(answer(s))
    elif what == "hold":
        time.sleep(float(sys.argv[3]))


main()
