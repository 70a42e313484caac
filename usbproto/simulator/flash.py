# SPDX-License-Identifier: LGPL-2.1-or-later
"""The program memory of a simulated camera: its firmware and, in a 600, the FPGA's core. Outlives the power.

Nothing is known of a real camera's memory. This one and its images are
those of docs/firmware-loader.md.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from usbproto.models import SERIES_600
from usbproto.simulator.bodies import CameraModel

BLANK = 0xFF  # an erased cell
# Header of an image: magic, kind, base type, version, length of all, CRC-32 of all but itself.
HEADER = struct.Struct(">8sc3s8sII")
MAGIC = b"QSIMAGE1"
CHECKSUM_AT = HEADER.size - 4
FACTORY_SIZE = 2048  # bytes: as small as makes sense, because it is read back byte by byte
FACTORY_CORE = "01.00.02"


class Target(IntEnum):
    """What can be written, by its number on the wire."""

    FIRMWARE = 0
    CORE = 1


KIND = {Target.FIRMWARE: b"F", Target.CORE: b"C"}
SIZE = {Target.FIRMWARE: 0x1_0000, Target.CORE: 0x2_0000}  # bytes


@dataclass
class Region:
    """`version` is that of the image in it, None where there is no valid one."""

    data: bytearray
    version: str | None

    def erase(self) -> None:
        self.version = None
        self.data[:] = bytes([BLANK]) * len(self.data)


class Flash:
    """`regions` has what this camera has: a 500 has no core."""

    def __init__(self, model: CameraModel, firmware: str) -> None:
        self._base = model.base
        versions = {Target.FIRMWARE: firmware}
        if model.series is SERIES_600:
            versions[Target.CORE] = FACTORY_CORE
        self.regions: dict[Target, Region] = {}
        for target, version in versions.items():
            image = factory_image(target, model.base, version)
            data = bytearray([BLANK]) * SIZE[target]
            data[: len(image)] = image
            self.regions[target] = Region(data, version)

    @property
    def whole(self) -> bool:
        """Whether the camera can start from it."""
        return all(region.version is not None for region in self.regions.values())

    def validate(self, target: Target, length: int, checksum: int) -> bool:
        """The camera looks at what was loaded; only then it counts as there."""
        region = self.regions[target]
        data = bytes(region.data[:length])
        region.version = None
        if zlib.crc32(data) == checksum:
            region.version = image_version(data, target, self._base)
        return region.version is not None


def image_version(data: bytes, target: Target, base: str) -> str | None:
    """The version that an image says it is; None unless it is whole, and for this part of this model."""
    if len(data) < HEADER.size:
        return None
    magic, kind, model, version, length, checksum = HEADER.unpack_from(data)
    wanted = (MAGIC, KIND[target], base.encode(), len(data))
    if (magic, kind, model, length) != wanted or checksum != image_checksum(data):
        return None
    return str(version.rstrip(b"\0").decode("latin-1"))


def image_checksum(data: bytes) -> int:
    """CRC-32 of an image without the four bytes that carry it."""
    return zlib.crc32(data[HEADER.size :], zlib.crc32(data[:CHECKSUM_AT]))


def factory_image(target: Target, base: str, version: str) -> bytes:
    """What the camera came with: a sound header, and noise for a program."""
    program = np.random.default_rng(int(base) * 2 + target).bytes(FACTORY_SIZE - HEADER.size)
    header = HEADER.pack(MAGIC, KIND[target], base.encode(), version.encode(), FACTORY_SIZE, 0)
    checksum = image_checksum(header + program)
    return header[:CHECKSUM_AT] + checksum.to_bytes(4, "big") + program
