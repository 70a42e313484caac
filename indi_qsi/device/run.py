# SPDX-License-Identifier: LGPL-2.1-or-later
"""One exposure on its way, and what the rest of the device has to say about it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from indi_qsi.device.plate import Plate
    from usbproto.camera import Exposure, Image
    from usbproto.frames import Geometry


@dataclass(eq=False)
class Run:
    """One exposure. `opened` (monotonic) and `opened_wall` (Unix time), s, are None before the shutter is.

    `continued`: the next one of a fast series has begun; this one's picture is still to come.
    """

    exposure: Exposure
    frame_type: str
    asked: float
    opened: float | None = None
    opened_wall: float | None = None
    continued: bool = False

    @property
    def duration(self) -> float:
        return self.exposure.duration

    @property
    def remaining(self) -> float:
        """Seconds until the shutter closes; the whole duration while it has not opened."""
        if self.opened is None:
            return self.duration
        return max(0.0, -self.closed_for)

    @property
    def closed_for(self) -> float:
        """Seconds since the shutter closed; negative before. Not while it has not opened."""
        assert self.opened is not None
        return time.monotonic() - (self.opened + self.duration)


class Surroundings(Protocol):
    """What the rest of the device has to say about exposures. All but the first two in the camera thread."""

    def must_prepare(self) -> bool:
        """Whether `prepare` has anything to do. In the thread of the request."""

    def prepare(self) -> None:
        """Before anything starts; may take its time, in a thread of its own. Raises `QsiError` to refuse."""

    def renew(self) -> None:
        """Sends the camera its settings again if it may have forgotten them."""

    def wheel_moving(self) -> bool:
        """Whether the filter wheel is on its way, so that the exposure must wait."""

    def trigger(self) -> str:
        """Which external trigger starts exposures: an element of EXTERNAL_TRIGGER."""

    def high_speed(self) -> bool:
        """Whether exposures are to be taken by high speed readout."""

    def opened(self, run: Run) -> None:
        """The shutter has opened: facts for the header may be noted."""

    def transferring(self) -> None:
        """Called often during a transfer, when no other job can run."""

    def backlog(self) -> bool:
        """Whether `deliver` has its hands full: the image is better left in the camera for a while."""

    def plate(self, geometry: Geometry) -> Plate:
        """Memory for an image. Raises `QsiError`."""

    def deliver(self, run: Run, image: Image, plate: Plate) -> None:
        """Takes over an image; `finished` or `fail` tells its end. Must not keep the camera thread."""
