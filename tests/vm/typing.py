#!/usr/bin/env python3
"""Types at a program on a terminal of its own: typing.py COMMAND… with a script on standard input.

  expect TEXT   wait until the program has written TEXT (after what was expected before)
  type TEXT     type it and Enter
  secret TEXT   the same, once the terminal shows nothing of what is typed
  key C         a control key, like c for ^C

Prints what the terminal showed; ends as the program did. A wait has 60 seconds.
"""
import os
import pty
import select
import signal
import sys
import termios
import time

LIMIT_S = 60


def shows(fd):
    return bool(termios.tcgetattr(fd)[3] & termios.ECHO)


class Terminal:
    def __init__(self, command):
        self.seen, self.at = b"", 0
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvp(command[0], command)

    def read(self, seconds):
        """False at the end."""
        if not select.select([self.fd], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.fd, 4096)
        except OSError:
            return False
        self.seen += data
        return bool(data)

    def until(self, done, what):
        end = time.monotonic() + LIMIT_S
        while not done():
            if time.monotonic() > end or not self.read(0.05):
                self.give_up(what)

    def give_up(self, what):
        print(self.seen.decode(errors="replace"))
        print(f"typing.py: waited in vain: {what}")
        os.kill(self.pid, signal.SIGKILL)
        sys.exit(99)

    def expect(self, text):
        needle = text.encode()
        self.until(lambda: self.seen.find(needle, self.at) >= 0, text)
        self.at = self.seen.find(needle, self.at) + len(needle)

    def type(self, text):
        os.write(self.fd, text.encode() + b"\n")

    def secret(self, text):
        self.until(lambda: not shows(self.fd), "what is typed is shown")
        self.type(text)

    def key(self, text):
        os.write(self.fd, bytes([ord(text) & 0x1F]))

    def finish(self):
        while self.read(LIMIT_S):
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def main():
    script = [line.rstrip("\n").split(" ", 1) for line in sys.stdin]
    terminal = Terminal(sys.argv[1:])
    for verb, text in script:
        getattr(terminal, verb)(text)
    status = terminal.finish()
    print(terminal.seen.decode(errors="replace").replace("\r\n", "\n"))
    return status if status >= 0 else 128 - status


sys.exit(main())
