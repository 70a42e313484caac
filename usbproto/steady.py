# SPDX-License-Identifier: LGPL-2.1-or-later
"""What takes as long each time need not be asked after all the time. Pure."""

from __future__ import annotations

from collections.abc import Hashable

# Two times that differ by no more than this are the same: the camera's clock, and what two computers add.
SAME_PART = 0.01
SAME_TIME = 0.002  # s
SURE_PART = 0.97  # of the shorter one is not asked after


class Steady:
    """Learns how long something takes, and says for how long it need not be asked after.

    Only of what took as long twice running, of the same `kind`: then the next one surely takes nearly as
    long. One that did not is asked after all the time again.
    """

    def __init__(self) -> None:
        self._kind: Hashable = None
        self._times: tuple[float, ...] = ()

    def took(self, kind: Hashable, seconds: float) -> None:
        """It took so long."""
        before = self._times[-1:] if kind == self._kind else ()
        self._kind, self._times = kind, (*before, seconds)

    def sure(self, kind: Hashable) -> float:
        """Seconds from its beginning in which it will not be over; 0 when nothing is known."""
        if kind != self._kind or len(self._times) < 2:
            return 0.0
        shorter, longer = sorted(self._times)
        same = longer - shorter <= SAME_TIME + SAME_PART * longer
        return SURE_PART * shorter if same else 0.0
