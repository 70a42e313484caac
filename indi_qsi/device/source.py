# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where a device's camera comes from: the bus, by serial number, or a simulated camera."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from indi_qsi.bus import Bus
from indi_qsi.version import VERSION

if TYPE_CHECKING:
    from usbproto.camera import Camera
    from usbproto.flight import FlightRecorder
    from usbproto.flightfiles import FlightFiles
    from usbproto.session import Session
    from usbproto.timing import Timing

CACHE_FILE = "qsi-capabilities.json"


class CameraSource:
    """Opens the camera of one device, and keeps what was said to it when that is worth keeping.

    `serial` binds it to a camera; None takes the first that is free, and is bound to that one from then on.
    """

    def __init__(self, bus: Bus, directory: Path, serial: str | None = None) -> None:
        self._bus = bus
        self._cache = directory / CACHE_FILE
        self._simulated: Bus | None = None
        self._directory = directory
        self._flights: FlightFiles | None = None  # made with the first of them
        self.serial = serial

    @property
    def simulate(self) -> bool:
        """Whether a simulated camera stands in."""
        return self._simulated is not None

    @simulate.setter
    def simulate(self, on: bool) -> None:
        if on and self._simulated is None:
            self._simulated = Bus("sim")
        elif not on and self._simulated is not None:
            self._simulated.close()
            self._simulated = None

    def open(self, session: Session, timing: Callable[[str], Timing]) -> Camera:
        """Opens it, mostly within a second; `timing` gives the one to use for a serial number.

        Waits in it end when `session.stop` is requested. Raises `QsiError`s.
        """
        from usbproto.capabilities import FileCache

        if self._simulated is not None:
            claimed, cache = self._simulated.claim(), None
        else:
            claimed, cache = self._bus.claim(self.serial), FileCache(self._cache)
        self.flight.facts["series"] = claimed.series.name
        session.timing = timing(claimed.serial)
        return claimed.open(cache, session)

    @cached_property
    def flight(self) -> FlightRecorder:
        """The last exchanges. Imported late: a launcher wants the first definitions at once."""
        from usbproto.flight import FlightRecorder

        recorder = FlightRecorder()
        recorder.facts["driver"] = VERSION
        return recorder

    def keep(self, kind: str, reason: str) -> Path | None:
        """Has the flight recorder written to a file, and returns its path at once. Camera thread."""
        from usbproto.flightfiles import FOLDER, FlightFiles

        if self._flights is None:
            self._flights = FlightFiles(self._directory / FOLDER)
        return self._flights.save(self.flight, kind, reason)

    def close(self) -> None:
        self.simulate = False
        if self._flights is not None:
            self._flights.close()
