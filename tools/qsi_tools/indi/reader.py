# SPDX-License-Identifier: LGPL-2.1-or-later
"""What an INDI server sends, without any input or output: bytes in any portions -> messages.

The stream is a sequence of XML elements without one around them, so it is read as the inside of one endless
document. Nothing is kept of a message that is complete.
"""

from __future__ import annotations

from dataclasses import dataclass
from pyexpat import ExpatError, ParserCreate

# Bytes of one message. The largest sensors have 150 million pixels of two bytes, and base64 adds a third; a
# server that sends more is broken, and must not fill the memory of a Raspberry Pi.
MAX_MESSAGE = 512 * 1024 * 1024

_DEPTH_MESSAGE, _DEPTH_MEMBER = 2, 3


class BadStream(Exception):
    """This is not INDI; nothing that follows can be read."""


@dataclass(frozen=True, slots=True)
class Member:
    """One element of a vector: its tag, its attributes, and its text without the white space around it."""

    tag: str
    attributes: dict[str, str]
    text: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message: its tag, its attributes, the elements inside."""

    tag: str
    attributes: dict[str, str]
    members: tuple[Member, ...]


class Reader:
    """Reads one stream: `feed` it, and get the messages that are complete."""

    def __init__(self) -> None:
        expat = ParserCreate("utf-8")
        if hasattr(expat, "SetReparseDeferralEnabled"):  # else the end of a message may be told late
            expat.SetReparseDeferralEnabled(False)
        expat.buffer_text = True
        expat.StartElementHandler = self._start
        expat.EndElementHandler = self._end
        expat.CharacterDataHandler = self._characters
        self._expat = expat
        self._depth = 0
        self._message: tuple[str, dict[str, str]] | None = None
        self._members: list[Member] = []
        self._member: tuple[str, dict[str, str]] | None = None
        self._text: list[str] = []
        self._length = 0  # of what is in _text
        self._bytes = 0  # since the last complete message
        self._complete: list[Message] = []
        expat.Parse(b"<indi>", False)

    @property
    def picture(self) -> tuple[int, int] | None:
        """How many bytes of a picture have come of how many, while one is on its way."""
        if self._member is None or self._member[0] != "oneBLOB":
            return None
        size = self._member[1].get("size", "")
        if not size.isdecimal() or int(size) == 0:
            return None
        return min(self._length * 3 // 4, int(size)), int(size)

    def feed(self, data: bytes) -> list[Message]:
        """Takes the next bytes; returns what they complete, in order. Raises `BadStream`."""
        self._bytes += len(data)
        try:
            self._expat.Parse(data, False)
        except ExpatError as error:
            raise BadStream(f"this is no INDI: {error}") from error
        if self._depth < 1:
            raise BadStream("this is no INDI: an end without a beginning")
        complete, self._complete = self._complete, []
        if complete:
            self._bytes = 0
        if self._bytes > MAX_MESSAGE:
            raise BadStream(f"a message of more than {MAX_MESSAGE} bytes")
        return complete

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth == _DEPTH_MESSAGE:
            self._message, self._members = (tag, attributes), []
        elif self._depth == _DEPTH_MEMBER:
            self._member, self._text, self._length = (tag, attributes), [], 0

    def _characters(self, text: str) -> None:
        if self._member is not None:
            self._text.append(text)
            self._length += len(text)

    def _end(self, tag: str) -> None:
        self._depth -= 1
        if self._depth == _DEPTH_MEMBER - 1 and self._member is not None:
            self._members.append(Member(*self._member, "".join(self._text).strip()))
            self._member, self._text = None, []
        elif self._depth == _DEPTH_MESSAGE - 1 and self._message is not None:
            self._complete.append(Message(*self._message, tuple(self._members)))
            self._message, self._members = None, []
