# SPDX-License-Identifier: LGPL-2.1-or-later
"""Captures as other programs write them, made from what really passed between our driver and a simulated camera.

`NotingBackend` notes the transfers below PyUSB. `usbmon` and `usbpcap` make packets of them, `pcap` and `pcapng`
put packets into a file.
"""

from __future__ import annotations

import errno
import struct
import time
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import usb.core

from usbproto.models import Chip
from usbproto.simulator import descriptors

ISOCHRONOUS, INTERRUPT, CONTROL, BULK = range(4)
USBMON, USBMON_MAPPED, USBPCAP = 189, 220, 249
EPOCH = 1.7e9  # s; what the clock of a capture counts from
URB = 16 << 10  # bytes; usbfs reads in pieces of this size
BUS = 1
SETUP_TIME = 0.01  # s before the first transfer, when the system read the descriptors

USB_EVENTS = ("claim", "control", "write", "read", "fail", "unknown", "release")

Packets = list[tuple[float, bytes]]  # time of the capture's clock, bytes


@dataclass(frozen=True)
class Noted:
    """One transfer: `data` is what was sent or what came, `error` an errno of Linux, 0 for success."""

    kind: int
    device: int
    endpoint: int
    data: bytes
    began: float
    at: float
    setup: bytes = b""
    error: int = 0
    bus: int = BUS


class NotingBackend:
    """Passes everything on to another backend of PyUSB, and notes the transfers of one address each."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._addresses: dict[int, int] = {}
        self.noted: list[Noted] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def open_device(self, dev: Any) -> Any:
        handle = self._inner.open_device(dev)
        self._addresses[id(handle)] = self._inner.get_device_descriptor(dev).address
        return handle

    def ctrl_transfer(
        self, handle: Any, type_: int, request: int, value: int, index: int, data: Any, timeout: int
    ) -> Any:
        setup = struct.pack("<BBHHH", type_, request, value, index, len(data) if data is not None else 0)
        began = time.monotonic()
        try:
            done = self._inner.ctrl_transfer(handle, type_, request, value, index, data, timeout)
        except usb.core.USBError as error:
            self._note(handle, CONTROL, type_ & 0x80, b"", began, setup, _kernel(error))
            raise
        moved = bytes(memoryview(data).cast("B")[:done]) if data is not None else b""
        self._note(handle, CONTROL, type_ & 0x80, moved, began, setup)
        return done

    def bulk_write(self, handle: Any, endpoint: int, interface: int, data: array[int], timeout: int) -> Any:
        began = time.monotonic()
        try:
            sent = self._inner.bulk_write(handle, endpoint, interface, data, timeout)
        except usb.core.USBError as error:
            self._note(handle, BULK, endpoint, bytes(data), began, error=_kernel(error))
            raise
        self._note(handle, BULK, endpoint, bytes(data[:sent]), began)
        return sent

    def bulk_read(self, handle: Any, endpoint: int, interface: int, buffer: array[int], timeout: int) -> Any:
        began = time.monotonic()
        try:
            came = self._inner.bulk_read(handle, endpoint, interface, buffer, timeout)
        except usb.core.USBError as error:
            self._note(handle, BULK, endpoint, b"", began, error=_kernel(error))
            raise
        self._note(handle, BULK, endpoint, bytes(memoryview(buffer)[:came]), began)
        return came

    def _note(
        self,
        handle: Any,
        kind: int,
        endpoint: int,
        data: bytes,
        began: float,
        setup: bytes = b"",
        error: int = 0,
    ) -> None:
        address = self._addresses[id(handle)]
        at = time.monotonic()
        self.noted.append(Noted(kind, address, endpoint, data, EPOCH + began, EPOCH + at, setup, error))


def _kernel(error: usb.core.USBError) -> int:
    """What the kernel reports where libusb reports this."""
    return errno.ENOENT if error.errno == errno.ETIMEDOUT else int(error.errno)


def plugged(noted: Sequence[Noted], vendor: int, product: int, chip: Chip) -> list[Noted]:
    """With what the system reads when a camera is plugged in: its descriptors."""
    first = noted[0]
    device = descriptors.device_descriptor(vendor, product, 0x0700, 64)
    configuration = descriptors.configuration_descriptor(chip)
    at = first.began - SETUP_TIME
    read = [
        Noted(
            CONTROL, first.device, 0x80, data, at, at, struct.pack("<BBHHH", 0x80, 6, kind << 8, 0, len(data))
        )
        for kind, data in ((descriptors.DEVICE, device), (descriptors.CONFIGURATION, configuration))
    ]
    return [*read, *noted]


def pieces(noted: Iterable[Noted]) -> list[Noted]:
    """As usbfs reads: large reads in several transfers."""
    found: list[Noted] = []
    for one in noted:
        if one.kind == BULK and one.endpoint & 0x80 and len(one.data) > URB:
            found += [replace(one, data=one.data[at : at + URB]) for at in range(0, len(one.data), URB)]
        else:
            found.append(one)
    return found


def exchanges(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of a recording about the USB, without their times."""
    kept = [line for line in lines if line.get("e") in USB_EVENTS]
    return [{key: value for key, value in line.items() if key not in ("t", "took")} for line in kept]


