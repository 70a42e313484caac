# SPDX-License-Identifier: LGPL-2.1-or-later
"""Firmware files, hex or zip: parsed, or refused with a typed error, in bounded memory and time."""

from __future__ import annotations

from qsi_tools.firmware import archive, ihex
from qsi_tools.firmware.errors import FileError


def one_input(data: bytes) -> None:
    """Any bytes as a file, and as the text of a hex file."""
    try:
        file = ihex.parse(data)
    except FileError:
        pass
    else:
        assert ihex.build(file) == data
        assert all(0 <= at and at + len(piece) <= ihex.MAX_ADDRESS for at, piece in file.pieces())
    try:
        found = archive.load("fuzz", data)
    except FileError:
        return
    assert 0 < len(found) <= archive.MAX_MEMBERS
    assert all(len(one.image.data) <= ihex.MAX_ADDRESS for one in found)
