# SPDX-License-Identifier: LGPL-2.1-or-later
"""What takes as long each time need not be asked after all the time. Pure."""

from __future__ import annotations

from collections.abc import Hashable

# Two times that differ by no more than this are the same: the camera's clock, and what two computers add.
SAME_PART = 0.01
SAME_TIME = 0.002  # s
SURE_PART = 0.985  # of the shorter one is not asked after


class Steady:
    """Learns how long something takes, and says for how long it need not be asked after.

    What took as long twice running, of the same `kind`, surely takes nearly as long the next time. Of what
    did not, or was seen only once, the part `unsure` of the shorter time is relied on. Its end may have been
    noticed `late` seconds late.
    """

    def __init__(self, unsure: float = 0.0, late: float = 0.0) -> None:
        self._unsure = unsure
        self._late = late
        self._kind: Hashable = None
        self._times: tuple[float, ...] = ()

    def took(self, kind: Hashable, seconds: float) -> None:
        """It took so long."""
        before = self._times[-1:] if kind == self._kind else ()
        self._kind, self._times = kind, (*before, seconds)

    def sure(self, kind: Hashable) -> float:
        """Seconds from its beginning in which it will not be over; 0 when nothing is known."""
        if kind != self._kind:
            return 0.0
        shorter, longer = min(self._times), max(self._times)
        same = len(self._times) > 1 and longer - shorter <= SAME_TIME + self._late + SAME_PART * longer
        return max(0.0, (SURE_PART if same else self._unsure) * (shorter - self._late))
