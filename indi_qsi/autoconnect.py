# SPDX-License-Identifier: LGPL-2.1-or-later
"""Connecting cameras as they are plugged in, for a service where nobody clicks (`indi-qsi serve --connect`).

A camera that was connected and leaves by itself comes back by itself, see `device.connection`; this is for
the first time. A client's word counts more: who disconnects a camera is not contradicted until it is plugged
in again.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from indi_qsi.properties import State

if TYPE_CHECKING:
    from indi_qsi.device.device import QsiDevice

# Between attempts at a camera that is there but cannot be opened, because another program has it, say.
RETRY = 15.0  # s
CLOSE_TIME = 2.0  # s for the thread to end; it never waits for a camera


class AutoConnect:
    """Give `arrived` to the fleet."""

    def __init__(self, retry: float = RETRY) -> None:
        self._retry = retry
        self._due: dict[QsiDevice, float] = {}  # monotonic
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="auto-connect", daemon=True)
        self._thread.start()

    def arrived(self, device: QsiDevice) -> None:
        """The camera of this device is on the USB. Any thread; does not wait."""
        with self._changed:
            if not (self._closed or device.removed or device.connected or device.waiting):
                self._request(device)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(CLOSE_TIME)

    def _request(self, device: QsiDevice) -> None:
        device.ask_to_connect()
        self._due[device] = time.monotonic() + self._retry
        self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                for device in [device for device, due in self._due.items() if due <= now]:
                    self._again(device)
                self._changed.wait(min(self._due.values()) - time.monotonic() if self._due else None)

    def _again(self, device: QsiDevice) -> None:
        """What became of the last attempt?"""
        state = device.connection_state
        if device.removed:
            del self._due[device]
        elif state is State.ALERT and not device.waiting:
            self._request(device)
        elif state is State.BUSY:
            self._due[device] = time.monotonic() + self._retry
        else:  # connected; or a client has disconnected; or it was lost and is waited for
            del self._due[device]
