"""The other side of a session's network: HTTP, TLS, DNS, TCP and UDP servers; see net_world.sh.

Usage: net_servers.py DIRECTORY. Logs go there (one line per question or connection), and the file
`ready` appears once everything listens. Certificates are in DIRECTORY/tls, NAME.pem each; git
repositories in DIRECTORY/git. KB_WORLD_NAMES has more names for the same servers, KB_WORLD_MODEL the
folder of a module `model` with more routes.
"""
import base64
import os
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time

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
    "api.test": ["93.184.215.14"],
    "git.test": ["93.184.215.14"],
    "packages.test": ["93.184.215.14"],
    "wrong.test": ["93.184.215.14"],
    "expired.test": ["93.184.215.14"],
    "unknown.test": ["93.184.215.14"],
}
# Names of services that a test stands in for.
NAMES.update({name: ["93.184.215.14"] for name in os.environ.get("KB_WORLD_NAMES", "").split()})


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
    """Says which host it was asked for; see `routes` for the rest."""

    def read_request(self):
        self.line = self.rfile.readline(65536).decode("latin-1").split()
        if len(self.line) < 3:
            return False
        self.headers, self.raw = {}, []
        while True:
            header = self.rfile.readline(65536).decode("latin-1").strip()
            if not header:
                break
            self.raw.append(header)
            key, _, value = header.partition(":")
            self.headers[key.lower()] = value.strip()
        return self.read_body()

    def read_body(self):
        if self.headers.get("expect", "").lower() == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        left, parts = int(self.headers.get("content-length", 0)), []
        if self.headers.get("transfer-encoding") == "chunked":
            while True:
                size = int(self.rfile.readline(1024).split(b";")[0], 16)
                parts.append(self.rfile.read(size))
                self.rfile.readline(1024)
                if not size:
                    break
        while left:
            data = self.rfile.read(min(left, 65536))
            if not data:
                return False
            left -= len(data)
            parts.append(data)
        self.body = b"".join(parts)
        return True

    def answer(self, body, status="200 OK", more=()):
        if isinstance(body, str):
            body = body.encode()
        head = ["HTTP/1.1 " + status, "Content-Length: %d" % len(body)] + list(more)
        if self.last():
            head.append("Connection: close")
        self.wfile.write("\r\n".join(head).encode() + b"\r\n\r\n" + body)

    def one(self):
        if not self.read_request():
            return False
        log("http.log", "%s %s host=%s%s" % (
            self.line[0], self.line[1], self.headers.get("host", ""),
            " tls" if isinstance(self.request, ssl.SSLSocket) else ""))
        log("headers.log", "%s %s | %s" % (self.line[0], self.line[1], " | ".join(self.raw)))
        for prefix, route in routes:
            if self.line[1].startswith(prefix):
                route(self, self.line[1][len(prefix):])
                break
        else:
            self.answer("got %d\n" % len(self.body) if self.body else
                        "hello from %s\n" % self.headers.get("host", "nobody"))
        return not self.last()

    def last(self):
        return self.headers.get("connection", "").lower() == "close"

    def handle(self):
        try:
            while self.one():
                pass
        except (OSError, ValueError):
            pass


def big(http, rest):
    size = int(rest)
    http.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
    while size:
        n = min(size, 1 << 16)
        http.wfile.write(b"x" * n)
        size -= n


def reflect(http, rest):
    """What the server was sent, as it was sent."""
    http.answer("\n".join(http.raw) + "\n")


def dribble(http, rest):
    """The same, byte by byte."""
    body = ("\n".join(http.raw) + "\n").encode()
    http.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
    for i in range(len(body)):
        http.wfile.write(body[i:i + 1])
        http.wfile.flush()
        if i % 16 == 0:
            time.sleep(0.001)


def seen(http, rest):
    """The value of one header, by its length and ends: not the value itself."""
    value = http.headers.get(rest.lower())
    http.answer("none\n" if value is None else "%d bytes\n" % len(value))


def redirect(http, rest):
    http.answer("", "302 Found", ["Location: http://" + rest])


