# SPDX-License-Identifier: LGPL-2.1-or-later
"""FITS files made smaller by the program fpack, as `.fits.fz` (Rice, without loss).

A program of its own, because a library would hold up our other threads all the while. It reads the frame's
memory and writes into another one; there are no files.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from usbproto.errors import QsiError

if TYPE_CHECKING:
    from indi_qsi.links.frame import Frame

PROGRAM = "fpack"
FORMAT = ".fits.fz"
MISSING = (
    f"The program {PROGRAM} is not installed. Install Debian's package libcfitsio-bin "
    "(sudo apt install libcfitsio-bin) and try again"
)
# The largest frame takes about 0.15 s on a desktop and below 1 s on a Raspberry Pi.
DEADLINE = 15.0  # s
# Columns of few pixels grow, because every row is described; nothing grows more than this.
MAX_GROWTH, MAX_OVERHEAD = 4, 1 << 20  # times, and bytes in addition
PACKED_UNITS = 2  # an empty picture, and the table that holds the real one

_BLOCK, _CARD = 2880, 80  # bytes, of every FITS file
_SIZE_CARD = re.compile(rb"(BITPIX|NAXIS\d*|PCOUNT|GCOUNT) *= *(-?\d+)[ /]")


class CompressionError(QsiError):
    """The file could not be made smaller; it can still go out as it is."""


def look_for() -> None:
    """Raises `CompressionError` if fpack is not installed. Waits for the disk."""
    import shutil

    if shutil.which(PROGRAM) is None:
        raise CompressionError(MISSING)


def pack(frame: Frame, deadline: float = DEADLINE) -> Frame:
    """A compressed copy of a frame that holds a FITS file; the caller releases both.

    Waits at most `deadline` seconds. Raises `CompressionError`.
    """
    try:
        return _packed(frame, deadline)
    except OSError as error:
        raise CompressionError(f"{PROGRAM} cannot be used: {error.strerror or error}") from error


def _packed(frame: Frame, deadline: float) -> Frame:
    from indi_qsi.links.frame import Frame

    # Nobody knows how long the result will be: the memory is not there before it is written to, and the seal
    # keeps fpack within it.
    with Frame(frame.size * MAX_GROWTH + MAX_OVERHEAD, FORMAT) as scratch:
        scratch.seal()
        _run(frame.fileno(), scratch.fileno(), deadline)
        # fpack has written by this very descriptor: it stands where the result ends.
        size = os.lseek(scratch.fileno(), 0, os.SEEK_CUR)
        # fpack reports success even where it could not write.
        if units(scratch.buffer[:size]) != PACKED_UNITS:
            raise CompressionError(f"{PROGRAM} made no whole file")
        packed = Frame(size, FORMAT)
        packed.buffer[:] = scratch.buffer[:size]
        packed.seal()
        return packed


def _run(source: int, target: int, deadline: float) -> None:
    import subprocess  # late: a launcher wants to see the first definitions at once

    try:
        subprocess.run(
            [PROGRAM, "-S", f"/proc/self/fd/{source}"],
            stdin=subprocess.DEVNULL,
            stdout=target,
            stderr=subprocess.DEVNULL,
            pass_fds=(source,),
            timeout=deadline,
            check=True,
        )
    except FileNotFoundError as error:
        raise CompressionError(MISSING) from error
    except subprocess.TimeoutExpired as error:  # it has been killed
        raise CompressionError(f"{PROGRAM} did not end within {deadline:g} s") from error
    except subprocess.CalledProcessError as error:
        raise CompressionError(f"{PROGRAM} failed with status {error.returncode}") from error


def units(data: memoryview) -> int:
    """Of how many headers with their data a FITS file consists; 0 if it does not end where they say."""
    number = 0
    at = 0
    while at < len(data):
        sizes: dict[str, int] = {}
        card = b""
        while card.rstrip() != b"END":
            card = bytes(data[at : at + _CARD])
            if not card:
                return 0
            if match := _SIZE_CARD.match(card):
                sizes[match[1].decode()] = int(match[2])
            at += _CARD
        at = _padded(at) + _padded(_data_bytes(sizes))
        number += 1
    return number if at == len(data) else 0


def _data_bytes(sizes: dict[str, int]) -> int:
    axes = sizes.get("NAXIS", 0)
    if axes == 0:
        return 0
    elements = 1
    for axis in range(1, axes + 1):
        elements *= sizes.get(f"NAXIS{axis}", 0)
    return abs(sizes.get("BITPIX", 0)) // 8 * sizes.get("GCOUNT", 1) * (sizes.get("PCOUNT", 0) + elements)


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
