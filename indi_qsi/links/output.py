# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writing all bytes to a peer that may be slow, may stop reading, or may go away."""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from contextlib import suppress
from threading import Event
from typing import Protocol

# Seconds without a single byte accepted after which a client counts as gone. A Wi-Fi link recovers
# from a gap in less; three frames of memory are not kept for somebody who does not.
STALL_TIMEOUT = 60.0

# Seconds after which a writer looks whether it was told to stop. Only a peer that reads nothing at
# all makes it look.
STOP_CHECK = 1.0

# A pipe that reports room has room for at least this many bytes, so such a write does not block.
_PIPE_PIECE = select.PIPE_BUF


class Stalled(Exception):
    """The peer has accepted nothing for too long."""


class Output(Protocol):
    """Where a link's writer thread puts its bytes."""

    @property
    def passes_descriptors(self) -> bool:
        """Whether file descriptors can go along."""

    def write(self, data: bytes, descriptor: int | None = None) -> None:
        """Writes everything, the descriptor with the first byte. Raises OSError, Stalled."""

    def offer(self, data: bytes) -> int:
        """Writes what can be written without waiting; how many bytes. Not beside `write`."""

    def stop(self) -> None:
        """Makes the present and every later `write` fail; may be called from any thread."""


class SocketOutput:
    """A connected stream socket. It is left in blocking mode: each call asks not to wait.

    Under indiserver, standard input and output are one socket; its mode would change for both.
    `stall_timeout` None means to wait for the peer for ever, until told to stop.
    """

    def __init__(self, sock: socket.socket, stall_timeout: float | None = STALL_TIMEOUT) -> None:
        self._socket = sock
        self._stall_timeout = stall_timeout
        self._stopped = Event()
        self.passes_descriptors = sock.family == socket.AF_UNIX

    def write(self, data: bytes, descriptor: int | None = None) -> None:
        """See `Output`."""
        rights = [] if descriptor is None else [_rights(descriptor)]
        view = memoryview(data)
        while view:
            self._raise_if_stopped()
            try:
                sent = self._socket.sendmsg([view], rights, socket.MSG_DONTWAIT)
            except BlockingIOError:
                self._wait()
                continue
            rights = []  # They went with the first byte; a repetition would be one too many.
            view = view[sent:]

    def offer(self, data: bytes) -> int:
        """See `Output`. What has failed is left to `write`, which will find out."""
        try:
            return self._socket.send(data, socket.MSG_DONTWAIT)
        except OSError:
            return 0

    def stop(self) -> None:
        """See `Output`. Also ends a read of the same socket."""
        self._stopped.set()
        with suppress(OSError):  # The peer may have gone already.
            self._socket.shutdown(socket.SHUT_RDWR)

    def _wait(self) -> None:
        limit = self._stall_timeout
        deadline = None if limit is None else time.monotonic() + limit
        while not _writable(self._socket.fileno()):
            self._raise_if_stopped()
            if deadline is not None and time.monotonic() > deadline:
                raise Stalled(f"nothing read for {limit:g} s")

    def _raise_if_stopped(self) -> None:
        if self._stopped.is_set():
            raise BrokenPipeError("stopped")


class FileOutput:
    """A pipe, a terminal or a file, in blocking mode. Waits for its reader for ever."""

    passes_descriptors = False

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._stopped = Event()

    def write(self, data: bytes, descriptor: int | None = None) -> None:
        """See `Output`."""
        assert descriptor is None
        view = memoryview(data)
        while view:
            if self._stopped.is_set():
                raise BrokenPipeError("stopped")
            if _writable(self._fd):
                view = view[os.write(self._fd, view[:_PIPE_PIECE]) :]

    def offer(self, data: bytes) -> int:
        """See `Output`. Nothing: whether there is room is known for `write` only."""
        return 0

    def stop(self) -> None:
        """See `Output`."""
        self._stopped.set()


def _writable(fd: int) -> bool:
    """Whether a write would not wait, or would fail at once; looks for `STOP_CHECK` seconds."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(STOP_CHECK * 1000))


def _rights(descriptor: int) -> tuple[int, int, bytes]:
    return socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", descriptor)
