# SPDX-License-Identifier: LGPL-2.1-or-later
"""The simulated camera's time: what it is now, and what happens later.

All of a simulated camera runs under its timeline's lock: callbacks are called with the lock held, and whoever
talks to the camera from outside takes it. Times are simulated seconds from an arbitrary origin.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from typing import Protocol


class Event:
    """Something that will happen. `cancel()` (with the lock held) makes it not happen."""

    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class Timeline(Protocol):
    """What the parts of a simulated camera need of time."""

    lock: threading.RLock

    def now(self) -> float: ...

    def at(self, when: float, callback: Callable[[], None]) -> Event: ...

    def after(self, delay: float, callback: Callable[[], None]) -> Event: ...


class _Agenda:
    """Events by time; those of one moment in the order in which they were made."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Event]] = []
        self._count = itertools.count()

    def add(self, event: Event) -> None:
        heapq.heappush(self._heap, (event.when, next(self._count), event))

    def next_time(self) -> float | None:
        while self._heap and self._heap[0][2].callback is None:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop(self) -> Event:
        return heapq.heappop(self._heap)[2]


class ManualTimeline:
    """Time that stands still until `advance` is called: for tests of slow physics in no time."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._now = 0.0
        self._agenda = _Agenda()

    def now(self) -> float:
        return self._now

    def at(self, when: float, callback: Callable[[], None]) -> Event:
        event = Event(max(when, self._now), callback)
        self._agenda.add(event)
        return event

    def after(self, delay: float, callback: Callable[[], None]) -> Event:
        return self.at(self._now + delay, callback)

    def advance(self, seconds: float) -> None:
        """Let `seconds` go by; everything due on the way happens at its own time."""
        with self.lock:
            end = self._now + seconds
            while (due := self._agenda.next_time()) is not None and due <= end:
                event = self._agenda.pop()
                self._now = event.when
                if event.callback is not None:
                    event.callback()
            self._now = end


class RealTimeline:
    """Time that runs by itself, `speed` times as fast as the wall; its own thread makes things happen."""

    def __init__(self, speed: float = 1.0) -> None:
        if not speed > 0:
            raise ValueError(f"speed {speed} is not above 0")
        self.lock = threading.RLock()
        self.speed = speed
        self._origin = time.monotonic()
        self._agenda = _Agenda()
        self._changed = threading.Condition(self.lock)
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="simulated time", daemon=True)
        self._thread.start()

    def now(self) -> float:
        return (time.monotonic() - self._origin) * self.speed

    def at(self, when: float, callback: Callable[[], None]) -> Event:
        event = Event(when, callback)
        with self._changed:
            self._agenda.add(event)
            self._changed.notify_all()
        return event

    def after(self, delay: float, callback: Callable[[], None]) -> Event:
        return self.at(self.now() + delay, callback)

    def close(self) -> None:
        """End the thread; nothing happens any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        with self._changed:
            while not self._closed:
                due = self._agenda.next_time()
                if due is None:
                    self._changed.wait()
                elif (wait := (due - self.now()) / self.speed) > 0:
                    self._changed.wait(wait)
                else:
                    event = self._agenda.pop()
                    if event.callback is not None:
                        event.callback()
