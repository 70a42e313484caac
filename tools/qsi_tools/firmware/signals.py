# SPDX-License-Identifier: LGPL-2.1-or-later
"""While something half-written is in the camera, nothing that a user or a lost ssh session sends ends us."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# Ctrl-C, `kill` and a shutdown, a terminal that is gone, Ctrl-\ and Ctrl-Z.
HELD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP)


@contextmanager
def held_off(tell: Callable[[str], None]) -> Iterator[list[int]]:
    """`tell` is called when one comes. Gives the list of those that came. Main thread only."""
    came: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        tell(
            f"{signal.Signals(number).name} is held off until the camera is whole: do not switch anything off"
        )

    before = {number: signal.signal(number, note) for number in HELD}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
