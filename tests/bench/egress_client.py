"""One measurement of a connection, as JSON: how long a download takes, how long the first byte.

usage: egress_client.py HOST PORT BYTES TIMES [PROXY-HOST PROXY-PORT]
"""
import json
import socket
import sys
import time

host, port, size, times = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
proxy = (sys.argv[5], int(sys.argv[6])) if len(sys.argv) > 6 else None


def request(count):
    sock = socket.socket()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.connect(proxy or (host, port))
    where = "http://%s:%d" % (host, port) if proxy else ""
    sock.sendall(("GET %s/%d HTTP/1.1\r\nHost: %s:%d\r\nConnection: close\r\n\r\n" % (
        where, count, host, port)).encode())
    return sock


def first_byte():
    started = time.perf_counter()
    sock = request(1)
    sock.recv(1)
    took = time.perf_counter() - started
    sock.close()
    return took


def download():
    started = time.perf_counter()
    sock, buffer, got = request(size), bytearray(1 << 20), 0
    while True:
        n = sock.recv_into(buffer)
        if not n:
            break
        got += n
    if got < size:
        sys.exit("only %d of %d bytes came" % (got, size))
    return time.perf_counter() - started


first_byte()
print(json.dumps({"first": [first_byte() for _ in range(times)], "whole": download() if size else 0}))
