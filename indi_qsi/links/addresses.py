# SPDX-License-Identifier: LGPL-2.1-or-later
"""Addresses to listen on: 'host:port', '[v6 address]:port', '/path', '@abstract name'."""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

# Clients that may wait to be let in; they come a few at a time.
_BACKLOG = 8

# Owner and group may use a socket in the file system.
_SOCKET_MODE = 0o660


class ListenError(Exception):
    """An address cannot be listened on; the text says why, and what the user can do."""


def listen_on(address: str) -> socket.socket:
    """A listening socket. Raises ListenError."""
    try:
        if address.startswith("@"):
            return _bound(socket.AF_UNIX, "\0" + address[1:])
        if "/" in address:
            return _listen_on_path(address)
        host, port = split_host(address)
        return _listen_on_host(host, port)
    except OSError as error:
        raise ListenError(_remedy(address, error)) from error


def split_host(address: str) -> tuple[str, int]:
    """'host:port' as its parts. Raises ListenError."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ListenError(
            f"{address!r} is no address; write host:port, such as 127.0.0.1:7624, or the path of a socket"
        )
    return host.strip("[]"), int(port)


def show_address(listener: socket.socket) -> str:
    """Where a socket listens, in the form that `listen_on` takes."""
    name = listener.getsockname()
    if isinstance(name, bytes):
        return "@" + name[1:].decode("utf-8", "replace")
    if isinstance(name, str):
        return name
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_open(listener: socket.socket) -> bool:
    """Whether other computers may reach it."""
    name = listener.getsockname()
    return isinstance(name, tuple) and not ip_address(str(name[0]).partition("%")[0]).is_loopback


def remove_path(listener: socket.socket) -> None:
    """Deletes the socket in the file system, if there is one."""
    name = listener.getsockname()
    if isinstance(name, str) and name:
        with suppress(OSError):
            Path(name).unlink()


def _listen_on_host(host: str, port: int) -> socket.socket:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    return _bound(family, address)


def _listen_on_path(path: str) -> socket.socket:
    _remove_stale(path)
    listener = _bound(socket.AF_UNIX, path)
    Path(path).chmod(_SOCKET_MODE)
    return listener


def _remove_stale(path: str) -> None:
    """Deletes a socket that nobody listens on: a server that was killed leaves one behind."""
    try:
        if not stat.S_ISSOCK(Path(path).stat().st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()


def _bound(family: int, address: object) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family != socket.AF_UNIX:
            # Else the port of a server that has just ended would be taken for a minute.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)  # type: ignore[arg-type]
        listener.listen(_BACKLOG)
        # The peer may go between poll and accept; then accept must not wait.
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _remedy(address: str, error: OSError) -> str:
    text = f"cannot listen on {address}: {error.strerror or error}"
    match error.errno:
        case errno.EADDRINUSE:
            return f"{text}. Another server, perhaps indiserver, is using it: stop it or take another address"
        case errno.EACCES | errno.EPERM:
            return f"{text}. Take a port above 1023, or a directory that user {os.geteuid()} may write to"
        case errno.EADDRNOTAVAIL:
            return f"{text}. This computer has no such address; 127.0.0.1 and 0.0.0.0 always work"
    return text
