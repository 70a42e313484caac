# SPDX-License-Identifier: LGPL-2.1-or-later
"""What Linux says of a USB device's node: whether it is there, and how large a read its host controller
takes.

A read larger than 16 KiB is one transfer only where the host controller gathers scattered memory (the usual
xHCI and EHCI). Elsewhere it becomes a row of transfers of 16 KiB. A short packet ends one of them, and the
next may already have the bytes behind it: then packets are not where they are looked for (wire protocol,
section 1.1).
"""

from __future__ import annotations

import fcntl
import logging
import os
import sys
from pathlib import Path

log = logging.getLogger(__name__)

NODES = Path("/dev/bus/usb")
SYSFS = Path("/sys/bus/usb/devices")
# linux/usbdevice_fs.h, on all machines but a few old ones, where the request fails and the driver is looked
# at.
GET_CAPABILITIES = 0x8004551A
BULK_SCATTER_GATHER = 0x08
# Host controllers that are known to gather, for a kernel that does not answer: the beginnings of drivers'
# names.
GATHERING = ("xhci", "ehci")


def node(bus: int, address: int, nodes: Path = NODES) -> Path:
    """The device node of a USB device."""
    return nodes / f"{bus:03}" / f"{address:03}"


def is_gone(bus: int, address: int, nodes: Path = NODES) -> bool:
    """Whether the device has left this bus. A system without device nodes says nothing: False."""
    path = node(bus, address, nodes)
    return path.parent.is_dir() and not path.exists()


def takes_large_reads(bus: int, address: int, nodes: Path = NODES, sysfs: Path = SYSFS) -> bool:
    """Whether a read of any size is one transfer; False when nobody knows."""
    capabilities = _capabilities(node(bus, address, nodes))
    if capabilities is not None:
        return bool(capabilities & BULK_SCATTER_GATHER)
    return _controller(bus, sysfs).startswith(GATHERING)


def _capabilities(path: Path) -> int | None:
    """What the kernel says of a node that may be opened; None when it says nothing."""
    answer = bytearray(4)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, GET_CAPABILITIES, answer)
        finally:
            os.close(fd)
    except OSError as error:
        log.debug("%s does not report its capabilities: %s", path, error.strerror)
        return None
    return int.from_bytes(answer, sys.byteorder)


def _controller(bus: int, sysfs: Path) -> str:
    """The name of the driver of a bus's host controller, or nothing."""
    try:
        return (sysfs / f"usb{bus}").resolve().parent.joinpath("driver").resolve(strict=True).name
    except OSError:
        return ""
