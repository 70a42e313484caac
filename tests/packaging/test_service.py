# SPDX-License-Identifier: LGPL-2.1-or-later
"""`indi-qsi serve` as a service: what it tells systemd and the journal, and when the watchdog goes hungry."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from indi_qsi import journal, service
from indi_qsi.device.orders import OrderBook
from indi_qsi.device.worker import CameraThread, Priority
from indi_qsi.properties.vectors import MODEL_LOCK
from tests.support import guard
from tests.support.indi import PATIENCE, eventually
from tests.support.rig import IndiClient, Sim, stand_alone


class Systemd:
    """The end of the notify socket that systemd has."""

    def __init__(self, directory: Path, watchdog: float = 1.0) -> None:
        path = directory / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(PATIENCE)
        self.environ = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": str(round(watchdog * 1e6))}
        self.told: list[str] = []

    def wait(self, pattern: str) -> str:
        """The next message with this in it."""
        while True:
            text = self._socket.recv(4096).decode()
            self.told.append(text)
            if re.search(pattern, text):
                return text

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    systemd = Systemd(tmp_path)
    yield systemd
    systemd.close()


def test_it_tells_what_it_does_from_the_start_to_the_end(tmp_path: Path, systemd: Systemd) -> None:
    with Sim(tmp_path) as sim:
        device = sim.camera.device
        device.unplug()
        with stand_alone(tmp_path, sim.environ | systemd.environ, "--connect") as server:
            systemd.wait("^READY=1$")
            assert "STATUS=Waiting for a camera" in systemd.told
            systemd.wait("^WATCHDOG=1$")  # no camera is no reason to be started anew
            device.replug()
            status = systemd.wait("^STATUS=QSI 683wsg")
            assert re.fullmatch(r"STATUS=QSI 683wsg 00683001: -?\d+\.\d °C, idle", status)
            device.unplug()
            systemd.wait("^STATUS=waiting for the camera 00683001 to come back$")
            systemd.wait("^WATCHDOG=1$")
            device.replug()
            systemd.wait("^STATUS=QSI 683wsg .* idle$")
            with IndiClient(server.address) as client:
                client.connect_camera()
                client.expose(3)
                systemd.wait("^STATUS=QSI 683wsg .* exposing$")
            server.process.send_signal(signal.SIGTERM)
            systemd.wait("^STOPPING=1\n")
            assert server.process.wait(PATIENCE) == 0


def test_a_client_that_disconnects_is_not_contradicted(tmp_path: Path, systemd: Systemd) -> None:
    with Sim(tmp_path) as sim, stand_alone(tmp_path, sim.environ | systemd.environ, "--connect") as server:
        systemd.wait("^STATUS=QSI 683wsg")
        with IndiClient(server.address) as client:
            client.connect_camera()
            client.new("Switch", "CONNECTION", DISCONNECT="On")
            client.wait_for("setSwitchVector", name="CONNECTION", state="Idle")
            systemd.wait("^STATUS=Waiting for a camera$")
            client.clear()
            sim.camera.device.unplug()
            eventually(lambda: "left the USB" in server.log, "the driver has noticed")
            sim.camera.device.replug()
            client.wait_for("setSwitchVector", name="CONNECTION", state="Ok")


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        ("AT_DISCONNECT_KEEP", []),
        ("AT_DISCONNECT_WARM", [(True, True)]),
        ("AT_DISCONNECT_OFF", [(False, False)]),
    ],
)
def test_the_cooler_is_left_as_was_chosen(tmp_path: Path, policy: str, told: list[tuple[bool, bool]]) -> None:
    with Sim(tmp_path) as sim, stand_alone(tmp_path, sim.environ, "--connect") as server:
        with IndiClient(server.address) as client:
            client.connect_camera()
            client.new("Switch", "COOLER_AT_DISCONNECT", **{policy: "On"})
            client.new("Number", "CCD_TEMPERATURE", CCD_TEMPERATURE_VALUE=-10)
            client.wait_for("setNumberVector", name="CCD_COOLER_POWER", state="Ok")
            sim.happened.clear()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) == 0, server.log
        orders = [(order["on"], order["ambient"]) for order in sim.happened if order["e"] == "temperature"]
        assert orders == told


# --- the watch ---


class Told(service.Notifier):
    """A notifier that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__({})
        self.messages: list[str] = []
        self._send = self.messages.append


class Door:
    alive = True


class StandIn:
    """What the watch sees of a device."""

    name = "QSI CCD"
    serial = "00602123"

    def __init__(self) -> None:
        self.thread = CameraThread("camera", OrderBook(lambda when: True), lambda error: None)

    def summary(self) -> str:
        return "at work"


@contextmanager
def watched(door: Door | None = None) -> Iterator[tuple[service.Watch, StandIn, Told]]:
    device, told = StandIn(), Told()
    watch = service.Watch(lambda: (device,), door or Door(), told, "nothing", stuck_after=0.05)  # type: ignore[arg-type]
    try:
        yield watch, device, told
    finally:
        watch.close()
        device.thread.stop()


