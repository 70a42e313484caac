# SPDX-License-Identifier: LGPL-2.1-or-later
"""The flight recorder: the last exchanges with a camera, always in memory.

When something odd or wrong happens, `usbproto.flightfiles` writes them to a file. This module knows no disk.

An exchange costs about a microsecond, because nothing is formatted and no serial number is replaced before
`lines` is called. No lock is needed: one thread, that of the camera, notes exchanges; appending to a deque
and storing an attribute are atomic, so other threads may add notes and read.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from usbproto.hiding import MARGIN, Hiding, asks_for_serial, without_data

FORMAT = "qsi-flight"
VERSION = 1
# Entries. An exposure of some minutes has a few hundred, because equal polls are one entry.
KEPT = 1000
# Bytes of each direction that are kept: all of every command and answer but GetDeviceDetails and BurstBlock.
KEPT_BYTES = 32
KEPT_TEXT = 300  # characters of a note, an error or a fact; the longest error message has about 200
MICROSECONDS = 6  # digits after the point of a time in seconds

# Bytes in hexadecimal, as error messages show them. Shorter ones could be words.
_HEXADECIMAL = re.compile(r"\b(?:[0-9a-fA-F]{2}){2,}\b")

Line = dict[str, Any]


class _Exchange:
    """What was sent and what came of it, `count` times in a row. Times in s, on the monotonic clock."""

    __slots__ = ("count", "error", "first", "got", "last", "least", "length", "most", "sent")

    def __init__(
        self, sent: bytes, got: bytes, length: int, error: str, began: float, seconds: float
    ) -> None:
        self.sent = sent
        self.got = got
        self.length = length  # of the whole answer
        self.error = error
        self.first = self.last = began
        self.least = self.most = seconds
        self.count = 1

    def line(self, origin: float, hiding: Hiding) -> Line:
        sent, got, error = self.sent[:KEPT_BYTES], self.got, hiding.text(self.error)[:KEPT_TEXT]
        hidden = asks_for_serial(sent)
        if hidden:
            got = without_data(got)
            error = _HEXADECIMAL.sub("*", error)
        line: Line = {
            "t": _rounded(self.first - origin),
            "e": "exchange",
            "sent": hiding.bytes(sent).hex(),
            "got": hiding.bytes(got).hex(),
            "took": _rounded(self.most),
        }
        if len(sent) < len(self.sent):
            line["sent_length"] = len(self.sent)
        if len(got) < self.length:
            line["got_length"] = self.length
        if error:
            line["error"] = error
        if hidden:
            line["hidden"] = True
        if self.count > 1:
            line |= {
                "count": self.count,
                "last": _rounded(self.last - origin),
                "least": _rounded(self.least),
            }
        return line


class _Received:
    """Bytes that came behind an answer."""

    __slots__ = ("count", "first", "seconds", "what")

    def __init__(self, what: str, count: int, began: float, seconds: float) -> None:
        self.what = what
        self.count = count
        self.first = began
        self.seconds = seconds

    def line(self, origin: float, hiding: Hiding) -> Line:
        return {
            "t": _rounded(self.first - origin),
            "e": "received",
            "what": hiding.text(self.what)[:KEPT_TEXT],
            "bytes": self.count,
            "took": _rounded(self.seconds),
        }


class _Note:
    """Something that belongs between the exchanges."""

    __slots__ = ("first", "kind", "text")

    def __init__(self, kind: str, text: str) -> None:
        self.kind = kind
        self.text = text[: KEPT_TEXT + MARGIN]
        self.first = time.monotonic()

    def line(self, origin: float, hiding: Hiding) -> Line:
        return {
            "t": _rounded(self.first - origin),
            "e": "note",
            "kind": hiding.text(self.kind)[:KEPT_TEXT],
            "text": hiding.text(self.text)[:KEPT_TEXT],
        }


class FlightRecorder:
    """The last `KEPT` entries of one camera.

    `answered`, `failed` and `received` are for one thread; `began` is of `time.monotonic()`, `seconds` is how
    long it took. Everything else may be called by any thread. Nothing waits or raises.

    `facts` are for the heading: series, model, firmware, driver, timing. The caller sets them.
    """

    def __init__(self) -> None:
        self.facts: dict[str, str] = {}
        self._hiding = Hiding()
        self._origin = time.monotonic()
        self._entries: deque[_Exchange | _Received | _Note] = deque(maxlen=KEPT)
        # The newest entry, while it is an exchange: an equal one is counted there.
        self._last: _Exchange | None = None

    def mask(self, serial: str) -> None:
        """From now on this serial number is replaced in `lines`, also in what was noted before."""
        self._hiding.add(serial)

    def answered(self, sent: bytes, answer: bytes | memoryview, began: float, seconds: float) -> None:
        """The camera answered. `answer` may be a view of a buffer that is used again."""
        self._exchanged(sent, bytes(answer[:KEPT_BYTES]), len(answer), "", began, seconds)

    def failed(self, sent: bytes, got: bytes, error: str, began: float, seconds: float) -> None:
        """The exchange failed with `error` after the bytes `got`."""
        kept = error[: KEPT_TEXT + MARGIN]
        self._exchanged(sent, bytes(got[:KEPT_BYTES]), len(got), kept, began, seconds)

    def received(self, what: str, count: int, began: float, seconds: float) -> None:
        """`count` bytes of pixels or overscan came behind an answer."""
        self._last = None
        self._entries.append(_Received(what, count, began, seconds))

    def note(self, kind: str, text: str) -> None:
        """Something happened now: a phase, a state, an oddity. `kind` is a word or two."""
        self._last = None
        self._entries.append(_Note(kind, text))

    def lines(self, reason: str = "", kind: str = "") -> list[Line]:
        """Everything as values for JSON, the heading first, the rest by time.

        Times are seconds since the recorder was made. The heading has the only wall-clock time, `at`, which
        is now, and `t`, the same moment as seconds.
        """
        heading: Line = {
            FORMAT: VERSION,
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "t": _rounded(time.monotonic() - self._origin),
            "kind": kind,
            "reason": self._text(reason),
        }
        # The heading's own keys come first, and no fact may replace one.
        facts = {self._text(name): self._text(value) for name, value in dict(self.facts).items()}
        lines = [entry.line(self._origin, self._hiding) for entry in self._snapshot()]
        # An exchange is noted when it has ended, and belongs where it began.
        lines.sort(key=_time)
        return [{**heading, **facts, **heading}, *lines]

    def _exchanged(
        self, sent: bytes, got: bytes, length: int, error: str, began: float, seconds: float
    ) -> None:
        last = self._last
        if (
            last is not None
            and last.sent == sent
            and last.got == got
            and last.length == length
            and last.error == error
        ):
            last.count += 1
            last.last = began
            if seconds > last.most:
                last.most = seconds
            elif seconds < last.least:
                last.least = seconds
            return
        entry = _Exchange(sent, got, length, error, began, seconds)
        self._entries.append(entry)
        self._last = entry

    def _snapshot(self) -> list[_Exchange | _Received | _Note]:
        while True:
            try:
                return list(self._entries)
            except RuntimeError:
                # Another thread appended meanwhile. With the GIL the copy is atomic, and this never happens.
                continue

    def _text(self, text: str) -> str:
        return self._hiding.text(text)[:KEPT_TEXT]


def _rounded(seconds: float) -> float:
    return round(seconds, MICROSECONDS)


def _time(line: Mapping[str, Any]) -> float:
    return float(line["t"])