def switch(http, rest):
    """Another protocol: an echo."""
    http.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                     b"Connection: Upgrade\r\n\r\n")
    while True:
        line = http.rfile.readline(65536)
        if not line:
            break
        http.wfile.write(b"echo " + line)


def git(http, rest):
    """git http-backend, for who has the token."""
    token = open(os.path.join(where, "git", "token")).read().strip()
    wanted = "Basic " + base64.b64encode(("x-access-token:" + token).encode()).decode()
    if http.headers.get("authorization") != wanted:
        http.answer("no token\n", "401 Unauthorized", ['WWW-Authenticate: Basic realm="git"'])
        return
    path, _, query = rest.partition("?")
    done = subprocess.run(
        ["git", "http-backend"], input=http.body, stdout=subprocess.PIPE, check=False,
        env={"PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": os.path.join(where, "git"),
             "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": "/" + path, "QUERY_STRING": query,
             "REQUEST_METHOD": http.line[0], "REMOTE_USER": "agent", "REMOTE_ADDR": "127.0.0.1",
             "CONTENT_TYPE": http.headers.get("content-type", ""),
             "CONTENT_LENGTH": str(len(http.body)),
             "HTTP_CONTENT_ENCODING": http.headers.get("content-encoding", ""),
             "GIT_PROTOCOL": http.headers.get("git-protocol", ""),
             "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory",
             "GIT_CONFIG_VALUE_0": "*"})
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    status, more = "200 OK", []
    for line in head.decode().split("\r\n"):
        if line.lower().startswith("status:"):
            status = line.partition(":")[2].strip()
        elif line:
            more.append(line)
    http.answer(body, status, more)


def packages(http, rest):
    """A file of the index that the test has made."""
    path = os.path.join(where, "packages", os.path.normpath("/" + rest.partition("?")[0])[1:])
    if os.path.isdir(path):
        path = os.path.join(path, "index.html")
    try:
        with open(path, "rb") as f:
            kind = "text/html" if path.endswith(".html") else "application/octet-stream"
            http.answer(f.read(), more=["Content-Type: " + kind])
    except OSError:
        http.answer("none\n", "404 Not Found")


routes = [("/big/", big), ("/reflect", reflect), ("/dribble", dribble), ("/seen/", seen),
          ("/redirect/", redirect), ("/switch", switch), ("/git/", git), ("/packages/", packages)]


if os.environ.get("KB_WORLD_MODEL"):
    sys.path.insert(0, os.environ["KB_WORLD_MODEL"])
    import model
    routes = model.routes + routes


class Tls(Threads):
    """The certificate is that of the name asked for; without one, of ok.test."""

    def __init__(self, address):
        super().__init__(address, Http)
        self.contexts = {}
        self.context = self.context_of("ok.test")
        self.context.sni_callback = self.choose

    def context_of(self, name):
        if name not in self.contexts:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(os.path.join(where, "tls", name + ".pem"))
            self.contexts[name] = context
        return self.contexts[name]

    def choose(self, sock, name, context):
        log("sni.log", str(name))
        if name and os.path.exists(os.path.join(where, "tls", name + ".pem")):
            sock.context = self.context_of(name)

    def finish_request(self, request, client_address):
        try:
            request.settimeout(20)
            super().finish_request(
                self.context.wrap_socket(request, server_side=True), client_address)
        except (OSError, ssl.SSLError):
            pass


class Tls6(Tls):
    address_family = socket.AF_INET6


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


class DnsTcp(socketserver.StreamRequestHandler):
    def handle(self):
        size = int.from_bytes(self.rfile.read(2), "big")
        reply = answer(self.rfile.read(size))
        self.wfile.write(len(reply).to_bytes(2, "big") + reply)


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
serve(Threads(("127.0.0.1", 53), DnsTcp))
if os.path.exists(os.path.join(where, "tls", "ok.test.pem")):
    serve(Tls(("0.0.0.0", 443)))
    serve(Tls(("0.0.0.0", 8443)))
    serve(Tls6(("2606:4700::14", 443)))
threading.Thread(target=udp, args=("93.184.215.14", 5000), daemon=True).start()
thread = threading.Thread(target=dns, daemon=True)
thread.start()
open(os.path.join(where, "ready"), "w").close()
thread.join()
