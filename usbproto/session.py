# SPDX-License-Identifier: LGPL-2.1-or-later
"""What belongs to one connection with a camera, from the first transfer to the last, beside the camera
itself.

How fast it is talked to, who can end a wait, who hears of progress, and what was odd.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from usbproto.deadline import Stop
from usbproto.flight import FlightRecorder
from usbproto.timing import FAST, VENDOR, Timing

log = logging.getLogger(__name__)

# So many link errors within so many seconds, and the link is talked to as carefully as the vendor does. One
# alone is an accident; a cable that is bad makes them faster than one in two minutes.
CAREFUL_AFTER = 3
CAREFUL_WITHIN = 300.0  # s
KEPT_IN = "The exchanges with the camera up to here are in"


class Session:
    """One thread uses it, but `stop`, which is for others.

    A program sets what it wants to hear of: `progress` gets a sentence for the user while something takes
    long, and `slowed` one when link errors have changed the timing; `alive` is called before each exchange;
    `keep` gets a kind and a reason when the flight recorder's content is worth keeping, and returns where it
    goes.
    """

    def __init__(self, timing: Timing = FAST, flight: FlightRecorder | None = None) -> None:
        """`flight` is kept for the next session with the same camera; without one, there is a new one."""
        self.timing = timing
        self.stop = Stop()
        self.flight = flight or FlightRecorder()
        self.progress: Callable[[str], None] = lambda text: log.info("%s", text)
        self.keep: Callable[[str, str], Path | None] = lambda kind, reason: None
        self.alive: Callable[[], None] = lambda: None
        self.slowed: Callable[[str], None] = lambda text: log.warning("%s", text)
        self._odd: dict[str, int] = {}
        self._kept: Path | None = None  # the file that was logged last
        self._errors: deque[float] = deque(maxlen=CAREFUL_AFTER)

    def odd(self, key: str, text: str) -> None:
        """Something unusual that does no harm: logged once for each key, counted always."""
        count = self._odd[key] = self._odd.get(key, 0) + 1
        if count == 1:
            log.warning("%s", text)
            self.flight.note("odd", text)
            self._keep("odd", text)

    @property
    def oddities(self) -> dict[str, int]:
        """How often each was seen, by key."""
        return dict(self._odd)

    def link_error(self, text: str) -> bool:
        """Counts an error of the link; True when from now on it is to be talked to as the vendor does."""
        self.flight.note("link error", text)
        self._keep("link", text)
        now = time.monotonic()
        self._errors.append(now)
        often = len(self._errors) == CAREFUL_AFTER and now - self._errors[0] <= CAREFUL_WITHIN
        if not often or self.timing is VENDOR:
            return False
        self.timing = VENDOR
        self.flight.note("timing", VENDOR.name)
        return True

    def failed(self, kind: str, text: str) -> None:
        """Something went wrong, and the user hears of it: also where to find what went before it."""
        self.flight.note(kind, text)
        path = self.keep(kind, text)
        if path is not None:
            self.progress(f"{KEPT_IN} {path}")

    def _keep(self, kind: str, text: str) -> None:
        path = self.keep(kind, text)
        if path is not None and path != self._kept:
            self._kept = path
            log.info("%s %s", KEPT_IN, path)
