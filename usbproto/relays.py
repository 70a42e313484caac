# SPDX-License-Identifier: LGPL-2.1-or-later
"""The guide port's relays (wire protocol, section 3.6). The camera times a pulse, one axis at a time."""

from __future__ import annotations

import time
from enum import Enum

from usbproto import packets as p
from usbproto.errors import BadArgument
from usbproto.link import Link
from usbproto.models import MAX_RELAY_10MS, RELAY_UNIT


class Direction(Enum):
    """(X, Y) signs of a pulse."""

    EAST = (1, 0)
    WEST = (-1, 0)
    NORTH = (0, 1)
    SOUTH = (0, -1)


def units(seconds: float) -> int:
    """A pulse length in the camera's 10 ms, rounded. Raises `BadArgument` outside 0..50 s."""
    longest = MAX_RELAY_10MS * RELAY_UNIT
    if not 0 <= seconds <= longest:
        raise BadArgument(f"a guide pulse of {seconds:g} s is outside 0..{longest:g} s")
    # Half a unit goes up: round() alone would send 5 ms to 0 and 15 ms to 2.
    return int(seconds / RELAY_UNIT + 0.5)


class Relays:
    """Starts, watches and ends pulses. A new pulse ends a running one, on whichever axis it is."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def pulse(self, direction: Direction, seconds: float, *, ask: bool = True) -> float:
        """Starts a pulse and returns its real length in s, a whole number of 10 ms.

        Without `ask` nothing but the order is sent: during a readout the camera may not be asked anything
        else (section 8). Then no pulse may be running. Raises `BadArgument` for a length that is out of range
        or rounds to nothing.
        """
        length = units(seconds)
        if length == 0:
            raise BadArgument(f"a guide pulse of {seconds * 1000:g} ms is shorter than the camera's 10 ms")
        if ask and not self.done():
            self.stop()
        x, y = direction.value
        end = time.monotonic() + length * RELAY_UNIT
        order = p.Relays(x * length, y * length)
        self._link.order(p.ACTIVATE_RELAY, order, lambda: self._runs(end) if ask else None)
        return length * RELAY_UNIT

    def _runs(self, end: float) -> bool | None:
        """Whether the pulse that would end at `end` at the earliest was started; None when it may be over."""
        if not self.done():
            return True
        return False if time.monotonic() < end else None

    def done(self) -> bool:
        """Whether no pulse is running."""
        return self._link.exchange(p.IS_RELAY_DONE, p.Empty()).value

    def stop(self) -> None:
        """Opens the relays at once."""
        self._link.exchange(p.ABORT_RELAYS, p.Empty())
