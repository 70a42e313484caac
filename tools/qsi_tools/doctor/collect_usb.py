# SPDX-License-Identifier: LGPL-2.1-or-later
"""The cameras on the USB, and who has to do with them: from sysfs, udev's notes and /proc, opening nothing.

Over USB/IP there is no sysfs: there the cameras are listed as the driver lists them.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from indi_qsi.bus import LIBUSB, Bus
from qsi_tools.doctor.facts import DRIVERS, INDISERVER, Camera, Hub, Node, Process, Usb
from usbproto import discovery
from usbproto.errors import QsiError
from usbproto.models import VENDOR_ID, channel_serial, series_of

DEVICES = "sys/bus/usb/devices"
# Programs that hold cameras or stand between them and us, by the kernel's name for the process.
INTERESTING = (*DRIVERS, INDISERVER, "ModemManager")
SELF_POWERED = 0x40  # in bmAttributes of a USB configuration


def collect(bus: Bus, root: Path) -> Usb:
    """`root` is where /sys, /proc, /dev and /run are: another folder than / in tests."""
    if bus.choice != LIBUSB:
        return _listed(bus, root)
    devices = root / DEVICES
    if not devices.is_dir():
        return Usb(readable=False, processes=processes(root, ()), problem=f"there is no {devices}")
    cameras = tuple(_cameras(devices, root))
    nodes = [camera.node.path for camera in cameras if camera.node is not None]
    return Usb(cameras=cameras, processes=processes(root, nodes))


def _listed(bus: Bus, root: Path) -> Usb:
    try:
        found = discovery.cameras(bus.backend())
    except QsiError as error:
        return Usb(bus.choice, problem=error.explain(), processes=processes(root, ()))
    cameras = tuple(
        Camera(
            camera.series.name,
            camera.serial,
            camera.port.location,
            problem="" if camera.problem is None else explain(camera.problem),
            trouble="" if camera.problem is None else type(camera.problem).__name__,
        )
        for camera in found
    )
    return Usb(bus.choice, cameras=cameras, processes=processes(root, ()))


def explain(error: Exception) -> str:
    return error.explain() if isinstance(error, QsiError) else str(error)


# --- sysfs ---


def _cameras(devices: Path, root: Path) -> Iterator[Camera]:
    for path in sorted(devices.iterdir()):
        if _read(path / "idVendor") != f"{VENDOR_ID:04x}":
            continue
        series = series_of(_number(path / "idProduct", 16) or 0)
        if series is None:
            continue
        bus, address = _number(path / "busnum") or 0, _number(path / "devnum") or 0
        authorized = _number(path / "authorized")
        yield Camera(
            series=series.name,
            serial=channel_serial(_read(path / "serial") or "") or None,
            location=f"{bus:03}:{address:03}",
            path=path.name,
            speed=_speed(path),
            driver=_driver(devices / f"{path.name}:1.0"),
            control=_read(path / "power" / "control"),
            authorized=None if authorized is None else bool(authorized),
            node=_node(root / f"dev/bus/usb/{bus:03}/{address:03}"),
            hubs=tuple(_hubs(devices, path.name)),
            properties=_udev(root / "run/udev/data", _read(path / "dev")),
        )


def _hubs(devices: Path, name: str) -> Iterator[Hub]:
    """From the camera to the computer: `1-1.3.2` hangs on `1-1.3`, and that on `1-1`."""
    while "." in name:
        name = name.rpartition(".")[0]
        path = devices / name
        attributes = _number(path / "bmAttributes", 16)
        yield Hub(
            path=name,
            product=_read(path / "product") or "hub",
            speed=_speed(path),
            self_powered=None if attributes is None else bool(attributes & SELF_POWERED),
        )


def _node(path: Path) -> Node | None:
    try:
        status = path.stat()
    except OSError:
        return None
    try:
        group = grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        group = str(status.st_gid)
    return Node(str(path), stat.S_IMODE(status.st_mode), group, os.access(path, os.R_OK | os.W_OK))


def _driver(interface: Path) -> str | None:
    try:
        return (interface / "driver").readlink().name
    except OSError:
        return None


def _udev(folder: Path, number: str | None) -> dict[str, str] | None:
    """What the rules said of the device, from udev's own notes; its tags are under TAGS."""
    text = _read(folder / f"c{number}") if number else None
    if text is None:
        return None
    lines = text.splitlines()
    found = dict(line[2:].split("=", 1) for line in lines if line.startswith("E:") and "=" in line)
    found["TAGS"] = ":".join(line[2:] for line in lines if line.startswith("G:"))
    return found


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").replace("\0", "").strip()
    except OSError:
        return None


def _number(path: Path, base: int = 10) -> int | None:
    try:
        return int(_read(path) or "", base)
    except ValueError:
        return None


def _speed(path: Path) -> float | None:
    try:
        return float(_read(path / "speed") or "")
    except ValueError:
        return None


# --- processes ---


def processes(root: Path, nodes: Iterable[str]) -> tuple[Process, ...]:
    """Those that hold one of these device files, and those whose name matters here."""
    wanted = frozenset(nodes)
    found = []
    folders = [folder for folder in (root / "proc").glob("[0-9]*") if folder.name.isdecimal()]
    for folder in sorted(folders, key=lambda folder: int(folder.name)):
        name = _read(folder / "comm")
        if name is None or int(folder.name) == os.getpid():
            continue
        holds = _holds(folder / "fd", wanted)
        if holds or name in INTERESTING:
            found.append(Process(int(folder.name), name, _owner(folder), holds))
    return tuple(found)


def _holds(folder: Path, wanted: frozenset[str]) -> tuple[str, ...] | None:
    targets = set()
    try:
        for link in folder.iterdir():
            try:
                targets.add(str(link.readlink()))
            except FileNotFoundError:
                continue  # closed meanwhile
    except FileNotFoundError:
        return ()  # it has ended
    except OSError:
        return None
    return tuple(sorted(targets & wanted))


def _owner(folder: Path) -> str:
    try:
        number = folder.stat().st_uid
        return pwd.getpwuid(number).pw_name
    except (OSError, KeyError):
        return "?"
