# SPDX-License-Identifier: LGPL-2.1-or-later
"""Cooling: CCD_TEMPERATURE, CCD_TEMP_RAMP, CCD_COOLER, CCD_COOLER_POWER, COOLER_AT_DISCONNECT.

CCD_TEMPERATURE always shows what was measured and is sent at every poll, changed or not: clients wait for
updates, not for changes. Switching the cooler off first lets the CCD warm up at the camera's own safe rate; a
second "off" cuts the power at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from indi_qsi.device.reach import Reach
from indi_qsi.device.subject import MAIN_CONTROL, OPTIONS, Subject, explain
from indi_qsi.device.worker import CameraThread, Priority
from indi_qsi.properties import (
    Level,
    NumberElement,
    NumberVector,
    Permission,
    Request,
    Rule,
    State,
    SwitchElement,
    SwitchVector,
    Vector,
)
from usbproto.errors import Disconnected, ProtocolError, QsiError, Refused, TimedOut

if TYPE_CHECKING:
    from usbproto.camera import Camera
    from usbproto.thermometer import Temperatures

log = logging.getLogger(__name__)

TIMEOUT = 60.0  # s, advisory
VALUE = "CCD_TEMPERATURE_VALUE"
MAX_POLL_INTERVAL = 2.0  # s; clients that wait for a temperature expect news at this rate whatever is set
# A ramp moves the set point this often: well within the 20 s or so in which a CCD follows a small step, so
# that it never gets steeper than was asked for.
RAMP_INTERVAL = 2.0  # s
# Nothing on a telescope is outside; a reading that is, is noise on the link.
PLAUSIBLE = (-100.0, 100.0)  # degC
BAD_READINGS = 3  # in a row make the temperature unknown
BLOCKED_POLL = 0.2  # s between looks whether the camera may be told something again
ON, OFF = "COOLER_ON", "COOLER_OFF"
# Cooler state -> why there is no cooling.
NOT_COOLING = {
    "NO_CONTROL": "The camera cannot control its cooler; power the camera off and on",
    "BROWN_OUT": "The supply voltage is too low for the cooler; check the power supply and its cable",
}
KEEP, WARM, POWER_OFF = "AT_DISCONNECT_KEEP", "AT_DISCONNECT_WARM", "AT_DISCONNECT_OFF"


class CoolerSubject(Subject):
    """The cooler and the thermometer.

    `measured` is told every reading, `refused` every device error that came instead of one, `keep` every
    vector that a client has changed for good, `unknown` that there was no reading for so long that the last
    one says nothing. `blocked` reports that the camera may be asked for temperatures, but told nothing (it
    waits for a trigger), and `reading_out` that it should not even be asked.
    """

    def __init__(
        self,
        thread: CameraThread,
        polling: NumberVector,
        measured: Callable[[Temperatures], None],
        refused: Callable[[Refused], None],
        keep: Callable[[Vector[Any]], None],
        unknown: Callable[[], None],
        blocked: Callable[[], bool],
        reading_out: Callable[[], bool],
    ) -> None:
        self._thread = thread
        self._polling = polling
        self._measured = measured
        self._refused = refused
        self._keep = keep
        self._unknown = unknown
        self._blocked = blocked
        self._reading_out = reading_out
        self._camera: Camera | None = None
        self._target: float | None = None  # where to; None: not cooling
        self._programmed = 0.0  # the set point that the camera has; on a ramp it is on its way
        self._ramped_at = 0.0  # monotonic
        self._warming = False
        self._restore: float | None = None  # where a lost camera was cooling to
        self._bad = 0
        self._complaint: Refused | None = None
        self._failure: int | None = None  # the cooler's state that was complained of
        self._last: Temperatures | None = None
        self._sent_at = 0.0
        self._reach = Reach()
        self.temperature = NumberVector(
            "CCD_TEMPERATURE",
            "Temperature",
            MAIN_CONTROL,
            (NumberElement(VALUE, "Temperature (C)", 0, "%5.2f", -50, 50),),
            permission=Permission.RW,
            timeout=TIMEOUT,
            on_request=self._set_temperature,
        )
        self.ramp = NumberVector(
            "CCD_TEMP_RAMP",
            "Temp. Ramp",
            MAIN_CONTROL,
            (
                NumberElement("RAMP_SLOPE", "Max. dT (C/min)", 0, "%.f", 0, 30, 1),
                NumberElement("RAMP_THRESHOLD", "Threshold (C)", 0.2, "%.1f", 0.1, 2, 0.1),
            ),
            permission=Permission.RW,
            timeout=TIMEOUT,
            on_request=self._set_kept,
        )
        self.cooler = SwitchVector(
            "CCD_COOLER",
            "Cooler",
            MAIN_CONTROL,
            (SwitchElement(ON, "On"), SwitchElement(OFF, "Off", True)),
            permission=Permission.RW,
            rule=Rule.ONE_OF_MANY,
            timeout=TIMEOUT,
            on_request=self._set_cooler,
        )
        self.power = NumberVector(
            "CCD_COOLER_POWER",
            "Cooling Power",
            MAIN_CONTROL,
            (NumberElement("CCD_COOLER_VALUE", "Cooling Power (%)", 0, "%+06.2f", 0, 100),),
            permission=Permission.RO,
        )
        self.at_disconnect = SwitchVector(
            "COOLER_AT_DISCONNECT",
            "Cooler at Disconnect",
            OPTIONS,
            (
                SwitchElement(KEEP, "Keep as it is", True),
                SwitchElement(WARM, "Warm up"),
                SwitchElement(POWER_OFF, "Switch off"),
            ),
            permission=Permission.RW,
            rule=Rule.ONE_OF_MANY,
            on_request=self._set_kept,
        )

    def vectors(self) -> Sequence[Vector[Any]]:
        if self._regulated:
            return (self.temperature, self.ramp, self.cooler, self.power, self.at_disconnect)
        return (self.temperature,)

    def saved(self) -> Sequence[Vector[Any]]:
        return self.kept()

    def kept(self) -> Sequence[Vector[Any]]:
        return (self.ramp, self.at_disconnect)

    @property
    def _regulated(self) -> bool:
        return self._camera is not None and self._camera.details.has_temperature_regulation

    @property
    def last(self) -> Temperatures | None:
        """What was measured last."""
        return self._last

    @property
    def target(self) -> float | None:
        """Where the cooler is to bring the CCD, degC; None when it does not cool."""
        return self._target

    # --- the camera comes and goes ---

    def connect(self, camera: Camera) -> None:
        self._camera = camera
        self._target = None
        self._warming = False
        self._bad = 0
        self._last = None
        self._reach.restart()
        self.temperature.permission = Permission.RW if self._regulated else Permission.RO
        low, high = camera.set_point_range
        self.temperature.set_limits(VALUE, minimum=low, maximum=high)
        try:
            temperatures = self._measure(camera)
        except Disconnected:
            raise
        except QsiError as error:
            # The camera is too warm, or its supply is bad, or this one reading is: it works, and the polling
            # goes on.
            self._complaint = error if isinstance(error, Refused) else None
            camera.session.odd(
                "first temperature", f"{error}: the temperature is unknown until the next reading"
            )
            self._show_unknown()
            return
        self._take_over(camera, temperatures)
        self._publish(temperatures)

    def _take_over(self, camera: Camera, temperatures: Temperatures) -> None:
        """A cooler that was left running goes on as it was."""
        if self._regulated and temperatures.cooling:
            self._warming = temperatures.warming_up
            self._target = None
            if not self._warming:
                self._target = camera.optional("the set point", camera.set_point, None)
        self._programmed = self._target or 0.0

    def started(self) -> None:
        if self._complaint is not None:
            self._refused(self._complaint)
            self._complaint = None
        self._poll_later()

    def leave(self, camera: Camera) -> None:
        policy = self.at_disconnect.selected
        if not self._regulated or self._last is None or not self._last.cooling or policy == KEEP:
            return
        if policy == WARM:
            camera.warm_up()
        else:
            camera.cooler_off()

    def disconnect(self) -> None:
        self._camera = None
        self._target = None
        self._warming = False
        for vector in (self.temperature, self.cooler, self.power):
            vector.set(state=State.IDLE)

    def lost(self) -> None:
        target = self._target
        self._show_unknown()
        self._camera = None
        self._target = None
        self._warming = False
        if self.cooler.state is State.BUSY:
            self.cooler.refuse("The camera was lost before the cooler had done this")
        self._restore = target

    def back(self, camera: Camera) -> None:
        """A camera that lost its supply has stopped cooling: it goes on to where it was going."""
        target, self._restore = self._restore, None
        self.connect(camera)
        self._resume(target)

    def renew(self, camera: Camera) -> None:
        self._resume(self._target)

    def _resume(self, target: float | None) -> None:
        """Cools on to where it was going, if the camera has stopped."""
        if target is not None and (self._last is None or not self._last.cooling):
            self._cool(target)
            self.cooler.select(ON, state=State.OK, message=f"Cooling to {target:g} °C again")

    # --- polling ---

    def _interval(self) -> float:
        return min(self._polling["PERIOD_MS"] / 1000, MAX_POLL_INTERVAL)

    def _poll_later(self) -> None:
        self._thread.post(Priority.POLL, self._poll, delay=self._interval(), failed=self._poll_failed)

    def _measure(self, camera: Camera) -> Temperatures:
        """Raises `ProtocolError` for a reading that cannot be true."""
        measured = camera.temperatures()
        low, high = PLAUSIBLE
        if not low <= measured.ccd <= high:
            raise ProtocolError(f"implausible reading: {measured.ccd:g} °C")
        return measured

    def _poll(self) -> None:
        if self._camera is None:
            return
        if self._reading_out():
            self.repeat()
            self._thread.post(Priority.POLL, self._poll, delay=BLOCKED_POLL, failed=self._poll_failed)
            return
        measured = self._measure(self._camera)
        self._bad = 0
        if self._last is None and self._target is None:  # nothing could be measured at connect
            self._take_over(self._camera, measured)
        self._publish(measured)
        if not self._blocked():
            self._step_ramp()
            if self._warming and measured.at_ambient:
                self._switch_off("The CCD is at ambient temperature; the cooler is off")
        self._poll_later()

    def _poll_failed(self, error: Exception) -> None:
        if self._camera is None:
            return
        self._poll_later()
        if isinstance(error, Refused):
            self._refused(error)
        before = self._bad
        # After a time-out it was asked several times already, and each took seconds.
        self._bad += BAD_READINGS if isinstance(error, TimedOut) else 1
        if self._bad >= BAD_READINGS:
            # Once said, further updates only keep the state.
            reason = f"No temperature can be read: {explain(error)}" if before < BAD_READINGS else None
            self._show_unknown(reason)

    def _show_unknown(self, reason: str | None = None) -> None:
        """What was measured is old: it is not shown as if it held."""
        self.temperature.set(state=State.ALERT, message=reason, level=Level.ERROR)
        if self._regulated:
            self.power.set(state=State.ALERT)
        self._unknown()

    def repeat(self) -> None:
        """During a long transfer nothing can be asked: sends the last reading again when it is time."""
        if time.monotonic() - self._sent_at >= self._interval() and self._bad < BAD_READINGS:
            self._sent_at = time.monotonic()
            self.temperature.set()

    def _publish(self, measured: Temperatures) -> None:
        self._last = measured
        self._show(measured)
        self._measured(measured)
        if self._target is None or measured.cooling:
            self._failure = None

    def _show(self, measured: Temperatures) -> None:
        self._sent_at = time.monotonic()
        message = None
        if self._target is None:
            state = State.BUSY if self._warming else State.IDLE
        elif not measured.cooling:
            state, message = State.ALERT, self._complain(measured)
        else:
            there = abs(measured.ccd - self._target) <= self.ramp["RAMP_THRESHOLD"]
            state = State.OK if there else State.BUSY
            if self._reach.lost(measured, self._target):
                message = (
                    f"The cooler is at full power and {self._target:g} °C is out of reach: "
                    "raise the set point, or turn the fan to full"
                )
        self.temperature.set({VALUE: measured.ccd}, state=state, message=message, level=Level.WARNING)
        if self._regulated:
            self._show_cooler(measured)

    def _complain(self, measured: Temperatures) -> str | None:
        """Why the camera does not cool although it was told to; said once."""
        before, self._failure = self._failure, measured.cooler
        if self._failure == before:
            return None
        return NOT_COOLING.get(measured.cooler.name, "The camera has stopped cooling by itself")

    def _show_cooler(self, measured: Temperatures) -> None:
        if self.cooler.state is not State.ALERT:
            if measured.cooling or self._warming:
                self.cooler.show({ON: True}, state=State.BUSY if self._warming else State.OK)
            else:
                self.cooler.show({OFF: True}, state=State.IDLE)
        # A power that the camera does not give is not shown as if it were one: Idle, with the last value.
        known = {} if measured.power is None else {"CCD_COOLER_VALUE": measured.power}
        self.power.show(known, state=State.OK if known and measured.cooling else State.IDLE)

    # --- cooling and warming, in the camera thread ---

    def _cool(self, target: float) -> None:
        """Cools to `target`, by way of a ramp if one is set."""
        assert self._camera is not None
        low, high = self._camera.set_point_range
        programmed = target
        if self.ramp["RAMP_SLOPE"] and self._last is not None:
            programmed = min(max(self._last.ccd, low), high)
        self._camera.cool_to(programmed)
        self._programmed = programmed
        self._target = target
        self._ramped_at = time.monotonic()
        self._warming = False
        self._reach.restart()

    def _step_ramp(self) -> None:
        now = time.monotonic()
        if self._camera is None or self._target is None or self._programmed == self._target:
            return
        if (elapsed := now - self._ramped_at) < RAMP_INTERVAL:
            return
        slope = self.ramp["RAMP_SLOPE"]
        step = slope * elapsed / 60 if slope else abs(self._target - self._programmed)
        if self._target < self._programmed:
            programmed = max(self._target, self._programmed - step)
        else:
            programmed = min(self._target, self._programmed + step)
        self._camera.cool_to(programmed)
        self._programmed = programmed
        self._ramped_at = now

    def _cool_to(self, target: float) -> None:
        self._cool(target)
        if self.cooler.state is State.ALERT:
            self.cooler.set(state=State.OK)
        self._look()

    def _switch_on(self) -> None:
        assert self._camera is not None
        target = self._target if self._target is not None else self._camera.set_point()
        self._cool(target)
        self.cooler.select(ON, state=State.OK, message=f"Cooling to {target:g} °C")
        self._look()

    def _off(self) -> None:
        """The first time warm, then off at once."""
        if self._warming or self._target is None:
            self._switch_off("The cooler is off")
            return
        assert self._camera is not None
        self._camera.warm_up()
        self._target = None
        self._warming = True
        self.cooler.select(
            ON,
            state=State.BUSY,
            message="Warming up to ambient before the cooler goes off; switch it off again to force it",
        )
        self._look()

    def _switch_off(self, message: str) -> None:
        assert self._camera is not None
        self._camera.cooler_off()
        self._warming = False
        self._target = None
        self.cooler.select(OFF, state=State.IDLE, message=message)
        self._look()

    def _look(self) -> None:
        """Shows what an order did. It was carried out, so a reading that fails is the polling's business."""
        assert self._camera is not None
        try:
            measured = self._measure(self._camera)
        except Disconnected:
            raise
        except QsiError as error:
            log.warning("%s", error)
            if self._last is not None:
                self._show(self._last)
        else:
            self._publish(measured)

    def _read_back(self) -> None:
        """An order failed, and nobody knows what became of it: what the camera says now is the truth."""
        assert self._camera is not None
        try:
            measured = self._measure(self._camera)
            if self._camera.doubtful:
                return  # it may have started anew; then `renew` brings back what was before
            if self._regulated:
                cools = measured.cooling and not measured.warming_up
                self._target = self._camera.set_point() if cools else None
        except QsiError as error:
            log.warning("%s", error)  # the polling goes on, and tells if this does
            return
        self._warming = measured.warming_up
        self._programmed = self._target or 0.0
        self._last = measured
        if self._regulated:
            self.cooler.select(ON if measured.cooling else OFF)

    # --- requests ---

    def _set_temperature(self, request: Request[float]) -> None:
        target = request.values[VALUE]
        # At once; clients look at the updates after this one. The value stays what was measured.
        self.temperature.set(state=State.BUSY)
        self._post(lambda: self._cool_to(target), self.temperature)

    def _set_kept(self, request: Request[Any]) -> None:
        """What a client sets holds from now on; what comes from the config file is there already."""
        request.vector.set(request.values, state=State.OK)
        if request.link is not None:
            self._keep(request.vector)

    def _set_cooler(self, request: Request[bool]) -> None:
        if request.values[ON]:
            work = self._switch_on
        elif self.cooler[OFF] and self.cooler.state is State.IDLE and self._target is None:
            self.cooler.set(state=State.IDLE)
            return
        else:
            work = self._off
        self.cooler.set(state=State.BUSY)
        self._post(work, self.cooler)

    def _post(self, work: Callable[[], None], vector: Vector[Any], delay: float = 0.0) -> None:
        def failed(error: Exception) -> None:
            if isinstance(error, Refused):
                self._refused(error)
            if self._thread.ident == threading.get_ident() and not isinstance(error, Disconnected):
                self._read_back()
            vector.refuse(f"The cooler did not take the order: {explain(error)}")

        def step() -> None:
            if self._camera is None:
                return
            if self._blocked() or self._reading_out():
                self._post(work, vector, BLOCKED_POLL)
            else:
                work()

        self._thread.post(Priority.CONTROL, step, delay=delay, failed=failed)
