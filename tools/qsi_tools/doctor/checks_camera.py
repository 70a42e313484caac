# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the camera says of itself: asked directly when it is free, by its INDI server when a driver has it."""

from __future__ import annotations

from collections.abc import Iterable

from qsi_tools.doctor.facts import DRIVERS, INDISERVER, Device, Examined, Facts
from qsi_tools.doctor.findings import Finding, note, ok, problem, unknown, warning
from usbproto.errors import DEVICE_ERRORS
from usbproto.models import BASE_TYPES, FEATURES_FIXED_IN, SERIES_600
from usbproto.packets import CameraState, CoolerState

# The lights of CAMERA_ALARMS -> device error; indi_qsi.device.status has the other direction.
LIGHTS = {
    "OVER_TEMPERATURE": 1,
    "UNDER_TEMPERATURE": 2,
    "SUPPLY_LOW": 3,
    "SUPPLY_HIGH": 4,
    "FILTER_WHEEL": 5,
    "SHUTTER": 6,
}
BELIEVABLE = (-100.0, 100.0)  # degC; outside, the sensor or the link is broken
MANUAL_SHUTTER_SINCE = (3, 5, 11)
FULL_POWER = 99.5  # per cent
POWER_CYCLE = "Power the camera off and on, and wait 6 seconds"


def examined(facts: Facts) -> Iterable[Finding]:
    for camera in facts.examined:
        if camera.problem:
            yield unknown("camera's word", f"It could not be asked: {camera.problem}")
            continue
        yield from _alarms(camera.errors)
        for error in camera.link_errors:
            yield problem("link", error, f"Try another cable and port. {POWER_CYCLE}")
        if camera.link_tested:
            yield ok("link", f"{camera.camera} answers, and its link test came back without an error")
        if not camera.errors and not camera.link_errors:
            yield ok("alarms", "None: supply, temperatures, filter wheel and shutter")
        yield from _state(camera)
        if camera.ccd is not None:
            yield from _temperature(camera.ccd, camera.power)
        yield from _cooler(camera.cooler)
        yield from _firmware(camera.series, camera.base_type, camera.firmware, bool(camera.model))


def server(facts: Facts) -> Iterable[Finding]:
    """The INDI server: reachable, with our driver, and what its cameras say."""
    found = facts.server
    if found is None:
        return
    about = "INDI server"
    driver_runs = [p.name for p in facts.usb.processes if p.name in (INDISERVER, *DRIVERS)]
    if not found.reachable:
        if found.asked:
            yield problem(about, f"{found.address}: {found.problem}", "Is it running, and on this address?")
        elif driver_runs:
            yield note(
                about,
                f"None at {found.address}; running here: {', '.join(sorted(set(driver_runs)))}",
                "If it listens on another port: qsi-doctor --server HOST:PORT",
            )
        else:
            yield note(about, f"None at {found.address}: nothing serves a camera at the moment")
        return
    if not found.devices:
        others = f"; it serves {', '.join(found.others)}" if found.others else ""
        why = f" ({found.problem})" if found.problem else ""
        yield warning(
            about,
            f"{found.address} answers, but has no QSI driver{others}{why}",
            "Start it with indi_qsi_ccd, or add 'QSI CCD' to the Ekos profile",
        )
        return
    for device in found.devices:
        yield from _device(found.address, device)


def _device(address: str, device: Device) -> Iterable[Finding]:
    about, where = "INDI server", f"{device.name} at {address}"
    failed = device.states.get("CONNECTION") == "Alert"
    if failed and "CCD_EXPOSURE" in device.values:
        # The driver keeps the properties of a camera that it waits for.
        yield problem(
            about,
            f"{where} has lost its camera, and waits for it",
            "Check the camera's power and its USB cable; it comes back by itself",
        )
        return
    if failed:
        yield problem(
            about, f"{where} could not connect its camera", "The client's log, or the driver's, says why"
        )
        return
    if not device.connected:
        told = f"indi_setprop '{device.name}.CONNECTION.CONNECT=On', or the client's own button"
        yield note(about, f"{where} is not connected to its camera", told)
        return
    info = device.values.get("CAMERA_INFO", {})
    name = " ".join(info[key] for key in ("MODEL", "SERIAL") if info.get(key))
    yield ok(about, f"{where} is connected: {name}")
    alarms = device.values.get("CAMERA_ALARMS")
    if alarms is not None:
        codes = [LIGHTS[light] for light, state in alarms.items() if state == "Alert" and light in LIGHTS]
        yield from _alarms(codes)
        if not codes:
            yield ok("alarms", f"None of {device.name}")
    for vector in ("CCD_TEMPERATURE", "CCD_EXPOSURE", "CCD_COOLER", "FILTER_SLOT"):
        if device.states.get(vector) == "Alert":
            yield warning(
                about,
                f"{vector} of {device.name} is in Alert",
                "Its last request failed: the client's log says why",
            )
    temperature = _float(device, "CCD_TEMPERATURE", "CCD_TEMPERATURE_VALUE")
    if temperature is not None:
        yield from _temperature(temperature, _float(device, "CCD_COOLER_POWER", "CCD_COOLER_VALUE"))
    if "FIRMWARE" in info:
        model = info.get("MODEL", "")
        base = model[:3]
        series = BASE_TYPES[base][0].name if base in BASE_TYPES else ""
        yield from _firmware(series, base, info["FIRMWARE"], bool(model))


