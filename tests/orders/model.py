# SPDX-License-Identifier: LGPL-2.1-or-later
"""A sequential model of a camera and its order book. Pure: it judges a record, and knows nothing of the driver.

The model carries out the accepted requests one after the other, in the order in which they were dispatched.
What the camera was told, and how each request was answered, must look as if the driver had done the same.
Where a fault came between, what became of an order may not be certain: then any value is right (`ANY`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.orders.record import FAULTS, LASTING, SENSOR, Event, Record

ANY = "any"
EXPOSURE, DURATION = "CCD_EXPOSURE", "CCD_EXPOSURE_VALUE"
TEMPERATURE, TEMPERATURE_VALUE = "CCD_TEMPERATURE", "CCD_TEMPERATURE_VALUE"
COOLER, ABORT, WHEEL, ROLE, CONNECTION = (
    "CCD_COOLER",
    "CCD_ABORT_EXPOSURE",
    "FILTER_SLOT",
    "CCD_ROLE",
    "CONNECTION",
)
NS, WE = "TELESCOPE_TIMED_GUIDE_NS", "TELESCOPE_TIMED_GUIDE_WE"
# Vector -> the camera's name of the setting, and its value for each element.
SETTINGS: dict[str, tuple[str, dict[str, int]]] = {
    "Fan": ("fan", {"Off": 0, "Quiet": 1, "Full": 2}),
    "Gain": ("gain", {"High": 0, "Low": 1, "Auto": -1}),
    "READOUT_QUALITY": ("fast_readout", {"QUALITY_HIGH": 0, "QUALITY_LOW": 1}),
    "CCD_FLUSH": (
        "flush",
        {
            "FLUSH_NONE": 0,
            "FLUSH_MODEST": 1,
            "FLUSH_NORMAL": 2,
            "FLUSH_AGGRESSIVE": 3,
            "FLUSH_VERY_AGGRESSIVE": 4,
        },
    ),
    "SHUTTER_PRIORITY": ("shutter_priority", {"PRIORITY_MECHANICAL": 0, "PRIORITY_ELECTRONIC": 1}),
}
# Kept by the driver for each role, with what a camera begins with.
KEPT = {
    "Fan": "Full",
    "Gain": "High",
    "READOUT_QUALITY": "QUALITY_HIGH",
    "CCD_FLUSH": "FLUSH_NORMAL",
    "SHUTTER_PRIORITY": "PRIORITY_MECHANICAL",
    "AUTO_ZERO": "INDI_ENABLED",
}
# Off again with each connect.
MODES = {"CCD_SHUTTER": "SHUTTER_AUTO", "EXTERNAL_TRIGGER": "TRIGGER_OFF"}
SHUTTER_BITS = {"SHUTTER_ON": 0x10, "SHUTTER_OFF": 0x20, "SHUTTER_AUTO": 0}
TRIGGERS = {"TRIGGER_OFF": 0, "TRIGGER_LONG_FALLING": 6, "TRIGGER_LONG_RISING": 7}
FRAME, BINNING, TYPE, MODE = "CCD_FRAME", "CCD_BINNING", "CCD_FRAME_TYPE", "UPLOAD_MODE"
TYPES = {"FRAME_LIGHT": "Light", "FRAME_BIAS": "Bias", "FRAME_DARK": "Dark", "FRAME_FLAT": "Flat"}
SWITCHES = (*KEPT, *MODES, TYPE, MODE, ROLE, "LINK_TIMING")
# Nothing is sent about these unless somebody asks.
STRICT = frozenset(
    {*SWITCHES, FRAME, BINNING, WHEEL, NS, WE, ABORT, "FILTER_NAME", "PIXEL_MASK", "UPLOAD_SETTINGS"}
)
JUDGED = STRICT | {EXPOSURE, TEMPERATURE, COOLER, CONNECTION}
# Between the end of an exposure and TransferImage.
QUIET_COMMANDS = frozenset({"GetDeviceState", "ActivateRelay", "AbortRelays"})
THRESHOLD = 0.25  # K from the set point; 0.2 by the driver's own default, and the thermometer's last digit
LONGEST_PULSE, SHORTEST_PULSE = 50_000, 5  # ms
RELAY_UNIT = 10  # ms
SET_POINTS = -40.0, 50.0  # degC
SLOTS = 5
EXPOSURES = {"683wsg": (0.03, 14_400.0), "640wsg": (0.0001, 14_400.0)}
LOSS = ("left the USB", "The camera was lost", "The camera is away")
CUT = "The cooler was switched off, which ended the wait for the trigger"
STALE = 0.9  # s after which a guide pulse that could not be sent may be dropped
ERROR = "[ERROR]"
# s in which commands may be on their way while a client changes its mind: with the vendor's timing, three of 48 ms.
RACE = 0.15


@dataclass(eq=False)
class Order:
    """One request. `verdict`: accepted, refused, or undefined (its vector is not defined now).

    `outcome` is the final state that answered it, and `ended` the index of that update. `aborted` is the index
    of the abort. `troubled`: a fault was not over when it was asked for. `doubted`: one of the open requests for
    its vector was refused later, by a message, and it may be this one.
    """

    index: int
    event: Event
    begin: float  # of the sequence
    verdict: str = "accepted"
    outcome: str = ""
    ended: int = 0
    message: str = ""
    aborted: int = 0
    troubled: bool = False
    doubted: bool = False
    expected: dict[str, Any] = field(default_factory=dict)
    started: int = 0  # index of the event that the camera began with it
    frames: int = 0
    files: int = 0

    @property
    def vector(self) -> str:
        return self.event.name

    @property
    def element(self) -> str:
        return next((name for name, text in self.event.data.items() if text == "On"), "")

    def number(self, name: str) -> float:
        return number(self.event.data.get(name, "nan"))

    def __str__(self) -> str:
        values = " ".join(f"{name}={value}" for name, value in self.event.data.items())
        return f"c{self.event.client} {self.vector}.{values} (at {self.event.at - self.begin:.3f})"


def number(text: str) -> float:
    """nan for what is no number."""
    try:
        return float(text)
    except ValueError:
        return math.nan


@dataclass
class Camera:
    """What the simulated camera has been told so far."""

    settings: dict[str, int]
    alt_mode: int
    cooling: tuple[bool, bool, float]
    slot: int
    moving: bool = False
    trigger: int = 0
    initial: dict[str, int] = field(default_factory=dict)

    def hear(self, event: Event) -> None:
        facts = event.data
        match event.name:
            case "settings":
                self.settings = {name: int(facts[name]) for name in self.settings}
            case "alt_mode":
                self.alt_mode = facts["bits"]
            case "trigger_mode":
                if facts["mode"] in TRIGGERS.values():
                    self.trigger = facts["mode"]
            case "command" if facts["command"] == "Init":
                self.trigger = 0
            case "temperature":
                self.cooling = facts["on"], facts["ambient"], facts["set_point"]
            case "filter":
                self.moving = True
            case "filter_end":
                self.moving, self.slot = False, facts["position"] + 1
            case "power" if not facts["on"]:
                self.settings = dict(self.initial)
                self.alt_mode = self.trigger = 0
                self.cooling = False, False, self.cooling[2]
                self.slot, self.moving = 1, False


class Judge:
    """`problems` says what was wrong, in sentences; empty when all is right."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.events = record.events
        self.begin = self.events[0].at if self.events else 0.0
        self.problems: list[str] = []
        self.orders: list[Order] = []
        initial = {"fan": 2, "gain": 0, "shutter_priority": 0, "flush": 2, "fast_readout": 0}
        self.camera = Camera(
            dict(record.camera_settings),
            record.alt_mode,
            record.cooling,
            record.wheel + 1,
            initial=initial,
        )
        self.defined = set(record.before)
        self.state = dict.fromkeys(record.before, "Idle") | record.states_before
        self.final: dict[str, tuple[int, Event]] = {}
        self.open: dict[str, list[Order]] = {}
        self.refusals: dict[int, Order] = {}
        self.trouble = False  # a fault whose consequences may not be over
        self.faulty = False  # any fault so far
        self.connected = True
        self.lost = False
        self.changing = 0  # index of the last event after which vectors may be told unasked
        self.snapshots: dict[int, dict[str, Any]] = {}
        self.kept: dict[str, dict[str, Any]] = {}  # by role, when the sequence is over

    def judge(self) -> list[str]:
        self._walk()
        self._end()
        self._replay()
        return self.problems

    def _wrong(self, index: int, text: str) -> None:
        event = self.events[min(index, len(self.events) - 1)]
        self.problems.append(f"at {event.at - self.begin:.3f}: {text}")

    # --- first pass: requests and their answers ---

    def _walk(self) -> None:
        quiet = Quiet(self)
        relays = RelayWatch(self)
        for index, event in enumerate(self.events):
            if event.kind == "request":
                self._request(index, event)
            elif event.kind == "set":
                self._update(index, event)
            elif event.kind == "def":
                self.defined.add(event.name)
                self.state[event.name] = event.state
                self.open.pop(event.name, None)
                self.changing = index
            elif event.kind == "del":
                self._deleted(index, event)
            elif event.kind == "step":
                self._step(event)
                self.changing = index
            elif event.kind == "camera":
                if event.name == "expose":
                    self.snapshots[index] = self._snapshot()
                self.camera.hear(event)
                quiet.hear(index, event)
                relays.hear(index, event)
        self.relays = relays

    def _step(self, event: Event) -> None:
        if event.name in FAULTS:
            self.faulty = True
            self.trouble = self.trouble or event.name in ("unplug", "power_off", "fail")

    def _snapshot(self) -> dict[str, Any]:
        camera = self.camera
        return {
            **camera.settings,
            "alt_mode": camera.alt_mode,
            "trigger": camera.trigger,
            "cooling": camera.cooling,
            "slot": camera.slot,
            "moving": camera.moving,
        }

    def _request(self, index: int, event: Event) -> None:
        order = Order(index, event, self.begin, troubled=self.trouble)
        self.orders.append(order)
        vector = event.name
        if vector not in self.defined:
            order.verdict = "undefined"
            return
        own = [(at, e) for at, e in self._between(index, event.end) if e.own]
        answers = [(at, e) for at, e in own if e.kind == "set" and e.name == vector]
        told = [e for _, e in own if e.kind == "message" and ERROR in e.message]
        refusing = [at for at, e in answers if ERROR in e.message]
        taken = any(e.state == "Busy" and ERROR not in e.message for _, e in answers)
        # One that becomes Busy first, and ends as Alert in the same call, is a request that failed.
        if (refusing and not taken) or (told and not answers):
            order.verdict = "refused"
            self.refusals.update(dict.fromkeys(refusing, order))
        elif not answers and self.state[vector] != "Busy":
            self._wrong(index, f"{order}: neither an update nor a message answers it")
        self._check_verdict(index, order)
        if order.verdict != "accepted":
            return
        if vector == ABORT:
            for exposure in self.open.get(EXPOSURE, ()):
                exposure.aborted = exposure.aborted or index
        if vector in (ROLE, CONNECTION):
            self.changing = event.end
        self.open.setdefault(vector, []).append(order)

    def _between(self, first: int, last: int) -> Iterator[tuple[int, Event]]:
        return ((at, self.events[at]) for at in range(first + 1, last))

    def _check_verdict(self, index: int, order: Order) -> None:
        """Whether a request was rightly accepted or refused."""
        accepted = order.verdict == "accepted"
        if reason := self._invalid(order):
            if accepted:
                self._wrong(index, f"{order} was accepted although {reason}")
            return
        if order.vector == WHEEL:
            asked = self.open.get(EXPOSURE)
            ends = any(
                e.kind == "set" and e.name == EXPOSURE and e.state != "Busy"
                for _, e in self._between(index, order.event.end)
            )
            # A camera that has lost its power has another slot than the driver knows.
            stays = order.number("FILTER_SLOT_VALUE") == self.camera.slot or self.faulty
            if asked:
                going_on = not ends and not any(o.aborted for o in asked)
                if accepted and going_on and not stays:
                    self._wrong(index, f"{order} was accepted during an exposure")
                return
        leaving = bool(self.open.get(CONNECTION))
        absent = self.trouble or leaving or not self.connected
        if not accepted and not absent and order.vector != CONNECTION:
            said = [self.events[at].message for at, o in self.refusals.items() if o is order]
            self._wrong(index, f"{order} was refused without a cause: {said}")

    def _invalid(self, order: Order) -> str | None:
        """Why a request can never be accepted; None when it is valid."""
        data, vector = order.event.data, order.vector
        switches = [text for text in data.values() if text in ("On", "Off")]
        if len(switches) == len(data) and switches.count("On") != 1:
            return "it switches on no element, or several"
        known = {**{v: set(elements) for v, (_, elements) in SETTINGS.items()}, TYPE: set(TYPES)}
        if vector in known and not set(data) <= known[vector]:
            return "it has no such element"
        checks = {
            EXPOSURE: self._invalid_exposure,
            TEMPERATURE: lambda o: not SET_POINTS[0] <= o.number(TEMPERATURE_VALUE) <= SET_POINTS[1],
            WHEEL: lambda o: not 1 <= o.number("FILTER_SLOT_VALUE") <= SLOTS,
            NS: lambda o: not all(0 <= number(text) <= LONGEST_PULSE for text in o.event.data.values()),
            WE: lambda o: not all(0 <= number(text) <= LONGEST_PULSE for text in o.event.data.values()),
            BINNING: lambda o: not all(1 <= number(text) <= 9 for text in o.event.data.values()),
            FRAME: lambda o: (
                o.number("X") + o.number("WIDTH") > SENSOR[0]
                or o.number("Y") + o.number("HEIGHT") > SENSOR[1]
            ),
            "FILTER_NAME": lambda o: not all(text.strip() for text in o.event.data.values()),
            "PIXEL_MASK": lambda o: "oops" in o.event.data.get("PIXELS", ""),
        }
        check = checks.get(vector)
        return "its value is not valid" if check is not None and check(order) else None

    def _invalid_exposure(self, order: Order) -> bool:
        duration = order.number(DURATION)
        if math.isnan(duration):
            return True
        bias = self.record_value(TYPE, order.index) == "FRAME_BIAS"
        shortest, longest = EXPOSURES[self.record.model]
        return not bias and not shortest <= duration <= longest

    def record_value(self, vector: str, index: int) -> str:
        """The element that was on when event `index` happened, as clients saw it."""
        for event in reversed(self.events[:index]):
            if event.kind in ("set", "def") and event.name == vector:
                shown = event.data
                break
        else:
            shown = self.record.before.get(vector, {})
        return next((name for name, text in shown.items() if text == "On"), "")

    def _update(self, index: int, event: Event) -> None:
        vector, before = event.name, self.state.get(event.name, "")
        if vector == CONNECTION:
            self._connection(index, event)
        if vector not in JUDGED:
            return
        self.state[vector] = event.state
        if index in self.refusals:
            if before == "Busy" and event.state != "Busy":
                self._wrong(
                    index, f"the refusal of {self.refusals[index]} ended the Busy of {vector}: {event.state}"
                )
                self.state[vector] = before  # the rest is judged as if it had stayed
            if before != "Busy" and event.state not in ("Alert", "Idle"):
                self._wrong(index, f"{self.refusals[index]} was refused with the state {event.state}")
            return
        if event.state == "Busy":
            if not self.open.get(vector) and vector not in LASTING | {CONNECTION}:
                self._wrong(index, f"{vector} became Busy, and nobody had asked for anything")
            for order in self.open.get(vector, ()) if ERROR in event.message else ():
                order.doubted = True
            return
        if self.open.get(vector):
            self._finish(index, event)
        elif vector in STRICT and not event.own:
            self._unasked(index, event)

    def _finish(self, index: int, event: Event) -> None:
        """The final state of all open requests for a vector."""
        orders = self.open.pop(event.name, [])
        if not orders:
            return
        for order in orders:
            order.outcome, order.ended, order.message = event.state, index, event.message
        self.final[event.name] = index, event
        problem = self._right_end(index, event, orders[-1])
        if problem:
            self._wrong(index, f"{event.name} ended as {event.state}: {problem}; the newest was {orders[-1]}")

    def _unasked(self, index: int, event: Event) -> None:
        """An update of a vector of which nothing is open."""
        last = self.final.get(event.name)
        excused = event.message or self.trouble or self.open.get(ROLE)
        if last is None or last[0] < self.changing or excused:
            return
        if event.name in (NS, WE) or (event.state, event.data) == (last[1].state, last[1].data):
            self._wrong(index, f"{event.name} was told a second final state, {event.state}")
        elif event.state != last[1].state:
            self._wrong(index, f"{event.name} changed from {last[1].state} to {event.state} unasked")

    def _connection(self, index: int, event: Event) -> None:
        on = event.data.get("CONNECT") == "On"
        if event.state == "Ok" and on:
            self.connected, self.lost = True, False
            if not any(e.name in ("unplug", "power_off") for e in self._unhealed(index)):
                self.trouble = self.trouble and any(
                    e.kind == "step" and e.name == "fail" for e in self.events[:index]
                )
            self.changing = index
        elif event.state != "Busy":
            if event.state == "Alert" and self.connected:
                self.lost = True
                if not self.faulty and not self.open.get(CONNECTION):
                    self._wrong(index, f"the camera was lost without a cause: {event.message}")
            self.connected = False
            self.changing = index

    def _unhealed(self, index: int) -> list[Event]:
        """Faults up to an event that nothing has ended yet."""
        left: list[Event] = []
        for event in self.events[:index]:
            if event.kind != "step":
                continue
            if event.name in ("unplug", "power_off"):
                left.append(event)
            elif event.name in ("replug", "power_on"):
                left.clear()
        return left

    def _deleted(self, index: int, event: Event) -> None:
        vector = event.name
        if vector in JUDGED and self.open.get(vector):
            self._wrong(index, f"{vector} was deleted before {self.open[vector][-1]} had an answer")
        self.open.pop(vector, None)
        self.defined.discard(vector)
        self.state.pop(vector, None)
        self.changing = index

    # --- what the end of a request must be like ---

    def _cause(self, order: Order, index: int) -> bool:
        """Whether a fault or a disconnect explains a failure."""
        if order.troubled or self.trouble:
            return True
        for at in range(order.index, index):
            event = self.events[at]
            if event.kind == "step" and event.name in FAULTS:
                return True
            if event.kind == "request" and event.name == CONNECTION and event.data.get("DISCONNECT") == "On":
                return True
        # A disconnect before it, that is not done yet.
        return any(o.element == "DISCONNECT" for o in self.open.get(CONNECTION, ())) or not self.connected

    def _right_end(self, index: int, event: Event, newest: Order) -> str | None:
        vector = event.name
        if event.state == "Alert":
            return self._right_alert(index, event, newest)
        if vector == CONNECTION:
            wanted = newest.element == "CONNECT"
            if wanted and event.state == "Idle" and not self._cause(newest, index):
                return "the camera is not connected"
            if not wanted and event.state == "Ok":
                return "the camera is not disconnected"
            return None
        if vector == EXPOSURE:
            return self._right_exposure(index, event, newest)
        if vector in (TEMPERATURE, COOLER):
            withdrawn = event.state == "Idle" and self._cause(newest, index)
            return None if withdrawn else self._right_cooling(event, newest)
        if vector in (NS, WE):
            return self.relays_end(index, newest)
        if event.state != "Ok":
            return "a request that was accepted ends in Ok or Alert"
        if vector == WHEEL:
            wanted_slot = newest.number("FILTER_SLOT_VALUE")
            if not self.faulty and (self.camera.moving or self.camera.slot != wanted_slot):
                return f"the wheel is {'moving' if self.camera.moving else f'at {self.camera.slot}'}"
            return None
        return self._right_setting(event, newest)

    def _right_alert(self, index: int, event: Event, newest: Order) -> str | None:
        if not event.message and newest.vector not in LASTING:
            return "no message says why"
        if self.faulty and any(words in event.message for words in LOSS):
            return None  # the loss is noticed by the next command, however long ago it was
        if CUT in event.message and any(o.vector == COOLER for o in self.orders):
            return None  # the cooler's power was cut while the camera waited for its trigger
        late = newest.vector in (NS, WE) and event.at - newest.event.at > STALE
        if not late and not self._cause(newest, index):
            return f"it failed without a cause: {event.message}"
        return None

    def _right_exposure(self, index: int, event: Event, newest: Order) -> str | None:
        if event.state == "Idle":
            return None if newest.aborted else "nobody has aborted it"
        if newest.aborted and index > self.events[newest.aborted].end:
            return "it was aborted"
        return None  # its frame is looked for in the second pass

    def _right_cooling(self, event: Event, newest: Order) -> str | None:
        on, ambient, set_point = self.camera.cooling
        later = [
            o
            for o in self.orders
            if o.vector in (TEMPERATURE, COOLER) and o.verdict == "accepted" and o.index > newest.index
        ]
        if later:
            return None  # it was overtaken by events; the second pass looks at what is left
        if newest.vector == TEMPERATURE:
            target = newest.number(TEMPERATURE_VALUE)
            shown = number(event.data.get(TEMPERATURE_VALUE, "nan"))
            if event.state != "Ok":
                return "a set point is reached in Ok"
            if not (on and not ambient and abs(set_point - target) < 0.01):
                return f"the camera's set point is {self.camera.cooling}"
            if not abs(shown - target) <= THRESHOLD:
                return f"the CCD is at {shown}"
            return None
        if newest.element == "COOLER_ON":
            return (
                None if event.state == "Ok" and on and not ambient else f"the cooler is {self.camera.cooling}"
            )
        return None if event.state == "Idle" and not on else f"the cooler is {self.camera.cooling}"

    def _right_setting(self, event: Event, newest: Order) -> str | None:
        vector, wanted = newest.vector, newest.element
        if newest.doubted:
            return None
        if wanted and vector in SWITCHES:
            shown = next((name for name, text in event.data.items() if text == "On"), "")
            # A role that came later brings its own settings, maybe before this one has been saved.
            if vector != ROLE and any(o.vector == ROLE and o.index > newest.index for o in self.orders):
                return None
            if shown != wanted:
                return f"{shown} is shown"
        camera = self.camera
        if self.trouble:
            return None  # it may have been switched off a moment ago
        if vector in SETTINGS:
            name, values = SETTINGS[vector]
            value = values[wanted]
            if value >= 0 and camera.settings[name] != value:
                return f"the camera still has {name} {camera.settings[name]}"
        elif vector == "CCD_SHUTTER" and (camera.alt_mode & 0x32) != SHUTTER_BITS[wanted]:
            return f"the camera's modes are {camera.alt_mode:#x}"
        elif vector == "EXTERNAL_TRIGGER" and camera.trigger != TRIGGERS[wanted]:
            return f"the camera's trigger mode is {camera.trigger}"
        elif vector in (FRAME, BINNING):
            for name, text in newest.event.data.items():
                if number(event.data.get(name, "nan")) != number(text):
                    return f"{name} is {event.data.get(name)}"
        return None

    def relays_end(self, index: int, newest: Order) -> str | None:
        return None

    # --- at the end ---

    def _end(self) -> None:
        record, last = self.record, len(self.events) - 1
        if record.waiting:
            self._wrong(last, "the camera is back, and is not used again")
        for vector in record.busy:
            self._wrong(last, f"{vector} stays Busy")
        for vector, orders in self.open.items():
            if vector not in LASTING and vector not in record.busy:
                self._wrong(last, f"{orders[-1]} was never answered by a final state")
        for text in record.unlike:
            self._wrong(last, text)
        if record.probed:
            probe = [order for order in self.orders if order.vector == EXPOSURE][-1]
            if probe.outcome != "Ok":
                how = f"{probe.outcome} {probe.message}" if probe.outcome else probe.verdict
                self._wrong(last, f"after all, the camera took no frame: {probe} was {how}")
        self.relays.end()

    # --- second pass: what the camera was told ---

    def _replay(self) -> None:
        """Carries out the accepted requests in the order in which they were dispatched."""
        sequential = Sequential(self.record)
        asked = {order.index: order for order in self.orders}
        exposures: list[Order] = []
        for index, event in enumerate(self.events):
            order = asked.get(index)
            if order is not None and order.verdict == "accepted":
                if order.vector == EXPOSURE:
                    order.expected = sequential.exposure(order)
                    exposures.append(order)
                else:
                    sequential.carry_out(order, self._sure(order))
            elif event.kind == "def" and event.name == EXPOSURE:
                sequential.connect()
            elif event.kind == "step":
                sequential.fault(event.name)
            elif event.kind == "camera" and event.name == "expose":
                self._exposed(index, event, exposures)
            elif event.kind == "frame":
                self._frame(index, event, exposures)
        self._pictures(exposures)
        self._rest(sequential)
        self.kept = {} if self.faulty else sequential.kept

    def _sure(self, order: Order) -> bool:
        """Whether a request was surely carried out."""
        if order.vector in (FRAME, BINNING, TYPE, MODE) and order.outcome == "Ok":
            return True  # they are the driver's own
        if order.vector in LASTING:
            return order.outcome != "Alert" and not self._disturbed(order)
        if order.outcome not in ("Ok", "Idle"):
            return False
        return not self._disturbed(order)

    def _disturbed(self, order: Order) -> bool:
        if order.troubled:
            return True
        end = order.ended or len(self.events)
        for event in self.events[order.index : end]:
            if event.kind == "step" and event.name in FAULTS:
                return True
            if event.kind == "request" and event.name == CONNECTION:
                return True
        return False

    def _exposed(self, index: int, event: Event, exposures: list[Order]) -> None:
        """The camera was told to expose: whose exposure is it, and are all settings right?"""
        seconds = round(event.data["seconds"], 4)
        candidates = [o for o in exposures if o.expected["seconds"] == seconds]
        fresh = [o for o in candidates if not o.started or not seconds]
        if not candidates:
            self._wrong(index, f"the camera exposes for {seconds} s, which nobody has asked for")
            return
        if not fresh and not self.faulty:
            self._wrong(index, f"{candidates[-1]} was started twice")
            return
        found = []
        if not seconds:  # biases are all alike
            fresh = [o for o in fresh if not o.ended or o.ended > index] or fresh
        for order in fresh or candidates[-1:]:
            differences = self._differences(index, event, order)
            if not differences:
                break
            found.append((order, differences))
        else:
            order, differences = min(found, key=lambda each: len(each[1]))
            for text in differences:
                self._wrong(index, f"{order} was exposed with {text}")
        order.started = order.started or index
        if order.ended and event.at - self.events[order.ended].at > RACE and not self.faulty:
            self._wrong(index, f"{order} was started after it had ended as {order.outcome}")

    def _differences(self, index: int, event: Event, order: Order) -> list[str]:
        wanted, real, facts = order.expected, self.snapshots[index], event.data
        texts = []
        for vector, (name, values) in SETTINGS.items():
            element = wanted.get(vector, ANY)
            if element == ANY:
                continue
            value = values[element]
            if value < 0:
                value = 0 if (facts["bin_x"], facts["bin_y"]) == (1, 1) else 1
            if real[name] != value:
                texts.append(f"{name} {real[name]} instead of {value} ({vector} {element})")
        shutter = wanted["CCD_SHUTTER"]
        if shutter != ANY and (real["alt_mode"] & 0x32) != SHUTTER_BITS[shutter]:
            texts.append(f"the modes {real['alt_mode']:#x} instead of {shutter}")
        trigger = wanted["EXTERNAL_TRIGGER"]
        if trigger != ANY and real["trigger"] != TRIGGERS[trigger]:
            texts.append(f"the trigger mode {real['trigger']} instead of {trigger}")
        slot = wanted[WHEEL]
        if slot != ANY and (real["slot"] != slot or real["moving"]):
            texts.append(f"the wheel {'moving' if real['moving'] else 'at'} {real['slot']} instead of {slot}")
        if not cools_like(real["cooling"], wanted["cooling"]):
            texts.append(f"the cooler {real['cooling']} instead of {wanted['cooling']}")
        geometry = tuple(facts[name] for name in ("x", "y", "columns", "rows", "bin_x", "bin_y"))
        if wanted["geometry"] != ANY and geometry != wanted["geometry"]:
            texts.append(f"the window {geometry} instead of {wanted['geometry']}")
        if wanted["light"] != ANY and facts["light"] != wanted["light"]:
            texts.append(f"the shutter {'open' if facts['light'] else 'closed'}")
        return texts

    def _frame(self, index: int, event: Event, exposures: list[Order]) -> None:
        cards = event.data
        seconds = round(number(cards.get("EXPTIME", "nan")), 4)
        candidates = [o for o in exposures if o.expected["seconds"] == seconds and (o.started or not seconds)]
        fresh = [o for o in candidates if not o.frames]
        if not candidates:
            self._wrong(index, f"a frame of {seconds} s came, which nobody has asked for")
            return
        if not seconds:
            self._bias(index, event, candidates)
            return
        order = (fresh or candidates)[0]
        order.frames += 1
        if order.frames > 1:
            self._wrong(index, f"{order} was sent twice")
        if order.ended and order.ended < index:
            self._wrong(index, f"the frame of {order} came after it had ended as {order.outcome}")
        if order.aborted and self.events[order.aborted].end < index:
            self._wrong(index, f"the frame of {order} came although it was aborted")
        if order.expected["upload"] == "UPLOAD_LOCAL":
            self._wrong(index, f"the frame of {order} was sent, although it was to be saved only")
        self._header(index, cards, order)

    def _bias(self, index: int, event: Event, candidates: list[Order]) -> None:
        """A bias frame came, which may be of any of the biases that are not answered."""
        waiting = [o for o in candidates if not o.ended or o.ended > index]
        if not waiting:
            self._wrong(index, "a bias frame came, and every bias had ended")
        for order in waiting:
            order.frames = 1

    def _header(self, index: int, cards: Any, order: Order) -> None:
        wanted = order.expected
        right: dict[str, str] = {}
        if (element := wanted["READOUT_QUALITY"]) != ANY:
            right["READOUTM"] = "Fast" if element == "QUALITY_LOW" else "Quality"
        if (element := wanted["Gain"]) not in (ANY, "Auto"):
            right["GAINMODE"] = element
        if (geometry := wanted["geometry"]) != ANY:
            x, y, width, height, bin_x, bin_y = geometry
            right |= {
                "XORGSUBF": str(x),
                "YORGSUBF": str(y),
                "NAXIS1": str(width),
                "NAXIS2": str(height),
                "XBINNING": str(bin_x),
                "YBINNING": str(bin_y),
            }
        if (kind := wanted["type"]) != ANY:
            right["IMAGETYP"] = f"{TYPES[kind]} Frame"
        for name, value in right.items():
            if cards.get(name) != value:
                self._wrong(index, f"the header of {order} has {name} {cards.get(name)} instead of {value}")
        zero = wanted["AUTO_ZERO"]
        if zero != ANY and ("ZEROLVL" in cards) != (zero == "INDI_ENABLED"):
            self._wrong(index, f"auto-zero of {order} was not {zero}")

    def _pictures(self, exposures: list[Order]) -> None:
        """Every exposure that ended in Ok has its frame or file, no other has one."""
        last = len(self.events) - 1
        for cards in self.record.files:
            seconds = round(number(cards.get("EXPTIME", "nan")), 4)
            candidates = [
                o for o in exposures if o.expected["seconds"] == seconds and (o.started or not seconds)
            ]
            fresh = [o for o in candidates if not o.files]
            if not candidates:
                self._wrong(last, f"a file of {seconds} s was saved, which nobody has asked for")
                continue
            order = (fresh or candidates)[0]
            order.files += 1
            if not seconds:
                for other in candidates:
                    other.files = 1
                continue
            if order.expected["upload"] == "UPLOAD_CLIENT":
                self._wrong(last, f"{order} was saved, although it was to be sent only")
            self._header(last, cards, order)
        newest = self._newest_of_each_answer(exposures)
        for order in exposures:
            upload = order.expected["upload"]
            good = order.outcome == "Ok" and order in newest
            if good and upload in ("UPLOAD_CLIENT", "UPLOAD_BOTH") and order.frames != 1:
                self._wrong(order.ended, f"{order} ended in Ok with {order.frames} frames")
            if good and upload in ("UPLOAD_LOCAL", "UPLOAD_BOTH") and order.files != 1:
                self._wrong(order.ended, f"{order} ended in Ok with {order.files} files")
            if not order.expected["seconds"]:
                continue
            if order.outcome != "Ok" and order in newest and order.frames + order.files:
                self._wrong(order.ended, f"{order} ended as {order.outcome}, and there is a frame of it")
            if order.aborted and order.files and order.outcome != "Ok":
                self._wrong(order.ended, f"{order} was aborted, and there is a file of it")

    @staticmethod
    def _newest_of_each_answer(orders: list[Order]) -> list[Order]:
        """Of those that one final state has answered, the newest."""
        return list({order.ended: order for order in orders}.values())

    def _rest(self, sequential: Sequential) -> None:
        """What holds when nothing is due any more."""
        last, record, camera = len(self.events) - 1, self.record, self.camera
        if record.busy or CONNECTION not in record.states or record.states[CONNECTION] != "Ok":
            return
        for vector in SWITCHES:
            element, shown = sequential.now.get(vector, ANY), record.after.get(vector)
            if element == ANY or shown is None:
                continue
            on = next((name for name, text in shown.items() if text == "On"), "")
            if on != element:
                self._wrong(last, f"{vector} shows {on} instead of {element}")
            name, values = SETTINGS.get(vector, ("", {}))
            if name and values[element] >= 0 and camera.settings[name] != values[element]:
                self._wrong(last, f"the camera has {name} {camera.settings[name]} instead of {element}")
        slot = sequential.now[WHEEL]
        shown_slot = number(record.after.get(WHEEL, {}).get("FILTER_SLOT_VALUE", "nan"))
        if slot != ANY and (camera.slot != slot or camera.moving):
            self._wrong(last, f"the filter wheel is at {camera.slot} instead of {slot}")
        if record.states.get(WHEEL) != "Alert" and shown_slot != camera.slot:
            self._wrong(last, f"FILTER_SLOT shows {shown_slot:g}, and the wheel is at {camera.slot}")
        if not cools_like(camera.cooling, sequential.cooling):
            self._wrong(last, f"the cooler is {camera.cooling} instead of {sequential.cooling}")


