# SPDX-License-Identifier: LGPL-2.1-or-later
"""The filter wheel. Positions count from 0, as on the wire (wire protocol, section 3.5)."""

from __future__ import annotations

from usbproto import packets as p
from usbproto.capabilities import probe_trims
from usbproto.errors import BadArgument, NotSupported
from usbproto.link import Link

TRIM_RANGE = 32_767  # steps, either sign: what the field holds


class FilterWheel:
    """A wheel of `count` positions."""

    def __init__(self, link: Link, count: int) -> None:
        self._link = link
        self.count = count
        self._trims: bool | None = None  # whether the firmware knows trims; None: not asked yet

    def position(self) -> int:
        """Where the wheel is."""
        return self._link.exchange(p.GET_FILTER_POSITION, p.Empty()).value

    def move(self, position: int, trim: int = 0) -> None:
        """Sends the wheel off; `moving` tells when it is there. `trim` in motor steps.

        Raises `BadArgument`, and `NotSupported` for a trim on a firmware without trims.
        """
        if not 0 <= position < self.count:
            raise BadArgument(f"filter position {position} is outside 0..{self.count - 1}")
        if not -TRIM_RANGE <= trim <= TRIM_RANGE:
            raise BadArgument(f"filter trim {trim} is outside -{TRIM_RANGE}..{TRIM_RANGE}")
        if trim and not self.has_trims():
            raise NotSupported("the firmware of this camera has no filter trims")
        if self._trims:
            # Also a trim of 0: the camera keeps the one before.
            self._link.exchange(p.SET_FILTER_TRIM, p.Trim(trim))
        self._link.order(
            p.SET_FILTER_WHEEL,
            p.Byte(position),
            lambda: self.moving() or self.position() == position,
            phase="starting the filter wheel",
            patient=True,  # it is answered when the wheel is there
        )

    def moving(self) -> bool:
        """Whether the wheel is still on its way."""
        return self._link.exchange(p.GET_DEVICE_STATE, p.Empty()).filter_moving

    def has_trims(self) -> bool:
        """Whether the firmware knows trims. The first call asks, and takes a second where it does not."""
        if self._trims is None:
            self._trims = probe_trims(self._link)
        return self._trims
