# SPDX-License-Identifier: LGPL-2.1-or-later
"""The programs that are measured, each in a process of its own, and what the kernel says of them."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.bench.client import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(sys.executable).parent
WIDTH, HEIGHT = 3326, 2504  # of the KAF-8300 in the 683
FRAME = WIDTH * HEIGHT * 2  # bytes
STOP_TIME = 10.0  # s


def usual_environment() -> dict[str, str]:
    """Ours, but with compiled modules, as every installation has them, also where tests run without."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


class Program:
    """A process with its own home and log; ended with the `with` block."""

    def __init__(self, directory: Path, command: list[str], environ: Mapping[str, str] = {}) -> None:
        self.home = directory / "home"
        self.home.mkdir(exist_ok=True)
        self.log_path = directory / f"{Path(command[0]).name}.log"
        own = {"HOME": str(self.home), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**usual_environment(), **own, **environ},
            )

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def said(self, pattern: str) -> re.Match[str]:
        """Waits until the program has printed something that matches."""
        return until(lambda: re.search(pattern, self.log), f"{pattern} in {self.log_path}", self._alive)

    def _alive(self) -> None:
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.process.args} has ended: {self.log}")

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOP_TIME)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(STOP_TIME)


def until(condition: Callable[[], Any], what: str, check: Callable[[], None] = lambda: None) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        check()
        if time.monotonic() > deadline:
            raise TimeoutError(f"did not happen: {what}")
        time.sleep(0.01)
    return value


class Camera(Program):
    """`qsi-sim`, with a reader of its events."""

    def __init__(self, directory: Path, model: str, *options: str) -> None:
        directory.mkdir()
        path = directory / "usb.sock"
        self._events = directory / "events"
        super().__init__(
            directory,
            [
                *(str(PROGRAMS / "qsi-sim"), "--model", model, "--listen", f"unix:{path}"),
                *("--events", str(self._events), *options),
            ],
        )
        self.address = f"unix:{path}"
        self.said("listening")

    @property
    def environ(self) -> dict[str, str]:
        return {"INDI_QSI_USB": f"usbip:{self.address}"}

    def events(self, *names: str, since: float = 0.0) -> list[dict[str, Any]]:
        """What happened since a Unix time, of these kinds."""
        events = [json.loads(line) for line in self._events.read_text().splitlines() if line.endswith("}")]
        return [event for event in events if event["e"] in names and event["t"] >= since]

    def times(self, name: str, since: float = 0.0) -> list[float]:
        return [event["t"] for event in self.events(name, since=since)]

    def bare(self, frames: int, round_trips: int) -> dict[str, list[float]]:
        """Reads by pyusb alone; the camera must be free."""
        command = [sys.executable, "-m", "tests.bench.bare", self.address, str(frames), str(round_trips)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
        if done.returncode:
            raise RuntimeError(done.stderr)
        measured: dict[str, list[float]] = json.loads(done.stdout)
        return measured


@contextmanager
def camera(directory: Path, model: str = "683wsg", *options: str) -> Iterator[Camera]:
    program = Camera(directory, model, *options)
    try:
        yield program
    finally:
        program.close()


class Driver(Program):
    """The driver, under indiserver or as a server; `unix` and `port` are where clients go, `pid` its own."""

    unix: str
    port: int
    pid: int


@contextmanager
def under_indiserver(
    directory: Path, environ: Mapping[str, str], driver: str = "indi_qsi_ccd"
) -> Iterator[Driver]:
    """Debian's indiserver with the driver, which it starts by its path."""
    directory.mkdir()
    # indiserver takes neither port 0 nor a path of more than 107 characters.
    port, unix = _free_port(), str(directory / "indi")
    path = driver if "/" in driver else str(PROGRAMS / driver)
    server = Driver(directory, ["indiserver", "-r", "0", "-p", str(port), "-u", unix, path], environ)
    try:
        server.port, server.unix = port, "@" + unix  # an abstract name, which indiserver makes of it
        server.pid = until(lambda: _child(server.process.pid), "indiserver starts the driver", server._alive)
        until(lambda: _listens(port), "indiserver listens", server._alive)
        yield server
    finally:
        server.close()


@contextmanager
def stand_alone(directory: Path, environ: Mapping[str, str]) -> Iterator[Driver]:
    """`indi-qsi serve`, on a unix socket and on TCP."""
    directory.mkdir()
    unix = str(directory / "indi")
    command = [str(PROGRAMS / "indi-qsi"), "serve", "--listen", unix, "--listen", "127.0.0.1:0"]
    server = Driver(directory, command, environ)
    try:
        server.unix = unix
        server.port = int(server.said(r"127\.0\.0\.1:(\d+)")[1])
        server.pid = server.process.pid
        yield server
    finally:
        server.close()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _child(pid: int) -> int:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        if int(after_name[1]) == pid:
            return int(stat.parent.name)
    return 0


# --- what the kernel says ---


def cpu(pid: int) -> float:
    """Processor time of a process so far, s, to the nanosecond (see clock_getcpuclockid)."""
    return time.clock_gettime((~pid << 3) | 2)


def memory(pid: int) -> int:
    """Bytes that a process keeps: its own, and its frames in shared memory, mapped or not."""
    status = Path(f"/proc/{pid}/status").read_text()
    match = re.search(r"RssAnon:\s*(\d+) kB", status)
    assert match is not None
    return int(match[1]) * 1024 + sum(_shared(Path(f"/proc/{pid}/fd")).values())


def _shared(descriptors: Path) -> dict[int, int]:
    """Bytes by inode: a mapping has a descriptor of its own for the same memory."""
    found = {}
    for descriptor in list(descriptors.iterdir()):
        with suppress(OSError):  # closed meanwhile
            if str(descriptor.readlink()).startswith("/memfd:"):
                status = descriptor.stat()
                found[status.st_ino] = status.st_blocks * 512
    return found


class Peak:
    """Watches the memory of a process in the `with` block; `value` is the most that was seen, in bytes."""

    def __init__(self, pid: int) -> None:
        self.value = 0
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._ended.wait(0.002):
            self.value = max(self.value, memory(self._pid))

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def settled(pid: int) -> int:
    """Waits until the memory in use has stopped changing: everything is imported. Returns it."""
    last, since = memory(pid), time.monotonic()
    while time.monotonic() < since + 1.0:
        time.sleep(0.1)
        if abs((now := memory(pid)) - last) > 256 * 1024:
            last, since = now, time.monotonic()
    return last
