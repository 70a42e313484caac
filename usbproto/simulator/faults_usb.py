# SPDX-License-Identifier: LGPL-2.1-or-later
"""Faults of the supply, the cable and the FTDI chip."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from usbproto.simulator.arguments import Arguments
from usbproto.simulator.faults import fault

if TYPE_CHECKING:
    from usbproto.simulator.camera import SimulatedCamera


# --- supply ---


@fault("voltage", "the supply is VALUE V (default 10.5: device error 3; below 10: the cooler stops)")
def _voltage(camera: SimulatedCamera, arguments: Arguments) -> None:
    camera.set_environment(voltage=arguments.number(10.5))


@fault("brown-out", "the supply sinks to 9.5 V: device error 3, cooler state 8")
def _brown_out(camera: SimulatedCamera, arguments: Arguments) -> None:
    camera.set_environment(voltage=9.5)


@fault("power-off", "the supply fails: the camera leaves the USB")
def _power_off(camera: SimulatedCamera, arguments: Arguments) -> None:
    camera.timeline.after(0, camera.power_off)


@fault("power-cycle", "the supply fails for VALUE s (default 1); 6 s later the camera listens again")
def _power_cycle(camera: SimulatedCamera, arguments: Arguments) -> None:
    camera.timeline.after(0, camera.power_off)
    camera.timeline.after(arguments.number(1.0), camera.power_on)


# --- USB ---


@fault("unplug", "the cable is pulled: ENODEV")
def _unplug(camera: SimulatedCamera, arguments: Arguments) -> None:
    camera.device.unplug()


@fault("replug", "the cable is pulled for VALUE s (default 1) and put back: a new address")
def _replug(camera: SimulatedCamera, arguments: Arguments) -> None:
    camera.device.unplug()
    camera.timeline.after(arguments.number(1.0), camera.device.replug)


@fault("reset-bus", "the bus is reset: transfers fail with EIO, the chip's settings are forgotten")
def _reset_bus(camera: SimulatedCamera, arguments: Arguments) -> None:
    camera.device.reset_bus()


@fault("stall-in", "reads fail with EPIPE until the host clears the halt")
def _stall_in(camera: SimulatedCamera, arguments: Arguments) -> None:
    camera.device.stall_in()


@fault("stall-out", "writes fail with EPIPE until the host clears the halt")
def _stall_out(camera: SimulatedCamera, arguments: Arguments) -> None:
    camera.device.stall_out()


@fault("silence-in", "no packets to the host, not even empty ones, for VALUE real s (default 3)")
def _silence_in(camera: SimulatedCamera, arguments: Arguments) -> None:
    camera.device.silence_in(arguments.number(3.0))


@fault("silence-out", "no packets from the host are taken for VALUE real s (default 3)")
def _silence_out(camera: SimulatedCamera, arguments: Arguments) -> None:
    camera.device.silence_out(arguments.number(3.0))


@fault("drop", "the next VALUE bytes to the host are lost (default 1)")
def _drop(camera: SimulatedCamera, arguments: Arguments) -> None:
    camera.device.drop(arguments.count(1))


@fault("insert", "stray bytes (hexadecimal, default a55a) go to the host first")
def _insert(camera: SimulatedCamera, arguments: Arguments) -> None:
    camera.device.insert(bytes.fromhex(arguments.word("a55a")))


@fault("corrupt", "the next VALUE bytes to the host arrive turned over (default 1)")
def _corrupt(camera: SimulatedCamera, arguments: Arguments) -> None:
    camera.device.corrupt(arguments.count(1))


@fault("babble", "the next read fails with EOVERFLOW")
def _babble(camera: SimulatedCamera, arguments: Arguments) -> None:
    camera.device.babble()


@fault("refuse-control", "the next VALUE vendor requests are refused (default 1)")
def _refuse_control(camera: SimulatedCamera, arguments: Arguments) -> None:
    camera.device.refuse_control(arguments.count(1))


@fault("deny-open", "the device cannot be opened: eacces (default), ebusy, or none to allow it again")
def _deny_open(camera: SimulatedCamera, arguments: Arguments) -> None:
    word = arguments.word("eacces").lower()
    camera.device.deny_open({"eacces": errno.EACCES, "ebusy": errno.EBUSY, "none": None}[word])


@fault("no-strings", "the string descriptors cannot be read")
def _no_strings(camera: SimulatedCamera, arguments: Arguments) -> None:
    camera.device.read_strings(False)


@fault("short-serial", "the serial number's descriptor has VALUE characters only (default 4)")
def _short_serial(camera: SimulatedCamera, arguments: Arguments) -> None:
    camera.device.truncate_serial(arguments.count(4))
