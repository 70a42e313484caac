# SPDX-License-Identifier: LGPL-2.1-or-later
"""Cooling: CCD_TEMPERATURE, CCD_COOLER, CCD_COOLER_POWER.

CCD_TEMPERATURE always shows what was measured and is sent at every poll, changed or not: clients wait for
updates, not for changes. Switching the cooler off first lets the CCD warm up at the camera's own safe rate; a
second "off" cuts the power at once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from indi_qsi.device.subject import MAIN_CONTROL, Subject, explain
from indi_qsi.device.worker import CameraThread, Priority
from indi_qsi.properties import (
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

if TYPE_CHECKING:
    from usbproto.camera import Camera, Temperatures

TIMEOUT = 60.0  # s, advisory
REACHED = 0.2  # K; closer than this to the set point counts as there
MAX_POLL_INTERVAL = 2.0  # s; clients that wait for a temperature expect news at this rate whatever is set
ON, OFF = "COOLER_ON", "COOLER_OFF"


class CoolerSubject(Subject):
    """The cooler and the thermometer."""

    def __init__(self, thread: CameraThread, polling: NumberVector) -> None:
        self._thread = thread
        self._polling = polling
        self._camera: Camera | None = None
        self._target: float | None = None
        self._warming = False
        self._last: Temperatures | None = None
        self._sent_at = 0.0
        self.temperature = NumberVector(
            "CCD_TEMPERATURE",
            "Temperature",
            MAIN_CONTROL,
            (NumberElement("CCD_TEMPERATURE_VALUE", "Temperature (C)", 0, "%5.2f", -50, 50),),
            permission=Permission.RW,
            timeout=TIMEOUT,
            on_request=self._set_temperature,
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

    def vectors(self) -> Sequence[Vector[Any]]:
        if self._regulated:
            return (self.temperature, self.cooler, self.power)
        return (self.temperature,)

    @property
    def _regulated(self) -> bool:
        return self._camera is not None and self._camera.details.has_temperature_regulation

    @property
    def last(self) -> Temperatures | None:
        """What was measured last."""
        return self._last

    # --- the camera's side ---

    def connect(self, camera: Camera) -> None:
        self._camera = camera
        self._warming = False
        self.temperature.permission = Permission.RW if self._regulated else Permission.RO
        low, high = camera.set_point_range
        self.temperature.set_limits("CCD_TEMPERATURE_VALUE", minimum=low, maximum=high)
        temperatures = camera.temperatures()
        cooling = self._regulated and temperatures.cooling
        self._target = camera.set_point() if cooling else None
        self._publish(temperatures)

    def started(self) -> None:
        self._poll_later()

    def disconnect(self) -> None:
        self._camera = None
        self._target = None
        self._warming = False
        for vector in (self.temperature, self.cooler, self.power):
            vector.set(state=State.IDLE)

    def _poll_later(self) -> None:
        interval = min(self._polling["PERIOD_MS"] / 1000, MAX_POLL_INTERVAL)
        self._thread.post(Priority.POLL, self._poll, delay=interval, failed=self._poll_failed)

    def _poll(self) -> None:
        if self._camera is None:
            return
        self._publish(self._camera.temperatures())
        self._finish_warm_up()
        self._poll_later()

    def _poll_failed(self, error: Exception) -> None:
        if self._camera is not None:
            self.temperature.refuse(f"The temperature cannot be read: {explain(error)}")
            self._poll_later()

    def repeat(self) -> None:
        """During a long transfer no question can be asked: sends the last reading again when it is time."""
        interval = min(self._polling["PERIOD_MS"] / 1000, MAX_POLL_INTERVAL)
        if time.monotonic() - self._sent_at >= interval:
            self._sent_at = time.monotonic()
            self.temperature.set()

    def _publish(self, measured: Temperatures) -> None:
        self._last = measured
        self._sent_at = time.monotonic()
        if self._target is None:
            state = State.BUSY if self._warming else State.IDLE
        else:
            state = State.OK if abs(measured.ccd - self._target) <= REACHED else State.BUSY
        self.temperature.set({"CCD_TEMPERATURE_VALUE": measured.ccd}, state=state)
        if self._regulated:
            if not (measured.cooling or self._warming):
                self.cooler.select(OFF, state=State.IDLE)
            else:
                self.cooler.select(ON, state=State.BUSY if self._warming else State.OK)
            power_state = State.OK if measured.cooling else State.IDLE
            self.power.set({"CCD_COOLER_VALUE": measured.power}, state=power_state)

    def _finish_warm_up(self) -> None:
        if self._warming and self._last is not None and self._last.at_ambient:
            self._switch_off("The CCD is at ambient temperature; the cooler is off.")

    # --- the clients' side ---

    def _set_temperature(self, request: Request[float]) -> None:
        target = request.values["CCD_TEMPERATURE_VALUE"]
        self.temperature.set(state=State.BUSY)  # at once; clients look at the updates after this one

        def work() -> None:
            assert self._camera is not None
            self._camera.cool_to(target)
            self._target = target
            self._warming = False
            self._publish(self._camera.temperatures())

        self._thread.post(Priority.CONTROL, work, failed=lambda error: self._failed(self.temperature, error))

    def _set_cooler(self, request: Request[bool]) -> None:
        if request.values[ON]:
            work = self._switch_on
        elif self.cooler[OFF]:
            self.cooler.set(state=State.IDLE)
            return
        elif self._warming:
            work = self._force_off
        else:
            work = self._warm_up
        self.cooler.set(state=State.BUSY)
        self._thread.post(Priority.CONTROL, work, failed=lambda error: self._failed(self.cooler, error))

    def _switch_on(self) -> None:
        assert self._camera is not None
        target = self._target if self._target is not None else self._camera.set_point()
        self._camera.cool_to(target)
        self._target = target
        self._warming = False
        self.cooler.select(ON, state=State.OK, message=f"Cooling to {target:g} °C")
        self._publish(self._camera.temperatures())

    def _warm_up(self) -> None:
        assert self._camera is not None
        self._camera.warm_up()
        self._target = None
        self._warming = True
        self.cooler.select(
            ON,
            state=State.BUSY,
            message="Warming up to ambient before the cooler goes off; switch it off again to force it",
        )
        self._publish(self._camera.temperatures())

    def _force_off(self) -> None:
        self._switch_off("The cooler is off.")

    def _switch_off(self, message: str) -> None:
        assert self._camera is not None
        self._camera.cooler_off()
        self._warming = False
        self._target = None
        self.cooler.select(OFF, state=State.IDLE, message=message)
        self._publish(self._camera.temperatures())

    def _failed(self, vector: Vector[Any], error: Exception) -> None:
        vector.refuse(explain(error))
