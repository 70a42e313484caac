# SPDX-License-Identifier: LGPL-2.1-or-later
"""FITS files: headers as text, data by numpy in the frame's memory.

One primary HDU of unsigned 16-bit pixels by the usual convention: big-endian signed integers and BZERO 32768.
The first row of the file is the top row of the sensor.

The headers are written here, not by astropy, because they are in the way of every frame: it takes a tenth
of the time, and no seconds of imports on a small computer. The tests have astropy read them.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from usbproto.frames import Pixels, ZeroAdjustment, adjust_zero

BLOCK = 2880  # bytes; everything in a FITS file comes in multiples of it
ZERO = 32768  # ADU that a signed 0 stands for: BZERO
# Pixels are worked on in pieces of this size, so that they stay in the processor's cache.
WORK_PIXELS = 128 * 1024


# What the standard allows as a keyword.
KEYWORD = re.compile("[A-Z0-9_-]{1,8}")
CARD = 80  # characters
COMMENTARY = frozenset({"COMMENT", "HISTORY"})
COMMENTARY_TEXT = 72  # characters of it in one card
# Characters of a quoted text: in a card of its own, and where an '&' says that it goes on in the next card.
SHORT_TEXT, LONG_PIECE = 68, 67
VALUE_WIDTH = 20  # characters; shorter values are padded to this, and the comment follows

# Letters that have no decomposition in Unicode, and signs that headers are full of.
_SPELLED = str.maketrans(
    {"ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L"}
    | {"đ": "d", "Đ": "D", "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th", "ı": "i", "ħ": "h", "Ħ": "H"}
    | {
        "°": "deg",
        "º": "deg",
        "µ": "u",
        "×": "x",
        "÷": "/",
        "±": "+-",
        "≤": "<=",
        "≥": ">=",
        "≈": "~",
        "−": "-",
    }
    | {"‐": "-", "‑": "-", "‒": "-", "–": "-", "—": "-", "‘": "'", "’": "'", "‚": ",", "“": '"', "”": '"'}
    | {"„": '"', "«": '"', "»": '"', "′": "'", "″": '"', "\t": " ", "\u00a0": " "}
)


@dataclass(frozen=True, slots=True)
class Card:
    """One header record. A value that says nothing (None, a blank text, nan, inf) is left out.

    COMMENT and HISTORY have a text of any length as their value, and no comment.
    """

    keyword: str
    value: str | int | float | bool | None
    comment: str = ""


def render_header(shape: tuple[int, int], cards: Iterable[Card]) -> bytes:
    """The header of an image of (rows, columns), padded to whole blocks.

    Texts are spelled in ASCII (see `printable`); long ones go on in CONTINUE cards. A comment that does not
    fit beside its value is cut. Raises ValueError for a keyword that FITS does not allow.
    """
    rows, columns = shape
    mandatory = (
        Card("SIMPLE", True, "file conforms to the FITS standard"),
        Card("BITPIX", 16, "bits per pixel"),
        Card("NAXIS", 2, "number of axes"),
        Card("NAXIS1", columns, "columns"),
        Card("NAXIS2", rows, "rows"),
        Card("EXTEND", True, "extensions are permitted"),
        Card("BZERO", ZERO, "unsigned 16-bit pixels"),
        Card("BSCALE", 1, "no scaling"),
    )
    text = "".join(_render(card) for card in (*mandatory, *cards)) + f"{'END':{CARD}}"
    return text.ljust(-(-len(text) // BLOCK) * BLOCK).encode("ascii")


def printable(text: str) -> str:
    """The text in printable ASCII, which is all that FITS can hold: 'Größe' becomes 'Grosse', 'Hα' 'Halpha'.

    What has no spelling becomes '?'.
    """
    if text.isascii() and text.isprintable():  # nearly every text, and there are many in a header
        return text
    return "".join(
        character if " " <= character <= "~" else _spelled(character)
        for character in text.translate(_SPELLED)
    )


def _spelled(character: str) -> str:
    plain = "".join(part for part in unicodedata.normalize("NFKD", character) if " " <= part <= "~")
    if plain:
        return plain
    if unicodedata.combining(character):
        return ""
    name = unicodedata.name(character, "")
    if greek := re.fullmatch(
        r"GREEK (SMALL|CAPITAL) LETTER (\w+)(?: WITH TONOS)?", name.replace("FINAL ", "")
    ):
        letter = greek[2].replace("LAMDA", "LAMBDA").lower()
        return letter if greek[1] == "SMALL" else letter.capitalize()
    return "?"


def _render(card: Card) -> str:
    """A card as text: one line of 80 characters, several, or none."""
    if not KEYWORD.fullmatch(card.keyword):
        raise ValueError(f"{card.keyword!r} cannot be a FITS keyword")
    value, comment = card.value, printable(card.comment)
    if isinstance(value, str):
        value = printable(value).rstrip()
    if value is None or value == "" or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if card.keyword in COMMENTARY:
        text = str(value)
        return "".join(
            f"{card.keyword:8}{text[start : start + COMMENTARY_TEXT]}".ljust(CARD)
            for start in range(0, len(text), COMMENTARY_TEXT)
        )
    if not isinstance(value, str):
        shown = f"{_number(value):>{VALUE_WIDTH}}"
    else:
        if "/" in value:
            # Legal, but astropy and others take a quote before a slash for the end of the text.
            value = value.replace("'", '"')
        quoted = value.replace("'", "''")
        if len(quoted) > SHORT_TEXT:
            return _long_text(card.keyword, value, comment)
        shown = f"'{quoted:8}'".ljust(VALUE_WIDTH)
    line = f"{card.keyword:8}= {shown}"
    room = CARD - len(line) - len(" / ")
    if comment and room > 0:
        line = f"{line} / {comment[:room]}"
    return line.ljust(CARD)


def _number(value: float) -> str:
    """A number or a truth value by the standard: sections 4.2.2 to 4.2.4."""
    if isinstance(value, bool):
        return "T" if value else "F"
    if isinstance(value, int):
        return str(value)
    # The shortest text that is exactly this number; a point tells it from an integer.
    text = repr(value).upper()
    digits, exponent, power = text.partition("E")
    return f"{digits if '.' in digits else digits + '.0'}{exponent}{power}"


def _long_text(keyword: str, value: str, comment: str) -> str:
    """A text over several cards. Not astropy's way, which may part a doubled quote."""
    pieces = [""]
    for character in value:
        quoted = "''" if character == "'" else character
        if len(pieces[-1]) + len(quoted) > LONG_PIECE:
            pieces.append("")
        pieces[-1] += quoted
    lines = [f"CONTINUE  '{piece}&'" for piece in pieces]
    lines[0] = f"{keyword:8}= '{pieces[0]}&'"
    last = f"CONTINUE  '{pieces[-1]}'"
    room = CARD - len(last) - len(" / ")
    lines[-1] = f"{last} / {comment[:room]}" if comment and room > 0 else last
    return "".join(f"{line:{CARD}}" for line in lines)


def file_size(header_size: int, shape: tuple[int, int]) -> int:
    """Bytes of the whole file for a header of so many bytes and an image of (rows, columns)."""
    data = shape[0] * shape[1] * 2
    return header_size + -(-data // BLOCK) * BLOCK


def write_file(target: memoryview, header: bytes, pixels: Pixels, adjustment: ZeroAdjustment) -> None:
    """Fills `target` (of `file_size` bytes) with the file, with auto-zero applied.

    `pixels` of shape (rows, columns) may lie in `target`, right where the file has its data: then they become
    the file's.
    """
    start, end = len(header), len(header) + pixels.nbytes
    target[:start] = header
    raw = pixels.reshape(-1)
    data = np.frombuffer(target[start:end], ">u2")
    work = np.empty(min(WORK_PIXELS, raw.size), np.uint16)
    # From the end: what came last is still in the cache.
    for at in reversed(range(0, raw.size, WORK_PIXELS)):
        piece = raw[at : at + WORK_PIXELS]
        data[at : at + WORK_PIXELS] = adjust_zero(piece, adjustment, work[: raw.size - at], -ZERO)
    target[end:] = bytes(len(target) - end)
