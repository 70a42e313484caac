# SPDX-License-Identifier: LGPL-2.1-or-later
"""How long a request waits: updates and guide pulses, while the camera does this and that.

All clients are on unix sockets: on TCP, indiserver delays some messages by 40 ms (it leaves Nagle's algorithm on).
"""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

from tests.bench import limits
from tests.bench.client import Client, Seen
from tests.bench.frames import connect, take
from tests.bench.report import Figure, median, p99
from tests.bench.rig import Camera, settled, stand_alone, under_indiserver

PULSE = 20  # ms
GUIDE = "TELESCOPE_TIMED_GUIDE_NS"
ECHO_TIME = 2.0  # s
PROGRAM = "a byte to a program and back"
STALE = 1.0  # s; later a pulse is dropped


def echo(client: Client) -> tuple[float, float]:
    """Changes a property that the camera knows nothing of: when asked, and the seconds until it is told."""
    if client.position > 200_000:
        client.forget()
    after, start = client.position, time.time()
    client.new("Number", "CCD_TEMP_RAMP", RAMP_SLOPE=0)
    return start, client.wait(r"<setNumberVector [^>]*CCD_TEMP_RAMP", after).at - start


def pulse(client: Client) -> tuple[float, float]:
    """A guide pulse: when asked, and the seconds until it is Busy."""
    after, start = client.position, time.time()
    client.new("Number", GUIDE, TIMED_GUIDE_N=PULSE)
    return start, client.wait_state(GUIDE, "Busy", after).at - start


def measure_echo(directory: Path, camera: Camera, frames: int) -> list[Figure]:
    """While frames are downloaded, made into files and sent: on a link of its own."""
    figures = []
    for kind, start in (("indiserver", under_indiserver), ("indi-qsi serve", stand_alone)):
        with (
            start(directory.with_name(f"echo-{start.__name__}"), camera.environ) as driver,
            Client(driver.unix) as asking,
            Client(driver.unix, blobs="Also") as taking,
        ):
            connect(taking)
            settled(driver.pid)
            take(taking)
            ended = threading.Event()
            samples: list[tuple[float, float]] = []

            def ask(asking: Client = asking, ended: threading.Event = ended, samples: list = samples) -> None:
                while not ended.is_set():
                    samples.append(echo(asking))
                    time.sleep(random.uniform(0.0005, 0.002))

            floor = limits.echoes(ECHO_TIME)
            thread = threading.Thread(target=ask)
            thread.start()
            since = time.time()
            ends = [take(taking, 0.05).at for _ in range(frames)]
            ended.set()
            thread.join()
            begins = camera.times("transfer", since)
            # From before the download until after the frame has come.
            spans = [(b - 0.005, e + 0.005) for b, e in zip(begins, ends, strict=True)]
            during = [took for at, took in samples if any(b - took < at < e for b, e in spans)]
            figures += _echo_figures(f"echo during frames, {kind}", during, floor)
    return figures


def _echo_figures(name: str, echoes: list[float], floor: list[float]) -> list[Figure]:
    return [
        Figure(f"{name}, median", 1000 * median(echoes), "ms", 2, "", 1000 * median(floor), PROGRAM, echoes),
        Figure(f"{name}, p99", 1000 * p99(echoes), "ms", 20, "", 1000 * p99(floor), PROGRAM),
    ]


def _busy_figure(name: str, busies: list[float], floor: list[float]) -> Figure:
    return Figure(name, 1000 * p99(busies), "ms", 10, "", 1000 * p99(floor), PROGRAM, busies)


