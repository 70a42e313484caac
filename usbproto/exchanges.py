# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is said to a camera and what it says, line by line in the log, for whoever looks for a fault.

Only at level DEBUG, and whoever calls asks `wanted` first, so that nothing is put together for nobody.

A camera is asked what it is doing a hundred times a second. So a question that gets the same answer as the
last time is not told each time.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

from usbproto.packets import Command, Kind

log = logging.getLogger(__name__)

# s after which an answer that stays the same is told again: a minute of the log shows that it was asked.
REPEAT = 10.0


@dataclass(slots=True)
class _Told:
    """How a question ended when it was told last, at `at` on the monotonic clock."""

    request: bytes
    end: bytes | str
    at: float
    left_out: int = 0


class ExchangeLog:
    """The lines about one camera. One thread at a time."""

    def __init__(self) -> None:
        self._told: dict[int, _Told] = {}  # by command code: as many as the table has

    @property
    def wanted(self) -> bool:
        """Whether anybody reads them."""
        return log.isEnabledFor(logging.DEBUG)

    def answered(self, command: Command[Any, Any], request: bytes, answer: bytes, seconds: float) -> None:
        """The camera did it. Both packets are shown in hexadecimal; `seconds` from the one to the other."""
        left_out = self._left_out(command, request, answer)
        if left_out is not None:
            sent, got = request.hex(), answer.hex()
            log.debug("%s: ok in %.1f ms (%s -> %s)%s", command.name, seconds * 1000, sent, got, left_out)

    def failed(self, command: Command[Any, Any], request: bytes, error: Exception, seconds: float) -> None:
        """It refused, or there was no answer that could be used."""
        reason = str(error)
        left_out = self._left_out(command, request, reason)
        if left_out is not None:
            sent = request.hex()
            log.debug(
                "%s: failed after %.1f ms (%s): %s%s", command.name, seconds * 1000, sent, reason, left_out
            )

    def received(self, phase: str, count: int, seconds: float) -> None:
        """So many bytes came behind an answer."""
        log.debug("%s: %d bytes in %.1f ms", phase, count, seconds * 1000)

    def _left_out(self, command: Command[Any, Any], request: bytes, end: bytes | str) -> str | None:
        """What the line says of those that were not told; None when it is such a one itself."""
        now, last = time.monotonic(), self._told.get(command.code)
        same = last is not None and (last.request, last.end) == (request, end)
        if last is not None and same and command.kind is Kind.QUESTION and now - last.at < REPEAT:
            last.left_out += 1
            return None
        self._told[command.code] = _Told(request, end, now)
        count = last.left_out if last is not None else 0
        return f", after {count} more that ended as before" if count else ""
