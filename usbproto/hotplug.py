# SPDX-License-Identifier: LGPL-2.1-or-later
"""Cameras that come and go.

On the computer's own USB, udev tells when to look again, where pyudev is installed; otherwise, and as a
second opinion, the bus is looked at every few seconds.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from usbproto import discovery
from usbproto.discovery import Found
from usbproto.errors import QsiError

log = logging.getLogger(__name__)

INTERVAL = 2.0  # s between looks without udev
INTERVAL_WITH_UDEV = 30.0  # s; udev's messages can get lost when there are many
CLOSE_TIME = 3.0  # s for the thread to end: one listing at most
UDEV_POLL = 0.5  # s between looks whether the watcher is to end


@dataclass(frozen=True, slots=True)
class Changes:
    """What is different since the last look."""

    arrived: tuple[Found, ...]
    left: tuple[Found, ...]


def compare(before: Mapping[str, Found], now: Mapping[str, Found]) -> Changes:
    """The difference of two looks, each by USB location.

    A camera that could not be asked before and can be now (its udev rule was slower than we) arrives again.
    """

    def same(location: str) -> bool:
        return location in before and location in now and before[location].serial == now[location].serial

    return Changes(
        tuple(found for location, found in now.items() if not same(location)),
        tuple(found for location, found in before.items() if not same(location)),
    )


class Watcher:
    """Calls `changed` in a thread of its own, first with what is there at the start.

    A look that fails proves nothing: nobody arrives and nobody leaves.
    """

    def __init__(
        self,
        changed: Callable[[Changes], None],
        backend: Any = None,
        interval: float | None = None,
        lock: AbstractContextManager[object] | None = None,
        ours: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """`lock` is held while looking, so that whoever opens a camera does not find it in use by us.

        `ours` (location -> serial) are the cameras that this process has open: they need not be asked, and
        would not answer.
        """
        self._lock = lock or nullcontext()
        self._ours = ours
        self._changed = changed
        self._backend = backend
        self._monitor = _udev_monitor() if backend is None else None
        self._interval = interval or (INTERVAL_WITH_UDEV if self._monitor else INTERVAL)
        self._known: dict[str, Found] = {}
        self._wake = threading.Event()
        self._closed = False
        self._threads = [threading.Thread(target=self._watch, name="cameras come and go", daemon=True)]
        if self._monitor is not None:
            self._threads.append(threading.Thread(target=self._listen, name="udev", daemon=True))
        for thread in self._threads:
            thread.start()

    def look(self) -> None:
        """Has it looked at the bus now."""
        self._wake.set()

    def close(self) -> None:
        self._closed = True
        self._wake.set()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(CLOSE_TIME)

    def _watch(self) -> None:
        while True:
            self._wake.clear()
            if self._closed:  # asked behind `clear`, or a `close` between the two would not wake us
                return
            self._look()
            self._wake.wait(self._interval)

    def _look(self) -> None:
        known = {place: found.serial for place, found in self._known.items() if found.serial is not None}
        try:
            with self._lock:
                known.update(self._ours())
                now = {found.port.location: found for found in discovery.cameras(self._backend, known)}
        except QsiError as error:
            log.debug("the USB could not be listed: %s", error)
            return
        changes = compare(self._known, now)
        self._known = now
        if changes.arrived or changes.left:
            try:
                self._changed(changes)
            except Exception:
                log.exception("cameras came or went, and the answer to it failed")

    def _listen(self) -> None:
        assert self._monitor is not None
        self._monitor.start()
        while not self._closed:
            if self._monitor.poll(UDEV_POLL) is not None:
                self._wake.set()


def _udev_monitor() -> Any:
    """A monitor of USB devices, None where pyudev is not installed."""
    try:
        import pyudev
    except ImportError:
        return None
    try:
        monitor = pyudev.Monitor.from_netlink(pyudev.Context())
        monitor.filter_by(subsystem="usb", device_type="usb_device")
    except (OSError, ValueError) as error:
        log.info("no news from udev (%s); looking at the bus every %g s", error, INTERVAL)
        return None
    return monitor
