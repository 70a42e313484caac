# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where the time of a frame goes, as a picture. The only user of matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tests.bench.frames import Cost
from tests.bench.report import median

# What lies between two stations, in their order; the first is the sensor's own business.
STEPS = (
    ("noticed", "readout's end noticed", "#b0b0b0"),
    ("image transfer", "image over the USB", "#4477aa"),
    ("overscan", "end of image, overscan", "#66ccee"),
    ("header", "header", "#228833"),
    ("pixels", "pixels finished in place", "#ccbb44"),
    ("handed over", "hand-over to indiserver", "#ee6677"),
    ("at the client", "indiserver, client", "#aa3377"),
)


def draw(cost: Cost, copy: Sequence[float], path: Path) -> None:
    figure = Figure(figsize=(9, 3.2), constrained_layout=True)
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    at, before = 0.0, "sensor read out"
    for station, label, colour in STEPS:
        length = 1000 * median([s[station] - s[before] for s in cost.stations])
        axes.barh(
            "a frame, unix client\nof indiserver",
            length,
            left=at,
            color=colour,
            label=f"{label}: {length:.1f} ms",
        )
        at, before = at + length, station
    read, copied = 1000 * median(cost.bare["read"]), 1000 * median(copy)
    axes.barh("limits", read, color="#4477aa", alpha=0.4, label=f"bare read by pyusb: {read:.1f} ms")
    axes.barh(
        "limits",
        copied,
        left=read,
        color="#ccbb44",
        alpha=0.4,
        label=f"copy into fresh memory: {copied:.1f} ms",
    )
    axes.invert_yaxis()
    axes.set_xlabel("ms after the camera has read out its sensor (683, 8.3 million pixels, median)")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize="small")
    figure.savefig(path, dpi=110)
