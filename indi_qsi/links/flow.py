# SPDX-License-Identifier: LGPL-2.1-or-later
"""Flow control for attached frames.

The message of an attached frame is tiny and its memory travels beside the stream, so a socket's
buffer does not hold back a sender: without care, a peer that is slow would be sent gigabytes.
"""

from __future__ import annotations

import fcntl
import logging
import socket
import struct
import termios
import time
from threading import Condition, Event
from typing import Protocol

from indi_qsi.links.output import STALL_TIMEOUT, Stalled
from indi_qsi.wire import writer

_log = logging.getLogger(__name__)

# Seconds to wait for the answer to a ping. indiserver needs about 20 ms for a frame of 17 MB; a
# loaded small computer some hundreds. C++ drivers wait as long.
PING_TIMEOUT = 5.0

# Seconds between two looks at how much a client has read.
_DRAIN_INTERVAL = 0.005


class Flow(Protocol):
    """Decides when the next attached frame may go."""

    def before_frame(self) -> None:
        """Waits, at most some seconds. Raises Stalled, OSError."""

    def after_frame(self) -> bytes:
        """What to send behind a frame."""

    def pong(self, uid: str) -> None:
        """The peer answered a ping."""

    def stop(self) -> None:
        """Ends all waiting."""


class PingFlow:
    """For indiserver: a ping behind each frame, and its answer before the next one.

    Servers older than 1.9.7 do not answer; after the first time-out they are not waited for.
    """

    def __init__(self, timeout: float = PING_TIMEOUT) -> None:
        self._timeout = timeout
        self._condition = Condition()
        self._number = 0
        self._waiting_for: str | None = None
        self._answers = False  # an answer has been seen
        self._patient = True
        self._stopped = False

    def before_frame(self) -> None:
        """See `Flow`. Never raises: after the time-out the frame goes anyway."""
        with self._condition:
            if self._condition.wait_for(self._may_go, self._timeout):
                return
            _log.warning("no answer to %s within %g s", self._waiting_for, self._timeout)
            self._waiting_for = None
            self._patient = self._answers

    def _may_go(self) -> bool:
        return self._waiting_for is None or self._stopped or not self._patient

    def after_frame(self) -> bytes:
        """See `Flow`."""
        with self._condition:
            self._number += 1
            self._waiting_for = f"SetBLOB/{self._number}"
            return writer.ping_request(self._waiting_for)

    def pong(self, uid: str) -> None:
        """See `Flow`."""
        with self._condition:
            self._answers = self._patient = True
            if uid == self._waiting_for:
                self._waiting_for = None
                self._condition.notify_all()

    def stop(self) -> None:
        """See `Flow`."""
        with self._condition:
            self._stopped = True
            self._condition.notify_all()


class DrainFlow:
    """For clients on a unix socket, of which some do not know pings: the next frame goes when the
    kernel says that the client has read everything before it."""

    def __init__(self, sock: socket.socket, timeout: float = STALL_TIMEOUT) -> None:
        self._socket = sock
        self._timeout = timeout
        self._stopped = Event()

    def before_frame(self) -> None:
        """See `Flow`."""
        deadline = time.monotonic() + self._timeout
        while self._unread():
            if self._stopped.wait(_DRAIN_INTERVAL):
                return
            if time.monotonic() > deadline:
                raise Stalled(f"nothing read for {self._timeout:g} s")

    def _unread(self) -> int:
        """Bytes, with the kernel's overhead, that the peer has not read."""
        answer = fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
        return int(struct.unpack("i", answer)[0])

    def after_frame(self) -> bytes:
        """See `Flow`."""
        return b""

    def pong(self, uid: str) -> None:
        """See `Flow`."""

    def stop(self) -> None:
        """See `Flow`."""
        self._stopped.set()
