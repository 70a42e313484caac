# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where a USB/IP server is: addresses as text, sockets that listen there and sockets that connect there."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

DEFAULT_PORT = 3240
BACKLOG = 16  # connections that wait to be accepted: programs that list all at the same moment
# A large read in one go: what the kernel holds of a reply while the other side is busy with the one before.
SOCKET_BUFFER = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class UnixAddress:
    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class TcpAddress:
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


Address = UnixAddress | TcpAddress


def parse_address(text: str) -> Address:
    """`unix:PATH`, `HOST`, `HOST:PORT` or `[IPV6]:PORT`; ValueError for anything else."""
    if text.startswith("unix:"):
        if not text[5:]:
            raise ValueError(f"no path in {text!r}")
        return UnixAddress(text[5:])
    host, bracket, port = text.rpartition("]:")
    if bracket:
        host = host.removeprefix("[")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        host, port = text.removeprefix("[").removesuffix("]"), str(DEFAULT_PORT)
    if not host or not (port.isascii() and port.isdecimal()) or int(port) > 0xFFFF:
        raise ValueError(f"{text!r} is neither HOST:PORT nor unix:PATH")
    return TcpAddress(host, int(port))


def tune(connection: socket.socket) -> None:
    """Answers leave at once; a peer that vanished is noticed some day."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
    if connection.family != socket.AF_UNIX:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def connect(address: Address, timeout: float) -> socket.socket:
    """A connected socket whose calls take `timeout` s at most. OSError when nobody is there."""
    if isinstance(address, TcpAddress):
        connection = socket.create_connection((address.host, address.port), timeout)
    else:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if not isinstance(address, TcpAddress):
            connection.settimeout(timeout)
            connection.connect(address.path)
        tune(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def listen(address: Address, *, allow_remote: bool) -> socket.socket:
    """A listening socket. ValueError for an address that others on the network reach, unless allowed.

    A socket file that a dead server left behind is replaced; OSError (EADDRINUSE) when a server lives there.
    """
    where: str | tuple[str | int | bytes, ...]
    if isinstance(address, TcpAddress):
        family, kind, _, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        if not allow_remote and not ipaddress.ip_address(str(where[0])).is_loopback:
            raise ValueError(f"{address} can be reached from the network, where USB/IP has no passwords")
        listener = socket.socket(family, kind)
    else:
        where = address.path
        _remove_stale(Path(address.path))
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if isinstance(address, TcpAddress):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def bound_address(listener: socket.socket) -> Address:
    """Where it really listens: port 0 has become a port."""
    name = listener.getsockname()
    return UnixAddress(name) if isinstance(name, str) else TcpAddress(name[0], name[1])


def remove(address: Address) -> None:
    """Take away the socket file of a listener that is closed."""
    if isinstance(address, UnixAddress):
        Path(address.path).unlink(missing_ok=True)


def _remove_stale(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(errno.EEXIST, "not a socket", str(path))
        try:
            connect(UnixAddress(str(path)), timeout=1.0).close()
        except ConnectionRefusedError:
            path.unlink()
        else:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), str(path))


def receive(connection: socket.socket, into: memoryview) -> None:
    """Fill `into`. EOFError when the other side closed before, OSError as the socket does."""
    while into:
        count = connection.recv_into(into)
        if not count:
            raise EOFError("connection closed")
        into = into[count:]


def receive_bytes(connection: socket.socket, count: int) -> bytes:
    """Exactly `count` bytes; errors as `receive`."""
    data = bytearray(count)
    receive(connection, memoryview(data))
    return bytes(data)
