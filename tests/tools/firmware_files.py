# SPDX-License-Identifier: LGPL-2.1-or-later
"""Firmware files for tests, written by other hands than those that read them."""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib


def image(kind: str = "F", base: str = "683", version: str = "06.03.05", size: int = 200) -> bytes:
    """As docs/firmware-loader.md describes it; what follows the header is noise."""
    head = b"QSIMAGE1" + kind.encode() + base.encode() + version.encode() + struct.pack(">I", size)
    rest = random.Random(f"{kind}{base}{version}").randbytes(size - len(head) - 4)
    return head + struct.pack(">I", zlib.crc32(head + rest)) + rest


def hex_lines(data: bytes, width: int = 16) -> list[str]:
    lines = []
    for at in range(0, len(data), width):
        if at and at % 0x10000 == 0:
            lines.append(record(4, 0, struct.pack(">H", at >> 16)))
        lines.append(record(0, at & 0xFFFF, data[at : at + width]))
    return [*lines, ":00000001FF"]


def record(kind: int, address: int, data: bytes) -> str:
    body = struct.pack(">BHB", len(data), address, kind) + data
    return ":" + (body + bytes((-sum(body) & 0xFF,))).hex().upper()


def text(lines: list[str], end: str = "\n") -> bytes:
    return "".join(line + end for line in lines).encode()


def hex_file(kind: str = "F", base: str = "683", version: str = "06.03.05", size: int = 200) -> bytes:
    return text(hex_lines(image(kind, base, version, size)))


def foreign_hex(size: int = 100) -> bytes:
    """Sound, and without our header, as the vendor's files are: some code from 0, some data further up."""
    noise = random.Random("foreign").randbytes(size)
    higher = [record(4, 0, b"\0\1"), record(0, 0x20, b"configuration")]
    return text([*hex_lines(noise)[:-1], *higher, ":00000001FF"], "\r\n")


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return out.getvalue()
