# SPDX-License-Identifier: LGPL-2.1-or-later
"""All cameras of a process: one INDI device each, with names that stay.

The device with the plain name is bound to the first camera that it opens. Which camera that is is remembered,
for each bus apart and never for a simulated camera. Every other camera that is seen has a device that is
called by its serial number.

As long as the first device is not bound, the camera that was seen first is presumed to be its camera, and has
no other device. Seeing a camera does not bind, because another driver process sees the same cameras: if that
process has the presumed camera, the first device opens another one, whose own device is then replaced by one
for the presumed camera.

A process that is bound to one camera (INDI_QSI_SERIAL) serves only that one, under the plain name.
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
from indi_qsi.properties import Hub, State
from indi_qsi.storage import Storage, reason
from usbproto.errors import QsiError

if TYPE_CHECKING:
    from usbproto.hotplug import Changes, Watcher

log = logging.getLogger(__name__)

FIRST = "first camera"  # the key under which the memory holds the camera that has the plain name
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
        self._others: dict[str, QsiDevice] = {}  # by serial number
        self._first = self._make(name, serial)
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
        source = CameraSource(self._bus, self._directory, serial, self._in_use)
        return QsiDevice(self._hub, name, source, self._opened, self._storage)

    def _make_other(self, serial: str) -> QsiDevice:
        device = self._others[serial] = self._make(f"{self._name} {serial}", serial)
        return device

    def _in_use(self) -> list[str]:
        """The cameras that the first device must leave to their own devices. Any thread."""
        return [
            serial
            for serial, device in tuple(self._others.items())
            if device.connected or device.waiting or device.connection_state is State.BUSY
        ]

    def _opened(self, device: QsiDevice, serial: str) -> None:
        """A device has opened a camera: the first one is bound to it. In the camera thread of the device.

        The device that the camera had before is another one, and cannot have it open: it can be closed here.
        """
        if device is not self._first or device.source.simulate:
            return
        replaced = added = None
        with self._lock:
            source = device.source
            if source.serial is not None:
                return
            source.bind(serial)
            presumed, source.presumed = source.presumed, None
            if not self._closed:
                replaced = self._others.pop(serial, None)
                if presumed not in (None, serial):
                    added = self._make_other(presumed)
        self._remember(serial)
        # Without the lock, because closing a device waits for its camera thread.
        if replaced is not None:
            log.info("the camera %s is now %s instead of %s", serial, device.name, replaced.name)
            replaced.close()
        if added is not None and self._tell_arrived is not None:
            self._tell_arrived(added)

    def _remember(self, serial: str) -> None:
        if self._bus.simulated:
            return
        # Another driver process of this user may have been faster: names go by what it has written.
        self._memory.put(FIRST, self._section, {"serial": serial}, self._remembered, unless_there=True)

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
        for found in changes.left:
            if found.serial is not None:
                self._left(found.serial)
        for found in changes.arrived:
            if found.serial is not None:
                self._arrived(found.serial)
            elif isinstance(found.problem, QsiError):
                log.warning("%s", found.problem.explain())

    def _left(self, serial: str) -> None:
        log.info("the camera %s left the USB", serial)
        with self._lock:
            if self._first.source.presumed == serial:
                self._first.source.presumed = None

    def _arrived(self, serial: str) -> None:
        with self._lock:
            if self._closed:
                return
            log.info("there is a camera %s", serial)
            device = self._device_of(serial)
        if device is not None and self._tell_arrived is not None:
            self._tell_arrived(device)

    def _device_of(self, serial: str) -> QsiDevice | None:
        """The device of a camera that was seen, made if need be. With the lock held."""
        source = self._first.source
        if source.serial is None and source.presumed is None and serial not in self._others:
            source.presumed = serial
        if serial in (source.serial, source.presumed):
            return self._first
        if self._bound:
            return None
        return self._others.get(serial) or self._make_other(serial)
