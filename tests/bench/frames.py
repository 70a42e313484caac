# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a frame takes: time, processor, memory; and how true its times are."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.bench.client import Blob, Client
from tests.bench.report import Figure, median
from tests.bench.rig import (
    FRAME,
    ROOT,
    Camera,
    Peak,
    cpu,
    settled,
    stand_alone,
    under_indiserver,
)

EXPOSURE = 0.1  # s
# Stations of a frame behind the exposure, for the picture; see `stations`.
Stations = dict[str, float]


def connect(client: Client) -> None:
    client.wait(r"<defSwitchVector [^>]*name=['\"]CONNECTION['\"]")
    client.new("Switch", "CONNECTION", CONNECT="On")
    client.wait_state("CONNECTION", "Ok")
    client.wait(r"<defBLOBVector [^>]*name=['\"]CCD1['\"]")


def take(client: Client, seconds: float = EXPOSURE) -> Blob:
    """One frame."""
    number = len(client.blobs) + 1
    start = client.position
    client.new("Number", "CCD_EXPOSURE", CCD_EXPOSURE_VALUE=seconds)
    blob = client.wait_blob(number)
    client.wait_state("CCD_EXPOSURE", "Ok", start)
    return blob


def measure_wire(directory: Path, camera: Camera, rate: float, count: int) -> list[Figure]:
    """A download when the USB, at `rate` bytes/s, is all there should be to wait for.

    The chip keeps little for a host that does not read: what is done between two reads must be over by then.
    """
    took = []
    with under_indiserver(directory, camera.environ) as driver, Client(driver.unix, blobs="Also") as client:
        connect(client)
        settled(driver.pid)
        for _ in range(count):
            since = time.time()
            take(client)
            took.append(camera.times("auto_zero", since)[0] - camera.times("transfer", since)[0])
    wire = 1000 * FRAME / rate
    return [
        Figure(
            f"download at {rate / 1e6:g} MB/s",
            1000 * median(took),
            "ms",
            1.05 * wire,
            "1.05 times the wire's",
            wire,
            "the bytes at this rate",
            took,
        )
    ]


