# SPDX-License-Identifier: LGPL-2.1-or-later
"""One exposure on its way."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from indi_qsi.device.upload import Plan
    from indi_qsi.fits import Card
    from indi_qsi.properties import Answer
    from usbproto.camera import Exposure


class RunOwner(Protocol):
    """Who ends runs. Any thread."""

    def finished(self, run: Run, send: Callable[[], None]) -> None:
        """The frame is there: it is sent by `send`, unless the run has ended otherwise meanwhile."""

    def fail(self, run: Run, reason: str) -> None:
        """The run ends without a frame."""


@dataclass(eq=False)
class Run:
    """One exposure, with everything that was fixed when it was asked for.

    `records` are the clients' header records. `asked`, `opened` (monotonic) and `opened_wall` (Unix time) in
    s; the last two are None before the shutter is open. `continued`: the next one of a fast series has begun;
    this one's frame is still to come.
    """

    owner: RunOwner
    exposure: Exposure
    frame_type: str
    plan: Plan
    records: tuple[Card, ...] = ()
    answer: Answer[float] | None = None  # None before the run begins
    asked: float = 0.0
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
