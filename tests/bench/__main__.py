# SPDX-License-Identifier: LGPL-2.1-or-later
"""`tools/bench`: measures everything, shows it, and says whether the bars hold."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench import latency, limits, start, timings
from tests.bench.frames import Cost, measure_wire
from tests.bench.report import Figure, median, table
from tests.bench.rig import FRAME, camera

SLOW_RATE = 2_000_000  # bytes/s
FAST_RATE = 30_000_000  # bytes/s; what an FT2232H gives
READOUT = ("--readout", "0.2")


def main() -> int:
    options = _parser().parse_args()
    with tempfile.TemporaryDirectory(prefix="qsi-bench-") as name:
        figures, cost = _measure(Path(name), options.only or list(PARTS), options.times)
    print(table(figures))
    failed = [figure for figure in figures if not figure.passed]
    print(
        f"\n{sum(f.bar is not None for f in figures)} bars, {len(failed)} failed; load {os.getloadavg()[0]:.1f}"
    )
    if options.json:
        text = json.dumps({**_machine(), "figures": [figure.as_json() for figure in figures]}, indent=1)
        Path(options.json).write_text(text + "\n")
    if options.plot and cost is not None:
        from tests.bench.plot import draw  # needs matplotlib, which nothing else does

        draw(cost, cost.copies, Path(options.plot))
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tools/bench", description=__doc__)
    parser.add_argument("--json", metavar="FILE", help="also write everything, each single value included")
    parser.add_argument("--plot", metavar="FILE", help="draw where the time of a frame goes (PNG)")
    parser.add_argument("--times", type=int, default=10, help="frames of each kind and round (default 10)")
    parser.add_argument("only", nargs="*", metavar="PART", help=f"only these parts: {', '.join(PARTS)}")
    return parser


def _machine() -> dict[str, object]:
    return {
        "when": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
    }


def _frames(directory: Path, times: int) -> tuple[list[Figure], Cost]:
    with camera(directory / "camera", "683wsg", *READOUT) as one:
        cost = Cost(directory, one, times)
        copy, base64, send = [], [], []
        for _ in range(3):
            copy += limits.copies(FRAME, 5)
            base64 += limits.base64s(FRAME, 5)
            send += limits.base64_sends(FRAME, 5)
            cost.measure()
        cost.copies = copy
        return cost.figures(copy, base64, send), cost


def _wire(directory: Path, times: int) -> list[Figure]:
    with camera(directory / "camera", "683wsg", *READOUT, "--rate", str(FAST_RATE)) as one:
        return measure_wire(directory / "wire", one, FAST_RATE, times)


def _timings(directory: Path, times: int) -> list[Figure]:
    with camera(directory / "camera", "683wsg", *READOUT) as one:
        return timings.measure_timings(directory / "timings", one, times)


def _start(directory: Path, times: int) -> list[Figure]:
    with camera(directory / "camera") as one:
        return start.measure_start(directory / "start", one.environ, 2 * times)


def _connect(directory: Path, times: int) -> list[Figure]:
    with camera(directory / "new") as new, camera(directory / "old", "583ws") as old:
        return start.measure_connect(directory / "connect", old, new, max(1, times // 2))


def _idle(directory: Path, times: int) -> list[Figure]:
    with camera(directory / "camera") as one:
        return start.measure_idle(directory / "idle", one, 2.0 * times)


def _echo(directory: Path, times: int) -> list[Figure]:
    with camera(directory / "camera", "683wsg", *READOUT) as one:
        return latency.measure_echo(directory / "echo", one, 2 * times)


def _guide(directory: Path, times: int) -> list[Figure]:
    with camera(directory / "camera", "683wsg", *READOUT) as one:
        trip = median(one.bare(0, 200)["trip"])
        return latency.measure_guide(directory / "guide", one, 20 * times, trip)


def _slow(directory: Path, times: int) -> list[Figure]:
    with camera(directory / "camera", "683wsg", *READOUT, "--rate", str(SLOW_RATE)) as one:
        trip = median(one.bare(0, 200)["trip"])
        return latency.measure_slow(directory / "slow", one, trip)


PARTS: dict[str, Callable[[Path, int], list[Figure] | tuple[list[Figure], Cost]]] = {
    "frames": _frames,
    "wire": _wire,
    "start": _start,
    "connect": _connect,
    "idle": _idle,
    "echo": _echo,
    "guide": _guide,
    "slow": _slow,
    "timings": _timings,
}


def _measure(directory: Path, parts: list[str], times: int) -> tuple[list[Figure], Cost | None]:
    figures: list[Figure] = []
    cost = None
    for part in parts:
        print(f"{part} ...", file=sys.stderr, flush=True)
        (directory / part).mkdir()
        measured = PARTS[part](directory / part, times)
        if isinstance(measured, tuple):
            measured, cost = measured
        figures += measured
    return figures, cost


if __name__ == "__main__":
    sys.exit(main())
