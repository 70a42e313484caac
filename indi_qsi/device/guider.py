# SPDX-License-Identifier: LGPL-2.1-or-later
"""The guide port: TELESCOPE_TIMED_GUIDE_NS and TELESCOPE_TIMED_GUIDE_WE.

    request -> Busy at once -> Idle, once, when the relay has really opened      trouble -> Alert

For clients the axes are independent; the camera drives one at a time, so they take turns. A new pulse
replaces the one of its own axis, running or waiting, and answers for it; 0 stops it. A pulse that had to wait
for the link until it is too old to be good (an image transfer cannot be interrupted) is not sent but
reported. Exactly one update that is not Busy ends a pulse, and none comes unasked: guiding programs wait for
it without a limit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from indi_qsi.device.activity import Activity
from indi_qsi.device.subject import Subject, explain
from indi_qsi.device.worker import CameraThread, Job, Priority
from indi_qsi.properties import Answer, NumberElement, NumberVector, Permission, Request, State, Vector
from usbproto.errors import Disconnected, LinkError, NoCamera, NotSupported, TimedOut

if TYPE_CHECKING:
    from usbproto.camera import Camera
    from usbproto.relays import Direction, Relays

GUIDER_CONTROL = "Guider Control"
TIMEOUT = 60.0  # s, advisory
LONGEST = 50_000  # ms; the camera's limit
SHORTEST = 5  # ms; the camera counts in 10 ms, and less than half of that is nothing
# A correction that comes later than this after it was asked for moves a star that has moved meanwhile.
STALE = 1.0  # s
END_POLL = 0.01  # s between questions whether the relay has opened; one unit of the camera's timer
BLOCKED_POLL = 0.1  # s between looks whether the camera may be asked again
END_LIMIT = 2.0  # s that a relay may stay closed beyond its time
# While the camera cannot be asked it times the pulse itself, and this covers its granularity.
END_MARGIN = 0.03  # s
ASKED_MARGIN = 0.25  # s for an answer to the question whether the relay has opened; far more than it takes
NORTH = "NORTH"
UP_TAKEN = (
    "The guide port cannot guide north: its 'up' output follows the shutter. "
    "Switch 'Shutter on Guide Port' off first"
)
TOO_LATE = (
    f"A guide pulse could not be sent within {STALE:g} s and was dropped: "
    "the camera was sending an image, or waited for its trigger"
)


@dataclass(frozen=True)
class Axis:
    """One of the two vectors, with the names of its directions as they are on the wire and in usbproto."""

    vector: str
    label: str
    positive: tuple[str, str, str]
    negative: tuple[str, str, str]


NORTH_SOUTH = Axis(
    "TELESCOPE_TIMED_GUIDE_NS",
    "Guide N/S",
    ("TIMED_GUIDE_N", "North (ms)", NORTH),
    ("TIMED_GUIDE_S", "South (ms)", "SOUTH"),
)
WEST_EAST = Axis(
    "TELESCOPE_TIMED_GUIDE_WE",
    "Guide E/W",
    ("TIMED_GUIDE_W", "West (ms)", "WEST"),
    ("TIMED_GUIDE_E", "East (ms)", "EAST"),
)


@dataclass(eq=False)
class Pulse:
    """One pulse of `seconds`. `latest` (monotonic) is when it is too late to start.

    `answer` is None while it is not accepted. `over` (monotonic, None before the relay closes) is when its
    relay has opened for sure although the camera could not be asked. `unwanted`: it is to be cut off.
    """

    vector: NumberVector
    axis: Axis
    direction: str
    seconds: float
    latest: float
    answer: Answer[float] | None = None
    ends: float = 0.0
    over: float | None = None
    unwanted: bool = False

    def end(self, state: State, message: str | None = None) -> None:
        """Ends its request, unless that has ended."""
        if self.answer is not None:
            self.answer.end(state, dict.fromkeys(self.vector.elements, 0.0), message=message)


class GuidePortUser(Protocol):
    """What else uses the guide port."""

    @property
    def shutter_on_guide_port(self) -> bool:
        """Whether the "up" output follows the shutter, so that it cannot guide north."""


class GuidePort:
    """Takes pulses in turn. All that is known about pulses is under one lock; commands in the camera thread.

    A clock of its own ends and drops pulses while the camera thread is kept by something long: an image, a
    flush, a wait for a trigger.
    """

    def __init__(self, thread: CameraThread, activity: Activity, panel: GuidePortUser) -> None:
        self._thread = thread
        self._activity = activity
        self._panel = panel
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._relays: Relays | None = None
        self._waiting: dict[Axis, Pulse] = {}  # in the order in which their turns come
        self._active: Pulse | None = None
        self._look: Job | None = None

    def open(self, relays: Relays) -> None:
        with self._lock:
            if self._relays is relays:
                return
            self._relays = relays
            self._look = None
        threading.Thread(target=self._watch, args=(relays,), name="guide clock", daemon=True).start()

    def close(self, reason: str) -> None:
        """Every pulse ends, as failed for this reason."""
        with self._lock:
            pulses = [*self._waiting.values(), *([self._active] if self._active else [])]
            self._waiting.clear()
            self._active = self._relays = None
            for pulse in pulses:
                pulse.end(State.ALERT, reason)
            self._changed.notify()

    def ask(self, pulse: Pulse, values: Mapping[str, float]) -> None:
        """Puts a pulse in the place of the one of its axis. Any thread; does not wait."""
        with self._lock:
            refusal = None
            if self._relays is None:
                refusal = "The guide port is not available: the camera is away"
            elif pulse.direction == NORTH and self._panel.shutter_on_guide_port:
                refusal = UP_TAKEN
            if refusal is not None:
                pulse.vector.refuse(refusal)
                return
            pulse.answer = pulse.vector.accept(values)
            self._supersede(pulse.axis, pulse.vector)
            self._waiting[pulse.axis] = pulse
            self._changed.notify()
        self._post()

    def stop(self, axis: Axis, vector: NumberVector) -> None:
        """Ends the pulse of an axis, if there is one: a running one when its relay has opened."""
        with self._lock:
            active, waiting = self._active, self._waiting.pop(axis, None)
            answer = None
            if waiting is not None and waiting.vector is vector:
                answer = waiting.answer
            elif waiting is not None:
                waiting.end(State.IDLE)
            if active is not None and active.axis is axis:
                active.unwanted = True
            if active is not None and active.axis is axis and active.vector is vector:
                active.answer = answer or active.answer
            elif answer is not None:
                answer.end(State.IDLE, dict.fromkeys(vector.elements, 0.0))
            else:
                vector.set(dict.fromkeys(vector.elements, 0.0), state=State.IDLE)
        self._post()

    def _supersede(self, axis: Axis, vector: NumberVector) -> None:
        """Forgets what waits on an axis, has what runs cut off; the vector's new request answers for it."""
        waiting = self._waiting.pop(axis, None)
        if waiting is not None:
            self._replace(waiting, vector)
        active = self._active
        if active is not None and active.axis is axis:
            active.unwanted = True
            if active.vector is vector:
                self._replace(active, vector)

    @staticmethod
    def _replace(pulse: Pulse, by: NumberVector) -> None:
        if pulse.vector is not by:
            pulse.end(State.IDLE)
        elif pulse.answer is not None:
            pulse.answer.superseded()

    # --- camera thread ---

    def _post(self, delay: float = 0.0) -> None:
        with self._lock:
            # One look ahead is enough, however many requests come: the earliest.
            if self._look is not None and self._look.due <= time.monotonic() + delay:
                return
            if self._look is not None:
                self._look.cancel()
            self._look = self._thread.post(Priority.GUIDE, self._step, delay=delay, failed=self._failed)

    def _step(self) -> None:
        """Does whatever is due: ends the active pulse, starts the next."""
        with self._lock:
            self._look = None
            relays, active = self._relays, self._active
            if relays is None or (active is None and not self._waiting):
                return
        if self._activity.waiting_for_trigger:
            self._post(BLOCKED_POLL)
            return
        if active is None or self._settled(relays, active):
            self._start_next(relays)

    def _settled(self, relays: Relays, pulse: Pulse) -> bool:
        """Whether the active pulse has ended; looked at again if not."""
        now = time.monotonic()
        if pulse.unwanted:
            relays.stop()
        elif now < pulse.ends:
            self._post(pulse.ends - now)
            return False
        elif self._activity.reading_out:
            # The camera may not be asked; by the clock the relay has opened.
            if pulse.over is not None and now < pulse.over:
                self._post(pulse.over - now)
                return False
        else:
            pulse.over = now + ASKED_MARGIN
            if not relays.done():
                if now > pulse.ends + END_LIMIT:
                    raise TimedOut("the end of a guide pulse", END_LIMIT)
                self._post(END_POLL)
                return False
        self._end(pulse)
        return True

    def _start_next(self, relays: Relays) -> None:
        with self._lock:
            self._drop_stale()
            if self._active is not None or not self._waiting:
                return
            pulse = self._active = self._waiting.pop(next(iter(self._waiting)))
        if pulse.direction == NORTH and self._panel.shutter_on_guide_port:
            raise NotSupported(UP_TAKEN)
        ask = not self._activity.reading_out
        seconds = relays.pulse(_direction(pulse.direction), pulse.seconds, ask=ask)
        with self._lock:
            pulse.ends = time.monotonic() + seconds
            pulse.over = pulse.ends + END_MARGIN
            self._changed.notify()
        # It may have become unwanted meanwhile.
        self._post(0.0 if pulse.unwanted else seconds)

    def _failed(self, error: Exception) -> None:
        if isinstance(error, Disconnected | NoCamera):
            return  # `close` answers for all
        with self._lock:
            pulse, self._active = self._active, None
            if pulse is not None:
                pulse.end(State.ALERT, f"The guide pulse failed: {explain(error)}")
            relays = self._relays
        if relays is None:
            return
        if isinstance(error, LinkError):
            # Nobody knows whether the relay has closed. It opens before the next pulse.
            with self._lock:
                if self._look is not None:
                    self._look.cancel()
                    self._look = None
            self._thread.post(Priority.GUIDE, relays.stop)
        self._post()

    # --- time passes; any thread ---

    def _watch(self, relays: Relays) -> None:
        """The clock of one connection."""
        with self._lock:
            while self._relays is relays:
                self.tick()
                due = [pulse.latest for pulse in self._waiting.values() if self._ages(pulse)]
                if self._active is not None and self._active.over is not None:
                    due.append(self._active.over)
                self._changed.wait(max(0.0, min(due) - time.monotonic()) if due else None)

    def tick(self) -> None:
        """Ends the pulse that is over by the clock, and drops those that have grown stale."""
        with self._lock:
            active = self._active
            if active is not None and active.over is not None and time.monotonic() >= active.over:
                self._end(active)
            self._drop_stale()

    def _ages(self, pulse: Pulse) -> bool:
        """Whether a pulse waits for the link; to wait for the other axis is the camera's nature."""
        return self._active is None or self._active.axis is pulse.axis

    def _drop_stale(self) -> None:
        now = time.monotonic()
        for axis, pulse in list(self._waiting.items()):
            if now >= pulse.latest and self._ages(pulse):
                del self._waiting[axis]
                pulse.end(State.ALERT, TOO_LATE)

    def _end(self, pulse: Pulse) -> None:
        with self._lock:
            if self._active is not pulse:
                return
            self._active = None
            for waiting in self._waiting.values():
                waiting.latest = max(waiting.latest, time.monotonic() + STALE)
            pulse.end(State.IDLE)
            self._changed.notify()


