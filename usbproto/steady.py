# SPDX-License-Identifier: LGPL-2.1-or-later
"""What takes as long each time need not be asked after all the time. Pure."""

from __future__ import annotations

from collections.abc import Hashable

# Taken off besides what its times differ by: the camera's clock, and what a computer adds.
SAME_TIME = 0.002  # s
SAME_PART = 0.002  # of the time
RECENT = 4  # times that are looked at: what differs at all shows it in as many


class Steady:
    """Learns how long something takes, and says for how long it need not be asked after.

    Of the last times of the same `kind`, it will not be over before the shortest, less what that differs by
    from the middle one. (Longer ones were only noticed late.) Of what was seen only once, and at least, the
    part `unsure` of the shortest is relied on, which may have been noticed `late` seconds late.
    """

    def __init__(self, unsure: float = 0.0, late: float = 0.0) -> None:
        self._unsure = unsure
        self._late = late
        self._kind: Hashable = None
        self._times: tuple[float, ...] = ()

    def took(self, kind: Hashable, seconds: float) -> None:
        """It took so long."""
        before = self._times if kind == self._kind else ()
        self._kind, self._times = kind, (*before, seconds)[-RECENT:]

    def sure(self, kind: Hashable) -> float:
        """Seconds from its beginning in which it will not be over; 0 when nothing is known."""
        if kind != self._kind:
            return 0.0
        times = sorted(self._times)
        shortest, middle = times[0], times[len(times) // 2]
        surely = self._unsure * (shortest - self._late)
        if len(times) > 1:
            surely = max(surely, shortest - (middle - shortest) - SAME_TIME - SAME_PART * shortest)
        return max(0.0, surely)
