# SPDX-License-Identifier: LGPL-2.1-or-later
"""Waiting with an end: a moment on the monotonic clock, and a wish to stop waiting before it."""

from __future__ import annotations

import threading
import time

from usbproto.errors import Interrupted


class Deadline:
    """`Deadline(2.5)` passes 2.5 s from now, whatever the wall clock does."""

    __slots__ = ("_at", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._at = time.monotonic() + seconds

    @property
    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._at - time.monotonic())

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self._at


class Stop:
    """Ends waiting in another thread: after `request()`, its `check()` and `pause()` raise `Interrupted`."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def request(self) -> None:
        """Any thread."""
        self._event.set()

    @property
    def requested(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        if self._event.is_set():
            raise Interrupted

    def pause(self, seconds: float) -> None:
        """Waits so long. Raises `Interrupted` as soon as it is requested."""
        if self._event.wait(seconds):
            raise Interrupted
