# SPDX-License-Identifier: LGPL-2.1-or-later
"""A moment on the monotonic clock by which something must have happened."""

from __future__ import annotations

import time


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
