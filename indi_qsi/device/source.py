# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where a device's camera comes from: the bus, by serial number, or a simulated camera."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from indi_qsi.bus import Bus

if TYPE_CHECKING:
    from usbproto.camera import Camera

CACHE_FILE = "qsi-capabilities.json"


class CameraSource:
    """Opens the camera of one device.

    `serial` binds it to a camera; None takes the first that is free, and is bound to that one from then on.
    """

    def __init__(self, bus: Bus, directory: Path, serial: str | None = None) -> None:
        self._bus = bus
        self._cache = directory / CACHE_FILE
        self._simulated: Bus | None = None
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

    def open(self) -> Camera:
        """Opens it; may take some seconds. Raises `QsiError`s."""
        from usbproto import discovery
        from usbproto.capabilities import FileCache

        if self._simulated is not None:
            return discovery.open_camera(backend=self._simulated.backend())
        with self._bus.lock:
            camera = discovery.open_camera(
                self.serial, backend=self._bus.backend(), cache=FileCache(self._cache)
            )
            self._bus.opened(camera)
            return camera

    def close(self) -> None:
        self.simulate = False
