# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where a device's camera comes from: the bus, by serial number, or a simulated camera."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from indi_qsi.bus import Bus
from indi_qsi.version import VERSION
from usbproto.errors import NoCamera, QsiError

if TYPE_CHECKING:
    from usbproto.camera import Camera
    from usbproto.discovery import Claimed
    from usbproto.flight import FlightRecorder
    from usbproto.flightfiles import FlightFiles
    from usbproto.session import Session
    from usbproto.timing import Timing

CACHE_FILE = "qsi-capabilities.json"


class CameraSource:
    """Opens the camera of one device, and keeps what was said to it when that is worth keeping.

    A source that is bound (`serial`) opens that camera only. One that is not bound takes the first camera
    that is free: `presumed` before the others, and none that `avoid` returns. Which camera it stands for can
    be changed only while no camera of it is open or being opened. `directory` is where the driver keeps
    files.
    """

    def __init__(
        self,
        bus: Bus,
        directory: Path,
        serial: str | None = None,
        avoid: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self._bus = bus
        self._avoid = avoid
        self.presumed: str | None = None
        self._lock = threading.Lock()
        self._opening = False
        self._claimed: Claimed | None = None  # the last one
        self._cache = directory / CACHE_FILE
        self._simulated: Bus | None = None
        self.directory = directory
        self._flights: FlightFiles | None = None  # made with the first of them
        self._serial = serial

    @property
    def serial(self) -> str | None:
        """The serial number of the camera to which it is bound; None if it is not bound."""
        return self._serial

    def bind(self, serial: str) -> None:
        """Binds it to a camera. Any thread; does not wait.

        Raises `QsiError` while another camera is open or being opened.
        """
        with self._lock:
            opened = self._open_serial() if self._simulated is None and not self._opening else None
            if opened != serial:
                self._check_idle()
            self._serial = serial

    def _open_serial(self) -> str | None:
        claimed = self._claimed
        return claimed.serial if claimed is not None and not claimed.closed else None

    def _check_idle(self) -> None:
        """With the lock held."""
        if self._opening or self._open_serial() is not None:
            raise QsiError("The camera cannot be changed while it is connected", "Disconnect it first")

    @property
    def simulate(self) -> bool:
        """Whether a simulated camera stands in.

        Setting it raises `QsiError` while a camera is open or being opened. It may wait for the threads of
        the simulated camera, so it must be set in a thread that may wait.
        """
        return self._simulated is not None

    @simulate.setter
    def simulate(self, on: bool) -> None:
        with self._lock:
            if on == self.simulate:
                return
            self._check_idle()
            before, self._simulated = self._simulated, Bus("sim") if on else None
        if before is not None:
            before.close()

    def open(self, session: Session, timing: Callable[[str], Timing], only: str | None = None) -> Camera:
        """Opens it, mostly within a second; `timing` gives the one to use for a serial number.

        `only` is the USB serial number of a camera that was lost: no other camera will do, also if the source
        is not bound or the camera is simulated. Waits in it end when `session.stop` is requested. Raises
        `QsiError`s, `NoCamera` if the camera is not there.
        """
        from usbproto.capabilities import FileCache

        with self._lock:
            self._opening = True
            simulated = self._simulated
        try:
            cache = FileCache(self._cache) if simulated is None else None
            claimed = self._claimed = self._claim(only) if simulated is None else simulated.claim(only)
            self.flight.facts["series"] = claimed.series.name
            session.timing = timing(claimed.serial)
            camera = claimed.open(cache, session)
        finally:
            self._opening = False
        if only is not None and camera.usb_serial != only:
            camera.close()
            raise NoCamera(f"The camera {only} was not found, but {camera.usb_serial} in its place")
        return camera

    def _claim(self, only: str | None) -> Claimed:
        serial = self._serial if only is None else only
        if serial is not None:
            return self._bus.claim(serial)
        return self._bus.claim(prefer=self.presumed, avoid=self._avoid())

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
            self._flights = FlightFiles(self.directory / FOLDER)
        return self._flights.save(self.flight, kind, reason)

    def close(self) -> None:
        """Ends the simulated camera, also if a thread that hangs still has it open. May wait."""
        with self._lock:
            simulated, self._simulated = self._simulated, None
        if simulated is not None:
            simulated.close()
        if self._flights is not None:
            self._flights.close()
