# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which cameras are there, and opening one of them by its serial number."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from usbproto import ftdi
from usbproto.camera import Camera
from usbproto.capabilities import CapabilityCache
from usbproto.errors import CameraInUse, NoCamera
from usbproto.ftdi import Channel, Port
from usbproto.models import Series, channel_serial
from usbproto.session import Session


@dataclass(frozen=True)
class Found:
    """A camera that is attached. `serial` is None, and `problem` says why, when it may not be asked."""

    series: Series
    serial: str | None
    port: Port

    @property
    def problem(self) -> Exception | None:
        return self.port.problem


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


@dataclass(frozen=True)
class Claimed:
    """A camera that no other program can use any more. Nothing was asked of it yet."""

    channel: Channel
    series: Series
    serial: str

    def open(self, cache: CapabilityCache | None = None, session: Session | None = None) -> Camera:
        """Initialises the camera: mostly a second, a minute at most. Raises what `Camera` raises."""
        try:
            if session is not None:
                self.channel.stop, self.channel.odd = session.stop, session.odd
                self.channel.use_timing(session.timing)
            self.channel.interruptible = True
            camera = Camera(self.channel, self.series, self.serial, cache, session)
            self.channel.interruptible = False
            return camera
        except BaseException:
            self.channel.close()
            raise

    @property
    def closed(self) -> bool:
        """Whether the camera was let go."""
        return self.channel.closed


def open_camera(
    serial: str | None = None,
    *,
    backend: Any = None,
    cache: CapabilityCache | None = None,
    session: Session | None = None,
) -> Camera:
    """Opens the camera with this serial number, or the first one that is free.

    Raises `NoCamera`, `NoPermission`, `CameraInUse`, or a `LinkError`.
    """
    return claim(serial, backend=backend).open(cache, session)


def claim(
    serial: str | None = None,
    *,
    backend: Any = None,
    prefer: str | None = None,
    avoid: Collection[str] = (),
) -> Claimed:
    """Claims the camera with this serial number, or the first one that is free; takes milliseconds.

    Without a serial number, the camera `prefer` is tried first, and the cameras in `avoid` are not tried.
    Raises `NoCamera`, `NoPermission`, `CameraInUse`, or a `LinkError`.
    """
    attached = cameras(backend)
    if serial is not None:
        named = [camera for camera in attached if camera.serial == serial]
        if not named:
            raise _missing(serial, attached)
        return _claim(named[0])
    if not attached:
        raise NoCamera("No QSI camera was found on the USB")
    allowed = [camera for camera in attached if camera.serial not in avoid]
    if not allowed:
        others = ", ".join(str(camera.serial) for camera in attached)
        raise NoCamera(f"No other QSI camera was found on the USB (attached: {others})")
    if prefer is not None:
        allowed.sort(key=lambda camera: camera.serial != prefer)
    for camera in allowed[:-1]:
        try:
            return _claim(camera)
        except CameraInUse:
            continue  # another driver has this one; the next may be free
    return _claim(allowed[-1])


def _claim(found: Found) -> Claimed:
    if found.problem is not None:
        raise found.problem
    return Claimed(Channel(found.port), found.series, found.serial or "")


def _missing(serial: str, attached: list[Found]) -> Exception:
    for camera in attached:
        if camera.problem is not None:
            return camera.problem  # it may well be the one that was asked for
    others = ", ".join(str(camera.serial) for camera in attached)
    there = f"attached: {others}" if others else "no QSI camera is attached"
    return NoCamera(f"No QSI camera with the serial number {serial} was found ({there})")
