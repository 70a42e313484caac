# SPDX-License-Identifier: LGPL-2.1-or-later
"""All cameras of a process: one INDI device each, with names that stay.

The first camera that this user ever had keeps the plain device name; every further one is called by its
serial number. Which one was first is remembered, for each bus apart and never for a simulated camera. A
process that is bound to one camera (INDI_QSI_SERIAL) serves only that one, under the plain name.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from indi_qsi.bus import Bus
from indi_qsi.device.device import QsiDevice
from indi_qsi.device.memory import Memory
from indi_qsi.device.source import CameraSource
from indi_qsi.properties import Hub
from indi_qsi.storage import Storage, reason
from usbproto.errors import QsiError

if TYPE_CHECKING:
    from usbproto.hotplug import Changes, Watcher

log = logging.getLogger(__name__)

FIRST = "first camera"  # the key under which the memory holds whose the plain name is
# A launcher wants the first definitions at once; looking for cameras imports numpy and pyusb, so it waits.
WATCH_DELAY = 0.5  # s
CLOSE_TIME = 5.0  # s


class Fleet:
    """Makes the devices; the first one at once, the others as their cameras are seen."""

    def __init__(
        self,
        hub: Hub,
        bus: Bus,
        name: str,
        directory: Path,
        serial: str | None = None,
        arrived: Callable[[QsiDevice], None] | None = None,
    ) -> None:
        """`arrived` is told the device of each camera that comes to the USB."""
        self._hub = hub
        self._bus = bus
        self._name = name
        self._directory = directory
        self._storage = Storage()
        self._memory = Memory(directory, self._storage)
        self._bound = serial is not None
        self._tell_arrived = arrived
        self._lock = threading.Lock()
        self._closed = False
        self._watcher: Watcher | None = None
        if serial is None:
            serial = self._memory.get(FIRST, self._section).get("serial")
        self._first = self._make(name, serial)
        self._others: dict[str, QsiDevice] = {}
        self._starter: threading.Timer | None = None
        if not self._bound or arrived is not None:
            self._starter = threading.Timer(WATCH_DELAY, self._watch)
            self._starter.daemon = True
            self._starter.start()

    def close(self) -> None:
        """Lets all cameras go."""
        with self._lock:
            self._closed = True
            watcher = self._watcher
        if self._starter is not None:
            self._starter.cancel()
            self._starter.join(CLOSE_TIME)
        if watcher is not None:
            watcher.close()
        for device in (*self._others.values(), self._first):
            device.close()
        self._storage.close()

    @property
    def devices(self) -> tuple[QsiDevice, ...]:
        """The devices there are, the first one first. Any thread; without the lock, for the log's sake."""
        return (self._first, *tuple(self._others.values()))

    @property
    def _section(self) -> str:
        return f"{self._name} {self._bus.choice}"

    def _make(self, name: str, serial: str | None) -> QsiDevice:
        source = CameraSource(self._bus, self._directory, serial)
        return QsiDevice(self._hub, name, source, self._opened)

    def _opened(self, device: QsiDevice, serial: str) -> None:
        """A device has got its camera: the first one keeps it from now on."""
        with self._lock:
            if device is self._first and device.source.serial is None and not device.source.simulate:
                self._claim_first(serial)

    def _claim_first(self, serial: str) -> None:
        self._first.source.serial = serial
        if self._bus.simulated:
            return
        self._memory.put(FIRST, self._section, {"serial": serial}, self._remembered)

    def _remembered(self, error: Exception | None) -> None:
        if error is not None:
            log.warning("which camera is %s cannot be remembered: %s", self._name, reason(error))

    def _watch(self) -> None:
        from usbproto.hotplug import Watcher

        with self._lock:
            if not self._closed:
                bus = self._bus
                self._watcher = Watcher(self._changed, bus.backend(), lock=bus.lock, ours=bus.ours)

    def _changed(self, changes: Changes) -> None:
        for found in changes.arrived:
            if found.serial is not None:
                self._arrived(found.serial)
            elif isinstance(found.problem, QsiError):
                log.warning("%s", found.problem.explain())
        for found in changes.left:
            log.info("the camera %s left the USB", found.serial)

    def _arrived(self, serial: str) -> None:
        with self._lock:
            if self._closed:
                return
            log.info("there is a camera %s", serial)
            if self._first.source.serial is None:
                self._claim_first(serial)
            elif serial != self._first.source.serial and serial not in self._others and not self._bound:
                self._others[serial] = self._make(f"{self._name} {serial}", serial)
            first = serial == self._first.source.serial
            device = self._first if first else self._others.get(serial)
        if device is not None and self._tell_arrived is not None:
            self._tell_arrived(device)
