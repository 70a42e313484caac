# SPDX-License-Identifier: LGPL-2.1-or-later
"""How much of the processor a client may use: plenty for a while, then a small part.

A request of a few bytes can make the driver work hard, and everybody waits for the one interpreter. A program
that behaves never comes near the limit: all definitions cost some ten milliseconds, once.
"""

from __future__ import annotations

import time

# Seconds of processor time that are free: a dozen programs that start.
BURST = 0.2

# The part of a processor from then on; what one may not use is saved up again.
SHARE = 0.05

# Seconds to wait at a time at most.
LONGEST = 1.0


class Pace:
    """The budget of one client."""

    def __init__(self) -> None:
        self._left = BURST
        self._at = time.monotonic()

    def pause(self, spent: float) -> float:
        """Seconds to wait before the next request, now that so many of processor time were spent."""
        now = time.monotonic()
        self._left = min(BURST, self._left + (now - self._at) * SHARE) - spent
        self._at = now
        return min(LONGEST, -self._left / SHARE) if self._left < 0 else 0.0
