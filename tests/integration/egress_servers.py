"""The other side of a session's network: HTTP, DNS and TCP servers for egress.sh.

Usage: egress_servers.py DIRECTORY. Logs go there (one line per question or connection), and the file
`ready` appears once everything listens.
"""
import os
import socket
import socketserver
import sys
import threading

where = sys.argv[1]
os.makedirs(where, exist_ok=True)
lock = threading.Lock()

NAMES = {
    "ok.test": ["93.184.215.14", "2606:4700::14"],
    "six.test": ["2606:4700::14"],
    "other.test": ["93.184.215.15"],
    "front.test": ["93.184.215.14"],
    "private.test": ["10.77.0.10"],
    "loop.test": ["127.0.0.1"],
    "meta.test": ["169.254.169.254"],
    "mixed.test": ["10.77.0.10", "93.184.215.14"],
}


def log(name, line):
    with lock, open(os.path.join(where, name), "a") as f:
        f.write(line + "\n")


class Threads(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64


class Threads6(Threads):
    address_family = socket.AF_INET6


class Http(socketserver.StreamRequestHandler):
    """Says which host it was asked for; /big/N sends N bytes; a body is counted and thrown away."""

    def one(self):
        line = self.rfile.readline(65536).decode("latin-1").split()
        if len(line) < 3:
            return False
        headers = {}
        while True:
            header = self.rfile.readline(65536).decode("latin-1").strip()
            if not header:
                break
            key, _, value = header.partition(":")
            headers[key.lower()] = value.strip()
        log("http.log", "%s %s host=%s" % (line[0], line[1], headers.get("host", "")))
        got = 0
        left = int(headers.get("content-length", 0))
        while left:
            data = self.rfile.read(min(left, 65536))
            if not data:
                return False
            left -= len(data)
            got += len(data)
        if line[1].startswith("/big/"):
            size = int(line[1][5:])
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            while size:
                n = min(size, 1 << 16)
                self.wfile.write(b"x" * n)
                size -= n
            return True
        body = "hello from %s\n" % headers.get("host", "nobody")
        if got:
            body = "got %d\n" % got
        self.wfile.write(("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)).encode())
        return headers.get("connection", "").lower() != "close"

    def handle(self):
        try:
            while self.one():
                pass
        except OSError:
            pass


class Echo(socketserver.BaseRequestHandler):
    """A protocol in which the server speaks first."""

    def handle(self):
        log("echo.log", "connection")
        try:
            self.request.sendall(b"220 ready\n")
            while True:
                data = self.request.recv(65536)
                if not data:
                    break
                self.request.sendall(data)
        except OSError:
            pass


def answer(query):
    name, at = [], 12
    while query[at]:
        name.append(query[at + 1:at + 1 + query[at]].decode("latin-1"))
        at += 1 + query[at]
    kind = int.from_bytes(query[at + 1:at + 3], "big")
    question, name = query[12:at + 5], ".".join(name).lower()
    log("dns.log", "%s %d" % (name, kind))
    found = NAMES.get(name)
    records = b""
    n = 0
    for address in found or ():
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        if kind == (28 if family == socket.AF_INET6 else 1):
            data = socket.inet_pton(family, address)
            records += b"\xc0\x0c" + query[at + 1:at + 5] + b"\0\0\0\1" + len(data).to_bytes(2, "big") + data
            n += 1
    flags = 0x8180 if found else 0x8183
    return query[:2] + flags.to_bytes(2, "big") + b"\0\1" + n.to_bytes(2, "big") + bytes(4) + question + records


def dns():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 53))
    while True:
        query, peer = sock.recvfrom(4096)
        try:
            sock.sendto(answer(query), peer)
        except (IndexError, ValueError):
            pass


def udp(address, port):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((address, port))
    while True:
        sock.recvfrom(4096)
        log("udp.log", "packet")


def serve(server):
    threading.Thread(target=server.serve_forever, daemon=True).start()


for port in (80, 9999):
    serve(Threads(("0.0.0.0", port), Http))
    serve(Threads6(("2606:4700::14", port), Http))
for port in (8080, 8081):
    serve(Threads(("127.0.0.1", port), Http))
serve(Threads(("0.0.0.0", 25), Echo))
threading.Thread(target=udp, args=("93.184.215.14", 5000), daemon=True).start()
thread = threading.Thread(target=dns, daemon=True)
thread.start()
open(os.path.join(where, "ready"), "w").close()
thread.join()
