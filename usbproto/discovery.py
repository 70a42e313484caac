# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which cameras are there, and opening one of them by its serial number.

The USB serial of a dual-channel chip can end in `A` or `B`. The vendor drops what ends in `B` and strips a
trailing `A` (wire protocol, section 1); so do we, or one camera would be two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from usbproto import ftdi
from usbproto.camera import Camera
from usbproto.capabilities import CapabilityCache
from usbproto.errors import CameraInUse, NoCamera
from usbproto.ftdi import Port
from usbproto.models import Series


@dataclass(frozen=True)
class Found:
    """A camera that is attached. `serial` is None, and `problem` says why, when it may not be asked."""

    series: Series
    serial: str | None
    port: Port

    @property
    def problem(self) -> Exception | None:
        return self.port.problem


def channel_serial(usb_serial: str) -> str | None:
    """The camera's serial from the USB string; None for the second channel of a chip."""
    serial = usb_serial.replace("\0", "").strip().upper()
    if serial.endswith("B"):
        return None
    return serial.removesuffix("A")


def cameras(backend: Any = None, known: Mapping[str, str] | None = None) -> list[Found]:
    """The cameras that are attached, by serial number; those that cannot be asked come last.

    `backend` is a pyusb backend, None for libusb; `known` (location -> serial) need not be asked again.
    Raises `NoCamera` when there is no USB at all.
    """
    found = []
    for port in ftdi.ports(backend, known):
        if port.serial is None:
            found.append(Found(port.series, None, port))
        elif (serial := channel_serial(port.serial)) is not None:
            found.append(Found(port.series, serial, port))
    return sorted(found, key=lambda camera: (camera.serial is None, camera.serial or ""))


def open_camera(
    serial: str | None = None, *, backend: Any = None, cache: CapabilityCache | None = None
) -> Camera:
    """Opens the camera with this serial number, or the first one that is free.

    Raises `NoCamera`, `NoPermission`, `CameraInUse`, or a `LinkError`.
    """
    attached = cameras(backend)
    if serial is not None:
        named = [camera for camera in attached if camera.serial == serial]
        if not named:
            raise _missing(serial, attached)
        return _open(named[0], cache)
    if not attached:
        raise NoCamera("No QSI camera was found on the USB")
    for camera in attached[:-1]:
        try:
            return _open(camera, cache)
        except CameraInUse:
            continue  # another driver has this one; the next may be free
    return _open(attached[-1], cache)


def _open(found: Found, cache: CapabilityCache | None) -> Camera:
    if found.problem is not None:
        raise found.problem
    camera = Camera(ftdi.Channel(found.port), found.series, found.serial or "", cache)
    camera.location = found.port.location
    return camera


def _missing(serial: str, attached: list[Found]) -> Exception:
    for camera in attached:
        if camera.problem is not None:
            return camera.problem  # it may well be the one that was asked for
    others = ", ".join(str(camera.serial) for camera in attached)
    there = f"attached: {others}" if others else "no QSI camera is attached"
    return NoCamera(f"No QSI camera with the serial number {serial} was found ({there})")