def _float(device: Device, vector: str, element: str) -> float | None:
    try:
        return float(device.values[vector][element])
    except (KeyError, ValueError):
        return None


def _alarms(codes: Iterable[int]) -> Iterable[Finding]:
    for code in codes:
        # Above 0x7F are refusals (0x80: not on this model), which say nothing of the camera's health.
        meaning, remedy = DEVICE_ERRORS.get(code, (f"device error {code}", POWER_CYCLE))
        if code in DEVICE_ERRORS:
            yield problem("alarms", f"{meaning[0].upper()}{meaning[1:]}", remedy)
        elif code < 0x80:
            yield warning("alarms", f"The camera reports {meaning}", remedy)


def _state(camera: Examined) -> Iterable[Finding]:
    match camera.state:
        case None:
            pass
        case CameraState.ERROR:
            yield problem("state", "The camera is in its error state", POWER_CYCLE)
        case CameraState.IDLE | CameraState.FILTER_MOVING:
            yield ok("state", "The camera is ready")
        case CameraState.WAITING_FOR_TRIGGER:
            yield note("state", "A program left the camera waiting for a trigger: the next connect ends it")
        case _:
            yield note(
                "state",
                "The camera is at an exposure that nobody waits for",
                "A program has ended without it; the next connect clears it. It was asked nothing further",
            )


def _temperature(ccd: float, power: float | None) -> Iterable[Finding]:
    low, high = BELIEVABLE
    if not low <= ccd <= high:
        yield problem("temperature", f"The CCD says {ccd:g} °C, which cannot be", POWER_CYCLE)
        return
    more = "" if power is None else f", cooler at {power:.0f} %"
    if power is not None and power >= FULL_POWER:
        yield note(
            "temperature",
            f"CCD {ccd:.1f} °C{more}: at the start of a cool-down this is right",
            "If it stays so, the set point is too low: raise it, or set the fan to full",
        )
    else:
        yield ok("temperature", f"CCD {ccd:.1f} °C{more}")


def _cooler(state: int | None) -> Iterable[Finding]:
    supply = "Check the 12 V supply, its cable and connectors: the cooler needs 2 A"
    if state == CoolerState.BROWN_OUT:
        yield problem("cooler", "It stopped because the supply sank (brown-out)", supply)
    elif state == CoolerState.NO_CONTROL:
        yield problem("cooler", "The camera has no control over its cooler", f"{supply}. {POWER_CYCLE}")


def _firmware(series: str, base: str, firmware: str, known: bool) -> Iterable[Finding]:
    if not known:
        return  # it was busy, and was not asked
    if base not in BASE_TYPES:
        yield note(
            "firmware", f"The model {base or '(without a name)'} is not in our table: please report it"
        )
    try:
        version = tuple(int(part) for part in firmware.split("."))
    except ValueError:
        yield warning(
            "firmware",
            f"The version {firmware!r} cannot be read: the camera's memory was never set, or is damaged",
            "It takes pictures all the same; keep the output of --json for a report",
        )
        return
    shown = ".".join(str(part) for part in version)
    if series == SERIES_600.name and version < FEATURES_FIXED_IN:
        yield warning(
            "firmware",
            f"{shown}: before 6.1.8 a 600 cannot tell its extra features (trigger, high speed)",
            "Update it with the vendor's Updater on Windows",
        )
    elif version < MANUAL_SHUTTER_SINCE:
        yield note("firmware", f"{shown}: the shutter cannot be opened by hand before 3.5.11")
    else:
        yield ok("firmware", f"{shown}: no known problem")
