# SPDX-License-Identifier: LGPL-2.1-or-later
"""Intel HEX, strictly. Pure: bytes <-> records.

Whatever `parse` accepts has one spelling only, so `build(parse(x)) == x`: upper-case digits, nothing around
the records, the same line end (LF or CR LF) behind every line, the last one included. Data come in ascending
order without overlap. There is exactly one end record, and it is the last line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from qsi_tools.firmware.errors import FileError

MAX_TEXT = 4 << 20  # bytes of a file: many times what a microcontroller or an FPGA of such a camera holds
MAX_ADDRESS = 1 << 20  # data lie below; the image is held in memory with its gaps
SEGMENT = 1 << 16  # bytes that one record's own address can reach

_DIGITS = frozenset(b"0123456789ABCDEF")
_OVERHEAD = 5  # bytes of a record beside its data: count, address (2), type, checksum


class Kind(IntEnum):
    """Record types."""

    DATA = 0
    END = 1
    SEGMENT_BASE = 2
    SEGMENT_START = 3
    LINEAR_BASE = 4
    LINEAR_START = 5


# Data bytes that each type must have; DATA has one to 255.
_SIZES = {
    Kind.END: 0,
    Kind.SEGMENT_BASE: 2,
    Kind.SEGMENT_START: 4,
    Kind.LINEAR_BASE: 2,
    Kind.LINEAR_START: 4,
}
_BASES = {Kind.SEGMENT_BASE: 4, Kind.LINEAR_BASE: 16}  # by how many bits the base is shifted


@dataclass(frozen=True, slots=True)
class Record:
    """One line. `address` is as written: without the base."""

    kind: Kind
    address: int
    data: bytes


@dataclass(frozen=True, slots=True)
class HexFile:
    """`records` end with the end record; `line_end` is LF or CR LF."""

    records: tuple[Record, ...]
    line_end: bytes = b"\n"

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """Absolute addresses and their bytes, ascending."""
        base = 0
        for record in self.records:
            if record.kind in _BASES:
                base = int.from_bytes(record.data, "big") << _BASES[record.kind]
            elif record.kind is Kind.DATA:
                yield base + record.address, record.data

    def ranges(self) -> list[range]:
        """The addresses that have data, ascending; what adjoins is one range."""
        found: list[range] = []
        for address, data in self.pieces():
            joined = bool(found) and found[-1].stop == address
            start = found.pop().start if joined else address
            found.append(range(start, address + len(data)))
        return found


def build(file: HexFile) -> bytes:
    """The text of a file."""
    return b"".join(_line(record) + file.line_end for record in file.records)


def records_of(data: bytes, width: int = 16) -> tuple[Record, ...]:
    """The records of an image that begins at address 0, as most tools would write them."""
    records = []
    for at in range(0, len(data), width):
        if at and at % SEGMENT == 0:
            records.append(Record(Kind.LINEAR_BASE, 0, (at >> 16).to_bytes(2, "big")))
        records.append(Record(Kind.DATA, at % SEGMENT, data[at : at + width]))
    return (*records, Record(Kind.END, 0, b""))


def _line(record: Record) -> bytes:
    body = (
        bytes((len(record.data),)) + record.address.to_bytes(2, "big") + bytes((record.kind,)) + record.data
    )
    return b":" + (body + bytes((-sum(body) & 0xFF,))).hex().upper().encode()


def parse(text: bytes) -> HexFile:
    """The file that this text is. Raises `FileError` with the line number."""
    if len(text) > MAX_TEXT:
        raise FileError(f"the file has more than {MAX_TEXT >> 20} MiB: this is no firmware file")
    if not text:
        raise FileError("the file is empty")
    lines = text.split(b"\n")
    line_end = b"\r\n" if lines[0].endswith(b"\r") else b"\n"
    order = _Order()
    records: list[Record] = []
    last = len(lines) - 1
    for number, line in enumerate(lines, 1):
        if number > last:
            if line:
                raise FileError("the file stops in the middle of a line: it was cut", number)
            break
        if records and records[-1].kind is Kind.END:
            what = "a second end record" if line.startswith(b":00000001FF") else "something"
            raise FileError(f"{what} follows the end record", number)
        record = _record(_without_end(line, line_end, number), number)
        order.check(record, number)
        records.append(record)
    if not records or records[-1].kind is not Kind.END:
        raise FileError("the file stops without an end record: it was cut", last)
    if not order.any_data:
        raise FileError("the file has no data")
    return HexFile(tuple(records), line_end)


def _without_end(line: bytes, line_end: bytes, number: int) -> bytes:
    if line.endswith(b"\r") != (line_end == b"\r\n"):
        raise FileError("the line ends otherwise than the first one", number)
    return line.removesuffix(b"\r")


def _record(line: bytes, number: int) -> Record:
    if not line.startswith(b":"):
        raise FileError("the line does not begin with a colon", number)
    digits = line[1:]
    if _DIGITS.issuperset(digits.upper()) and not _DIGITS.issuperset(digits):
        raise FileError("small letters; this program takes the digits 0 to 9 and A to F only", number)
    if not _DIGITS.issuperset(digits):
        raise FileError("the line has something else than the digits 0 to 9 and A to F", number)
    if len(digits) % 2 or len(digits) < 2 * _OVERHEAD:
        raise FileError(f"a record cannot have {len(digits)} digits", number)
    raw = bytes.fromhex(digits.decode("ascii"))
    if len(raw) != raw[0] + _OVERHEAD:
        raise FileError(f"the record says {raw[0]} data bytes and has {len(raw) - _OVERHEAD}", number)
    if sum(raw) & 0xFF:
        raise FileError(f"the checksum is {raw[-1]:02X} and should be {-sum(raw[:-1]) & 0xFF:02X}", number)
    if raw[3] not in tuple(Kind):
        raise FileError(f"there is no record type {raw[3]:02X}", number)
    kind, address, data = Kind(raw[3]), int.from_bytes(raw[1:3], "big"), raw[4:-1]
    if kind is Kind.DATA:
        if not data:
            raise FileError("a data record without data", number)
    elif len(data) != _SIZES[kind]:
        raise FileError(f"a record of type {kind:02X} has {_SIZES[kind]} data bytes, not {len(data)}", number)
    elif address:
        raise FileError(f"a record of type {kind:02X} has the address 0000", number)
    return Record(kind, address, data)


class _Order:
    """Whether what follows may follow."""

    def __init__(self) -> None:
        self._base = 0
        self._base_kind: Kind | None = None
        self._started = False
        self._end = 0  # behind the last data
        self.any_data = False

    def check(self, record: Record, number: int) -> None:
        if record.kind in _BASES:
            if self._base_kind not in (None, record.kind):
                raise FileError("segment and linear addresses are mixed", number)
            self._base_kind = record.kind
            self._base = int.from_bytes(record.data, "big") << _BASES[record.kind]
        elif record.kind in (Kind.SEGMENT_START, Kind.LINEAR_START):
            if self._started:
                raise FileError("a second start address", number)
            self._started = True
        elif record.kind is Kind.DATA:
            self._data(record, number)

    def _data(self, record: Record, number: int) -> None:
        start, length = self._base + record.address, len(record.data)
        if record.address + length > SEGMENT:
            raise FileError("the record runs over the end of its 64 KiB", number)
        if start + length > MAX_ADDRESS:
            raise FileError(
                f"address {start:08X} is beyond the first MiB, all that this program takes", number
            )
        if self.any_data and start < self._end:
            raise FileError(f"address {start:08X} overlaps what came before, or is out of order", number)
        self._end = start + length
        self.any_data = True
