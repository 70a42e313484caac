# SPDX-License-Identifier: LGPL-2.1-or-later
"""The guard itself: what it catches in threads that must not wait, and what it lets pass."""

from __future__ import annotations

import fcntl
import importlib
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import usb.core

from indi_qsi.properties import Device, Hub, NumberElement, NumberVector, Permission, Request
from indi_qsi.properties.vectors import MODEL_LOCK
from indi_qsi.wire.messages import Problem, Severity
from tests.end_to_end.lone_driver import LoneDriver
from tests.support import guard
from tests.support.indi import PATIENCE, ROOT, RecordingLink, eventually, request
from tests.support.rig import Client, under_indiserver

Act = Callable[[Path], object]


def connect(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock, suppress(OSError):
        sock.connect(str(path))


def lock(operation: int) -> Act:
    def act(path: Path) -> None:
        with (path / "lock").open("w") as file:
            fcntl.flock(file, operation)

    return act


def synchronise(path: Path) -> None:
    with guard.unwatched():
        file = (path / "data").open("w")
    with file:
        os.fsync(file.fileno())


def import_new(path: Path) -> None:
    (path / "guard_test_module.py").write_text("")
    sys.path.insert(0, str(path))
    try:
        importlib.import_module("guard_test_module")
    finally:
        sys.path.remove(str(path))
        sys.modules.pop("guard_test_module", None)


def log_to_file(path: Path) -> None:
    with guard.unwatched():
        handler = logging.FileHandler(path / "log")
    handler.emit(logging.makeLogRecord({"msg": "text"}))
    handler.close()


def wait(path: Path) -> None:
    threading.Event().wait(0.001)


def join(path: Path) -> None:
    with guard.unwatched():
        thread = threading.Thread(target=lambda: None)
        thread.start()
    thread.join()


# What must not be done, by the event that reports it.
FORBIDDEN: dict[str, Act] = {
    "open": lambda path: (path / "file").write_text(""),
    "os.mkdir": lambda path: (path / "folder").mkdir(),
    "os.rename": lambda path: (path / "moved").rename(path / "again"),
    "os.remove": lambda path: (path / "moved").unlink(),
    "os.rmdir": lambda path: (path / "empty").rmdir(),
    "os.link": lambda path: (path / "link").hardlink_to(path / "moved"),
    "os.listdir": lambda path: os.listdir(path),  # noqa: PTH208
    "os.scandir": lambda path: os.scandir(path).close(),
    "os.chmod": lambda path: (path / "moved").chmod(0o600),
    "os.truncate": lambda path: os.truncate(path / "moved", 0),
    "os.stat": lambda path: (path / "moved").exists(),
    "os.lstat": lambda path: os.path.lexists(path),
    "os.access": lambda path: os.access(path, os.R_OK),
    "os.fsync": synchronise,
    "fcntl.flock": lock(fcntl.LOCK_EX),
    "time.sleep": lambda path: time.sleep(0.001),
    "subprocess.Popen": lambda path: subprocess.run(["true"], check=True),
    "socket.connect": connect,
    "import": import_new,
    "logging.FileHandler.emit": log_to_file,
    "threading.Condition.wait": wait,
    "threading.Thread.join": join,
    "usb.core.find": lambda path: usb.core.find(backend=NoBackend()),
}


class NoBackend:
    """A USB without devices."""

    def enumerate_devices(self) -> Iterator[object]:
        return iter(())


def log_a_traceback(path: Path) -> None:
    try:
        raise ValueError("a fault")
    except ValueError:
        logging.getLogger("test").exception("a handler failed")


def start_a_thread(path: Path) -> None:
    threading.Thread(target=lambda: None).start()


def open_a_descriptor(path: Path) -> None:
    with guard.unwatched():
        descriptor = os.open(path / "data", os.O_RDWR | os.O_CREAT)
    with open(descriptor, "wb") as file:
        file.write(b"x")


def take_a_lock(path: Path) -> None:
    condition = threading.Condition()
    with threading.Lock(), condition:
        condition.notify_all()


HARMLESS: dict[str, Act] = {
    "a traceback": log_a_traceback,
    "a new thread": start_a_thread,
    "a descriptor": open_a_descriptor,
    "a free lock": take_a_lock,
    "no sleep": lambda path: time.sleep(0),
    "a look at a condition": lambda path: threading.Event().wait(0),
    "an import that is there": lambda path: importlib.import_module("json"),
    "a look": lambda path: guard.take() and None,
}


class World:
    """A device whose vector does what the test says."""

    def __init__(self, act: Act, path: Path) -> None:
        self.hub, self.link = Hub(), RecordingLink()
        self.vector = NumberVector(
            "NUM",
            "Number",
            "Main",
            [NumberElement("X", "X", 0, "%.f", 0, 9, 1)],
            permission=Permission.RW,
            on_request=lambda asked: self._requested(asked),
        )
        self._act, self._path = act, path
        device = Device("D", self.hub)
        device.add(self.vector)
        self.hub.add_device(device)
        self.hub.attach(self.link)

    def _requested(self, asked: Request[float]) -> None:
        self._act(self._path)
        self.vector.set(asked.values)

    def ask(self, link: RecordingLink | None) -> list[str]:
        """What the guard sees when a client, or the driver itself, asks."""
        text = "<newNumberVector device='D' name='NUM'><oneNumber name='X'>1</oneNumber></newNumberVector>"
        request(self.hub, link, text)
        assert self.vector["X"] == 1, "the handler failed"
        return guard.take()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "moved").touch()
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize("event", FORBIDDEN)
def test_what_is_caught_in_a_handler(folder: Path, event: str) -> None:
    world = World(FORBIDDEN[event], folder)
    found = world.ask(world.link)
    assert any(
        f"thread '{threading.current_thread().name}' in dispatch of NewVector D.NUM: {event}(" in text
        for text in found
    ), found
    assert all("World._requested" in text for text in found)  # with a stack that says where


