# SPDX-License-Identifier: LGPL-2.1-or-later
"""FITS files: headers by astropy, data by numpy straight into the frame's memory.

One primary HDU of unsigned 16-bit pixels by the usual convention: big-endian signed integers and BZERO 32768.
The first row of the file is the top row of the sensor.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from usbproto.frames import Pixels, ZeroAdjustment, adjust_zero

BLOCK = 2880  # bytes; everything in a FITS file comes in multiples of it
SIGN_BIT = np.uint16(0x8000)  # pixel - 32768, as an exclusive or
# Rows are worked on in pieces of about this many bytes, so that they stay in the processor's cache.
WORK_BYTES = 128 * 1024


@dataclass(frozen=True, slots=True)
class Card:
    """One header record. A value of None is left out, as are numbers that are not finite."""

    keyword: str
    value: str | int | float | bool | None
    comment: str = ""


def render_header(shape: tuple[int, int], cards: Iterable[Card]) -> bytes:
    """The header of an image of (rows, columns), padded to whole blocks.

    Text that FITS cannot hold (it is printable ASCII) is spelled with '?'.
    """
    from astropy.io.fits import Header  # astropy takes 0.4 s to import: only when a frame needs it
    from astropy.io.fits.verify import VerifyWarning

    rows, columns = shape
    header = Header()
    mandatory: list[tuple[str, Any, str]] = [
        ("SIMPLE", True, "file conforms to the FITS standard"),
        ("BITPIX", 16, "bits per pixel"),
        ("NAXIS", 2, "number of axes"),
        ("NAXIS1", columns, "columns"),
        ("NAXIS2", rows, "rows"),
        ("EXTEND", True, "extensions are permitted"),
        ("BZERO", 32768, "unsigned 16-bit pixels"),
        ("BSCALE", 1, "no scaling"),
    ]
    for record in mandatory:
        header.append(record)
    with warnings.catch_warnings():
        # A comment that does not fit beside its value is cut; that is what we want.
        warnings.simplefilter("ignore", VerifyWarning)
        for card in cards:
            value = card.value
            if value is None or (isinstance(value, float) and not math.isfinite(value)):
                continue
            if isinstance(value, str):
                value = _printable(value)
            header.append((card.keyword, value, _printable(card.comment)), end=True)
        text: str = header.tostring(sep="", endcard=True, padding=True)
        return text.encode("ascii")


def _printable(text: str) -> str:
    return "".join(character if " " <= character <= "~" else "?" for character in text)


def file_size(header_size: int, shape: tuple[int, int]) -> int:
    """Bytes of the whole file for a header of so many bytes and an image of (rows, columns)."""
    data = shape[0] * shape[1] * 2
    return header_size + -(-data // BLOCK) * BLOCK


def write_file(target: memoryview, header: bytes, pixels: Pixels, adjustment: ZeroAdjustment) -> None:
    """Fills `target` (of `file_size` bytes, zeroed) with header and pixels, auto-zero applied on the way.

    `pixels` of shape (rows, columns) is left as it is.
    """
    rows, columns = pixels.shape
    target[: len(header)] = header
    data = target[len(header) : len(header) + pixels.nbytes]
    out = np.frombuffer(data, ">u2").reshape(rows, columns)
    step = max(1, WORK_BYTES // (columns * 2))
    work = np.empty((min(step, rows), columns), np.uint16)
    for top in range(0, rows, step):
        block = pixels[top : top + step]
        adjusted = adjust_zero(block, adjustment, work[: len(block)])
        adjusted ^= SIGN_BIT
        out[top : top + step] = adjusted
