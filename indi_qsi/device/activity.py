# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the camera is doing now, as far as orders and polls must know.

The subjects write it; any thread reads it.
"""

from __future__ import annotations

import time
from enum import Enum
from typing import Protocol

from indi_qsi.device.rules import When

# s before the end of an exposure by our clock: by the camera's, its readout may have begun.
QUIET_BEFORE = 0.2


class Phase(Enum):
    """What an exposure is doing. The value is what clients see."""

    IDLE = "Idle"
    FLUSHING = "Flushing"
    WAITING = "Waiting for trigger"
    EXPOSING = "Exposing"
    READING = "Reading out"
    DOWNLOADING = "Downloading"


class Exposures(Protocol):
    """What others must know of exposures."""

    @property
    def asked(self) -> bool:
        """Whether an exposure was asked for and has not ended. Any thread."""

    def end_wait(self, reason: str) -> None:
        """Ends the wait for a trigger, and its exposure as failed for this reason. Camera thread."""


class Activity:
    """The subjects of the exposure and the filter wheel keep it up to date."""

    def __init__(self) -> None:
        self.exposures: Exposures | None = None
        self.phase = Phase.IDLE
        # The exposure is over for clients, and the camera still waits for its trigger.
        self.ending_wait = False
        self.exposing = False  # from the first command of an exposure until its image is in memory
        self.closes: float | None = None  # monotonic, when the shutter closes, while the phase is EXPOSING
        self.wheel_moving = False

    @property
    def exposure_asked(self) -> bool:
        """Whether an exposure was asked for and has not ended."""
        return self.exposures is not None and self.exposures.asked

    def end_wait(self, reason: str) -> None:
        """See `Exposures`."""
        if self.exposures is not None:
            self.exposures.end_wait(reason)

    @property
    def waiting_for_trigger(self) -> bool:
        """Whether the camera waits for a trigger: it may only be asked for its state and temperatures."""
        return self.phase is Phase.WAITING or self.ending_wait

    @property
    def reading_out(self) -> bool:
        """Whether the sensor is read out, or soon is: other commands may disturb it (section 8)."""
        if self.phase is Phase.EXPOSING:
            return self.closes is not None and time.monotonic() > self.closes - QUIET_BEFORE
        return self.phase is Phase.READING

    def allows(self, when: When) -> bool:
        """Whether an order of this kind may go now. Camera thread."""
        match when:
            case When.OVERTAKES:
                return True
            case When.ENDS_TRIGGER:
                return not self.reading_out
            case When.LINK_QUIET:
                return not (self.reading_out or self.waiting_for_trigger)
            case When.NO_EXPOSURE:
                return not self.exposing
            case When.EXPOSURE | When.WHEEL:
                return not (self.exposing or self.wheel_moving)
