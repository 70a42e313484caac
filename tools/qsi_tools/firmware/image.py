# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a firmware file holds, and for which camera. Pure.

The header is our own (docs/firmware-loader.md): how the vendor's files name model and version is
not published. A file without it may be sound, but nobody can say for which camera it is: it is not written.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from enum import Enum

from qsi_tools.firmware.errors import FileError, NoIdentity
from qsi_tools.firmware.ihex import HexFile
from usbproto.models import BASE_TYPES

MAGIC = b"QSIMAGE1"
HEADER = struct.Struct(">8sc3s8sII")  # magic, kind, base type, version, length of all, CRC-32 without itself
_CHECKSUM_AT = HEADER.size - 4
_VERSION = re.compile(r"\d\d\.\d\d\.\d\d")


class Target(Enum):
    """What is written: the camera's firmware, or the logic of a 600's FPGA."""

    FIRMWARE = "firmware"
    CORE = "core"


_KINDS = {b"F": Target.FIRMWARE, b"C": Target.CORE}


@dataclass(frozen=True, slots=True)
class Image:
    """`base_type` like `683`, `version` like `06.03.05`; `data` from address 0, header included."""

    target: Target
    base_type: str
    version: str
    data: bytes

    @property
    def checksum(self) -> int:
        """CRC-32 of all of it."""
        return zlib.crc32(self.data)


def version_number(text: str) -> tuple[int, ...] | None:
    """`06.01.08` -> (6, 1, 8); None for what is no version."""
    return tuple(int(part) for part in text.split(".")) if _VERSION.fullmatch(text) else None


def image_of(file: HexFile) -> Image:
    """Raises `NoIdentity` when the file does not say what it is for, `FileError` when it is not whole."""
    data = b"".join(piece for _, piece in file.pieces())
    first, *others = file.ranges()
    if first.start or not data.startswith(MAGIC):
        raise NoIdentity
    if others:
        raise FileError(f"there is a gap before address {others[0].start:08X}: the file is not whole")
    return read_image(data)


def read_image(data: bytes) -> Image:
    """The image in these bytes. Raises `NoIdentity`, `FileError`."""
    if not data.startswith(MAGIC):
        raise NoIdentity
    if len(data) < HEADER.size:
        raise FileError("the image stops within its header: the file is not whole")
    _, kind, base, version, length, checksum = HEADER.unpack_from(data)
    if length != len(data):
        raise FileError(f"the image says {length} bytes and has {len(data)}: the file is not whole")
    if checksum != zlib.crc32(data[HEADER.size :], zlib.crc32(data[:_CHECKSUM_AT])):
        raise FileError("the image's checksum is wrong: the file is damaged")
    target, model, number = _KINDS.get(kind), base.decode("latin-1"), version.decode("latin-1")
    if target is None or model not in BASE_TYPES or version_number(number) is None:
        raise FileError(
            f"the image is for what there is not: kind {kind!r}, model {base!r}, version {version!r}"
        )
    return Image(target, model, number, data)
