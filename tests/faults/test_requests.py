# SPDX-License-Identifier: LGPL-2.1-or-later
"""Requests at awkward moments: each ends, in its order, and the camera does what was asked for."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.cells import prepare
from tests.faults.clock import Clock
from tests.faults.rig import FRAME, Rig

SLOW = 2.0  # s that a disk needs for one fsync
ARMED = "TRIGGER_LONG_FALLING"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with Clock():
        rig = Rig(tmp_path)
        prepare(rig)
        rig.client.forget()
        yield rig
        rig.close()


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    sync = os.fsync

    def fsync(fd: int) -> None:
        time.sleep(SLOW)
        sync(fd)

    monkeypatch.setattr(os, "fsync", fsync)


def states(rig: Rig, vector: str) -> list[str]:
    return [m.attrib["state"] for m in rig.client.updates if m.get("name") == vector and "set" in m.tag]


def arm(rig: Rig) -> None:
    rig.choose("EXTERNAL_TRIGGER", ARMED)
    rig.client.new("Number", "CCD_EXPOSURE", CCD_EXPOSURE_VALUE=1)
    rig.client.wait(lambda: rig.client.value("EXPOSURE_PHASE", "PHASE").startswith("Waiting"), "it is armed")


def test_cooling_goes_on_after_a_return_that_failed(rig: Rig) -> None:
    """The camera loses its supply again while it is opened again."""
    rig.camera.faults.arm("power-off")
    rig.client.wait(lambda: rig.client.state("CONNECTION") == "Alert", "the loss is noticed")
    rig.camera.power_on()
    failures = iter([True])
    measure = rig.device._cooler._measure

    def once(camera: object) -> object:
        if next(failures, False):
            raise ConnectionError("once more")
        return measure(camera)  # type: ignore[arg-type]

    rig.device._cooler._measure = once  # type: ignore[method-assign,assignment]
    rig.client.wait(lambda: rig.client.state("CONNECTION") == "Ok", "it is used again")
    rig.client.wait(lambda: rig.camera.hardware.cooler.on, "it cools again")


def test_a_series_of_short_exposures_lets_the_cooler_have_its_turn(rig: Rig) -> None:
    client = rig.client
    rig.choose("CCD_FAST_TOGGLE", "INDI_ENABLED")
    client.new("Number", "CCD_FAST_COUNT", FRAMES=1000)
    client.new("Number", "CCD_EXPOSURE", CCD_EXPOSURE_VALUE=0.05)
    client.wait(lambda: len(client.frames) > 2, "the series goes on")
    client.new("Number", "CCD_TEMPERATURE", CCD_TEMPERATURE_VALUE=12)
    client.wait(lambda: rig.camera.hardware.cooler.set_point == 12, "the set point is sent")
    assert client.state("CCD_EXPOSURE") == "Busy"
    client.new("Switch", "CCD_ABORT_EXPOSURE", ABORT="On")
    client.wait(lambda: client.value("CCD_FAST_COUNT", "FRAMES") in ("1", "1.0"), "the series is over")


def test_a_guide_request_during_a_disconnect_ends_in_words(rig: Rig) -> None:
    client = rig.client
    for _ in range(5):
        client.new("Switch", "CONNECTION", DISCONNECT="On")
        for _ in range(20):
            client.new("Number", "TELESCOPE_TIMED_GUIDE_WE", TIMED_GUIDE_W=100, TIMED_GUIDE_E=0)
        client.wait(lambda: client.state("CONNECTION") == "Idle", "it is disconnected")
        assert not [text for text in client.said() if "internal error" in text]
        assert rig.connect() == "Ok"


def test_an_abort_also_ends_an_exposure_that_waits_for_the_config_file(rig: Rig, slow_disk: None) -> None:
    client = rig.client
    client.new("Switch", "CONFIG_PROCESS", CONFIG_SAVE="On")  # the disk is busy
    client.new("Switch", "CONFIG_PROCESS", CONFIG_LOAD="On")
    client.new("Number", "CCD_EXPOSURE", CCD_EXPOSURE_VALUE=0.5)
    assert client.state("CCD_EXPOSURE") == "Busy"
    client.new("Switch", "CCD_ABORT_EXPOSURE", ABORT="On")
    assert client.settled("CCD_EXPOSURE") == "Idle"
    assert client.settled("CONFIG_PROCESS") == "Ok"
    rig.timeline_pause(5)
    assert not rig.count("expose") and rig.expose() == "Ok"


def test_requests_after_two_loads_come_after_both(rig: Rig) -> None:
    client = rig.client
    client.new("Switch", "CONFIG_PROCESS", CONFIG_SAVE="On")
    assert client.settled("CONFIG_PROCESS") == "Ok"
    for _ in range(2):
        client.new("Switch", "CONFIG_PROCESS", CONFIG_LOAD="On")
    client.new("Number", "CCD_BINNING", HOR_BIN=2, VER_BIN=2)
    assert client.state("CCD_BINNING") == "Busy"
    assert client.settled("CCD_BINNING") == "Ok" and client.settled("CONFIG_PROCESS") == "Ok"
    assert float(client.value("CCD_BINNING", "HOR_BIN")) == 2


def test_what_is_being_saved_at_a_disconnect_is_not_busy_afterwards(rig: Rig, slow_disk: None) -> None:
    client = rig.client
    client.new("Number", "CCD_TEMP_RAMP", RAMP_SLOPE=2, RAMP_THRESHOLD=0.3)
    client.new("Switch", "Fan", Full="On")
    assert rig.disconnect() == "Idle"
    assert rig.connect() == "Ok"
    client.wait(lambda: client.state("CCD_TEMP_RAMP") != "Busy", "the ramp is settled")
    client.wait(lambda: client.state("Fan") != "Busy", "the fan is settled")


def test_a_new_exposure_ends_a_series(rig: Rig) -> None:
    client = rig.client
    rig.choose("CCD_FAST_TOGGLE", "INDI_ENABLED")
    client.new("Number", "CCD_FAST_COUNT", FRAMES=50)
    client.new("Number", "CCD_EXPOSURE", CCD_EXPOSURE_VALUE=0.5)
    client.wait(lambda: len(client.frames) > 1, "the series goes on")
    frames = len(client.frames)
    client.new("Number", "CCD_EXPOSURE", CCD_EXPOSURE_VALUE=0.7)
    assert client.settled("CCD_EXPOSURE") == "Ok"
    rig.timeline_pause(5)
    assert len(client.frames) <= frames + 2 and client.state("CCD_FAST_COUNT") == "Idle"


def test_many_requests_to_connect_keep_nobody_waiting(rig: Rig) -> None:
    client = rig.client
    for _ in range(2000):
        client.new("Switch", "CONNECTION", DISCONNECT="On")
        client.new("Switch", "CONNECTION", CONNECT="On")
    client.wait(lambda: client.state("CONNECTION") == "Ok" and client.state("CCD1"), "it is connected")
    assert len(rig.device.thread._jobs) < 20
    client.new("Number", "CCD_FRAME", X=0, Y=0, WIDTH=FRAME[0], HEIGHT=FRAME[1])
    assert rig.expose() == "Ok"


def test_an_abort_of_an_armed_camera_is_followed_by_a_good_exposure(rig: Rig) -> None:
    arm(rig)
    rig.client.new("Switch", "CCD_ABORT_EXPOSURE", ABORT="On")
    assert rig.client.settled("CCD_ABORT_EXPOSURE") == "Ok"
    rig.choose("EXTERNAL_TRIGGER", "TRIGGER_OFF")
    assert rig.expose() == "Ok"


def test_the_power_of_the_cooler_is_cut_although_a_set_point_waits_for_the_trigger(rig: Rig) -> None:
    arm(rig)
    client = rig.client
    client.new("Number", "CCD_TEMPERATURE", CCD_TEMPERATURE_VALUE=5)
    for _ in range(2):
        client.new("Switch", "CCD_COOLER", COOLER_OFF="On")
    client.wait(lambda: not rig.camera.hardware.cooler.on, "the power is off")
    assert client.settled("CCD_EXPOSURE") == "Alert"
    assert client.settled("CCD_COOLER") == "Idle" and client.settled("CCD_TEMPERATURE") == "Idle"


def test_a_refused_order_during_a_warm_up_leaves_no_request_open(rig: Rig) -> None:
    client = rig.client
    client.new("Switch", "CCD_COOLER", COOLER_OFF="On")
    client.wait(lambda: rig.camera.hardware.cooler.to_ambient, "it warms up")
    rig.camera.faults.arm("device-error:3,command=SetTemperature")
    client.new("Number", "CCD_TEMPERATURE", CCD_TEMPERATURE_VALUE=-5)
    client.wait(lambda: client.said("CCD_TEMPERATURE"), "it is refused")
    for _ in range(2):
        client.new("Switch", "CCD_COOLER", COOLER_OFF="On")
    assert client.settled("CCD_COOLER") == "Idle"