def test_the_first_look_comes_before_the_start_is_told() -> None:
    with watched() as (_, _, told):
        assert told.messages[:3] == ["WATCHDOG=1", "STATUS=at work", "READY=1"]
    assert told.messages[-1].startswith("STOPPING=1")


def test_a_camera_thread_that_is_stuck_starves_the_watchdog(caplog: pytest.LogCaptureFixture) -> None:
    with watched() as (watch, device, told):
        goes_on = threading.Event()
        device.thread.post(Priority.STEP, lambda: goes_on.wait(PATIENCE) and None)
        eventually(lambda: device.thread.stuck(0.05), "the thread counts as stuck")
        told.messages.clear()
        watch.look()
        assert told.messages == ["STATUS=Hangs: the camera thread of QSI CCD has not moved for 0.05 s"]
        assert "has not moved" in caplog.text
        goes_on.set()
        eventually(lambda: not device.thread.stuck(0.05), "the thread goes on")
        watch.look()
        assert "WATCHDOG=1" in told.messages


def test_a_long_job_that_gets_on_is_not_stuck() -> None:
    device = StandIn()
    begun, ends = threading.Event(), threading.Event()

    def transfer() -> None:
        begun.set()
        while not ends.wait(0.001):
            device.thread.beat()

    device.thread.post(Priority.STEP, transfer)
    assert begun.wait(PATIENCE)
    try:
        assert not device.thread.stuck(PATIENCE)
        assert device.thread.stuck(-1)  # a job runs, and signs of life are counted from the last one
    finally:
        ends.set()
        device.thread.stop()
    assert not device.thread.stuck(-1), "a thread that has ended on demand is no trouble"


def test_an_idle_camera_thread_is_not_stuck() -> None:
    with watched() as (_, device, _):
        assert not device.thread.stuck(-1)


def test_a_closed_door_and_a_held_lock_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "LOCK_TIME", 0.01)
    door = Door()
    with watched(door) as (watch, _, told):
        door.alive = False
        told.messages.clear()
        watch.look()
        assert told.messages == ["STATUS=Hangs: clients are not let in any more"]
        door.alive = True
        held, release = threading.Event(), threading.Event()

        def hold() -> None:
            with MODEL_LOCK:
                held.set()
                with guard.unwatched():
                    release.wait(PATIENCE)

        holder = threading.Thread(target=hold)
        holder.start()
        assert held.wait(PATIENCE)
        told.messages.clear()
        watch.look()
        release.set()
        holder.join()
        assert told.messages == ["STATUS=Hangs: the property model has been locked for 0.01 s"]


@pytest.mark.parametrize(
    ("environ", "period"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "nonsense"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
    ],
)
def test_the_watchdogs_period(environ: dict[str, str], period: float | None) -> None:
    assert service.Notifier(environ).watchdog == period


def test_systemd_that_has_gone_is_no_trouble(tmp_path: Path) -> None:
    notifier = service.Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    notifier.ready()
    notifier.status("at work")


# --- the journal ---


def test_levels_go_to_the_journal_line_by_line() -> None:
    formatter = journal.PriorityFormatter("%(name)s: %(message)s")

    def line(level: int, message: str) -> str:
        return formatter.format(logging.LogRecord("qsi", level, "", 0, message, None, None))

    assert line(logging.ERROR, "one\ntwo") == "<3>qsi: one\n<3>two"
    assert [line(level, "x")[:3] for level in (10, 20, 30, 40, 50)] == ["<7>", "<6>", "<4>", "<3>", "<2>"]


def test_only_the_journals_own_stream_gets_levels(tmp_path: Path) -> None:
    code = (
        "import logging, indi_qsi.journal as j; j.log_as_service(20); logging.getLogger('qsi').warning('hm')"
    )
    for matches, said in ((True, "<4>qsi: hm\n"), (False, "WARNING qsi: hm\n")):
        path = tmp_path / f"log-{matches}"
        with path.open("w") as log:
            status = os.fstat(log.fileno())
            stream = f"{status.st_dev}:{status.st_ino + (not matches)}"
            # Without systemd-python, which this machine may have: what it writes is seen by the journal only.
            code_alone = "import sys; sys.modules['systemd.journal'] = None; " + code
            subprocess.run(
                [sys.executable, "-c", code_alone],
                stderr=log,
                env={**os.environ, "JOURNAL_STREAM": stream},
                check=True,
                timeout=60,
            )
        assert path.read_text() == said


def test_records_of_a_camera_thread_carry_its_serial_number() -> None:
    device = StandIn()
    fields = journal.CameraFields()
    fields.devices = lambda: (device,)  # type: ignore[assignment, return-value]
    records: list[logging.LogRecord] = []

    def log() -> None:
        record = logging.LogRecord("qsi", logging.INFO, "", 0, "x", None, None)
        assert fields.filter(record)
        records.append(record)

    device.thread.stop(log)
    log()
    own, other = (record.__dict__ for record in records)
    assert (own["CAMERA_SERIAL"], own["INDI_DEVICE"]) == ("00602123", "QSI CCD")
    assert "CAMERA_SERIAL" not in other