def measure_guide(directory: Path, camera: Camera, pulses: int, trip: float) -> list[Figure]:
    """`trip`: a packet there and back, s."""
    figures: list[Figure] = []
    busies: list[float] = []
    with (
        under_indiserver(directory, camera.environ) as driver,
        Client(driver.unix) as client,
        Client(driver.unix, blobs="Also") as taking,
    ):
        connect(taking)
        settled(driver.pid)
        floor = limits.echoes(ECHO_TIME)
        for what in ("idle", "exposing"):
            if what == "exposing":
                taking.new("Number", "CCD_EXPOSURE", CCD_EXPOSURE_VALUE=300)
                taking.wait(r"Exposing")
            since = time.time()
            asked = []
            for _ in range(pulses):
                client.forget()
                start, busy = pulse(client)
                asked.append(start)
                busies.append(busy)
                client.wait_state(GUIDE, "Idle")
                time.sleep(random.uniform(0, 0.02))
            late = [at - start for at, start in zip(camera.times("relay", since), asked, strict=True)]
            extra = [one - trip for one in late]
            figures += [
                Figure(
                    f"guide request -> relay, {what}, median",
                    1000 * median(extra),
                    "ms",
                    5,
                    "above the round trip",
                    1000 * trip,
                    "packet there and back",
                    late,
                ),
                Figure(
                    f"guide request -> relay, {what}, p99",
                    1000 * p99(extra),
                    "ms",
                    15,
                    "above the round trip",
                    1000 * p99(floor),
                    PROGRAM,
                ),
            ]
        after = taking.position
        taking.new("Switch", "CCD_ABORT_EXPOSURE", ABORT="On")
        taking.wait_state("CCD_EXPOSURE", "Idle", after)
        busies += _busies_during_frames(client, taking, max(5, pulses // 8))
    figures.append(_busy_figure("guide request -> Busy at any time, p99", busies, floor))
    return figures


def _busies_during_frames(client: Client, taking: Client, frames: int) -> list[float]:
    ended = threading.Event()

    def expose() -> None:
        for _ in range(frames):
            take(taking, 0.05)
        ended.set()

    thread = threading.Thread(target=expose)
    thread.start()
    busies = []
    while not ended.is_set():
        client.forget()
        busies.append(pulse(client)[1])
        client.wait_state(GUIDE, "Idle|Alert")
        time.sleep(random.uniform(0, 0.01))
    thread.join()
    return busies


def measure_slow(directory: Path, camera: Camera, trip: float) -> list[Figure]:
    """`camera` sends 2 MB/s: a download takes 8 s, and nothing can be asked of it meanwhile."""
    with (
        under_indiserver(directory, camera.environ) as driver,
        Client(driver.unix) as client,
        Client(driver.unix) as asking,
        Client(driver.unix, blobs="Also") as taking,
    ):
        connect(taking)
        settled(driver.pid)
        floor = limits.echoes(ECHO_TIME)
        since = time.time()
        thread = threading.Thread(target=take, args=(taking, 0.05))
        thread.start()
        while not camera.times("transfer", since):
            time.sleep(0.01)
        guiding = threading.Thread(target=_guide_until_frame, args=(client, taking, pulses := []))
        guiding.start()
        echoes = []
        while not taking.blobs:
            echoes.append(echo(asking)[1])
            time.sleep(0.005)
        thread.join()
        guiding.join()
    begin, free = camera.times("transfer", since)[0], camera.times("auto_zero", since)[0]
    busies = [busy for _, busy, _ in pulses]
    waits = [seen.at - start for start, _, seen in pulses if "Alert" in seen.text]
    sent = [start for start, _, seen in pulses if "Alert" not in seen.text]
    # A pulse goes out when it is asked for, but not before the link is free.
    late = [at - max(free, start) for at, start in zip(camera.times("relay", since), sent, strict=True)]
    return [
        Figure("download at 2 MB/s", free - begin, "s"),
        *_echo_figures("  echo", echoes, floor),
        _busy_figure("  guide request -> Busy, p99", busies, floor),
        Figure(
            f"  stale pulse reported, worst off 1 s (of {len(waits)})",
            1000 * max(abs(wait - STALE) for wait in waits),
            "ms",
            100,
            values=waits,
        ),
        Figure(
            "  link free -> relay that waited, worst",
            1000 * (max(late) - trip),
            "ms",
            15,
            "above the round trip",
            1000 * trip,
            "packet there and back",
            late,
        ),
    ]


def _guide_until_frame(client: Client, taking: Client, pulses: list[tuple[float, float, Seen]]) -> None:
    """One pulse after the other: when asked, s until Busy, and how it ended."""
    while not taking.blobs:
        client.forget()
        start, busy = pulse(client)
        pulses.append((start, busy, client.wait_state(GUIDE, "Idle|Alert")))
