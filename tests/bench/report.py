# SPDX-License-Identifier: LGPL-2.1-or-later
"""Figures, their bars, and how they are shown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def p99(values: Iterable[float]) -> float:
    """The value that one in a hundred exceeds; with fewer than a hundred values the greatest one."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]


@dataclass(frozen=True)
class Figure:
    """One measured value, in `unit`. `bar` is what it may be at most, None for what is only told.

    `limit` is what the same takes without the driver, measured in the same run, and `beside` says what it is.
    """

    name: str
    value: float
    unit: str
    bar: float | None = None
    rule: str = ""
    limit: float | None = None
    beside: str = ""
    values: Sequence[float] = field(default=(), repr=False)

    @property
    def passed(self) -> bool:
        return self.bar is None or self.value <= self.bar

    @property
    def ratio(self) -> float | None:
        return self.value / self.limit if self.limit else None

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio, "passed": self.passed}


def table(figures: Sequence[Figure]) -> str:
    """For a terminal, and as Markdown."""
    head = ("figure", "value", "bar", "", "rule", "beside it, in the same run", "ratio")
    rows = [
        (
            figure.name,
            _shown(figure.value, figure.unit),
            "" if figure.bar is None else _shown(figure.bar, figure.unit),
            "" if figure.bar is None else ("pass" if figure.passed else "FAIL"),
            figure.rule,
            "" if figure.limit is None else f"{figure.beside} {_shown(figure.limit, figure.unit)}",
            "" if figure.ratio is None else f"{figure.ratio:.2f}",
        )
        for figure in figures
    ]
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in (head, tuple("-" * width for width in widths), *rows)
    ]
    return "\n".join(lines)


def _shown(value: float, unit: str) -> str:
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 20 else 2
    return f"{value:.{digits}f} {unit}".strip()
