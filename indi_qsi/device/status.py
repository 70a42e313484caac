# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the camera says of itself: CAMERA_INFO, CAMERA_TEMPERATURES, CAMERA_ALARMS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from indi_qsi.device.subject import GENERAL_INFO, MAIN_CONTROL, Subject
from indi_qsi.properties import (
    Level,
    LightElement,
    LightVector,
    NumberElement,
    NumberVector,
    Permission,
    State,
    TextElement,
    TextVector,
    Vector,
)
from usbproto.errors import Refused

if TYPE_CHECKING:
    from usbproto.camera import Camera
    from usbproto.thermometer import Temperatures

# Device error -> light. The first four end by themselves, the last two with the camera's next power-up.
ALARMS = {
    1: ("OVER_TEMPERATURE", "Camera too warm"),
    2: ("UNDER_TEMPERATURE", "CCD too cold"),
    3: ("SUPPLY_LOW", "Supply below 11 V"),
    4: ("SUPPLY_HIGH", "Supply above 14 V"),
    5: ("FILTER_WHEEL", "Filter wheel failed"),
    6: ("SHUTTER", "Shutter failed"),
}
LASTING = frozenset({5, 6})


class StatusSubject(Subject):
    """Identity, further temperatures, alarms."""

    def __init__(self) -> None:
        self._camera: Camera | None = None
        self._info = TextVector(
            "CAMERA_INFO",
            "Camera",
            GENERAL_INFO,
            (
                TextElement("MODEL", "Model"),
                TextElement("SERIAL", "Serial Number"),
                TextElement("FIRMWARE", "Firmware"),
                TextElement("HARDWARE", "Hardware"),
                TextElement("MANUFACTURED", "Manufactured"),
                TextElement("SENSOR", "Sensor"),
            ),
            permission=Permission.RO,
        )
        self._temperatures = NumberVector(
            "CAMERA_TEMPERATURES",
            "Camera Temperatures",
            MAIN_CONTROL,
            (
                NumberElement("HEAT_SINK", "Heat sink (C)", 0, "%5.2f", -100, 100),
                NumberElement("PCB", "Electronics (C)", 0, "%5.2f", -100, 100),
            ),
            permission=Permission.RO,
        )
        self._alarms = LightVector(
            "CAMERA_ALARMS",
            "Alarms",
            MAIN_CONTROL,
            [LightElement(name, label, State.OK) for name, label in ALARMS.values()],
        )

    def vectors(self) -> Sequence[Vector[Any]]:
        return (self._info, self._temperatures, self._alarms)

    def connect(self, camera: Camera) -> None:
        self._camera = camera
        identity, sensor = camera.identity, camera.sensor
        self._info.set(
            {
                "MODEL": identity.model,
                "SERIAL": identity.serial,
                "FIRMWARE": identity.firmware,
                "HARDWARE": identity.hardware,
                "MANUFACTURED": identity.manufactured,
                "SENSOR": sensor.name if sensor else "unknown",
            },
            state=State.OK,
        )
        self._alarms.set({name: State.OK for name, _ in ALARMS.values()}, state=State.OK)

    def disconnect(self) -> None:
        self._camera = None
        self._temperatures.set(state=State.IDLE)

    def lost(self) -> None:
        """`unknown` has been told before; the alarms stay as they were."""
        self._camera = None

    def unknown(self) -> None:
        """There has been no reading for so long that the last one says nothing."""
        self._temperatures.set(state=State.ALERT)

    def measured(self, temperatures: Temperatures) -> None:
        """New temperatures: the passing alarms are over. A sensor that the camera lacks shows 0, Idle."""
        state = State.IDLE if temperatures.heat_sink is None else State.OK
        self._temperatures.show(
            {"HEAT_SINK": temperatures.heat_sink or 0.0, "PCB": temperatures.pcb or 0.0}, state=state
        )
        over = {
            name: State.OK
            for code, (name, _) in ALARMS.items()
            if code not in LASTING and self._alarms[name] is State.ALERT
        }
        if over:
            self._show(over, f"Alarm over: {', '.join(over)}", Level.INFO)

    def refused(self, error: Refused) -> None:
        """The camera set its device error. Said once, until it is over."""
        known = ALARMS.get(error.code)
        if known is not None and self._alarms[known[0]] is not State.ALERT:
            self._show({known[0]: State.ALERT}, error.explain(), Level.ERROR)

    def _show(self, lights: dict[str, State], message: str, level: Level) -> None:
        values = self._alarms.values | lights
        state = State.ALERT if State.ALERT in values.values() else State.OK
        self._alarms.set(lights, state=state, message=message, level=level)
