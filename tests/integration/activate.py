"""Start a program as systemd's socket activation does (sd_listen_fds(3)).

usage: activate.py SOCKET PROGRAM [ARGUMENT…]
"""
import os
import socket
import sys

s = socket.socket(socket.AF_UNIX)
os.umask(0o177)
s.bind(sys.argv[1])
s.listen(16)
os.dup2(s.fileno(), 3)
os.set_inheritable(3, True)
os.environ["LISTEN_FDS"] = "1"
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
