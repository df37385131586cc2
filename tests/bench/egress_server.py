"""Sends as many bytes as the path says. usage: egress_server.py ADDRESS PORT"""
import socket
import sys
import threading

BLOCK = b"x" * (1 << 20)


def serve(conn):
    try:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = b""
        while b"\r\n\r\n" not in data:
            more = conn.recv(65536)
            if not more:
                return
            data += more
        left = int(data.split(b" ")[1].rpartition(b"/")[2])
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % left)
        while left > 0:
            conn.sendall(BLOCK if left >= len(BLOCK) else BLOCK[:left])
            left -= len(BLOCK)
    except OSError:
        pass
    finally:
        conn.close()


listener = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=128)
print("ready", flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
