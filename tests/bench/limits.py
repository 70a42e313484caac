# SPDX-License-Identifier: LGPL-2.1-or-later
"""What this machine needs for a frame at the least, without any camera."""

from __future__ import annotations

import mmap
import os
import socket
import subprocess
import sys
import time

from indi_qsi.links.link import BASE64_PIECE, base64_encoder

# Reads from a port until it ends, and says so.
_READER = """
import socket, sys
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
room = bytearray(1 << 18)
last = b""
while count := sock.recv_into(room):
    if room[count - 1] == 10:
        sock.sendall(b"x")
"""


def copies(size: int, times: int) -> list[float]:
    """Seconds that it takes to copy a frame into shared memory that is fresh, as a picture's has to be."""
    source = os.urandom(size)
    taken = []
    for _ in range(times):
        fd = os.memfd_create("bench")
        os.ftruncate(fd, size)
        target = mmap.mmap(fd, size)
        start = time.perf_counter()
        target[:] = source
        taken.append(time.perf_counter() - start)
        target.close()
        os.close(fd)
    return taken


def base64s(size: int, times: int) -> list[float]:
    """Seconds that it takes to encode a frame, piece by piece, by the encoder that the driver uses."""
    source, encode = memoryview(os.urandom(size)), base64_encoder()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        for at in range(0, size, BASE64_PIECE):
            encode(source[at : at + BASE64_PIECE])
        taken.append(time.perf_counter() - start)
    return taken


def base64_sends(size: int, times: int) -> list[float]:
    """Seconds that it takes to encode a frame, send it by TCP on this machine, and have it read."""
    source, encode = memoryview(os.urandom(size)), base64_encoder()
    taken = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        reader = subprocess.Popen([sys.executable, "-c", _READER, str(port)])
        with listener.accept()[0] as sock:
            for _ in range(times):
                start = time.perf_counter()
                for at in range(0, size, BASE64_PIECE):
                    sock.sendall(encode(source[at : at + BASE64_PIECE]))
                sock.sendall(b"\n")
                sock.recv(1)
                taken.append(time.perf_counter() - start)
        reader.wait(10)
    return taken


# Answers each byte.
_ECHO = """
import socket, sys
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
while data := sock.recv(100):
    sock.sendall(data)
"""


def echoes(seconds: float) -> list[float]:
    """Seconds that a byte takes to another Python process and back: what this machine does to every request."""
    taken = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        program = subprocess.Popen([sys.executable, "-c", _ECHO, str(listener.getsockname()[1])])
        with listener.accept()[0] as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end = time.perf_counter() + seconds
            while (start := time.perf_counter()) < end:
                sock.sendall(b"x")
                sock.recv(1)
                taken.append(time.perf_counter() - start)
                time.sleep(0.002)
        program.wait(10)
    return taken
