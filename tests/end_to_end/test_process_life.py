# SPDX-License-Identifier: LGPL-2.1-or-later
"""The end of the driver process in every phase: nothing is left running in the camera, the next start finds it."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.end_to_end.lone_driver import LoneDriver
from tests.support.indi import eventually, free_port, values
from tests.support.rig import Process, Sim, answers
from tests.support.workbench import Observer, wait_event

SYS_TGKILL = {"x86_64": 234, "aarch64": 131}  # a signal for one thread; Python has no name for it

Step = Callable[[Observer, Sim], object]


def expose(seconds: float, event: str) -> Step:
    def step(driver: Observer, sim: Sim) -> None:
        driver.expose(seconds)
        wait_event(sim, event)

    return step


def upload(driver: Observer, sim: Sim) -> None:
    driver.choose("UPLOAD_MODE", "UPLOAD_BOTH")
    driver.expose(0.1)
    wait_event(sim, "auto_zero")


def cool(driver: Observer, sim: Sim) -> None:
    driver.new("Number", "CCD_TEMPERATURE", CCD_TEMPERATURE_VALUE=-5)
    wait_event(sim, "temperature")


def move(driver: Observer, sim: Sim) -> None:
    ask_to_move(driver, sim)
    wait_event(sim, "filter")


def ask_to_move(driver: Observer, sim: Sim) -> None:
    there = sim.camera.hardware.wheel.position
    driver.new("Number", "FILTER_SLOT", FILTER_SLOT_VALUE=(there + 2) % 5 + 1)


def guide(driver: Observer, sim: Sim) -> None:
    driver.new("Number", "TELESCOPE_TIMED_GUIDE_WE", TIMED_GUIDE_W=30_000)
    wait_event(sim, "relay")


PHASES: dict[str, Step] = {
    "idle": lambda driver, sim: None,
    "cooling": cool,
    "exposing": expose(30, "exposure_start"),
    "reading out": expose(0.1, "exposure_end"),
    "transferring": expose(0.1, "transfer"),
    "uploading": upload,
    "moving the filter": move,
    "guiding": guide,
}
ENDS = {
    "SIGTERM": LoneDriver.terminate,
    "end of file": LoneDriver.hang_up,
    "SIGKILL": LoneDriver.kill,
}


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sim]:
    # A small frame takes half a second, so that the end comes in its middle.
    with Sim(tmp_path_factory.mktemp("sim"), rate=250_000) as sim:
        yield sim


def start(home: Path, sim: Sim) -> LoneDriver:
    """A new process, which finds the camera and leaves no relay closed that another one did."""
    driver = LoneDriver(home, sim.environ)
    driver.connect_camera()
    driver.small_frame()
    assert not relay(sim)
    return driver


def relay(sim: Sim) -> bool:
    return sim.camera.hardware.relays.active is not None


def check_picture(driver: Observer, sim: Sim) -> None:
    driver.expose(0.1)
    np.testing.assert_array_equal(driver.picture()[1], sim.picture())
    driver.until("CCD_EXPOSURE", "Ok")


def check_next(home: Path, sim: Sim) -> None:
    with start(home, sim) as driver:
        check_picture(driver, sim)


@pytest.mark.parametrize("end", ENDS)
def test_the_end_of_the_driver_in_every_phase(tmp_path: Path, sim: Sim, end: str) -> None:
    for phase, step in PHASES.items():
        with start(tmp_path, sim) as driver:
            check_picture(driver, sim)
            sim.happened.clear()
            step(driver, sim)
            ENDS[end](driver)
            status = driver.ended()
            assert status == (-signal.SIGKILL if end == "SIGKILL" else 0), (phase, driver.log)
            assert "Traceback" not in driver.log, (phase, driver.log)
        if end != "SIGKILL":
            assert not relay(sim), phase
            assert sim.camera.firmware.imager.state.name not in ("EXPOSING", "FLUSHING"), phase
    check_next(tmp_path, sim)


def test_a_server_that_reads_nothing_keeps_nobody_from_ending(tmp_path: Path, sim: Sim) -> None:
    with start(tmp_path, sim) as driver:
        sim.happened.clear()
        driver.reading.clear()
        guide(driver, sim)
        for _ in range(200):  # answers of far more than the socket holds
            driver.send("<getProperties version='1.7'/>")
        eventually(lambda: driver.process.poll() is None, "it goes on")
        driver.terminate()
        assert driver.ended() == 0, driver.log
    assert not relay(sim)
    check_next(tmp_path, sim)


def test_a_broken_pipe_ends_the_driver_in_order(tmp_path: Path, sim: Sim) -> None:
    """Standard output is closed while standard input stays open."""
    with start(tmp_path, sim) as driver:
        sim.happened.clear()
        guide(driver, sim)
        driver.socket.shutdown(0)  # what the driver writes has no reader any more
        driver.send("<getProperties version='1.7'/>")
        assert driver.ended() == 0, driver.log
    assert not relay(sim)
    check_next(tmp_path, sim)


HANGING = """
import sys, time
from indi_qsi import main, service
from indi_qsi.device import filters
service.LOOK_INTERVAL = 0.1
service.Watch.__init__.__defaults__ = (1.0, None)
filters.FilterSubject._begin = lambda *_: time.sleep(1000)
sys.argv = ["indi_qsi_ccd"]
sys.exit(main.driver())
"""


def test_a_camera_thread_that_hangs_ends_the_process_and_nothing_is_lost(tmp_path: Path, sim: Sim) -> None:
    with LoneDriver(tmp_path, sim.environ, (sys.executable, "-c", HANGING)) as driver:
        driver.connect_camera()
        driver.new("Text", "FILTER_NAME", FILTER_SLOT_NAME_2="Hydrogen")
        driver.new("Switch", "COOLER_AT_DISCONNECT", AT_DISCONNECT_WARM="On")
        driver.new("Switch", "CONFIG_PROCESS", CONFIG_SAVE="On")
        driver.until("CONFIG_PROCESS", "Ok")
        cool(driver, sim)
        ask_to_move(driver, sim)
        assert driver.ended() == os.EX_SOFTWARE
        assert "has not moved for 1 s" in driver.log and "time.sleep" not in driver.log
        assert "Thread 0x" in driver.log  # where it hung
    assert sim.camera.hardware.cooler.on
    with start(tmp_path, sim) as driver:
        assert values(driver.wait_for("defSwitchVector", name="CCD_COOLER"))["COOLER_ON"] == "On"
        names = values(driver.wait_for("defTextVector", name="FILTER_NAME"))
        assert names["FILTER_SLOT_NAME_2"] == "Hydrogen"
        driver.new("Switch", "CONFIG_PROCESS", CONFIG_LOAD="On")
        policy = values(driver.wait_for("setSwitchVector", name="COOLER_AT_DISCONNECT"))
        assert policy["AT_DISCONNECT_WARM"] == "On"
        driver.choose("COOLER_AT_DISCONNECT", "AT_DISCONNECT_OFF")


def test_indiserver_starts_a_driver_that_was_killed_anew(tmp_path: Path, sim: Sim) -> None:
    """Its clients stay where they are, and see the device again."""
    port = free_port()
    arguments = ["-r", "3", "-p", str(port), "-u", str(tmp_path / "indi.sock")]
    server = Process(tmp_path, ["indiserver", *arguments, "indi_qsi_ccd"], sim.environ)
    try:
        eventually(lambda: answers(port), "indiserver listens")
        with Observer(f"127.0.0.1:{port}") as client:
            client.connect_camera()
            pid = children(server)[0]
            sim.happened.clear()
            guide(client, sim)
            os.kill(pid, signal.SIGKILL)
            client.clear()
            eventually(lambda: children(server) not in ([], [pid]), "it is started anew")
            client.connect_camera()
            assert not relay(sim)
            client.small_frame()
            check_picture(client, sim)
    finally:
        server.close()


def children(server: Process) -> list[int]:
    pid = server.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_signal_that_another_thread_gets_is_heard(tmp_path: Path, sim: Sim) -> None:
    """The kernel may choose any thread; the main one waits and notices nothing of it."""
    with start(tmp_path, sim) as driver:
        threads = [int(path.name) for path in Path(f"/proc/{driver.process.pid}/task").iterdir()]
        other = max(threads)
        assert other != driver.process.pid
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.syscall(SYS_TGKILL[platform.machine()], driver.process.pid, other, signal.SIGTERM) == 0
        assert driver.ended() == 0, driver.log
