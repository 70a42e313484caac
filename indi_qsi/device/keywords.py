# SPDX-License-Identifier: LGPL-2.1-or-later
"""FITS_HEADER: records that clients add to every header from now on.

A name with a value sets a keyword, a name without one takes it back, a comment alone becomes a COMMENT card,
and the name INDI_CLEAR takes everything back. What the camera itself is asked for cannot be overridden.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from indi_qsi.device.subject import GENERAL_INFO, Subject
from indi_qsi.properties import Permission, Request, State, TextElement, TextVector, Vector

if TYPE_CHECKING:
    from indi_qsi.fits import Card
    from usbproto.camera import Camera

TIMEOUT = 60.0  # s, advisory
NAME, VALUE, COMMENT = "KEYWORD_NAME", "KEYWORD_VALUE", "KEYWORD_COMMENT"
CLEAR = "INDI_CLEAR"
MAX_CARDS = 256  # a client that adds more is adding the same thing under ever new names
SHOWN = 20  # characters of a wrong name in a message

_LEGAL = re.compile("[A-Z0-9_-]{1,8}")
_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)  # digits that surely fit into 64 bits
_REAL = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][+-]?\d{1,2})?", re.ASCII)

# They make up the file; a wrong one makes it unreadable.
_STRUCTURAL = re.compile(
    r"SIMPLE|Z?BITPIX|Z?NAXIS\d*|EXTEND|BZERO|BSCALE|BLANK|END|CONTINUE|HIERARCH|XTENSION|PCOUNT|GCOUNT|GROUPS"
    r"|P(TYPE|SCAL|ZERO)\d+|INHERIT|CHECKSUM|DATASUM|LONGSTRN|EXT(NAME|VER|LEVEL)|TFIELDS|THEAP"
    r"|Z(IMAGE|TENSION|SIMPLE|EXTEND)"
)
# Only the camera and the driver know them, so that nobody else's word can be as true.
_MEASURED = re.compile(
    "ROWORDER|CAMMODEL|CAMSER|CAMFW|DETECTOR|EXPTIME|EXPOSURE|DARKTIME|CCD-TEMP|SET-TEMP|COOLPOWR|PIXSIZE[12]"
    "|[XY]BINNING|[XY]PIXSZ|[XY]ORGSUBF|FRAME|IMAGETYP|EGAIN|GAINMODE|READOUTM|SHUTTER|SATURATE|OVSCMEAN|ZEROLVL"
    "|DATE-(OBS|BEG|AVG|END)|CLOCKSTP|SWCREATE"
)
# Texts by the standard or by use, although many look like numbers: the object 7331, the run 20260101.
_TEXTS = frozenset({"OBJECT", "OBSERVER", "TELESCOP", "INSTRUME", "AUTHOR", "REFERENC", "ORIGIN", "FILTER"})
_COMMENTARY = frozenset({"COMMENT", "HISTORY"})


class KeywordError(ValueError):
    """A record that cannot be added; the text says what could."""


def make(name: str, value: str, comment: str) -> Card:
    """A record from a client's texts, neither name nor value empty. Raises `KeywordError`."""
    from indi_qsi.fits import Card

    keyword = checked(name)
    if keyword in _TEXTS | _COMMENTARY:
        return Card(keyword, value, comment)
    return Card(keyword, guessed(value), comment)


def checked(name: str) -> str:
    """The name as a keyword that a client may set. Raises `KeywordError`."""
    keyword = name.upper() if name.isascii() else name
    if not _LEGAL.fullmatch(keyword):
        raise KeywordError(
            f"{name[:SHOWN]!r} cannot be a FITS keyword; valid are 1 to 8 of A-Z, 0-9, '-' and '_'"
        )
    if _STRUCTURAL.fullmatch(keyword):
        raise KeywordError(f"{keyword} belongs to the structure of the file; choose another keyword")
    if _MEASURED.fullmatch(keyword):
        raise KeywordError(f"{keyword} is written by the driver itself; choose another keyword")
    return keyword


def guessed(text: str) -> str | int | float:
    """A number where the text is one that FITS can hold, else the text."""
    if _INTEGER.fullmatch(text):
        return int(text)
    if _REAL.fullmatch(text) and math.isfinite(value := float(text)):
        return value
    return text


class KeywordsSubject(Subject):
    """The vector, and what was set by it. Kept while the driver runs, whatever camera is connected."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cards: dict[str, Card] = {}
        # In the order of their coming; clients repeat them before each picture.
        self._comments: dict[tuple[str, str], Card] = {}
        self.vector = TextVector(
            "FITS_HEADER",
            "FITS Header",
            GENERAL_INFO,
            (TextElement(NAME, "Name"), TextElement(VALUE, "Value"), TextElement(COMMENT, "Comment")),
            permission=Permission.WO,
            timeout=TIMEOUT,
            on_request=self._requested,
        )

    def vectors(self) -> Sequence[Vector[Any]]:
        return (self.vector,)

    def connect(self, camera: Camera) -> None:
        """Loads what requests need: a reader must not wait for the disk."""
        import indi_qsi.fits  # noqa: F401

    def cards(self) -> tuple[Card, ...]:
        """All records, keywords by name, then comments. Any thread."""
        with self._lock:
            return (*(self._cards[name] for name in sorted(self._cards)), *self._comments.values())

    def _requested(self, request: Request[str]) -> None:
        name, value, comment = (request.given.get(element, "").strip() for element in (NAME, VALUE, COMMENT))
        try:
            self._add(name, value, comment)
        except KeywordError as error:
            self.vector.refuse(str(error))
        else:
            self.vector.set({NAME: name, VALUE: value, COMMENT: comment}, state=State.OK)

    def _add(self, name: str, value: str, comment: str) -> None:
        if not (name or value or comment):
            raise KeywordError("An empty record; give a name and a value, or a comment")
        if value and not name:
            raise KeywordError("A value needs a name")
        if name.upper() == CLEAR:
            with self._lock:
                self._cards.clear()
                self._comments.clear()
            return
        if not name:
            name, value, comment = "COMMENT", comment, ""
        keyword = checked(name)
        card = make(name, value, comment) if value else None
        with self._lock:
            if card is None:
                self._cards.pop(keyword, None)
                return
            commentary = keyword in _COMMENTARY
            known = (keyword, value) in self._comments if commentary else keyword in self._cards
            if not known and len(self._cards) + len(self._comments) >= MAX_CARDS:
                raise KeywordError(f"There are already {MAX_CARDS} records; clear them by the name {CLEAR}")
            if commentary:
                self._comments[keyword, value] = card
            else:
                self._cards[keyword] = card
