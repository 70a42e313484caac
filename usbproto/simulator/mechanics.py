# SPDX-License-Identifier: LGPL-2.1-or-later
"""The moving parts and the relays of a simulated camera: shutter, filter wheel, guider relays."""

from __future__ import annotations

from collections.abc import Callable

from usbproto.models import RELAY_UNIT
from usbproto.simulator.events import EventLog
from usbproto.simulator.timeline import Event, Timeline

SHUTTER_TIME = 0.2  # s a movement of the mechanical shutter (wire protocol, section 3.3)
SLOT_TIME = 0.7  # s from one filter to its neighbour; assumed
WHEEL_SETTLE = 0.3  # s at the end of a move; assumed

# Device errors (wire protocol, section 5).
WHEEL_FAILED = 5
SHUTTER_FAILED = 6

Done = Callable[[], None]


class Shutter:
    """The mechanical shutter. `jams`: the next movement fails; `failed`: it stays where it is."""

    def __init__(self, timeline: Timeline, log: EventLog) -> None:
        self._timeline = timeline
        self._log = log
        self._moving: Event | None = None
        self.open = False
        self.jams = False
        self.failed = False
        self.reported = False  # the host was told of the failure

    @property
    def moving(self) -> bool:
        return self._moving is not None

    def move(self, to_open: bool, done: Done = lambda: None) -> None:
        """`done` is called when it is there: at once when it is there already, or never will be."""
        if self._moving is not None:
            self._moving.cancel()
            self._moving = None
        if self.open == to_open or self.failed:
            done()
            return

        def arrive() -> None:
            self._moving = None
            if self.jams:
                self.jams, self.failed, self.reported = False, True, False
            else:
                self.open = to_open
            self._log.emit("shutter", open=self.open, failed=self.failed)
            done()

        self._moving = self._timeline.after(SHUTTER_TIME, arrive)

    def power_off(self) -> None:
        """Without power a spring closes it (assumed); a failure is forgotten."""
        if self._moving is not None:
            self._moving.cancel()
            self._moving = None
        self.open = self.jams = self.failed = False


class Wheel:
    """The filter wheel, turning the short way round. `failed`: position unknown, it moves no more."""

    def __init__(self, slots: int, timeline: Timeline, log: EventLog) -> None:
        self.slots = slots
        self._timeline = timeline
        self._log = log
        self._arrival: Event | None = None
        self._waiting: list[Done] = []
        self.position = 0
        self.trim = 0
        self.failed = False
        self.jams = False  # the next move fails
        self.drags = 0.0  # s that the next move takes longer

    @property
    def moving(self) -> bool:
        return self._arrival is not None

    def move(self, position: int) -> None:
        """Begin to turn; `when_still` tells the end."""
        steps = abs(position - self.position)
        steps = min(steps, self.slots - steps)
        self._log.emit("filter", position=position)
        if not steps and not self.jams and not self.drags:
            self._arrive(position)
            return
        seconds = steps * SLOT_TIME + WHEEL_SETTLE + self.drags
        self.drags = 0.0
        self._arrival = self._timeline.after(seconds, lambda: self._arrive(position))

    def _arrive(self, position: int) -> None:
        self._arrival = None
        if self.jams:
            self.jams, self.failed = False, True
        else:
            self.position = position
        self._log.emit("filter_end", position=self.position, failed=self.failed)
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done()

    def when_still(self, done: Done) -> None:
        """Call `done` when no filter moves: maybe at once."""
        if self.moving:
            self._waiting.append(done)
        else:
            done()

    def power_off(self) -> None:
        """At the next power-up the wheel finds its first position."""
        if self._arrival is not None:
            self._arrival.cancel()
        self._arrival = None
        self._waiting.clear()
        self.position = self.trim = 0
        self.drags = 0.0
        self.failed = self.jams = False


# (axis, sign): ("x", 1) east, ("x", -1) west, ("y", 1) north, ("y", -1) south.
Direction = tuple[str, int]


class Relays:
    """The four guider relays, of which one is closed at a time. `on_change` is the mount's ear."""

    def __init__(self, timeline: Timeline, log: EventLog) -> None:
        self._timeline = timeline
        self._log = log
        self._end: Event | None = None
        self.active: Direction | None = None
        self.stuck = False  # a relay that closes does not open again
        self.on_change: Callable[[Direction | None], None] = lambda direction: None

    def pulse(self, x: int, y: int) -> None:
        """Close one relay for a time in 10 ms; with both axes set, X alone. A running pulse is cut off."""
        self.stop()
        length, axis = (x, "x") if x else (y, "y")
        if not length:
            return
        self._log.emit("relay", x=x, y=0 if x else y)
        self.active = (axis, 1 if length > 0 else -1)
        self.on_change(self.active)
        self._end = self._timeline.after(abs(length) * RELAY_UNIT, lambda: self._open(aborted=False))

    def stop(self) -> None:
        """Cut a running pulse off."""
        if self.active is not None:
            self._open(aborted=True)

    def _open(self, aborted: bool) -> None:
        if self._end is not None:
            self._end.cancel()
            self._end = None
        if self.stuck or self.active is None:
            return
        axis = self.active[0]
        self.active = None
        self.on_change(None)
        self._log.emit("relay_end", axis=axis, aborted=aborted)

    def power_off(self) -> None:
        self.stuck = False
        self.stop()
