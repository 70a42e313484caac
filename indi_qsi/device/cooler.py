# SPDX-License-Identifier: LGPL-2.1-or-later
"""Cooling: CCD_TEMPERATURE, CCD_TEMP_RAMP, CCD_COOLER, CCD_COOLER_POWER, COOLER_AT_DISCONNECT.

CCD_TEMPERATURE always shows what was measured and is sent at every poll, changed or not: clients wait for
updates, not for changes. A request for a temperature is open until the CCD has reached it, or cannot.
Switching the cooler off first lets the CCD warm up at the camera's own safe rate; a second "off" cuts the
power at once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

from indi_qsi.device.activity import Activity
from indi_qsi.device.config_file import ConfigFile
from indi_qsi.device.orders import Order, OrderBook
from indi_qsi.device.reach import Reach
from indi_qsi.device.rules import POWER_OFF
from indi_qsi.device.rules import Rule as OrderRule
from indi_qsi.device.status import StatusSubject
from indi_qsi.device.subject import MAIN_CONTROL, OPTIONS, Subject, explain
from indi_qsi.device.worker import CameraThread, Priority
from indi_qsi.properties import (
    Answer,
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
SAME_SET_POINT = 0.05  # K; the camera keeps hundredths
BAD_READINGS = 3  # in a row make the temperature unknown
BLOCKED_POLL = 0.2  # s between looks whether the camera may be told something again
ON, OFF = "COOLER_ON", "COOLER_OFF"
# Cooler state -> why there is no cooling.
NOT_COOLING = {
    "NO_CONTROL": "The camera cannot control its cooler; power the camera off and on",
    "BROWN_OUT": "The supply voltage is too low for the cooler; check the power supply and its cable",
}
KEEP, WARM, CUT = "AT_DISCONNECT_KEEP", "AT_DISCONNECT_WARM", "AT_DISCONNECT_OFF"


class Aim(Enum):
    """What the cooler is to do."""

    COOL = "cool"
    WARM_UP = "warm up"
    OFF = "off"


class CoolerSubject(Subject):
    """The cooler and the thermometer.

    What is in `measured` is called with every reading. `polling` is POLLING_PERIOD.
    """

    def __init__(
        self,
        thread: CameraThread,
        orders: OrderBook,
        activity: Activity,
        polling: NumberVector,
        status: StatusSubject,
        config: ConfigFile,
    ) -> None:
        self._thread = thread
        self._orders = orders
        self._activity = activity
        self._polling = polling
        self._status = status
        self._config = config
        self.measured: list[Callable[[Temperatures], None]] = [status.measured]
        self._camera: Camera | None = None
        self._target: float | None = None  # where to; None: not cooling
        self._programmed = 0.0  # the set point that the camera has; on a ramp it is on its way
        self._ramped_at = 0.0  # monotonic
        self._warming = False
        self._reaching: Answer[float] | None = None  # the request for the present set point
        self._switching: Answer[bool] | None = None  # the request for the warm-up
        self._newest: Order | None = None  # the last one that was accepted, and ...
        self._newest_aim = Aim.OFF  # ... what it is for
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
                SwitchElement(CUT, "Switch off"),
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
        self._newest = self._reaching = self._switching = None
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
            self._status.refused(self._complaint)
            self._complaint = None
        self._restore = None
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
        self._restore = None
        for vector in (self.temperature, self.cooler, self.power):
            vector.end_all(State.IDLE)

    def lost(self) -> None:
        target = self._target
        self._show_unknown()
        self._camera = None
        self._target = None
        self._warming = False
        for vector, reason in (
            (self.temperature, "The camera was lost before the CCD had this temperature"),
            (self.cooler, "The camera was lost before the cooler had done this"),
        ):
            if vector.pending:
                vector.end_all(State.ALERT, message=reason)
        if target is not None:
            self._restore = target

    def back(self, camera: Camera) -> None:
        """A camera that lost its supply has stopped cooling: it goes on to where it was going."""
        self.connect(camera)
        self._resume(self._restore)  # kept until it is back for good

    def renew(self, camera: Camera) -> None:
        """It may also have another set point: that of an order whose answer was lost."""
        self._resume(self._target)
        if self._target is not None:
            present = camera.optional("the set point", camera.set_point, self._programmed)
            if abs(present - self._programmed) > SAME_SET_POINT:
                self._cool(self._target)

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
        if self._activity.reading_out or self._triggered(self._camera):
            self.repeat()
            self._thread.post(Priority.POLL, self._poll, delay=BLOCKED_POLL, failed=self._poll_failed)
            return
        measured = self._measure(self._camera)
        self._bad = 0
        if self._last is None and self._target is None:  # nothing could be measured at connect
            self._take_over(self._camera, measured)
        self._publish(measured)
        if not self._activity.waiting_for_trigger:
            self._step_ramp()
            if self._warming and measured.at_ambient:
                self._switch_off("The CCD is at ambient temperature; the cooler is off")
        self._poll_later()

    def _triggered(self, camera: Camera) -> bool:
        """Whether the trigger came unnoticed: a short exposure may be over, and its readout have begun."""
        from usbproto.packets import CameraState

        waits = self._activity.waiting_for_trigger
        return waits and camera.state().state != CameraState.WAITING_FOR_TRIGGER

    def _poll_failed(self, error: Exception) -> None:
        if self._camera is None:
            return
        self._poll_later()
        if isinstance(error, Refused):
            self._status.refused(error)
        before = self._bad
        # After a time-out it was asked several times already, and each took seconds.
        self._bad += BAD_READINGS if isinstance(error, TimedOut) else 1
        if self._bad >= BAD_READINGS:
            # Once said, further updates only keep the state.
            reason = f"No temperature can be read: {explain(error)}" if before < BAD_READINGS else None
            self._show_unknown(reason)

    def _show_unknown(self, reason: str | None = None) -> None:
        """What was measured is old: it is not shown as if it held."""
        if self._reaching is not None:
            self._reaching.end(State.ALERT, message=reason)
            self._reaching = None
        else:
            self.temperature.set(state=State.ALERT, message=reason, level=Level.ERROR)
        if self._regulated:
            self.power.set(state=State.ALERT)
        self._status.unknown()

    def repeat(self) -> None:
        """During a long transfer nothing can be asked: sends the last reading again when it is time."""
        if time.monotonic() - self._sent_at >= self._interval() and self._bad < BAD_READINGS:
            self._sent_at = time.monotonic()
            self.temperature.set()

    def _publish(self, measured: Temperatures) -> None:
        self._last = measured
        self._show(measured)
        for listener in self.measured:
            listener(measured)
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
        value = {VALUE: measured.ccd}
        if self._reaching is not None and state is not State.BUSY:
            self._reaching.end(state, value, message=message, level=Level.WARNING)
            self._reaching = None
        else:
            self.temperature.set(value, state=state, message=message, level=Level.WARNING)
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

    def _cool_to(self, order: Order, target: float) -> None:
        self._cool(target)
        if self._reaching is not None:
            self._reaching.superseded()
        self._reaching = order.answer
        self._cools_again()
        if self.cooler.state is State.ALERT:
            self.cooler.set(state=State.OK)
        self._look()

    def _cools_again(self) -> None:
        """A warm-up that was asked for is not wanted any more."""
        if self._switching is not None:
            self._switching.end(State.OK, {ON: True})
            self._switching = None

    def _switch_on(self, order: Order) -> None:
        assert self._camera is not None
        target = self._target if self._target is not None else self._camera.set_point()
        self._cool(target)
        self._cools_again()
        order.answer.end(State.OK, {ON: True}, message=f"Cooling to {target:g} °C", level=Level.INFO)
        self._look()

    def _warm_up(self, order: Order) -> None:
        assert self._camera is not None
        self._camera.warm_up()
        self._target = None
        self._warming = True
        if self._switching is not None:
            self._switching.superseded()
        self._switching = order.answer
        self.cooler.set(
            {ON: True},
            message="Warming up to ambient before the cooler goes off; switch it off again to force it",
        )
        self._look()

    def _cut_power(self, order: Order) -> None:
        self._activity.end_wait("The cooler was switched off, which ended the wait for the trigger")
        if self._switching is not None:
            self._switching.superseded()
        self._switching = order.answer
        self._switch_off("The cooler is off")

    def _switch_off(self, message: str) -> None:
        assert self._camera is not None
        self._camera.cooler_off()
        self._warming = False
        self._target = None
        if self._switching is not None:
            self._switching.end(State.IDLE, {OFF: True}, message=message, level=Level.INFO)
            self._switching = None
        else:
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
        if not self._regulated:
            return
        shown = ON if measured.cooling else OFF
        self.cooler.select(shown)
        if self._switching is not None and not self._warming:
            self._switching.end(State.OK if measured.cooling else State.IDLE, {shown: True})
            self._switching = None

    # --- requests ---

    @property
    def _aim(self) -> Aim:
        """What the cooler will do when all that was asked for has been carried out."""
        if self._newest is not None and not self._newest.done:
            return self._newest_aim
        if self._target is not None:
            return Aim.COOL
        return Aim.WARM_UP if self._warming else Aim.OFF

    def _set_temperature(self, request: Request[float]) -> None:
        target = request.values[VALUE]
        # The value stays what was measured.
        self._submit(self.temperature, Aim.COOL, lambda order: self._cool_to(order, target))

    def _set_kept(self, request: Request[Any]) -> None:
        """What a client sets holds from now on; what comes from the config file is there already."""
        if request.link is not None:
            self._config.keep(request.vector, request.values)
        else:
            request.vector.set(request.values, state=State.OK)

    def _set_cooler(self, request: Request[bool]) -> None:
        aim = self._aim
        if request.values[ON]:
            self._submit(self.cooler, Aim.COOL, self._switch_on)
        elif aim is Aim.COOL:
            self._submit(self.cooler, Aim.WARM_UP, self._warm_up)
        elif aim is Aim.OFF and self.cooler[OFF] and self.cooler.state is State.IDLE:
            self.cooler.set(state=State.IDLE)
        else:
            order = self._submit(self.cooler, Aim.OFF, self._cut_power, POWER_OFF)
            # It does not wait for earlier requests: this one replaces them.
            for older in self._orders.withdraw(self.temperature, before=order) or ():
                older.answer.end(State.IDLE, message="The cooler was switched off before this was done")
            for older in self._orders.withdraw(self.cooler, before=order) or ():
                older.answer.superseded()

    def _submit(
        self, vector: Vector[Any], aim: Aim, work: Callable[[Order], None], rule: OrderRule | None = None
    ) -> Order | None:
        def carry_out(order: Order) -> None:
            try:
                work(order)
            except QsiError as error:
                if isinstance(error, Refused):
                    self._status.refused(error)
                if not isinstance(error, Disconnected):
                    self._read_back()
                order.answer.end(State.ALERT, message=f"The cooler command failed: {explain(error)}")
                raise

        order = self._orders.submit(vector, carry_out, rule=rule)
        if order is not None:
            self._newest, self._newest_aim = order, aim
        return order
