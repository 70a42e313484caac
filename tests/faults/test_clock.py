# SPDX-License-Identifier: LGPL-2.1-or-later
"""The computer's clock is set in the middle of things: no wait changes, and the picture's header says so."""

from __future__ import annotations

import ast
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

import indi_qsi
import usbproto
from tests.faults.cells import prepare
from tests.faults.clock import Clock
from tests.faults.rig import Rig

STEPS = (3600.0, -3600.0)
EXPOSURE = 10.0  # s
REAL_TIME = time.monotonic


@pytest.fixture
def clock() -> Iterator[Clock]:
    with Clock() as clock:
        yield clock


@pytest.fixture
def rig(clock: Clock, tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    prepare(rig)
    rig.client.forget()
    yield rig
    rig.close()


@pytest.mark.parametrize("step", STEPS)
def test_during_an_exposure(rig: Rig, clock: Clock, step: float) -> None:
    client, begun = rig.client, time.monotonic()
    client.new("Number", "CCD_EXPOSURE", CCD_EXPOSURE_VALUE=EXPOSURE)
    client.wait(lambda: rig.count("exposure_start"), "the shutter opens")
    before = time.time()
    clock.step(step)
    assert client.settled("CCD_EXPOSURE") == "Ok"
    assert EXPOSURE < time.monotonic() - begun < EXPOSURE + 10
    header, pixels = client.frames[-1]
    np.testing.assert_array_equal(pixels, rig.picture())
    assert header["CLOCKSTP"] == pytest.approx(step, abs=0.1)
    opened = datetime.fromisoformat(header["DATE-OBS"]).replace(tzinfo=UTC).timestamp()
    assert opened == pytest.approx(before, abs=1)
    assert [m for m in client.said() if f"clock was set by {step:+.1f} s" in m]

    assert rig.expose() == "Ok"
    assert "CLOCKSTP" not in client.frames[-1][0]


@pytest.mark.parametrize("step", STEPS)
def test_during_a_pulse_and_a_filter_move(rig: Rig, clock: Clock, step: float) -> None:
    client, begun = rig.client, time.monotonic()
    client.new("Number", "FILTER_SLOT", FILTER_SLOT_VALUE=3)
    client.new("Number", "TELESCOPE_TIMED_GUIDE_WE", TIMED_GUIDE_W=2000, TIMED_GUIDE_E=0)
    client.wait(lambda: rig.count("relay") and rig.count("filter"), "both have begun")
    clock.step(step)
    assert client.settled("TELESCOPE_TIMED_GUIDE_WE") == "Idle"
    assert client.settled("FILTER_SLOT") == "Ok"
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize("step", STEPS)
def test_while_the_camera_is_away_and_while_it_cools(rig: Rig, clock: Clock, step: float) -> None:
    client = rig.client
    rig.camera.faults.arm("unplug")
    client.wait(lambda: client.state("CONNECTION") == "Alert", "the loss is noticed")
    clock.step(step)
    rig.cure()
    begun = time.monotonic()
    client.wait(lambda: client.state("CONNECTION") == "Ok", "it is used again")
    assert time.monotonic() - begun < 30
    client.forget()
    clock.step(step)
    time.sleep(10)
    polls = [update for update in client.updates if update.get("name") == "CCD_TEMPERATURE"]
    assert 4 <= len(polls) <= 20  # one in one or two seconds


def test_waits_are_on_the_monotonic_clock() -> None:
    """The wall clock is read for stamps only: in these places (and for the age of files, which have no other)."""
    found = set()
    for package in (indi_qsi, usbproto):
        for path in Path(next(iter(package.__path__))).rglob("*.py"):
            if "simulator" in path.parts:
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Attribute) and ast.unparse(node) == "time.time":
                    found.add(path.name)
    assert found == {"writer.py", "recorder.py", "exposure.py", "files.py", "storage.py"}


def test_threads_from_before_do_not_count_whatever_they_wait_in() -> None:
    """They are left of earlier tests in this process. If they counted, time would jump too soon."""
    over = threading.Event()

    def sleeps() -> None:
        while not over.is_set():
            time.sleep(0.001)

    def joins() -> None:
        sleeper.join()

    sleeper, joiner = threading.Thread(target=sleeps), threading.Thread(target=joins)
    sleeper.start()
    joiner.start()
    try:
        with Clock():
            done = threading.Event()

            def works() -> None:
                end = REAL_TIME() + 0.2
                while REAL_TIME() < end:
                    pass
                done.set()

            threading.Thread(target=works).start()
            assert done.wait(20), "time has jumped although a thread was at work"
    finally:
        over.set()
        sleeper.join()
        joiner.join()
