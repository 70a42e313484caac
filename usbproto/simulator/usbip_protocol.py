# SPDX-License-Identifier: LGPL-2.1-or-later
"""USB/IP, version 1.1.1: messages as bytes and as values. Pure; the same for server and client.

A connection begins with one operation: list the devices, which ends it, or import a device, after which it
carries transfers: commands from the host, a reply to each. All numbers are big-endian.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

VERSION = 0x0111

# A frame is read in pieces far smaller than this; the Linux kernel takes no larger ones from programs either.
MAX_TRANSFER = 16 << 20  # bytes
# More devices or interfaces than this are a misunderstanding, not a list.
MAX_LISTED = 1024

# How a host asks for a reset: type, number and value of a hub's request "set feature: port reset". It means
# the port that the device hangs on; the device itself never sees it.
PORT_RESET = (0x23, 0x03, 0x0004)

OP_HEADER_SIZE = 8
BUSID_SIZE = 32
HEADER_SIZE = 48

_OP = struct.Struct(">HHI")
_DEVICE = struct.Struct(">256s32sIIIHHHBBBBBB")
_BASIC = struct.Struct(">IIIII")
_SUBMIT = struct.Struct(">IiiIi8s")
_SUBMITTED = struct.Struct(">iiiii8x")
_SUBMIT_MESSAGE = struct.Struct(">IIIIIIiiIi8s")
_UNLINK = struct.Struct(">I24x")
_UNLINKED = struct.Struct(">i24x")
DEVICE_SIZE = _DEVICE.size

DIRECTION_OUT, DIRECTION_IN = 0, 1
# "No isochronous packets": the Linux kernel says 0, the documentation -1.
_NOT_ISOCHRONOUS = (0, 0xFFFFFFFF)


class ProtocolError(Exception):
    """The other side does not speak USB/IP 1.1.1, or broke its rules; the connection is of no more use."""


class Op(enum.IntEnum):
    REQUEST_LIST = 0x8005
    REPLY_LIST = 0x0005
    REQUEST_IMPORT = 0x8003
    REPLY_IMPORT = 0x0003


class OpStatus(enum.IntEnum):
    OK = 0
    NOT_AVAILABLE = 1  # the host may not have it
    BUSY = 2  # somebody else has imported it
    DEVICE_ERROR = 3
    NO_DEVICE = 4
    ERROR = 5


class Code(enum.IntEnum):
    SUBMIT = 1
    UNLINK = 2
    SUBMITTED = 3
    UNLINKED = 4


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """A device in the list. `interfaces` holds class, sub-class and protocol of each."""

    path: str
    busid: str
    bus: int
    address: int
    speed: int
    vendor: int
    product: int
    bcd_device: int
    device_class: tuple[int, int, int]
    configuration: int
    configurations: int
    interface_count: int
    interfaces: tuple[tuple[int, int, int], ...] = ()

    @property
    def devid(self) -> int:
        """How transfers name the device."""
        return self.bus << 16 | self.address


@dataclass(frozen=True, slots=True)
class Submit:
    """Do a transfer. OUT data of `length` bytes follow; for IN, `length` is the room at the host."""

    sequence: int
    devid: int
    direction: int
    endpoint: int
    length: int
    setup: bytes = bytes(8)
    flags: int = 0
    interval: int = 0

    @property
    def is_in(self) -> bool:
        return self.direction == DIRECTION_IN


@dataclass(frozen=True, slots=True)
class Unlink:
    """Cancel the transfer `victim`."""

    sequence: int
    devid: int
    victim: int


@dataclass(frozen=True, slots=True)
class Submitted:
    """A transfer is done. `status` is 0 or a negative errno; `actual` bytes follow when it was IN."""

    sequence: int
    status: int
    actual: int


@dataclass(frozen=True, slots=True)
class Unlinked:
    """`status` is -ECONNRESET when the transfer was cancelled, 0 when it had been done before."""

    sequence: int
    status: int


# --- operations ---


def op_header(op: Op, status: OpStatus = OpStatus.OK) -> bytes:
    return _OP.pack(VERSION, op, status)


def parse_op_header(data: bytes) -> tuple[Op, int]:
    """Operation and status."""
    version, code, status = _OP.unpack(data)
    if version != VERSION:
        raise ProtocolError(f"version {version:#06x} instead of {VERSION:#06x}")
    try:
        return Op(code), status
    except ValueError:
        raise ProtocolError(f"unknown operation {code:#06x}") from None


def import_request(busid: str) -> bytes:
    return op_header(Op.REQUEST_IMPORT) + busid.encode("ascii").ljust(BUSID_SIZE, b"\0")


def import_reply(info: DeviceInfo | None, status: OpStatus = OpStatus.OK) -> bytes:
    return op_header(Op.REPLY_IMPORT, status) + (_pack_device(info) if info is not None else b"")


def list_reply(devices: list[DeviceInfo]) -> bytes:
    parts = [op_header(Op.REPLY_LIST), struct.pack(">I", len(devices))]
    for info in devices:
        parts.append(_pack_device(info))
        parts.extend(bytes((*kind, 0)) for kind in info.interfaces)
    return b"".join(parts)


def parse_busid(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode("ascii", "replace")


def parse_device(data: bytes) -> DeviceInfo:
    """Without the interfaces, which follow in a list only."""
    path, busid, bus, address, speed, vendor, product, bcd, *rest = _DEVICE.unpack(data)
    return DeviceInfo(
        parse_busid(path), parse_busid(busid), bus, address, speed, vendor, product, bcd,
        (rest[0], rest[1], rest[2]), *rest[3:],
    )  # fmt: skip


def _pack_device(info: DeviceInfo) -> bytes:
    return _DEVICE.pack(
        info.path.encode(), info.busid.encode(), info.bus, info.address, info.speed,
        info.vendor, info.product, info.bcd_device, *info.device_class,
        info.configuration, info.configurations, info.interface_count,
    )  # fmt: skip


# --- transfers ---


def pack(message: Submit | Unlink | Submitted | Unlinked) -> bytes:
    """The 48 bytes; data, if any, follow."""
    match message:
        case Submit():
            rest = _SUBMIT.pack(message.flags, message.length, 0, 0, message.interval, message.setup)
            head = (message.devid, message.direction, message.endpoint)
            return _BASIC.pack(Code.SUBMIT, message.sequence, *head) + rest
        case Unlink():
            return _BASIC.pack(Code.UNLINK, message.sequence, message.devid, 0, 0) + _UNLINK.pack(
                message.victim
            )
        case Submitted():
            rest = _SUBMITTED.pack(message.status, message.actual, 0, 0, 0)
            return _BASIC.pack(Code.SUBMITTED, message.sequence, 0, 0, 0) + rest
        case Unlinked():
            return _BASIC.pack(Code.UNLINKED, message.sequence, 0, 0, 0) + _UNLINKED.pack(message.status)


def pack_submit(sequence: int, devid: int, direction: int, endpoint: int, length: int, setup: bytes) -> bytes:
    """`pack` of a `Submit`, for hosts that send thousands."""
    return _SUBMIT_MESSAGE.pack(Code.SUBMIT, sequence, devid, direction, endpoint, 0, length, 0, 0, 0, setup)


def parse_command(data: bytes | bytearray) -> Submit | Unlink:
    """What a host sends."""
    code, sequence, devid, direction, endpoint = _BASIC.unpack_from(data)
    if code == Code.UNLINK:
        (victim,) = _UNLINK.unpack_from(data, _BASIC.size)
        return Unlink(sequence, devid, victim)
    if code != Code.SUBMIT:
        raise ProtocolError(f"command {code:#x}")
    flags, length, _, packets, interval, setup = _SUBMIT.unpack_from(data, _BASIC.size)
    if direction not in (DIRECTION_OUT, DIRECTION_IN) or endpoint > 15:
        raise ProtocolError(f"direction {direction}, endpoint {endpoint}")
    if not 0 <= length <= MAX_TRANSFER:
        raise ProtocolError(f"transfer of {length} bytes; at most {MAX_TRANSFER}")
    if packets not in _NOT_ISOCHRONOUS:
        raise ProtocolError(f"isochronous transfer of {packets} packets")
    return Submit(sequence, devid, direction, endpoint, length, setup, flags, interval)


def parse_reply(data: bytes | bytearray) -> Submitted | Unlinked:
    """What a server sends."""
    code, sequence, *_ = _BASIC.unpack_from(data)
    if code == Code.SUBMITTED:
        status, actual, *_ = _SUBMITTED.unpack_from(data, _BASIC.size)
        if not 0 <= actual <= MAX_TRANSFER:
            raise ProtocolError(f"reply of {actual} bytes")
        return Submitted(sequence, status, actual)
    if code == Code.UNLINKED:
        (status,) = _UNLINKED.unpack_from(data, _BASIC.size)
        return Unlinked(sequence, status)
    raise ProtocolError(f"reply {code:#x}")