@pytest.mark.parametrize("event", FORBIDDEN)
def test_a_thread_that_may_wait_is_left_alone(folder: Path, event: str) -> None:
    assert World(FORBIDDEN[event], folder).ask(None) == []


@pytest.mark.parametrize("what", HARMLESS)
def test_what_passes_in_a_handler(folder: Path, what: str) -> None:
    world = World(HARMLESS[what], folder)
    assert world.ask(world.link) == []


@pytest.mark.parametrize("operation", [fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_UN])
def test_a_lock_that_is_not_waited_for(folder: Path, operation: int) -> None:
    world = World(lock(operation), folder)
    assert not any("flock" in text for text in world.ask(world.link))


def test_an_import_is_reported_once_by_its_name(folder: Path) -> None:
    """And not by each of the files that Python looks for."""
    (folder / "guard_outer.py").write_text("import guard_inner")
    (folder / "guard_inner.py").write_text("")
    sys.path.insert(0, str(folder))
    try:
        with guard.section("dispatch", "test"):
            import guard_outer  # noqa: F401
    finally:
        sys.path.remove(str(folder))
    (text,) = guard.take()
    assert "in dispatch test: import('guard_outer')" in text


def test_a_refusal_is_watched(folder: Path) -> None:
    world = World(HARMLESS["no sleep"], folder)
    world.link.post = lambda data: time.sleep(0.001)  # type: ignore[method-assign]
    world.hub.refuse(Problem(Severity.REFUSED, "nonsense", ("D", "NUM")))
    (text,) = guard.take()
    assert "in refuse: time.sleep(0.001)" in text


def test_the_lock_of_the_model_is_watched_in_every_thread(folder: Path) -> None:
    with MODEL_LOCK:
        (folder / "x").mkdir()
    (text,) = guard.take()
    assert "with the lock of the property model: os.mkdir(" in text
    (folder / "y").mkdir()
    assert guard.take() == []


@pytest.mark.parametrize(("name", "caught"), [("some clock", True), ("frames", False)])
def test_a_clock_may_wait_for_its_conditions_only(folder: Path, name: str, caught: bool) -> None:
    def run() -> None:
        condition = threading.Condition()
        with condition:
            condition.wait(0.001)
        (folder / "x").mkdir()

    thread = threading.Thread(target=run, name=name)
    thread.start()
    thread.join()
    found = guard.take()
    assert [text.partition("(")[0] for text in found] == (
        ["thread 'some clock' in clock some clock: os.mkdir"] if caught else []
    )


