# SPDX-License-Identifier: LGPL-2.1-or-later
"""Firmware files, hex or zip: parsed, or refused with a typed error, in bounded memory and time."""

from __future__ import annotations

from qsi_tools.firmware import archive, ihex
from qsi_tools.firmware.errors import FileError

from tests.tools.firmware_files import hex_file, hex_lines, image, record, text, zipped

_END = ":00000001FF"
SEEDS = (
    hex_file(size=64),
    text(hex_lines(image("C", "690", "01.02.03", 40)), "\r\n"),
    text([record(4, 0, b"\0\0"), record(0, 0, b"ab"), record(4, 0, b"\0\1"), record(0, 5, b"cd"), _END]),
    text([record(2, 0, b"\x10\0"), record(3, 0, b"\0\0\1\0"), record(0, 5, b"cd"), _END]),
    zipped({"README": b"hello", "qsi683.hex": hex_file(size=64)}),
)


def one_input(data: bytes) -> None:
    """Any bytes as a file, and as the text of a hex file."""
    try:
        file = ihex.parse(data)
    except FileError:
        pass
    else:
        assert ihex.build(file) == data
        assert all(at >= 0 and at + len(piece) <= ihex.MAX_ADDRESS for at, piece in file.pieces())
    try:
        found = archive.load("fuzz", data)
    except FileError:
        return
    assert 0 < len(found) <= archive.MAX_MEMBERS
    assert all(len(one.image.data) <= ihex.MAX_ADDRESS for one in found)
