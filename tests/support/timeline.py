# SPDX-License-Identifier: LGPL-2.1-or-later
"""The time of a simulated camera on the test's clock."""

from __future__ import annotations

from collections.abc import Callable

from usbproto.simulator.timeline import Event, RealTimeline


class OwnTimeline:
    """Time that runs by itself. It is not of the kind that makes the camera compute in another thread."""

    def __init__(self) -> None:
        self._real = RealTimeline()
        self.lock = self._real.lock

    def now(self) -> float:
        return self._real.now()

    def at(self, when: float, callback: Callable[[], None]) -> Event:
        return self._real.at(when, callback)

    def after(self, delay: float, callback: Callable[[], None]) -> Event:
        return self._real.after(delay, callback)

    def close(self) -> None:
        self._real.close()
