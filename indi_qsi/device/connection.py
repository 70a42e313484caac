# SPDX-License-Identifier: LGPL-2.1-or-later
"""CONNECTION: opening the camera, letting it go, and noticing that it left.

CONNECT is On only while the camera can really be used, because some clients look at the switch and not at the
state. All values are read from the camera before it turns On; then everything is defined in one burst.

A camera that leaves by itself is waited for: the vectors stay, CONNECTION says Alert, and the camera is
opened again, by its serial number, as soon as it is back, unless the user disconnects.

Requests are carried out in their order. A disconnect overtakes everything else, and ends an attempt to
connect.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from indi_qsi.device.subject import MAIN_CONTROL, explain
from indi_qsi.device.worker import CameraThread, Job
from indi_qsi.properties import (
    Answer,
    Level,
    Permission,
    Request,
    Rule,
    State,
    SwitchElement,
    SwitchVector,
)
from usbproto.errors import (
    AccessError,
    Disconnected,
    Interrupted,
    LinkError,
    NoCamera,
    QsiError,
    Refused,
    TimedOut,
)

if TYPE_CHECKING:
    from usbproto.camera import Camera
    from usbproto.session import Session

log = logging.getLogger(__name__)

TIMEOUT = 60.0  # s, advisory
CONNECT, DISCONNECT = "CONNECT", "DISCONNECT"
# s between attempts to get a lost camera back; it needs 6 s to power up. The last one repeats.
BACK_OFF = (1.0, 2.0, 4.0, 8.0, 15.0)
NOT_CONNECTED = NoCamera("The camera is not connected", "Connect it first")
DISCONNECTED = NoCamera("The camera was disconnected before this was done", "Connect it, and try again")
AWAY = Disconnected("The camera is away", "It is used again as soon as it is back")
LOST = Disconnected("The camera was lost before this was done", "Try again when it is back")


class Host(Protocol):
    """What the device does as the camera comes and goes. All in the camera thread."""

    def session(self) -> Session:
        """What a new connection with the camera is to go by, and to report to."""

    def open(self, session: Session, only: str | None = None) -> Camera:
        """Opens the camera of this device; takes a minute at most. Raises `QsiError`s.

        `only` is the USB serial number of a camera that was lost: no other camera will do.
        """

    def came(self, camera: Camera) -> None:
        """The camera is open: read what clients are to be told. May raise `QsiError`s."""

    def ready(self, camera: Camera) -> None:
        """CONNECTION is Ok: define the vectors."""

    def leaving(self, camera: Camera) -> None:
        """The camera can still be reached: leave nothing running but the cooler."""

    def went(self) -> None:
        """There is no camera any more: final states, then the vectors go."""

    def lost(self) -> None:
        """The camera left by itself: final states; the vectors stay."""

    def back(self, camera: Camera) -> None:
        """The camera that was lost is open again. May raise `QsiError`s."""


@dataclass(frozen=True, slots=True, eq=False)
class Wish:
    """A request for a connected camera, or for none."""

    connect: bool
    answer: Answer[bool]


class Connection:
    """See the module."""

    def __init__(self, thread: CameraThread, host: Host) -> None:
        self._thread = thread
        self._host = host
        self._camera: Camera | None = None
        self._session: Session | None = None  # of the last attempt to open a camera
        self._opening: Session | None = None  # the same, while it goes on
        self._lock = threading.Lock()
        self._posted = False  # `_fulfil` is on its way
        self._wishes: list[Wish] = []  # that wait: a disconnect, a connect, or one after the other
        self._lost = False  # the camera is waited for
        self._lost_serial: str | None = None  # its USB serial number
        self._attempts = 0
        self._obstacle = ""  # what was said to be in the way of getting it back
        self._next_attempt: Job | None = None
        thread.suspend(NOT_CONNECTED, NOT_CONNECTED)
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

    @property
    def waiting(self) -> bool:
        """Whether a camera that left by itself is waited for."""
        return self._lost

    def _requested(self, request: Request[bool]) -> None:
        self.request(request.values[CONNECT])

    @property
    def settled(self) -> bool:
        """Whether no camera is connected, waited for, or about to be connected or disconnected."""
        return self.vector.state is not State.BUSY and not self._lost and self.vector[DISCONNECT]

    def request(self, connect: bool) -> None:
        """Asks for a connected camera, or for none. Any thread; does not wait."""
        with self._lock:
            if self.vector.state is not State.BUSY and not self._lost and connect == self.vector[CONNECT]:
                self.vector.set(state=State.OK if connect else State.IDLE)
                return
            # The switches stay as they are until it is true.
            wish = Wish(connect, self.vector.accept())
            # A disconnect makes a waiting connect useless; a second equal request adds nothing.
            while self._wishes and (self._wishes[-1].connect or not connect):
                self._wishes.pop().answer.superseded()
            self._wishes.append(wish)
            posted, self._posted = self._posted, True
        if not connect:
            self.stop_opening()
        if not posted:
            self._thread.post_always(self._fulfil)

    def stop_opening(self) -> None:
        """Has an attempt to open the camera end soon, however long it would wait. Any thread."""
        session = self._opening
        if session is not None:
            session.stop.request()

    def _to_disconnect(self) -> bool:
        """Whether a disconnect waits: an attempt to connect is in vain."""
        with self._lock:
            return any(not wish.connect for wish in self._wishes)

    def _fulfil(self) -> None:
        """Carries out the requests that wait, in their order."""
        while True:
            with self._lock:
                if not self._wishes:
                    self._posted = False
                    return
                wish = self._wishes.pop(0)
            try:
                self._carry_out(wish)
            except Exception as error:  # the next one gets its turn all the same
                log.exception("a request for CONNECTION failed")
                wish.answer.end(State.ALERT, message=explain(error))

    def _carry_out(self, wish: Wish) -> None:
        if not wish.connect:
            self._close(wish.answer)
        elif self._lost:
            self._retry(wish.answer)
        elif self._camera is None:
            self._open(wish.answer)
        else:
            wish.answer.end(State.OK, {CONNECT: True})

    def _open(self, answer: Answer[bool]) -> None:
        try:
            camera = self._opened(self._host.came)
        except Interrupted:
            self._host.went()
            message = "Connecting was stopped, as requested"
            answer.end(State.IDLE, {DISCONNECT: True}, message=message, level=Level.INFO)
            return
        except Exception as error:
            log.info("connecting failed", exc_info=error)
            self._host.went()
            answer.end(State.ALERT, {DISCONNECT: True}, message=self._failure(error))
            return
        self._tell_connected(camera, answer)
        try:
            self._host.ready(camera)
        except Exception as error:
            log.exception("connected, but the properties could not be defined")
            self._close(None, State.ALERT, explain(error))

    def _opened(self, greet: Callable[[Camera], None], only: str | None = None) -> Camera:
        """Opens a camera and has it greeted; if that fails the camera is let go again."""
        session = self._opening = self._session = self._host.session()
        try:
            if self._to_disconnect():  # asked for before there was anything to stop
                raise Interrupted
            camera = self._host.open(session, only)
            self._thread.resume()
            try:
                greet(camera)
                session.stop.check()  # a subject may have taken it for a failure of its own
            except BaseException:
                refusal = AWAY if self._lost else NOT_CONNECTED
                self._thread.suspend(refusal, refusal)
                camera.close()
                if self._lost:
                    self._host.lost()  # what had begun to use it again
                raise
        finally:
            self._opening = None
        self._camera = camera
        return camera

    def _failure(self, error: Exception) -> str:
        """Why the camera could not be opened. Of one that could not be claimed there are no exchanges."""
        if self._session is not None and not isinstance(error, AccessError):
            self._session.failed("connect", explain(error))
        return explain(error)

    def _tell_connected(self, camera: Camera, answer: Answer[bool] | None) -> None:
        who = camera.identity
        message = f"QSI {who.model}, serial {who.serial}, firmware {who.firmware or 'unknown'}"
        self._settle(answer, State.OK, CONNECT, message, Level.INFO)

    def _settle(
        self, answer: Answer[bool] | None, state: State, element: str, message: str | None, level: Level
    ) -> None:
        """Shows what is true now: as the end of a request, or because it happened by itself."""
        if answer is not None:
            answer.end(state, {element: True}, message=message, level=level)
        else:
            self.vector.select(element, state=state, message=message, level=level)

    def _close(
        self, answer: Answer[bool] | None, state: State = State.IDLE, reason: str | None = None
    ) -> None:
        """Lets the camera go for good: what the user asked for, or (with a reason) had to be."""
        there = self._camera is not None or self._lost
        self._lost = False
        self.release()
        self._settle(answer, state, DISCONNECT, reason, Level.ERROR)
        if there:
            self._host.went()

    def _lose(self, error: LinkError) -> None:
        """The camera left by itself, or stopped answering: it is waited for."""
        camera, self._camera = self._camera, None
        assert camera is not None
        self._lost = True
        self._lost_serial = camera.usb_serial
        self._attempts = 0
        self._obstacle = ""
        self._thread.suspend(AWAY, LOST)
        camera.session.failed("lost", explain(error))
        camera.close()
        self._host.lost()
        self.vector.select(
            DISCONNECT,
            state=State.ALERT,
            message=f"{explain(error)}. Waiting for it to come back",
            level=Level.ERROR,
        )
        self._retry_later()

    def _retry_later(self) -> None:
        """One attempt is on its way at any time, never two."""
        if self._next_attempt is not None:
            self._next_attempt.cancel()
        delay = BACK_OFF[min(self._attempts, len(BACK_OFF) - 1)]
        self._attempts += 1
        self._next_attempt = self._thread.post_always(self._retry, delay=delay)

    def _retry(self, answer: Answer[bool] | None = None) -> None:
        """`answer`: a client asked for it."""
        if not self._lost or self._to_disconnect():
            if answer is not None:
                answer.superseded()  # by the disconnect
            return
        try:
            camera = self._opened(self._host.back, self._lost_serial)
        except Interrupted:
            if answer is not None:
                answer.superseded()
            return
        except Exception as error:
            log.info("the camera is not back yet: %s", error)
            reason = explain(error)
            # That it is not there was to be expected; what else is in the way is said once.
            news = not isinstance(error, NoCamera | Disconnected) and reason != self._obstacle
            if news or answer is not None:
                self._obstacle = reason
                self._settle(answer, State.ALERT, DISCONNECT, self._failure(error), Level.ERROR)
            self._retry_later()
            return
        self._lost = False
        self._tell_connected(camera, answer)

    def trouble(self, error: Exception) -> None:
        """An error of a job, in the camera thread."""
        camera = self._camera
        silent = isinstance(error, TimedOut) and camera is not None and camera.silent
        if isinstance(error, Disconnected) or silent:
            if camera is not None:
                assert isinstance(error, LinkError)
                self._lose(error)
        elif isinstance(error, LinkError | Refused):
            log.warning("%s", error)
        else:
            log.error("a job of the camera thread failed", exc_info=error)

    def release(self) -> None:
        """Lets the camera go, in the camera thread; nothing is left running but the cooler."""
        camera, self._camera = self._camera, None
        self._thread.suspend(NOT_CONNECTED, DISCONNECTED)
        if camera is None:
            return
        if camera.silent:
            log.warning("the camera could not be left in order: it does not answer")
            camera.close()
            return
        try:
            self._host.leaving(camera)
        except QsiError as error:
            log.warning("the camera could not be left in order: %s", error)
        camera.close()
