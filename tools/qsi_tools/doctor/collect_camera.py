# SPDX-License-Identifier: LGPL-2.1-or-later
"""A free camera, asked how it is; see `usbproto.checkup` for what it is asked."""

from __future__ import annotations

from indi_qsi.bus import LIBUSB, Bus
from qsi_tools.doctor.collect_usb import explain
from qsi_tools.doctor.facts import Camera, Examined, Usb
from usbproto import discovery, ftdi
from usbproto.checkup import examine
from usbproto.errors import QsiError


def may_be_opened(camera: Camera) -> bool:
    """Nobody has it, neither a program nor a kernel driver, and this user may."""
    accessible = camera.node is None or camera.node.accessible
    return camera.driver is None and accessible and not camera.problem and camera.authorized is not False


def collect(bus: Bus, usb: Usb) -> tuple[Examined, ...]:
    """Opens each camera that nobody has, one after the other."""
    held = {node for process in usb.processes for node in process.holds or ()}
    free = {
        camera.location: camera
        for camera in usb.cameras
        if may_be_opened(camera) and not (camera.node is not None and camera.node.path in held)
    }
    if not free:
        return ()
    # Those whose serial number is known are not asked for it: that would open even a camera that is in use.
    known = {camera.location: camera.serial or "" for camera in usb.cameras} if bus.choice == LIBUSB else {}
    try:
        found = discovery.cameras(bus.backend(), known)
    except QsiError as error:
        return tuple(Examined(camera.name, problem=explain(error)) for camera in free.values())
    return tuple(_examine(one, free[one.port.location]) for one in found if one.port.location in free)


def _examine(found: discovery.Found, camera: Camera) -> Examined:
    if found.problem is not None:
        return Examined(camera.name, problem=explain(found.problem))
    try:
        channel = ftdi.Channel(found.port)
    except QsiError as error:
        return Examined(camera.name, problem=explain(error))
    checkup = examine(channel, found.series, found.serial or "")
    identity = checkup.identity
    return Examined(
        camera=camera.name,
        state=checkup.state,
        cooler=checkup.cooler,
        ccd=checkup.ccd,
        power=checkup.power,
        model=identity.model if identity else "",
        base_type=identity.base_type if identity else "",
        series=found.series.name,
        firmware=identity.firmware if identity else "",
        serial=identity.serial if identity else "",
        link_tested=checkup.link_tested,
        errors=tuple(checkup.errors),
        link_errors=tuple(checkup.link_errors),
    )
