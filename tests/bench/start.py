# SPDX-License-Identifier: LGPL-2.1-or-later
"""Starting, connecting, and doing nothing."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.bench.client import Client
from tests.bench.frames import connect
from tests.bench.report import Figure, median
from tests.bench.rig import PROGRAMS, Camera, cpu, settled, under_indiserver, usual_environment
from usbproto.capabilities import AGREED


def first_definition(home: Path, environ: dict[str, str]) -> float:
    """Seconds from the start of the driver until CONNECTION is defined, on a socket as indiserver makes it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        start = time.perf_counter()
        driver = subprocess.Popen(
            [str(PROGRAMS / "indi_qsi_ccd")],
            stdin=theirs,
            stdout=theirs,
            stderr=subprocess.DEVNULL,
            env={**usual_environment(), "HOME": str(home), **environ},
        )
        ours.sendall(b"<getProperties version='1.7'/>")
        text = b""
        while b"CONNECTION" not in text:
            text += ours.recv(65536)
        took = time.perf_counter() - start
        ours.shutdown(socket.SHUT_RDWR)
        driver.wait(20)
    return took


def bare_python() -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return time.perf_counter() - start


def measure_start(directory: Path, environ: dict[str, str], times: int) -> list[Figure]:
    directory.mkdir()
    first_definition(directory, environ)  # writes the .pyc files
    pairs = [(first_definition(directory, environ), bare_python()) for _ in range(times)]
    driver, python = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    return [
        Figure(
            "process start -> CONNECTION defined",
            median(driver),
            "s",
            0.15,
            limit=median(python),
            beside="python -c pass",
            values=driver,
        )
    ]


def _connects(directory: Path, environ: dict[str, str], count: int) -> tuple[float, float]:
    """Seconds that connecting takes: as the first thing in a new process, and the last of `count` times."""
    taken = []
    with under_indiserver(directory, environ) as driver, Client(driver.unix) as client:
        client.wait(r"<defSwitchVector [^>]*name=['\"]CONNECTION['\"]")
        for _ in range(count):
            after = client.position
            start = time.time()
            client.new("Switch", "CONNECTION", CONNECT="On")
            taken.append(client.wait_state("CONNECTION", "Ok", after).at - start)
            client.wait(r"<defBLOBVector ", after)
            after = client.position
            client.new("Switch", "CONNECTION", DISCONNECT="On")
            client.wait_state("CONNECTION", "Idle", after)
    return taken[0], taken[-1]


def measure_connect(directory: Path, old: Camera, new: Camera, times: int) -> list[Figure]:
    """`old` is a 583, whose first connect costs time-outs; `new` a 683."""
    directory.mkdir()
    news = [_connects(directory / f"new{n}", new.environ, 2) for n in range(times)]
    again = AGREED + 1  # the first that asks for nothing that was never answered
    olds = [_connects(directory / f"old{n}", old.environ, again) for n in range(max(1, times // 2))]
    firsts, seconds = [pair[0] for pair in news], [pair[1] for pair in news]
    slow, quick = [pair[0] for pair in olds], [pair[1] for pair in olds]
    return [
        Figure("connect a 683, new process", median(firsts), "s", 0.3, values=firsts),
        Figure("connect a 683, again", median(seconds), "s", 0.3, values=seconds),
        Figure("connect a 583, first time", median(slow), "s", 3.3, values=slow),
        Figure("connect a 583, the fourth time", median(quick), "s", 0.4, values=quick),
    ]


def measure_idle(directory: Path, one: Camera, seconds: float) -> list[Figure]:
    with under_indiserver(directory, one.environ) as driver, Client(driver.unix) as client:
        connect(client)
        settled(driver.pid)
        before, start = cpu(driver.pid), time.monotonic()
        time.sleep(seconds)
        used = (cpu(driver.pid) - before) / (time.monotonic() - start)
    return [Figure("processor, connected and idle", 100 * used, "% of a core", 0.5)]
