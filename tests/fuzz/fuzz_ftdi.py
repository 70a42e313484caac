# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a chip sends: the reader of the FTDI channel, through PyUSB, against a simple reading of the same bytes.

After a transfer that failed the reader goes on: nothing that the chip sent before or behind it may be lost.

An input is a first byte (which chip), a second one (into pieces of which size it is read), then transfers: a
byte of length or of a failure, two bytes of length for long ones, and so many bytes as they come from the USB.
"""

from __future__ import annotations

import errno
from functools import cache
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from usbproto import ftdi
from usbproto.deadline import Deadline
from usbproto.errors import Disconnected, TransferFailed
from usbproto.models import SERIES, VENDOR_ID, Series
from usbproto.simulator import descriptors
from usbproto.simulator.backend import PyUsbBackend, UsbHandle
from usbproto.simulator.usbtransfer import Setup, UsbFailure
from usbproto.timing import FAST

STATUS = b"\x32\x60"
LONG, SILENT, FAILURES = 240, 241, 242  # lengths below are lengths
ERRNOS = (errno.EPIPE, errno.ENODEV, errno.EIO, errno.EOVERFLOW, errno.EPROTO, errno.ESHUTDOWN)
LEFT = frozenset({errno.ENODEV, errno.ESHUTDOWN})

SEEDS = (
    bytes((0, 7)) + bytes((5,)) + STATUS + b"abc" + bytes((2,)) + STATUS + bytes((64,)) + STATUS + bytes(62),
    bytes((1, 0, LONG)) + (1030).to_bytes(2, "big") + (STATUS + bytes(range(255)) * 2) * 2 + STATUS + b"tail",
    bytes((1, 255, SILENT, 1)) + STATUS[:1] + bytes((FAILURES, 3)) + STATUS + b"z",
    bytes((0, 1, 0, 3)) + STATUS + b"k" + bytes((FAILURES + 1,)),
    bytes((0, 3, LONG)) + (640).to_bytes(2, "big") + (STATUS + b"p" * 62) * 10,
)


def one_input(data: bytes) -> None:
    if len(data) < 2:
        return
    series = SERIES[data[0] % len(SERIES)]
    transfers = _transfers(data[2:], series.chip.packet)
    pieces = data[1] + 1
    found = _read(series, transfers, pieces)
    assert _read(series, transfers, 1) == found
    expected, failures, end = b"", 0, "silence"
    for transfer in transfers:
        if isinstance(transfer, int):
            if transfer in LEFT:
                end = "Disconnected"
                break
            failures += 1
            continue
        for at in range(0, len(transfer), series.chip.packet):
            expected += transfer[at + len(STATUS) : at + series.chip.packet]
    assert found == (expected, failures, end)


def _transfers(data: bytes, packet: int) -> list[bytes | int]:
    """What each read of the USB gives: bytes, or an errno."""
    found: list[bytes | int] = []
    at = 0
    while at < len(data):
        head = data[at]
        at += 1
        if head >= FAILURES:
            found.append(ERRNOS[(head - FAILURES) % len(ERRNOS)])
            continue
        if head == SILENT:
            found.append(b"")
            continue
        size = head
        if head == LONG:
            size = int.from_bytes(data[at : at + 2], "big")
            at += 2
        found.append(data[at : at + size])
        at += size
    return found


def _read(series: Series, transfers: list[bytes | int], piece: int) -> tuple[bytes, int, str]:
    """Everything until the chip leaves or is silent, read into pieces of this size; how many transfers failed
    meanwhile, and how it ended."""
    channel, chip = _opened(series.product_id)
    chip.transfers = list(transfers)
    channel.purge()
    result, failures = b"", 0
    target = memoryview(bytearray(piece))
    with patch.object(ftdi, "FAILURE_PAUSE", 0.0):
        # A target that is filled leaves nothing over that would not be given next time.
        while True:
            try:
                count = channel.read_into(target, Deadline(0.0))
            except TransferFailed:
                failures += 1
                continue
            except Disconnected:
                return result, failures, "Disconnected"
            assert 0 <= count <= piece
            result += target[:count]
            if count == 0 and not chip.transfers:
                return result, failures, "silence"


@cache
def _opened(product: int) -> tuple[ftdi.Channel, _Chip]:
    """One for all inputs: opening a chip takes some ten milliseconds."""
    series = next(series for series in SERIES if series.product_id == product)
    chip = _Chip(series)
    (port,) = ftdi.ports(_Bus(chip))
    return ftdi.Channel(port), chip


class _Chip:
    """An open chip that reads as it is told."""

    def __init__(self, series: Series) -> None:
        self.series = series
        self.transfers: list[bytes | int] = []

    def control(self, setup: Setup, data: memoryview, timeout: float | None) -> int:
        if setup.request_type == 0x80 and setup.request == 0x08:  # which configuration: the first
            data[:1] = b"\x01"
            return 1
        if setup.request_type == 0x80 and setup.request == 0x06:
            text = (
                descriptors.languages_descriptor()
                if setup.value & 0xFF == 0
                else descriptors.string_descriptor("00600001")
            )
            count = min(len(text), len(data))
            data[:count] = text[:count]
            return count
        if (setup.request_type, setup.request) == (ftdi.REQUEST_IN, ftdi.SIO_GET_LATENCY):
            data[:1] = bytes((FAST.latency_ms,))  # it remembers how it was set up
            return 1
        return 0

    def bulk(self, endpoint: int, data: memoryview, timeout: float | None) -> int:
        if not self.transfers:
            raise UsbFailure(errno.ETIMEDOUT)
        transfer = self.transfers.pop(0)
        if isinstance(transfer, int):
            raise UsbFailure(transfer)
        count = min(len(transfer), len(data))
        data[:count] = transfer[:count]
        return count

    def reset(self) -> None: ...

    def claim(self, interface: int) -> None: ...

    def release(self, interface: int) -> None: ...

    def kernel_driver_active(self, interface: int) -> bool:
        return False

    def attach_kernel_driver(self, interface: int, attach: bool) -> None: ...

    def close(self) -> None: ...


class _Bus(PyUsbBackend[_Chip]):
    """A USB with this chip on it."""

    def __init__(self, chip: _Chip) -> None:
        super().__init__()
        self._chip = chip

    def enumerate_devices(self) -> list[_Chip]:
        return [self._chip]

    def get_device_descriptor(self, dev: _Chip) -> SimpleNamespace:
        data = descriptors.device_descriptor(VENDOR_ID, dev.series.product_id, 0x0700, 64)
        fields: Any = descriptors.parse_device(data)
        fields.bus, fields.address, fields.speed = 1, 1, descriptors.HIGH_SPEED
        fields.port_number, fields.port_numbers = 1, (1,)
        return fields

    def _configuration(self, dev: _Chip) -> bytes:
        return descriptors.configuration_descriptor(dev.series.chip)

    def _open(self, dev: _Chip) -> UsbHandle:
        return dev
