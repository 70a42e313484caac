# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every command of a simulated camera: which models know it, when it is served, who serves it."""

from __future__ import annotations

from usbproto import packets as p
from usbproto.simulator.answers import Handler
from usbproto.simulator.commands_camera import CameraCommands
from usbproto.simulator.commands_exposure import ExposureCommands
from usbproto.simulator.commands_parts import PartCommands
from usbproto.simulator.hardware import Hardware
from usbproto.simulator.imager import Imager
from usbproto.simulator.settings import SettingsMemory

# Commands that only the 600 Series' firmware knows; other cameras stay silent.
EXTENDED = frozenset(
    command.code
    for command in (
        p.GET_FEATURES,
        p.GET_TEMPERATURE_EX,
        p.START_EXPOSURE_EX,
        p.SET_FILTER_TRIM,
        p.SET_HSR_MODE,
        p.HSR_EXPOSURE,
        p.BASIC_HW_TRIGGER,
    )
)
# What is served while an armed camera waits for its external trigger.
SERVED_WHILE_WAITING = frozenset(
    command.code
    for command in (
        p.INIT,
        p.GET_DEVICE_STATE,
        p.GET_TEMPERATURE,
        p.GET_TEMPERATURE_EX,
        p.BASIC_HW_TRIGGER,
        p.ABORT_EXPOSURE,
    )
)


class Commands:
    """`handlers` has what this model answers, by command code. `exposure`, `parts`: who serves it."""

    def __init__(self, hardware: Hardware, settings: SettingsMemory, imager: Imager) -> None:
        self.exposure = ExposureCommands(hardware, settings, imager)
        self.parts = PartCommands(hardware, settings)
        handlers = {
            **CameraCommands(hardware, settings, imager).handlers(),
            **self.exposure.handlers(),
            **self.parts.handlers(),
        }
        self.handlers: dict[int, Handler] = {
            command.code: handler
            for command, handler in handlers.items()
            if hardware.model.extended or command.code not in EXTENDED
        }

    def power_off(self) -> None:
        self.exposure.power_off()
