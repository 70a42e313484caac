# SPDX-License-Identifier: LGPL-2.1-or-later
"""A picture of a log: temperatures and cooling power over the night, with the exposures behind them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from io import BytesIO
from itertools import pairwise
from math import nan

from qsi_tools.extras import need
from qsi_tools.watch.log import Entry

SIZE, DPI = (9.0, 5.0), 100  # inches, dots an inch
# Where so many times the usual time is between two entries, nobody watched: no line is drawn.
GAP = 10.0
EXPOSING = "exposing"
LEAST_RANGE = 1.0  # K from bottom to top: the sensor's last digit is not to fill the picture


def plot(entries: Sequence[Entry]) -> bytes:
    """The PNG file. Raises `extras.Missing` without matplotlib, ValueError without entries."""
    need("matplotlib")
    if not any(entry.temperature is not None for entry in entries):
        raise ValueError("the log has no temperatures yet")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (2, 1)})
    devices = sorted({entry.device for entry in entries})
    for device in devices:
        own = [entry for entry in entries if entry.device == device]
        gaps = list(_with_gaps(own))
        times = [entry.time for entry, _ in gaps]
        upper.plot(times, [_value(entry.temperature, gap) for entry, gap in gaps], label=device)
        lower.plot(times, [_value(entry.power, gap) for entry, gap in gaps], label=device)
        for start, end in _exposures(own):
            upper.axvspan(start, end, color="0.5", alpha=0.15, linewidth=0)
    upper.set_ylabel("CCD temperature (°C)")
    low, high = upper.get_ylim()
    if high - low < LEAST_RANGE:
        upper.set_ylim((low + high - LEAST_RANGE) / 2, (low + high + LEAST_RANGE) / 2)
    lower.set_ylabel("Cooling power (%)")
    lower.set_ylim(-3, 103)
    lower.set_xlabel("Time (UTC)")
    locator = AutoDateLocator()
    lower.xaxis.set_major_locator(locator)
    lower.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
    if len(devices) > 1:
        upper.legend()
    first = min(entry.time for entry in entries)
    exposures = " (grey: exposing)" if any(entry.phase == EXPOSING for entry in entries) else ""
    upper.set_title(f"{', '.join(devices)}, {first:%Y-%m-%d}{exposures}")
    file = BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _with_gaps(entries: Sequence[Entry]) -> Iterator[tuple[Entry, bool]]:
    """Each entry, and before a long silence one that is a gap."""
    steps = sorted((b.time - a.time).total_seconds() for a, b in pairwise(entries))
    usual = steps[len(steps) // 2] if steps else 0.0
    for before, entry in zip((None, *entries), entries, strict=False):
        if before is not None and (entry.time - before.time).total_seconds() > GAP * max(usual, 1.0):
            yield before, True
        yield entry, False


def _value(value: float | None, gap: bool) -> float:
    return nan if gap or value is None else value


def _exposures(entries: Sequence[Entry]) -> Iterator[tuple[datetime, datetime]]:
    """From the first entry of each exposure to the first one after it."""
    start: Entry | None = None
    for entry in entries:
        if entry.phase == EXPOSING:
            start = start or entry
        elif start is not None:
            yield start.time, entry.time
            start = None
    if start is not None:
        yield start.time, entries[-1].time
