# SPDX-License-Identifier: LGPL-2.1-or-later
"""The light and the beeper on the camera's back (the Guide, "Status and Notification")."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from usbproto.packets import CameraState
from usbproto.simulator.firmware import Firmware
from usbproto.simulator.mechanics import SHUTTER_FAILED, WHEEL_FAILED

OFF, GREEN, YELLOW, RED = "off", "green", "yellow", "red flashing"
NO_CABLE = "green flashing"
LOADING, VALIDATING = "yellow flashing fast", "yellow flashing slowly"

_LIGHT = {
    CameraState.IDLE: GREEN,
    CameraState.EXPOSING: RED,
    CameraState.WAITING_FOR_TRIGGER: RED,
}
_OWN_EVENTS = frozenset({"led", "beep", "error"})


class Indicator:
    """Looks at the camera at every event and tells when light or errors change."""

    def __init__(self, firmware: Firmware, plugged: Callable[[], bool]) -> None:
        self._firmware = firmware
        self._plugged = plugged
        self._log = firmware.hardware.log
        self._shown = self.led
        self._error = 0
        self._log.listeners.append(self._on_event)

    @property
    def error(self) -> int:
        """The device error that is blinked, or 0."""
        hardware = self._firmware.hardware
        if hardware.shutter.failed:
            return SHUTTER_FAILED
        if hardware.wheel.failed:
            return WHEEL_FAILED
        return hardware.cooler.error

    @property
    def led(self) -> str:
        """Errors and power-up are shown even when the light was switched off."""
        firmware = self._firmware
        if not firmware.powered:
            return OFF
        if not firmware.ready:
            return YELLOW
        if firmware.loader.active:
            return VALIDATING if firmware.loader.validating else LOADING
        if self.error:
            return f"red 1, yellow {self.error}"
        if not firmware.settings.current.led:
            return OFF
        if firmware.hardware.wheel.moving or firmware.hardware.shutter.moving or firmware.transferring:
            return YELLOW
        if not self._plugged():
            return NO_CABLE
        return _LIGHT.get(firmware.imager.state, YELLOW)

    def _on_event(self, name: str, facts: dict[str, Any]) -> None:
        if name in _OWN_EVENTS:
            return
        hardware = self._firmware.hardware
        hardware.cooler.look(hardware.timeline.now())
        if name == "power" and facts["on"]:
            self._log.emit("beep", sound="chirp")
        elif name == "ready":
            self._log.emit("beep", sound="chirp-chirp")
        error = self.error if self._firmware.powered else 0
        if error != self._error:
            self._error = error
            self._log.emit("error", code=error)
            if error:
                self._log.emit("beep", sound=f"long 1, short {error}")
        if self.led != self._shown:
            self._shown = self.led
            self._log.emit("led", shows=self._shown)