def test_the_clocks_of_the_driver_are_watched() -> None:
    """They are known by their names."""
    sources = "".join(path.read_text() for path in (ROOT / "indi_qsi" / "device").glob("*.py"))
    for name in ("guide clock", "frame clock"):
        assert f'"{name}"' in sources


def test_a_violation_fails_its_test(folder: Path) -> None:
    with guard.section("dispatch", "test"):
        (folder / "x").mkdir()
    with pytest.raises(AssertionError, match=r"must not wait(.|\n)*in dispatch test: os\.mkdir"):
        guard.check()
    guard.check()


def test_a_violation_that_repeats_is_reported_once(folder: Path) -> None:
    with guard.section("dispatch", "test"):
        for _ in range(3):
            os.access(folder, os.R_OK)
    assert len(guard.take()) == 1


# --- a driver process ---

DRIVER = """#!{python}
import os, threading, time
from pathlib import Path
from indi_qsi.links.stdio import StdioLink
from indi_qsi.properties import Device, Hub, NumberElement, NumberVector, Permission

def asked(request):
    match request.values["X"]:
        case 1: Path("/tmp").exists()
        case 2: time.sleep(0.001)
        case 3: threading.Thread(target=tick, name="driver clock").start()
        case 4: os._exit(os.access("/tmp", os.R_OK))
    vector.set(request.values)

def tick():
    os.listdir("/tmp")

hub = Hub()
vector = NumberVector("NUM", "", "", [NumberElement("X", "X", 0, "%.f", 0, 9, 1)],
                      permission=Permission.RW, on_request=asked)
device = Device("D", hub)
device.add(vector)
link = StdioLink(hub)
hub.add_device(device)
link.run()
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "driver"
    path.write_text(DRIVER.format(python=sys.executable))
    path.chmod(0o755)
    return path


def ask(client: Client, value: int) -> None:
    client.send(
        f"<newNumberVector device='D' name='NUM'><oneNumber name='X'>{value}</oneNumber></newNumberVector>"
    )


CASES = [
    (0, ""),
    (1, r"in dispatch of NewVector D\.NUM: os\.stat\("),
    (2, r"in dispatch of NewVector D\.NUM: time\.sleep\("),
    (3, r"thread 'driver clock' in clock driver clock: os\.listdir\("),
]


@pytest.mark.parametrize(("value", "text"), CASES)
def test_a_driver_process(tmp_path: Path, program: Path, value: int, text: str) -> None:
    driver = LoneDriver(tmp_path / "home", {}, [str(program)])
    ask(driver, value)
    driver.wait_for("setNumberVector", name="NUM")
    if text:
        found = eventually(guard.take, "the violation is reported")
        assert len(found) == 1
        with pytest.raises(AssertionError, match=text):
            raise AssertionError(found[0])
        ask(driver, value)  # the same again is not reported again
        eventually(lambda: len([m for m in driver.messages if m.tag == "setNumberVector"]) == 2)
    driver.close()


def test_closing_a_driver_process_fails_the_test(tmp_path: Path, program: Path) -> None:
    """Also of one that ended at once after the violation."""
    driver = LoneDriver(tmp_path / "home", {}, [str(program)])
    ask(driver, 4)
    assert driver.ended() == 1
    with pytest.raises(AssertionError, match=r"os\.access"):
        driver.close()


def test_a_driver_under_indiserver(tmp_path: Path, program: Path) -> None:
    with under_indiserver(tmp_path, {}, str(program)) as server:
        with Client(server.address) as client:
            client.send("<getProperties version='1.7'/>")
            client.wait_for("defNumberVector", name="NUM")
            ask(client, 2)
            client.wait_for("setNumberVector", name="NUM")
            (text,) = eventually(guard.take, "the violation is reported", PATIENCE)
            assert "time.sleep(0.001)" in text


def test_a_program_that_is_not_guarded() -> None:
    """The benchmarks start programs with the environment as it is."""
    command = [sys.executable, "-c", "import sys; print('qsi_guard' in sys.modules)"]
    for environ, answer in ((dict(os.environ), "False\n"), (guard.environ(os.environ), "False\n")):
        result = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
        assert result.stdout == answer
    loaded = "import sys; print('sitecustomize' in sys.modules and 'guarded' in sys.modules['sitecustomize'].__file__)"
    result = subprocess.run(
        [sys.executable, "-c", loaded],
        env=guard.environ(os.environ),
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "True\n"