# --- packets ---


def usbmon(
    noted: Iterable[Noted], order: str = "<", link: int = USBMON_MAPPED, cut: int = 1 << 20
) -> Packets:
    """Beginning and end of each transfer as Linux reports them; `cut` is the number of bytes kept of each."""
    packets: Packets = []
    for number, one in zip(count(0xFFFF8880_00000000, 0x40), pieces(noted)):
        incoming = bool(one.endpoint & 0x80)
        length = len(one.data)
        for kind, at in (("S", one.began), ("C", one.at)):
            begins = kind == "S"
            data = one.data if begins != incoming else b""
            head = struct.pack(
                order + "QBBBBHBBqiiII8s",
                number,
                ord(kind),
                one.kind,
                one.endpoint,
                one.device,
                one.bus,
                0 if begins and one.kind == CONTROL else ord("-"),
                0 if data else ord("<" if incoming else ">"),
                int(at),
                int(at % 1 * 1e6),
                -errno.EINPROGRESS if begins else -one.error,
                (URB if incoming else length) if begins else (0 if one.error and not incoming else length),
                len(data[:cut]),
                one.setup if begins and one.kind == CONTROL else bytes(8),
            )
            rest = struct.pack(order + "iiII", 0, 0, 0, 0) if link == USBMON_MAPPED else b""
            packets.append((at, head + rest + data[:cut]))
    return packets


_STATUS = {0: 0, errno.ENOENT: 0xC0010000, errno.EPIPE: 0xC0000004, errno.ENODEV: 0xC0007000}


def usbpcap(noted: Iterable[Noted], old: bool = False, cut: int = 1 << 20) -> Packets:
    """The same as USBPcap reports it; `old` versions have stages of their own for data and status."""
    packets: Packets = []

    def packet(
        one: Noted, number: int, at: float, ended: bool, data: bytes, stage: int | None = None
    ) -> None:
        status = _STATUS.get(one.error, 0xC0000011) if ended else 0
        start = 27 if stage is None else 28
        head = struct.pack(
            "<HQIHBHHBBI",
            start,
            number,
            status,
            9,
            int(ended),
            one.bus,
            one.device,
            one.endpoint,
            one.kind,
            len(data),
        )
        head += b"" if stage is None else bytes((stage,))
        packets.append((at, head + data[:cut]))

    for number, one in zip(count(0xFFFF8008_00000010, 0x10), noted):
        incoming = bool(one.endpoint & 0x80)
        if one.kind == CONTROL:
            packet(one, number, one.began, False, one.setup + (b"" if incoming else one.data), 0)
            if old and incoming:
                packet(one, number, one.at, True, one.data, 1)
            packet(one, number, one.at, True, one.data if incoming and not old else b"", 2 if old else 3)
        else:
            packet(one, number, one.began, False, b"" if incoming else one.data)
            packet(one, number, one.at, True, one.data if incoming else b"")
    return packets


# --- files ---


def pcap(link: int, packets: Packets, order: str = "<", nanoseconds: bool = False) -> bytes:
    magic, unit = (0xA1B23C4D, 1e9) if nanoseconds else (0xA1B2C3D4, 1e6)
    file = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 262144, link)
    for at, data in packets:
        file += struct.pack(order + "IIII", int(at), int(at % 1 * unit), len(data), len(data)) + data
    return file


def pcapng(link: int, packets: Packets, order: str = "<") -> bytes:
    """With what such files have besides packets: an option for the time, and a block of statistics."""

    def block(kind: int, body: bytes) -> bytes:
        body += bytes(-len(body) % 4)
        size = struct.pack(order + "I", 12 + len(body))
        return struct.pack(order + "I", kind) + size + body + size

    file = block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))
    options = struct.pack(order + "HHB3xHH", 9, 1, 9, 0, 0)  # times in ns
    file += block(1, struct.pack(order + "HHI", link, 0, 262144) + options)
    for at, data in packets:
        ticks = int(at * 1e9)
        head = struct.pack(order + "IIIII", 0, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data))
        file += block(6, head + data)
    return file + block(5, bytes(12))
