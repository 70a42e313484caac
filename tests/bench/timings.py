# SPDX-License-Identifier: LGPL-2.1-or-later
"""The two timings of the link side by side. No bars: the slower one is for cameras that do not stand the other."""

from __future__ import annotations

import time
from pathlib import Path

from tests.bench.client import Client
from tests.bench.frames import EXPOSURE, connect, take
from tests.bench.report import Figure, median
from tests.bench.rig import Camera, cpu, settled, under_indiserver
from usbproto.timing import TIMINGS


def measure_timings(directory: Path, one: Camera, count: int) -> list[Figure]:
    """For each timing: connecting, a frame's processor time, its download, and a frame from asking to having."""
    directory.mkdir()
    taken = {name: _measure(directory / name, one, name, count) for name in TIMINGS}
    return [
        Figure(f"{what}, {name}", median(values[what]), unit, values=values[what])
        for what, unit in UNITS.items()
        for name, values in taken.items()
    ]


UNITS = {
    "connect a 683": "s",
    "processor, a frame": "ms",
    "download": "ms",
    "exposure's end -> client": "ms",
}


def _measure(directory: Path, one: Camera, timing: str, count: int) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {what: [] for what in UNITS}
    environ = {**one.environ, "INDI_QSI_TIMING": timing}
    with under_indiserver(directory, environ) as driver, Client(driver.unix, blobs="Also") as client:
        client.wait(r"<defSwitchVector [^>]*name=['\"]CONNECTION['\"]")
        start = time.time()
        connect(client)
        values["connect a 683"].append(time.time() - start)
        settled(driver.pid)
        take(client)
        for _ in range(count):
            since, before = time.time(), cpu(driver.pid)
            blob = take(client, EXPOSURE)
            values["processor, a frame"].append(1000 * (cpu(driver.pid) - before))
            begun, read = one.times("transfer", since)[0], one.times("auto_zero", since)[0]
            values["download"].append(1000 * (read - begun))
            values["exposure's end -> client"].append(1000 * (blob.at - one.times("exposure_end", since)[0]))
    return values
