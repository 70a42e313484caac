# SPDX-License-Identifier: LGPL-2.1-or-later
"""A second INDI device for the guide port alone, for clients that take a guider only if it is no camera.

Off unless the user switches GUIDER_DEVICE on: a client that lists both would show the same port twice. Its
CONNECTION connects the camera if nobody has; disconnecting it leaves the camera to the others.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from indi_qsi.device import housekeeping
from indi_qsi.device.config_file import config_process
from indi_qsi.device.connection import CONNECT, DISCONNECT
from indi_qsi.device.guider import GuidePort, GuiderSubject
from indi_qsi.device.subject import MAIN_CONTROL, OPTIONS
from indi_qsi.properties import (
    Device,
    Hub,
    Level,
    Permission,
    Request,
    Rule,
    State,
    SwitchElement,
    SwitchVector,
)

if TYPE_CHECKING:
    from usbproto.camera import Camera

TIMEOUT = 60.0  # s, advisory


def guider_switch(on_request: Callable[[Request[bool]], None]) -> SwitchVector:
    """GUIDER_DEVICE of the camera's device."""
    return SwitchVector(
        "GUIDER_DEVICE",
        "Guider Device",
        OPTIONS,
        (SwitchElement("ENABLE", "Enable"), SwitchElement("DISABLE", "Disable", True)),
        permission=Permission.RW,
        rule=Rule.ONE_OF_MANY,
        on_request=on_request,
    )


class GuiderDevice:
    """`connect` asks the camera's device to connect; it answers by `came` or, with a reason, `went`."""

    def __init__(
        self, hub: Hub, name: str, executable: str, port: GuidePort, connect: Callable[[], None]
    ) -> None:
        self._hub = hub
        self._connect = connect
        self._camera: Camera | None = None
        self._wanted = False
        self._away = False  # the camera was lost, and is waited for
        self._lock = threading.RLock()  # the camera's thread and a reader meet here
        self._device = Device(f"{name} Guider", hub)
        self._guider = GuiderSubject(port)
        self._connection = SwitchVector(
            "CONNECTION",
            "Connection",
            MAIN_CONTROL,
            (SwitchElement(CONNECT, "Connect"), SwitchElement(DISCONNECT, "Disconnect", True)),
            permission=Permission.RW,
            rule=Rule.ONE_OF_MANY,
            timeout=TIMEOUT,
            on_request=self._requested,
        )
        # Clients count on CONFIG_PROCESS; there is nothing of this device to keep.
        self._device.add(
            self._connection,
            housekeeping.driver_info(name, executable, housekeeping.Interface.GUIDER),
            config_process(_nothing_to_keep),
        )
        hub.add_device(self._device)

    def close(self) -> None:
        """Its device goes, and no relay stays closed for it."""
        self._guider.stop()
        self._hub.remove_device(self._device)

    def came(self, camera: Camera) -> None:
        """The camera is connected."""
        with self._lock:
            self._camera = camera
            self._away = False
            if self._wanted:
                self._define(camera)

    def lost(self) -> None:
        """The camera left by itself, and is waited for."""
        with self._lock:
            self._camera = None
            self._away = True
            if self._connection[CONNECT]:
                self._connection.select(
                    DISCONNECT, state=State.ALERT, message="The camera is away", level=Level.ERROR
                )

    def went(self) -> None:
        """The camera was disconnected, or could not be connected."""
        with self._lock:
            self._camera = None
            self._away = False
            self._device.remove(*self._guider.vectors())
            failed = self._connection.pending
            if self._wanted:
                self._wanted = False
                message = "The camera could not be connected; its own device says why" if failed else None
                state = State.ALERT if failed else State.IDLE
                self._connection.end_all(state, {DISCONNECT: True}, message=message)

    def _requested(self, request: Request[bool]) -> None:
        with self._lock:
            self._wanted = request.values[CONNECT]
            if not self._wanted:
                self._guider.stop()
                self._connection.end_all(State.IDLE, {DISCONNECT: True})
                self._device.remove(*self._guider.vectors())
            elif self._camera is not None:
                self._define(self._camera)
            elif self._away:
                message = "The camera is away. The guide port is connected as soon as it is back"
                self._connection.end_all(State.ALERT, message=message)
            else:
                self._connection.accept()
                self._connect()

    def _define(self, camera: Camera) -> None:
        if not self._connection[CONNECT]:
            self._guider.show(camera)
            if not self._guider.vectors():
                self._wanted = False
                message = "This camera has no guide port"
                self._connection.end_all(State.ALERT, message=message)
                return
        self._connection.end_all(State.OK, {CONNECT: True})
        missing = [vector for vector in self._guider.vectors() if not vector.defined]
        self._device.add(*missing)


def _nothing_to_keep(request: Request[bool]) -> None:
    """CONFIG_PROCESS."""
    request.vector.set(dict.fromkeys(request.vector.elements, False), state=State.OK)
