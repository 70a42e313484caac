# SPDX-License-Identifier: LGPL-2.1-or-later
"""Our own dialect, which the simulated camera speaks (docs/firmware-loader.md). No camera by QSI does.

The commands are made here and nowhere else: the driver's table does not have them.
"""

from __future__ import annotations

import binascii
import struct

from qsi_tools.firmware.dialect import Loader, Mark, ReadEeprom, Region
from qsi_tools.firmware.errors import LoaderError
from qsi_tools.firmware.image import Target
from usbproto.errors import Refused
from usbproto.link import Link
from usbproto.packets import Burst, Command, Kind, printable

MARK_AT = 0x0200
NAME = b"QSILDR1"
_MARK = struct.Struct(">7scc8s")
_KINDS = {b"S": True, b"H": False}  # simulated or not
_RUNS = {b"R": False, b"L": True}  # in the loader or not
_NO_TEXT = b"\xff" * 8

_ASK, _DO = Kind.QUESTION, Kind.ORDER
ENTER = Command(0x21, "StartBootloader", Burst, Burst, _DO)
IDENTIFY = Command(0xA0, "LoaderIdentify", Burst, Burst, _ASK)
ERASE = Command(0xA1, "LoaderErase", Burst, Burst, _DO)
WRITE = Command(0xA2, "LoaderWrite", Burst, Burst, _DO)
READ = Command(0xA3, "LoaderRead", Burst, Burst, _ASK)
VALIDATE = Command(0xA4, "LoaderVerify", Burst, Burst, _DO)
RESTART = Command(0xA5, "LoaderRestart", Burst, Burst, _DO)

# s; the camera answers within milliseconds, but erasing and validating take it a second or two.
SHORT, LONG = 2.0, 20.0

_TARGETS = {Target.FIRMWARE: 0, Target.CORE: 1}
_IDENTITY = struct.Struct(">3s8sB")
_REGION = struct.Struct(">BI?")
_CHECKSUM_BYTES = 2
_ERRORS = {
    0x90: "what it received was damaged on the way",
    0x91: "there is no such place in its memory",
    0x92: "the memory there is not erased",
    0x93: "what was loaded is not whole, or not for this camera",
}


class OpenLoader:
    """See the module. `short` and `long` are the time limits of one command, s."""

    name = "open loader 1"

    def __init__(self, short: float = SHORT, long: float = LONG) -> None:
        self._short = short
        self._long = long

    def recognise(self, eeprom: ReadEeprom) -> Mark | None:
        raw = eeprom(MARK_AT, len(NAME))
        if raw != NAME:
            return None
        raw += eeprom(MARK_AT + len(NAME), _MARK.size - len(NAME))
        _, kind, runs, core = _MARK.unpack(raw)
        if kind not in _KINDS or runs not in _RUNS:
            return None
        return Mark(self.name, _KINDS[kind], _RUNS[runs], None if core == _NO_TEXT else printable(core))

    def enter(self, link: Link) -> None:
        self._say(link, ENTER, NAME, self._short)

    def identify(self, link: Link) -> Loader:
        raw = self._say(link, IDENTIFY, b"", self._short)
        rest = raw[_IDENTITY.size :]
        if len(raw) < _IDENTITY.size or len(rest) % _REGION.size:
            raise LoaderError(f"The loader says who it is in {len(raw)} bytes, which is no known form")
        base, serial, block = _IDENTITY.unpack_from(raw)
        known = {number: target for target, number in _TARGETS.items()}
        regions = {}
        for number, size, valid in _REGION.iter_unpack(rest):
            if number not in known or not size:
                raise LoaderError(f"The loader has a part number {number}, which is not known")
            regions[known[number]] = Region(size, valid)
        if not block:
            raise LoaderError("The loader takes no data")
        return Loader(printable(base), printable(serial), block, regions)

    def erase(self, link: Link, target: Target) -> None:
        self._say(link, ERASE, bytes((_TARGETS[target],)), self._long)

    def write(self, link: Link, target: Target, address: int, data: bytes) -> None:
        self._say(link, WRITE, struct.pack(">BI", _TARGETS[target], address) + data, self._short)

    def read(self, link: Link, target: Target, address: int, count: int) -> bytes:
        data = self._say(link, READ, struct.pack(">BIB", _TARGETS[target], address, count), self._short)
        if len(data) != count:
            raise LoaderError(f"The loader gave {len(data)} bytes of its memory instead of {count}")
        return data

    def validate(self, link: Link, target: Target, length: int, checksum: int) -> None:
        self._say(link, VALIDATE, struct.pack(">BII", _TARGETS[target], length, checksum), self._long)

    def restart(self, link: Link) -> None:
        self._say(link, RESTART, b"", self._short)

    def _say(self, link: Link, command: Command[Burst, Burst], body: bytes, seconds: float) -> bytes:
        """One command; the answer without its checksum. An order is never repeated."""
        request = Burst(body + _checksum(command.code, body))
        try:
            answer = link.exchange(command, request, seconds=seconds).data
        except Refused as error:
            meaning = _ERRORS.get(error.code, f"error {error.code:#04x}")
            raise LoaderError(f"The loader refused {command.name}: {meaning}") from error
        data = answer[:-_CHECKSUM_BYTES]
        if answer[-_CHECKSUM_BYTES:] != _checksum(command.code, data):
            raise LoaderError(f"The answer to {command.name} was damaged on the way")
        return data


def _checksum(code: int, body: bytes) -> bytes:
    """CRC-16 (CCITT, from FFFF) of the code and the body."""
    return binascii.crc_hqx(bytes((code,)) + body, 0xFFFF).to_bytes(_CHECKSUM_BYTES, "big")
