# SPDX-License-Identifier: LGPL-2.1-or-later
"""CONNECTION: opening the camera, letting it go, and noticing that it left.

CONNECT is On only while the camera can really be used, because some clients look at the switch and not at the
state. All values are read from the camera before it turns On; then everything is defined in one burst.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from indi_qsi.device.subject import MAIN_CONTROL, explain
from indi_qsi.device.worker import CameraThread, Priority
from indi_qsi.properties import Level, Permission, Request, Rule, State, SwitchElement, SwitchVector
from usbproto.errors import Disconnected, LinkError, QsiError

if TYPE_CHECKING:
    from usbproto.camera import Camera

log = logging.getLogger(__name__)

TIMEOUT = 60.0  # s, advisory
CONNECT, DISCONNECT = "CONNECT", "DISCONNECT"


class Host(Protocol):
    """What the device does as the camera comes and goes. All in the camera thread."""

    def came(self, camera: Camera) -> None:
        """The camera is open: read what clients are to be told. May raise `QsiError`s."""

    def ready(self) -> None:
        """CONNECTION is Ok: define the vectors."""

    def leaving(self, camera: Camera) -> None:
        """The camera can still be reached: leave nothing running but the cooler."""

    def went(self) -> None:
        """There is no camera any more: final states, then the vectors go."""


class Connection:
    """`opener` opens the camera; it may take some seconds and raises `QsiError`s."""

    def __init__(self, thread: CameraThread, opener: Callable[[], Camera], host: Host) -> None:
        self._thread = thread
        self._opener = opener
        self._host = host
        self._camera: Camera | None = None
        self._wanted = False
        self.vector = SwitchVector(
            "CONNECTION",
            "Connection",
            MAIN_CONTROL,
            (SwitchElement(CONNECT, "Connect"), SwitchElement(DISCONNECT, "Disconnect", True)),
            permission=Permission.RW,
            rule=Rule.ONE_OF_MANY,
            timeout=TIMEOUT,
            on_request=self._requested,
        )

    def _requested(self, request: Request[bool]) -> None:
        self._wanted = request.values[CONNECT]
        if self._wanted == self.vector[CONNECT] and self.vector.state is not State.BUSY:
            self.vector.set(state=State.OK if self._wanted else State.IDLE)
            return
        # The switches stay as they are until it is true.
        self.vector.set(state=State.BUSY)
        self._thread.post(Priority.CONTROL, self._fulfil)

    def _fulfil(self) -> None:
        """Makes true what was wanted last; requests may have come faster than the camera answers."""
        if self._wanted and self._camera is None:
            self._open()
        elif not self._wanted and self._camera is not None:
            self._close()
        elif self._wanted:
            self.vector.select(CONNECT, state=State.OK)
        else:
            self.vector.select(DISCONNECT, state=State.IDLE)

    def _open(self) -> None:
        camera = None
        try:
            camera = self._opener()
            self._host.came(camera)
        except Exception as error:
            log.info("connecting failed", exc_info=error)
            if camera is not None:
                camera.close()
            self._wanted = False
            self._host.went()
            self.vector.select(DISCONNECT, state=State.ALERT, message=explain(error), level=Level.ERROR)
            return
        self._camera = camera
        identity = camera.identity
        self.vector.select(
            CONNECT,
            state=State.OK,
            message=f"QSI {identity.model}, serial {identity.serial}, firmware {identity.firmware}",
        )
        self._host.ready()

    def _close(self) -> None:
        """What the user asked for."""
        self.release()
        self.vector.select(DISCONNECT, state=State.IDLE)
        self._host.went()

    def _lose(self, error: Disconnected) -> None:
        """The camera left by itself."""
        camera, self._camera = self._camera, None
        self._wanted = False
        self._thread.clear()
        if camera is not None:
            camera.close()
        self.vector.select(DISCONNECT, state=State.ALERT, message=explain(error), level=Level.ERROR)
        self._host.went()

    def trouble(self, error: Exception) -> None:
        """An error of a job, in the camera thread."""
        if isinstance(error, Disconnected):
            if self._camera is not None:
                self._lose(error)
        elif isinstance(error, LinkError):
            log.warning("%s", error)
        else:
            log.error("a job of the camera thread failed", exc_info=error)

    def release(self) -> None:
        """Lets the camera go, in the camera thread; nothing is left running but the cooler."""
        camera, self._camera = self._camera, None
        if camera is None:
            return
        self._thread.clear()
        try:
            self._host.leaving(camera)
        except QsiError as error:
            log.warning("the camera could not be left in order: %s", error)
        camera.close()
