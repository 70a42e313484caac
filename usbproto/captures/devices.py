# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which device of a capture is the camera: by its descriptor, by an option, or by its traffic."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from usbproto.captures.container import CaptureError
from usbproto.captures.events import Kind
from usbproto.captures.urbs import Transfer
from usbproto.models import (
    BASE_TYPES,
    FT245,
    FT2232H,
    SERIES_500,
    SERIES_600,
    VENDOR_ID,
    Series,
    base_type,
    channel_serial,
    series_of,
)
from usbproto.packets import COMMANDS, HEADER_BYTES, packet_length
from usbproto.stream import ENDPOINT_IN, ENDPOINT_OUT, STATUS_BYTES

# Devices that are looked at. A bus has 127 addresses, and each replug takes a new one.
MAX_DEVICES = 1024
# Devices that a message lists: a screen has some 24 lines.
MAX_LISTED = 20
# Answered commands by which a device counts as a camera although the capture lacks its descriptor. Less than
# one in a thousand random packets decodes as a command and its answer.
MIN_ANSWERED = 2

_GET_DESCRIPTOR = b"\x80\x06"
_DEVICE, _CONFIGURATION, _STRING, _ENDPOINT = 1, 2, 3, 5
_DEVICE_BYTES, _ENDPOINT_BYTES = 18, 7
_USUAL_SERIAL_STRING = 3  # the number that all FTDI chips give to the string
_SET_BIT_MODE = b"\x40\x0b"
_SYNC_FIFO = 0x40
_PACKET_SIZES = (FT245.packet, FT2232H.packet)


@dataclass(slots=True)
class Device:
    """One address of a bus, and what the capture shows of it."""

    bus: int
    address: int
    vendor: int | None = None
    product: int | None = None
    serial: str = ""
    packet: int | None = None  # of the descriptor, bytes
    transfers: int = 0  # bulk transfers of the endpoints that a camera has
    answered: int = 0  # commands of cameras that got an answer of theirs
    sync_fifo: bool = False
    model: str = ""  # that the camera reported, like "683wsg"
    _serial_string: int = _USUAL_SERIAL_STRING
    _strings: dict[int, str] = field(default_factory=dict)
    _asked: int | None = None
    _votes: Counter[int] = field(default_factory=Counter)

    @property
    def name(self) -> str:
        """As `--device` takes it."""
        return f"{self.bus}.{self.address}"

    @property
    def described(self) -> Series | None:
        """The series by the device descriptor."""
        if self.vendor != VENDOR_ID or self.product is None:
            return None
        return series_of(self.product)

    @property
    def series(self) -> Series:
        """By the descriptor; without one by the model, else by the mode and the packets of the chip."""
        if self.described is not None:
            return self.described
        if (base := base_type(self.model)) in BASE_TYPES:
            return BASE_TYPES[base][0]
        return SERIES_600 if self.sync_fifo or self.packet_size == FT2232H.packet else SERIES_500

    @property
    def packet_size(self) -> int:
        """Of the bulk endpoints, bytes: by the descriptor, by the status bytes in the data, or by the chip.

        An FT2232H behind a full-speed hub has packets of 64 bytes.
        """
        if self.packet is not None:
            return self.packet
        if self._votes:
            return self._votes.most_common(1)[0][0]
        if (series := self.described) is not None:
            return series.chip.packet
        return FT2232H.packet if self.sync_fifo else FT245.packet

    @property
    def packet_source(self) -> str:
        if self.packet is not None:
            return "descriptor"
        return "data" if self._votes else "chip"

    def describe(self) -> str:
        ids = f"{self.vendor:04x}:{self.product:04x}" if self.vendor is not None else "no descriptor"
        return f"{self.name} ({ids}, {self.transfers} transfers of endpoints 0x81 and 0x02)"

    def take(self, transfer: Transfer) -> None:
        """Learns from a transfer of this device."""
        if transfer.kind is Kind.CONTROL:
            if transfer.setup[:2] == _GET_DESCRIPTOR and not transfer.error:
                self._descriptor(transfer.setup, transfer.data)
            elif transfer.setup[:2] == _SET_BIT_MODE and transfer.setup[3] == _SYNC_FIFO:
                self.sync_fifo = True
        elif transfer.endpoint == ENDPOINT_OUT:
            self.transfers += 1
            self._asked = _command(transfer.data)
        elif transfer.endpoint == ENDPOINT_IN:
            self.transfers += 1
            self._received(transfer.data)

    def _descriptor(self, setup: bytes, data: bytes) -> None:
        number, kind = setup[2], setup[3]
        if kind == _DEVICE and len(data) >= _DEVICE_BYTES:
            vendor, product = struct.unpack_from("<HH", data, 8)
            if self.described is None:  # an address that another device had before
                self.vendor, self.product = vendor, product
                self._serial_string = data[16]
                self.serial = self._strings.get(data[16], "")
        elif kind == _CONFIGURATION:
            self._configuration(data)
        elif kind == _STRING and number and len(data) > 2:
            self._strings[number] = data[2:].decode("utf-16-le", "replace")
            if number == self._serial_string:
                self.serial = channel_serial(self._strings[number]) or ""

    def _configuration(self, data: bytes) -> None:
        at = 0
        while at + 2 <= len(data) and data[at] >= 2:
            part = data[at : at + data[at]]
            if len(part) >= _ENDPOINT_BYTES and part[1] == _ENDPOINT and part[2] == ENDPOINT_IN:
                size = int(struct.unpack_from("<H", part, 4)[0])
                if size in _PACKET_SIZES:
                    self.packet = size
            at += data[at]

    def _received(self, data: bytes) -> None:
        asked, payload = self._asked, data[STATUS_BYTES:]
        if asked is not None and payload[:1] == bytes((asked,)):
            self.answered += 1
            self._asked = None
        status = data[:STATUS_BYTES]
        heads = [data[at : at + STATUS_BYTES] for at in range(FT245.packet, len(data) - 1, FT245.packet)]
        if len(heads) >= FT2232H.packet // FT245.packet:
            small = heads.count(status) > len(heads) // 2
            self._votes[FT245.packet if small else FT2232H.packet] += 1