class GuiderSubject(Subject):
    """The vectors of the guide port, for the camera's own device or for one of its own."""

    def __init__(self, port: GuidePort) -> None:
        self._port = port
        self._there = False
        self._vectors = [self._vector(axis) for axis in (NORTH_SOUTH, WEST_EAST)]

    def _vector(self, axis: Axis) -> NumberVector:
        return NumberVector(
            axis.vector,
            axis.label,
            GUIDER_CONTROL,
            [
                NumberElement(name, label, 0, "%.f", 0, LONGEST, 100)
                for name, label, _ in (axis.positive, axis.negative)
            ],
            permission=Permission.RW,
            timeout=TIMEOUT,
            on_request=lambda request: self._requested(axis, request),
        )

    def vectors(self) -> Sequence[Vector[Any]]:
        return self._vectors if self._there else ()

    def connect(self, camera: Camera) -> None:
        if camera.relays is not None:
            _release(camera.relays)
            self._port.open(camera.relays)
        self.show(camera)

    def show(self, camera: Camera) -> None:
        """What there is to guide by, without a word to the camera. Any thread."""
        self._there = camera.relays is not None
        for vector in self._vectors:
            if not vector.defined:  # nothing is said unasked when a lost camera is back
                vector.set(dict.fromkeys(vector.elements, 0.0), state=State.IDLE)

    def back(self, camera: Camera) -> None:
        if camera.relays is not None:
            _release(camera.relays)
            self._port.open(camera.relays)

    def leave(self, camera: Camera) -> None:
        if camera.relays is not None:
            _release(camera.relays)

    def lost(self) -> None:
        self._port.close("The camera was lost during a guide pulse")

    def disconnect(self) -> None:
        self._port.close("The camera was disconnected during a guide pulse")

    def stop(self) -> None:
        """Ends the pulses that these vectors have started."""
        for axis, vector in zip((NORTH_SOUTH, WEST_EAST), self._vectors, strict=True):
            if vector.state is State.BUSY:
                self._port.stop(axis, vector)

    def _requested(self, axis: Axis, request: Request[float]) -> None:
        vector = request.vector
        assert isinstance(vector, NumberVector)
        # What a client leaves out is no pulse, whatever the last one was; the first direction wins.
        positive = request.given.get(axis.positive[0], 0.0) > 0
        name, _, direction = axis.positive if positive else axis.negative
        milliseconds = request.given.get(name, 0.0)
        if milliseconds < SHORTEST:
            self._port.stop(axis, vector)
            return
        values = dict.fromkeys(vector.elements, 0.0) | {name: milliseconds}
        pulse = Pulse(vector, axis, direction, milliseconds / 1000, time.monotonic() + STALE)
        self._port.ask(pulse, values)


def _release(relays: Relays) -> None:
    """No relay stays closed: not behind us, and not behind a program that was killed or cut off."""
    if not relays.done():
        relays.stop()


def _direction(name: str) -> Direction:
    from usbproto.relays import Direction

    return Direction[name]
