# SPDX-License-Identifier: LGPL-2.1-or-later
"""A camera at one moment, as far as its driver tells."""

from __future__ import annotations

from dataclasses import dataclass, field

from indi_qsi.wire.messages import Kind, State
from qsi_tools.indi.model import Model, Vector

GUIDE_VECTORS = ("TELESCOPE_TIMED_GUIDE_NS", "TELESCOPE_TIMED_GUIDE_WE")


@dataclass(slots=True)
class Pulses:
    """The guide pulses that a device was seen to give: how many, and the last one."""

    count: int = 0
    last: str = ""
    _busy: dict[str, dict[str, str]] = field(default_factory=dict)

    def take(self, vector: Vector) -> None:
        """Told every update of a guide vector."""
        if vector.state is not State.BUSY:
            self._busy.pop(vector.name, None)
            return
        if self._busy.get(vector.name) == vector.values:
            return
        self._busy[vector.name] = dict(vector.values)
        for element in vector.values:
            if milliseconds := vector.number(element):
                self.count += 1
                self.last = f"{element[-1]} {milliseconds:.0f} ms"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """None and empty texts: not told. degC, per cent, seconds."""

    device: str
    model: str
    connected: bool
    temperature: float | None
    power: float | None
    phase: str
    seconds_left: float | None
    percent: float | None  # of the download from the camera
    filter: str
    pulses: int
    last_pulse: str
    alarms: tuple[str, ...]


def snapshot(model: Model, device: str, pulses: Pulses) -> Snapshot:
    """What is known of a device now."""
    connection = model.vector(device, "CONNECTION")
    info = model.vector(device, "CAMERA_INFO")
    busy, left = _exposure(model, device)
    phase = _phase(model, device, busy, left)
    return Snapshot(
        device,
        info.values.get("MODEL", "") if info is not None else "",
        connection is not None and connection.on("CONNECT"),
        _number(model, device, "CCD_TEMPERATURE", "CCD_TEMPERATURE_VALUE"),
        _number(model, device, "CCD_COOLER_POWER", "CCD_COOLER_VALUE"),
        phase,
        left if busy else None,
        _number(model, device, "DOWNLOAD_PROGRESS", "PERCENT") if phase == "downloading" else None,
        _filter(model, device),
        pulses.count,
        pulses.last,
        _alarms(model, device),
    )


def describe(camera: Snapshot) -> str:
    """One line."""
    if not camera.connected:
        return f"{camera.device}: not connected"
    parts = [f"{camera.device}:"]
    if camera.temperature is not None:
        parts.append(f"{camera.temperature:.1f} °C")
    if camera.power is not None:
        parts.append(f"at {camera.power:.0f} %")
    parts.append(describe_phase(camera))
    if camera.filter:
        parts.append(f"filter {camera.filter}")
    if camera.pulses:
        parts.append(f"{camera.pulses} guide pulses")
    if camera.alarms:
        parts.append(f"ALARM: {', '.join(camera.alarms)}")
    return "  ".join(parts)


def describe_phase(camera: Snapshot) -> str:
    """The phase with what is left of it."""
    if camera.percent is not None:
        return f"{camera.phase} {camera.percent:.0f} %"
    if camera.seconds_left:
        return f"{camera.phase}, {camera.seconds_left:.0f} s left"
    return camera.phase


def _number(model: Model, device: str, name: str, element: str) -> float | None:
    vector = model.vector(device, name)
    return vector.number(element) if vector is not None else None


def _exposure(model: Model, device: str) -> tuple[bool, float | None]:
    vector = model.vector(device, "CCD_EXPOSURE")
    if vector is None:
        return False, None
    return vector.state is State.BUSY, vector.number("CCD_EXPOSURE_VALUE")


def _phase(model: Model, device: str, busy: bool, left: float | None) -> str:
    """As the driver says it; other drivers tell the exposure only."""
    vector = model.vector(device, "EXPOSURE_PHASE")
    if vector is not None:
        return vector.values.get("PHASE", "").lower()
    return ("exposing" if left else "reading out") if busy else "idle"


def _filter(model: Model, device: str) -> str:
    slot = _number(model, device, "FILTER_SLOT", "FILTER_SLOT_VALUE")
    if slot is None:
        return ""
    vector = model.vector(device, "FILTER_SLOT")
    moving = " (moving)" if vector is not None and vector.state is State.BUSY else ""
    names = model.vector(device, "FILTER_NAME")
    name = names.values.get(f"FILTER_SLOT_NAME_{slot:.0f}", "") if names is not None else ""
    return (name or f"{slot:.0f}") + moving


def _alarms(model: Model, device: str) -> tuple[str, ...]:
    """The lights that are red."""
    return tuple(
        vector.labels.get(element, element)
        for vector in model.devices.get(device, {}).values()
        if vector.kind is Kind.LIGHT
        for element, value in vector.values.items()
        if value == State.ALERT.value
    )
