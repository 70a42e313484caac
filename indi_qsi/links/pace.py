# SPDX-License-Identifier: LGPL-2.1-or-later
"""How much of the processor clients may use: plenty for a while, then a part that all who want more share.

A request of a few bytes can make the driver work hard, and everybody waits for the one interpreter. A program
that behaves never comes near the limit: all definitions cost some ten milliseconds, once, and hundreds of
requests a second less than the shared part.
"""

from __future__ import annotations

import time

# Seconds of processor time that are free for each: a dozen programs that start.
BURST = 0.2

# The part of a processor for all those together that have used theirs up: enough for the one that has reasons
# to ask a lot, little enough that the rest stays for pictures and guiding, however many there are.
SHARE = 0.25

# Seconds to wait at a time at most.
LONGEST = 1.0


class Paces:
    """All clients of a server."""

    def __init__(self) -> None:
        self._greedy: set[Pace] = set()

    def share(self, pace: Pace) -> float:
        """The part of a processor that one may use, and saves up what it does not."""
        return SHARE / len(self._greedy | {pace})

    def note(self, pace: Pace, *, greedy: bool) -> None:
        """Whether one has used up what is free. Any thread."""
        if greedy:
            self._greedy.add(pace)
        else:
            self._greedy.discard(pace)


class Pace:
    """The budget of one client. `close` when it leaves."""

    def __init__(self, all: Paces) -> None:
        self._all = all
        self._left = BURST
        self._at = time.monotonic()

    def pause(self, spent: float) -> float:
        """Seconds to wait before the next request, now that so many of processor time were spent."""
        now = time.monotonic()
        share = self._all.share(self)
        self._left = min(BURST, self._left + (now - self._at) * share) - spent
        self._at = now
        self._all.note(self, greedy=self._left < 0)
        return min(LONGEST, -self._left / share) if self._left < 0 else 0.0

    def close(self) -> None:
        self._all.note(self, greedy=False)