class Cost:
    """The first part: frames under indiserver and on our own server, beside bare reads of the same camera."""

    def __init__(self, directory: Path, camera: Camera, count: int) -> None:
        self._directory = directory
        self._camera = camera
        self._count = count
        self.copies: list[float] = []  # what the machine takes for one, s
        self.bare: dict[str, list[float]] = {"read": [], "cpu": [], "large_cpu": [], "trip": []}
        self.handed: list[float] = []
        self.stations: list[Stations] = []
        self.cpu: list[float] = []
        self.memory = 0.0
        self.stalled = 0.0
        self.unix: list[float] = []
        self.tcp: list[float] = []
        self.date: list[float] = []
        self.noticed: list[float] = []
        self._number = 0

    def measure(self) -> None:
        """Each kind once, with bare reads between, so that all see the same machine."""
        self._number += 1
        for part in (self._traced, self._attached, self._own_server, self._stalled):
            self._bare()
            part(self._directory / f"{part.__name__}{self._number}")

    def _bare(self) -> None:
        for name, values in self._camera.bare(self._count // 2, 100).items():
            self.bare[name] += values

    def _traced(self, directory: Path) -> None:
        """From inside: from the last byte of the image to the hand-over."""
        directory.mkdir()
        trace, program = directory / "trace", directory / "indi_qsi_ccd"
        program.write_text(f"#!/bin/sh\ncd {ROOT}\nexec {sys.executable} -m tests.bench.traced_driver\n")
        program.chmod(0o755)
        environ = {**self._camera.environ, "BENCH_TRACE": str(trace)}
        with (
            under_indiserver(directory / "server", environ, str(program)) as driver,
            Client(driver.unix, blobs="Also") as client,
        ):
            connect(client)
            settled(driver.pid)
            take(client)
            for _ in range(self._count):
                since = time.time()
                blob = take(client)
                stations = self._stations(trace, since, blob)
                self.stations.append(stations)
                self.handed.append(stations["handed over"] - stations["image transfer"])

    def _stations(self, trace: Path, since: float, blob: Blob) -> Stations:
        """When (s since the exposure's end) each station of the last frame was over."""
        entries = [json.loads(line) for line in trace.read_text().splitlines()]
        ends: Stations = {name: end for name, begin, end in entries if begin > since}
        begins: Stations = {name: begin for name, begin, end in entries if begin > since}
        zero = self._camera.times("exposure_end", since)[0]
        over = {
            "sensor read out": self._camera.times("idle", since)[0],
            "noticed": begins["TransferImage"],
            "image transfer": ends["the image transfer"],
            "overscan": ends["the overscan transfer"],
            "header": ends["header"],
            "pixels": ends["file"],
            "handed over": ends["handed over"],
            "at the client": blob.at,
        }
        return {name: at - zero for name, at in over.items()}

    def _attached(self, directory: Path) -> None:
        """Under indiserver, untouched: processor, memory, and the truth of the header."""
        with (
            under_indiserver(directory, self._camera.environ) as driver,
            Client(driver.unix, blobs="Also") as client,
        ):
            connect(client)
            idle = settled(driver.pid)
            take(client)
            for _ in range(self._count):
                since, before = time.time(), cpu(driver.pid)
                blob = take(client)
                self.cpu.append(cpu(driver.pid) - before)
                self._truth(since, blob)
            with Peak(driver.pid) as peak:
                for _ in range(3):
                    take(client)
            self.memory = max(self.memory, (peak.value - idle) / FRAME)

    def _truth(self, since: float, blob: Blob) -> None:
        """DATE-OBS against the shutter, and how late the end of the readout was noticed."""
        match = re.search(rb"DATE-OBS= '([^']*)'", blob.head)
        assert match is not None, blob.head
        told = datetime.fromisoformat(match[1].decode()).replace(tzinfo=UTC).timestamp()
        self.date.append(abs(told - self._camera.times("exposure_start", since)[0]))
        asked = [
            event["t"]
            for event in self._camera.events("command", since=since)
            if event["command"] == "TransferImage"
        ]
        self.noticed.append(asked[0] - self._camera.times("idle", since)[0])

    def _own_server(self, directory: Path) -> None:
        with stand_alone(directory, self._camera.environ) as driver, Client(driver.unix) as control:
            connect(control)
            settled(driver.pid)
            for address, values in ((driver.unix, self.unix), (driver.port, self.tcp)):
                with Client(address, blobs="Also") as client:
                    take(client)
                    for _ in range(self._count):
                        since = time.time()
                        blob = take(client)
                        values.append(blob.at - self._camera.times("transfer", since)[0])

    def _stalled(self, directory: Path) -> None:
        """Frames for a client that has stopped reading."""
        with (
            stand_alone(directory, self._camera.environ) as driver,
            Client(driver.unix) as client,
            Client(driver.port, blobs="Also") as stalled,
        ):
            connect(client)
            idle = settled(driver.pid)
            stalled.reading.clear()
            with Peak(driver.pid) as peak:
                for _ in range(6):
                    start = client.position
                    client.new("Number", "CCD_EXPOSURE", CCD_EXPOSURE_VALUE=EXPOSURE)
                    client.wait_state("CCD_EXPOSURE", "Ok", start)
            self.stalled = max(self.stalled, (peak.value - idle) / FRAME)

    def figures(self, copy: Sequence[float], base64: Sequence[float], send: Sequence[float]) -> list[Figure]:
        """`copy`, `base64`, `send`: the limits of the machine, s."""
        read, own = median(self.bare["read"]), median(self.bare["cpu"])
        copied, sent = median(copy), median(send)
        return [
            Figure(
                "last image byte -> handed to indiserver",
                1000 * median(self.handed),
                "ms",
                1000 * (2.5 * copied + 0.015),
                "2.5 copies + 15 ms",
                1000 * copied,
                "copy of a frame",
                self.handed,
            ),
            Figure(
                "processor, a frame",
                1000 * median(self.cpu),
                "ms",
                1000 * min(0.060, 3 * own),
                "60 ms, and 3 bare reads",
                1000 * own,
                "bare read",
                self.cpu,
            ),
            Figure(
                "processor, bare read in blocks as large as the driver's",
                1000 * median(self.bare["large_cpu"]),
                "ms",
                values=self.bare["large_cpu"],
            ),
            Figure(
                "download -> unix client of indi-qsi serve",
                1000 * median(self.unix),
                "ms",
                1000 * (1.3 * read + 0.010),
                "1.3 bare reads + 10 ms",
                1000 * read,
                "bare read",
                self.unix,
            ),
            Figure(
                "download -> TCP client of indi-qsi serve",
                1000 * median(self.tcp),
                "ms",
                1000 * (1.3 * read + 0.010 + 1.5 * sent),
                "1.3 bare reads + 10 ms + 1.5 sends",
                1000 * (read + sent),
                "bare read + base64 and send",
                self.tcp,
            ),
            Figure("base64 of a frame, alone", 1000 * median(base64), "ms"),
            Figure("peak memory above idle, fast client", self.memory, "frames", 2.2),
            Figure("peak memory above idle, stalled client", self.stalled, "frames", 4),
            Figure("DATE-OBS against the shutter, worst", 1000 * max(self.date), "ms", 10, values=self.date),
            Figure(
                "readout's end noticed, worst",
                1000 * max(self.noticed),
                "ms",
                30,
                limit=1000 * median(self.bare["trip"]),
                beside="packet there and back",
                values=self.noticed,
            ),
        ]