def _command(data: bytes) -> int | None:
    """The code of a request that cameras know."""
    if len(data) < HEADER_BYTES or len(data) != packet_length(data[:HEADER_BYTES]):
        return None
    command = COMMANDS.get(data[0])
    return data[0] if command is not None and len(data) == HEADER_BYTES + command.request.size() else None


def survey(transfers: Iterable[Transfer]) -> list[Device]:
    """The devices of a capture in the order in which they appear; at most `MAX_DEVICES`."""
    found: dict[tuple[int, int], Device] = {}
    for transfer in transfers:
        key = transfer.bus, transfer.device
        device = found.get(key)
        if device is None:
            if len(found) >= MAX_DEVICES:
                continue
            device = found[key] = Device(*key)
        device.take(transfer)
    return list(found.values())


@dataclass(frozen=True, slots=True)
class Choice:
    """The camera: `devices` are several when it was plugged in again. `found_by` names the reason."""

    devices: tuple[Device, ...]
    found_by: str

    @property
    def serial(self) -> str:
        return next((device.serial for device in self.devices if device.serial), "")


def choose(devices: list[Device], wanted: str | None = None) -> Choice:
    """The camera among the devices; `wanted` is an address like "1.5".

    Raises `CaptureError` that lists the candidates when none or several qualify.
    """
    if wanted is not None:
        named = tuple(device for device in devices if device.name == wanted)
        if not named:
            raise CaptureError(f"the capture has no device {wanted}; it has {_listed(devices)}")
        return Choice(named, "option")
    described = [device for device in devices if device.described is not None]
    # A camera that the system asked for its descriptors only is not the one that a program used.
    used = [device for device in described if device.transfers] or described
    if used:
        return _one(used, "descriptor")
    answered = [d for d in devices if d.vendor is None and d.answered >= MIN_ANSWERED]
    if answered:
        return _one(answered, "traffic")
    raise CaptureError(f"the capture has no QSI camera; it has {_listed(devices)}")


def _one(devices: list[Device], found_by: str) -> Choice:
    serials = {device.serial for device in devices}
    if len(devices) == 1 or (len(serials) == 1 and "" not in serials):
        return Choice(tuple(devices), found_by)
    raise CaptureError(f"several devices can be the camera, choose one by --device: {_listed(devices)}")


def _listed(devices: list[Device]) -> str:
    if not devices:
        return "no devices"
    more = f" and {len(devices) - MAX_LISTED} more" if len(devices) > MAX_LISTED else ""
    return ", ".join(device.describe() for device in devices[:MAX_LISTED]) + more
