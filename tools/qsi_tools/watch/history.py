# SPDX-License-Identifier: LGPL-2.1-or-later
"""The last hours of a number, and a small picture of them in characters. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

SPAN = 2 * 3600.0  # s that are kept: a cool-down and what came after it
LEAST_STEP = 1.0  # s between samples; cameras are asked no more often
LEAST_RANGE = 1.0  # of a plot from bottom to top: noise is not to fill it

_BLOCKS = " ▁▂▃▄▅▆▇█"

Sample = tuple[float, float]  # seconds on some clock, value


class History:
    """Samples in their order; old ones are forgotten."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque()

    def add(self, now: float, value: float) -> None:
        """A value; what comes sooner than `LEAST_STEP` after another is left out."""
        if self._samples and now - self._samples[-1][0] < LEAST_STEP:
            return
        self._samples.append((now, value))
        while now - self._samples[0][0] > SPAN:
            self._samples.popleft()

    @property
    def samples(self) -> Sequence[Sample]:
        """The oldest first."""
        return tuple(self._samples)

    @property
    def minutes(self) -> float:
        """From the oldest to the newest."""
        return (self._samples[-1][0] - self._samples[0][0]) / 60 if self._samples else 0.0


def draw(
    samples: Sequence[Sample], width: int, height: int, ends: tuple[float, float] | None = None
) -> list[str]:
    """A curve in `height` lines of `width` characters, the upper one first; with labels at its ends.

    `ends` are bottom and top; without them, the curve's own.
    """
    if not samples:
        return [" " * width for _ in range(height)]
    columns = _columns(samples, width)
    known = [value for value in columns if value is not None]
    low, high = ends or (min(known), max(known))
    if high - low < LEAST_RANGE:
        low, high = (low + high - LEAST_RANGE) / 2, (low + high + LEAST_RANGE) / 2
    lines = []
    for row in reversed(range(height)):
        line = "".join(_cell(value, row, low, high, height) for value in columns)
        label = f" {high:.0f}" if row == height - 1 else f" {low:.0f}" if row == 0 else ""
        lines.append(line + label)
    return lines


def _columns(samples: Sequence[Sample], width: int) -> list[float | None]:
    """The mean of each column's time; None where nothing was measured."""
    start, end = samples[0][0], samples[-1][0]
    span = max(end - start, 1e-9)
    sums = [0.0] * width
    counts = [0] * width
    for at, value in samples:
        column = min(width - 1, int((at - start) / span * width))
        sums[column] += value
        counts[column] += 1
    columns: list[float | None] = []
    for total, count in zip(sums, counts, strict=True):
        # Few samples on a wide plot leave gaps that mean nothing.
        before = columns[-1] if columns and len(samples) < 2 * width else None
        columns.append(total / count if count else before)
    return columns


def _cell(value: float | None, row: int, low: float, high: float, height: int) -> str:
    if value is None:
        return " "
    part = min(max((value - low) / (high - low), 0.0), 1.0)
    eighths = round(part * (height * 8 - 1)) + 1 - row * 8
    return _BLOCKS[min(max(eighths, 0), 8)]
