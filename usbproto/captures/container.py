# SPDX-License-Identifier: LGPL-2.1-or-later
"""The records of a capture file: pcap and pcapng in both byte orders, also when gzip has packed them.

The file is streamed: memory holds one record at a time. Sources: the formats as the IETF's opsawg drafts
"pcap" and "pcapng" describe them.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

# Bytes. usbmon cuts a packet at 240 kB, and USBPcap at 64 kB by default: a larger record is damage.
MAX_RECORD = 16 << 20
# Bytes that are read of one file, after unpacking.
# A night of full frames has less; a packed file can claim any size.
MAX_READ = 16 << 30
# Interfaces of a section. A computer has some ten USB buses.
MAX_INTERFACES = 256

_GZIP = b"\x1f\x8b"
_PCAP_HEADER, _PCAP_RECORD = 24, 16
# Magic number of pcap -> byte order, and the unit of the fractions of seconds.
_PCAP = {
    b"\xd4\xc3\xb2\xa1": ("<", 1e-6),
    b"\xa1\xb2\xc3\xd4": (">", 1e-6),
    b"\x4d\x3c\xb2\xa1": ("<", 1e-9),
    b"\xa1\xb2\x3c\x4d": (">", 1e-9),
}
_LINK_MASK = 0xFFFF  # the bits above it describe checksums
_SECTION = b"\x0a\x0d\x0d\x0a"  # the same in both byte orders
_ORDERS = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}
_INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _PACKET = 1, 2, 3, 6
_BLOCK_FRAME = 12  # bytes of a block around its body
_TIME_RESOLUTION = 9  # an option of an interface
_POWER_OF_TWO = 0x80
_DEFAULT_UNIT = 1e-6


class CaptureError(ValueError):
    """A file is not a capture that can be used; the text gives the reason."""


class Record(NamedTuple):
    """One packet of a file: `link` is its link type, `order` the byte order of the section ("<" or ">").

    `at` is in seconds of the capture's clock. `data` has the bytes behind the record's header.
    """

    link: int
    order: str
    at: float
    data: bytes


class Capture:
    """A capture file. Every call of `records` reads it from its beginning.

    `damage` is None, or the sentence that describes why the reading ended before the file did.
    """

    def __init__(self, path: Path) -> None:
        """Raises `CaptureError` for what is not a regular file."""
        if path.exists() and not path.is_file():
            raise CaptureError(f"{path} is not a regular file, and a capture is read more than once")
        self.path = path
        self.format = ""
        self.damage: str | None = None

    def records(self) -> Iterator[Record]:
        """Raises `CaptureError` when the file does not begin as a capture does, and OSError."""
        self.damage = None
        with _opened(self.path) as file:
            source = _Source(file)
            try:
                magic = source.take(4)
                if magic in _PCAP:
                    self.format = "pcap"
                    yield from _pcap(source, *_PCAP[magic])
                elif magic == _SECTION:
                    self.format = "pcapng"
                    yield from _pcapng(source)
                else:
                    raise CaptureError(f"{self.path} is neither a pcap nor a pcapng file")
            except _Damage as damage:
                self.damage = str(damage)


class _Damage(Exception):
    """The rest of a file cannot be read."""


class _Source:
    """The bytes of a file, in pieces of known size."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._done = 0

    def take(self, size: int) -> bytes:
        """Exactly `size` bytes. Raises `_Damage` when they are too many, or more than the file has."""
        if size > MAX_RECORD:
            raise _Damage(f"the record at byte {self._done} claims {size} bytes; USB packets are smaller")
        if self._done + size > MAX_READ:
            raise _Damage(f"only the first {MAX_READ >> 30} GiB were read")
        try:
            data = self._file.read(size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise _Damage(f"the packed file is damaged behind byte {self._done} of its content") from error
        if len(data) < size:
            raise _Damage(f"the file ends in the middle of the record at byte {self._done}")
        self._done += size
        return data

    def next(self, size: int) -> bytes:
        """`size` bytes, or none at the end of the file."""
        try:
            first = self._file.read(1)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise _Damage(f"the packed file is damaged behind byte {self._done} of its content") from error
        if not first:
            return b""
        self._done += 1
        return first + self.take(size - 1)


def _opened(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        packed = file.read(len(_GZIP)) == _GZIP
    return gzip.open(path, "rb") if packed else path.open("rb")  # type: ignore[return-value]  # as good as one


def _pcap(source: _Source, order: str, unit: float) -> Iterator[Record]:
    header = source.take(_PCAP_HEADER - 4)
    link = int(struct.unpack_from(order + "I", header, 16)[0]) & _LINK_MASK
    form = struct.Struct(order + "IIII")
    while head := source.next(_PCAP_RECORD):
        seconds, fraction, size, _ = form.unpack(head)
        yield Record(link, order, seconds + fraction * unit, source.take(size))


def _pcapng(source: _Source) -> Iterator[Record]:
    head = _SECTION
    order = "<"
    interfaces: list[tuple[int, float]] = []  # link type, and the unit of its times in s
    last = 0.0
    while head:
        if head == _SECTION:
            lengths, magic = source.take(4), source.take(4)
            if magic not in _ORDERS:
                raise _Damage("a section of the file has no byte order")
            order, interfaces = _ORDERS[magic], []
            size = int(struct.unpack(order + "I", lengths)[0])
            _body(source, size, 4)
        else:
            kind = int(struct.unpack(order + "I", head)[0])
            size = int(struct.unpack(order + "I", source.take(4))[0])
            body = _body(source, size, 0)
            if kind == _INTERFACE:
                interfaces.append(_interface(body, order))
                if len(interfaces) > MAX_INTERFACES:
                    raise _Damage(f"a section of the file has more than {MAX_INTERFACES} interfaces")
            elif kind in (_PACKET, _OLD_PACKET, _SIMPLE_PACKET):
                record = _packet(kind, body, order, interfaces, last)
                last = record.at
                yield record
        head = source.next(4)


def _body(source: _Source, size: int, taken: int) -> bytes:
    """The body of a block of `size` bytes, of which `taken` were read, without its second length."""
    if size < _BLOCK_FRAME + taken or size % 4:
        raise _Damage(f"a block of the file claims {size} bytes")
    return source.take(size - 8 - taken)[:-4]


def _interface(body: bytes, order: str) -> tuple[int, float]:
    if len(body) < 8:
        raise _Damage("an interface of the file is not described")
    link = int(struct.unpack_from(order + "H", body)[0])
    at, unit = 8, _DEFAULT_UNIT
    while at + 4 <= len(body):
        option, size = struct.unpack_from(order + "HH", body, at)
        if option == 0:
            break
        if option == _TIME_RESOLUTION and size >= 1 and at + 4 < len(body):
            power = body[at + 4]
            unit = 2.0 ** -(power & ~_POWER_OF_TWO) if power & _POWER_OF_TWO else 10.0**-power
        at += 4 + (size + 3) // 4 * 4
    return link, unit


def _packet(kind: int, body: bytes, order: str, interfaces: list[tuple[int, float]], last: float) -> Record:
    """Simple packets have no time: they get that of the packet before them."""
    head = 4 if kind == _SIMPLE_PACKET else 20
    if len(body) < head:
        raise _Damage("a packet of the file is shorter than its header")
    number, at = 0, last
    if kind == _SIMPLE_PACKET:
        size = len(body) - head
    else:
        number = int(struct.unpack_from(order + ("I" if kind == _PACKET else "H"), body)[0])
        high, low, size = struct.unpack_from(order + "III", body, 4)
    if number >= len(interfaces):
        raise _Damage(f"a packet of the file belongs to interface {number}, which is not described")
    link, unit = interfaces[number]
    if kind != _SIMPLE_PACKET:
        at = ((high << 32) + low) * unit
    return Record(link, order, at, body[head : head + size])