def cools_like(real: tuple[bool, bool, float], wanted: Any) -> bool:
    """Whether the camera's cooler (on, to ambient, set point) does what was asked for last."""
    on, ambient, set_point = real
    if wanted == ANY:
        return True
    if wanted == "off":
        return not on or ambient
    target = wanted
    return on and not ambient and (target is None or abs(set_point - target) < 0.01)


class Sequential:
    """What holds when every request so far was carried out at once, one after the other."""

    def __init__(self, record: Record) -> None:
        self.now: dict[str, Any] = {}
        for vector in SWITCHES:
            shown = record.before.get(vector, {})
            self.now[vector] = next((name for name, text in shown.items() if text == "On"), ANY)
        for vector in (FRAME, BINNING):
            self.now[vector] = {name: number(text) for name, text in record.before.get(vector, {}).items()}
        self.now[WHEEL] = record.wheel + 1
        on, ambient, set_point = record.cooling
        self.cooling: Any = set_point if on and not ambient else "off"
        # What is kept for each role; of one that is not in it nothing is known.
        self.kept = {role: dict(kept) for role, kept in record.kept.items()}
        self._keep()

    def _keep(self) -> None:
        if self.now[ROLE] != ANY:
            self.kept[self.now[ROLE]] = {vector: self.now[vector] for vector in KEPT}

    def connect(self) -> None:
        """The camera was connected anew: what holds for one connection only is as usual again."""
        self.now |= MODES | {TYPE: "FRAME_LIGHT", MODE: "UPLOAD_CLIENT"}
        self.now[FRAME] = {"X": 0, "Y": 0, "WIDTH": SENSOR[0], "HEIGHT": SENSOR[1]}
        self.now[BINNING] = {"HOR_BIN": 1, "VER_BIN": 1}

    def fault(self, name: str) -> None:
        if name in FAULTS:
            self.now["LINK_TIMING"] = ANY
        if name in ("unplug", "power_off", "fail"):
            self.now[WHEEL] = ANY
        if name in ("power_off", "fail"):
            self.cooling = ANY

    def carry_out(self, order: Order, sure: bool) -> None:
        vector, element = order.vector, order.element
        if vector == ROLE:
            self._role(element if sure else ANY)
        elif vector in SWITCHES:
            self.now[vector] = element if sure else ANY
            if vector in KEPT:
                self._keep()
        elif vector in (FRAME, BINNING):
            values = {name: number(text) for name, text in order.event.data.items()}
            self.now[vector] = values if sure else ANY
        elif vector == WHEEL:
            self.now[WHEEL] = int(order.number("FILTER_SLOT_VALUE")) if sure else ANY
        elif vector == TEMPERATURE:
            self.cooling = order.number(TEMPERATURE_VALUE) if sure else ANY
        elif vector == COOLER:
            self._cooler(element, sure)

    def _cooler(self, element: str, sure: bool) -> None:
        if not sure or self.cooling == ANY:
            self.cooling = ANY
        elif element == "COOLER_OFF":
            self.cooling = "off"
        elif self.cooling == "off":
            self.cooling = None  # on, to the camera's own set point

    def _role(self, role: str) -> None:
        self.now[ROLE] = role
        kept = self.kept.get(role)
        if role == ANY:
            self.kept.clear()
        self.now |= dict.fromkeys(KEPT, ANY) if kept is None else kept

    def exposure(self, order: Order) -> dict[str, Any]:
        """What an exposure that is asked for now must be like."""
        kind = self.now[TYPE]
        frame, binning = self.now[FRAME], self.now[BINNING]
        geometry: Any = ANY
        if ANY not in (frame, binning):
            x, y = int(binning["HOR_BIN"]), int(binning["VER_BIN"])
            f = {name: round(value) for name, value in frame.items()}
            geometry = (f["X"] // x, f["Y"] // y, f["WIDTH"] // x, f["HEIGHT"] // y, x, y)
        return {
            **{vector: self.now[vector] for vector in (*KEPT, *MODES, WHEEL)},
            "cooling": self.cooling,
            "seconds": 0.0 if kind == "FRAME_BIAS" else round(order.number(DURATION), 4),
            "geometry": geometry,
            "type": kind,
            "light": ANY if kind == ANY else kind in ("FRAME_LIGHT", "FRAME_FLAT"),
            "upload": self.now[MODE],
        }


class Quiet:
    """From the end of an exposure to the last overscan byte the camera is left alone."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._phase = ""
        self._aborted = False

    def hear(self, index: int, event: Event) -> None:
        judge = self._judge
        match event.name:
            case "exposure_start":
                self._phase, self._aborted = "exposing", False
            case "abort":
                self._aborted, self._phase = True, ""
            case "exposure_end" if not self._aborted:
                self._phase = "reading"
            case "power" | "usb":
                self._phase = ""
            case "ignored":
                why = event.data["why"]
                if why in ("waiting for the trigger", "pixels are on their way") and not judge.faulty:
                    judge._wrong(index, f"the camera was sent command {event.data.get('code')}, {why}")
            case "command":
                self._command(index, event.data["command"])

    def _command(self, index: int, command: str) -> None:
        judge = self._judge
        leaving = any(o.element == "DISCONNECT" for o in judge.open.get(CONNECTION, ()))
        if self._phase == "reading":
            if command == "TransferImage":
                self._phase = "transfer"
            elif command == "AbortExposure" or leaving or judge.trouble:
                self._phase = ""
            elif command not in QUIET_COMMANDS:
                judge._wrong(index, f"{command} was sent between the end of an exposure and TransferImage")
        elif self._phase == "transfer":
            self._phase = ""
            if command != "GetAutoZero" and not judge.trouble:
                judge._wrong(index, f"{command} was sent between TransferImage and the overscan")


class RelayWatch:
    """Which pulse has closed a relay, when, and for how long."""

    DIRECTIONS = {  # noqa: RUF012
        "TIMED_GUIDE_N": ("y", 1),
        "TIMED_GUIDE_S": ("y", -1),
        "TIMED_GUIDE_W": ("x", -1),
        "TIMED_GUIDE_E": ("x", 1),
    }

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._closed: tuple[Order | None, float, float] | None = None  # order, since, units
        self._pulses: dict[Order, float] = {}  # s closed so far
        self._activations: dict[Order, int] = {}
        judge.relays_end = self.right_end  # type: ignore[method-assign]

    def wanted(self, order: Order) -> tuple[str, int] | None:
        """Axis and signed length in units of a request; None for one that stops."""
        for name in ("TIMED_GUIDE_N", "TIMED_GUIDE_S", "TIMED_GUIDE_W", "TIMED_GUIDE_E"):
            length = order.number(name)
            if length >= SHORTEST_PULSE:
                axis, sign = self.DIRECTIONS[name]
                return axis, sign * int(length / RELAY_UNIT + 0.5)
        return None

    def hear(self, index: int, event: Event) -> None:
        if event.name == "relay":
            self._close(index, event)
        elif event.name == "relay_end" and self._closed is not None:
            order, since, units = self._closed
            self._closed = None
            if order is None:
                return
            closed = event.at - since
            self._pulses[order] = self._pulses.get(order, 0.0) + units * RELAY_UNIT / 1000 * (
                1.0 if not event.data["aborted"] else 0.0
            )
            if event.data["aborted"]:
                self._pulses[order] += min(closed, units * RELAY_UNIT / 1000)

    def _close(self, index: int, event: Event) -> None:
        x, y = event.data["x"], event.data["y"]
        length = ("x", x) if x else ("y", y)
        judge = self._judge
        candidates = [
            o
            for o in judge.orders
            if o.vector in (NS, WE) and o.verdict == "accepted" and self.wanted(o) == length
        ]
        if not candidates:
            judge._wrong(index, f"a relay closes for {length}, which nobody has asked for")
            self._closed = None
            return
        order = candidates[-1]
        self._activations[order] = self._activations.get(order, 0) + 1
        if self._activations[order] > 1 and not judge.faulty:
            judge._wrong(index, f"{order} was sent twice")
        if order.outcome and event.at - judge.events[order.ended].at > RACE:
            judge._wrong(index, f"{order} was sent after it had ended as {order.outcome}")
        self._closed = order, event.at, float(abs(length[1]))

    def right_end(self, index: int, newest: Order) -> str | None:
        """For the judge: whether a pulse may end in Idle now."""
        if self._judge.events[index].state != "Idle":
            return "a pulse ends in Idle or Alert"
        if self.wanted(newest) is None:
            stopped = (
                self._closed is None or self._closed[0] is None or self._closed[0].vector != newest.vector
            )
            return None if stopped else "its relay is closed"
        if newest not in self._activations and not self._judge._cause(newest, index):
            return "its relay was never closed"
        if self._closed is not None and self._closed[0] is newest:
            return "its relay is closed"
        return None

    def end(self) -> None:
        judge, last = self._judge, len(self._judge.events) - 1
        if self._closed is not None:
            judge._wrong(last, f"a relay was left closed by {self._closed[0]}")
        for order, closed in self._pulses.items():
            wanted = self.wanted(order)
            assert wanted is not None
            if closed > abs(wanted[1]) * RELAY_UNIT / 1000 + 0.001:
                judge._wrong(last, f"{order} closed its relay for {closed:.3f} s")
