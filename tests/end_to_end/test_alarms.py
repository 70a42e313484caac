# SPDX-License-Identifier: LGPL-2.1-or-later
"""Device errors: a light, a message that says what to do, once; and the driver goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.indi import eventually, values
from tests.support.rig import Server, Sim, stand_alone
from tests.support.workbench import Observer, connected, wait_event
from usbproto.simulator.camera import SimulatedCamera

SPEED = 1000.0  # of the simulated camera: a heat sink takes minutes to get warm


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sim]:
    with Sim(tmp_path_factory.mktemp("sim"), speed=SPEED) as sim:
        yield sim


@pytest.fixture(scope="module")
def server(sim: Sim, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with stand_alone(tmp_path_factory.mktemp("server"), sim.environ) as server:
        yield server


@pytest.fixture
def client(sim: Sim, server: Server) -> Iterator[Observer]:
    with Observer(server.address) as client:
        client.connect_camera()
        client.new("Number", "POLLING_PERIOD", PERIOD_MS=100)
        client.clear()
        sim.happened.clear()
        yield client


@pytest.mark.parametrize(
    ("light", "trouble", "cure", "meaning", "remedy"),
    [
        (
            "OVER_TEMPERATURE",
            lambda camera: camera.set_environment(ambient=55),
            lambda camera: camera.set_environment(ambient=20),
            "above 40 °C",
            "fan to full",
        ),
        (
            "UNDER_TEMPERATURE",
            lambda camera: camera.set_environment(ambient=-55),
            lambda camera: camera.set_environment(ambient=20),
            "below -40 °C",
            "Raise the set point",
        ),
        (
            "SUPPLY_LOW",
            lambda camera: camera.set_environment(voltage=10.5),
            lambda camera: camera.set_environment(voltage=12),
            "below 11 V",
            "Check the power supply",
        ),
        (
            "SUPPLY_HIGH",
            lambda camera: camera.set_environment(voltage=14.5),
            lambda camera: camera.set_environment(voltage=12),
            "above 14 V",
            "Disconnect the supply at once",
        ),
    ],
)
def test_an_alarm_comes_and_goes(
    client: Observer,
    sim: Sim,
    light: str,
    trouble: Callable[[SimulatedCamera], None],
    cure: Callable[[SimulatedCamera], None],
    meaning: str,
    remedy: str,
) -> None:
    trouble(sim.camera)
    (alarm,) = client.until("CAMERA_ALARMS", "Alert")
    assert [name for name, state in alarm.values.items() if state == "Alert"] == [light]
    assert meaning in alarm.message and remedy in alarm.message
    # The remedy can be followed, pictures can be taken, and nothing is said twice.
    client.new("Number", "CCD_TEMPERATURE", CCD_TEMPERATURE_VALUE=15)
    assert wait_event(sim, "temperature")["set_point"] == 15
    client.small_frame()
    client.expose(0.1)
    client.picture()
    count = len(client.updates("CCD_TEMPERATURE"))
    eventually(lambda: len(client.updates("CCD_TEMPERATURE")) > count + 3, "the polling goes on")
    assert len(client.updates("CAMERA_ALARMS")) == 1
    cure(sim.camera)
    over = client.until("CAMERA_ALARMS", "Ok")[-1]
    assert set(over.values.values()) == {"Ok"} and "over" in over.message
    client.until("CCD_TEMPERATURE", "Ok", "Busy")
    for _ in range(2):
        client.new("Switch", "CCD_COOLER", COOLER_OFF="On")
    client.until("CCD_COOLER", "Idle")


def test_a_camera_with_an_alarm_can_be_connected(client: Observer, sim: Sim) -> None:
    client.disconnect_camera()
    sim.camera.set_environment(voltage=10.5)
    client.clear()
    client.connect_camera()
    assert client.until("CAMERA_ALARMS", "Alert")[-1].values["SUPPLY_LOW"] == "Alert"
    client.small_frame()
    client.expose(0.1)
    client.picture()
    sim.camera.set_environment(voltage=12)
    client.until("CAMERA_ALARMS", "Ok")
    client.until("CCD_TEMPERATURE", "Idle")


@pytest.mark.parametrize(
    ("fault", "light", "meaning", "remedy"),
    [
        ("voltage:10.5", "SUPPLY_LOW", "below 11 V", "Check the power supply"),
        ("brown-out", "SUPPLY_LOW", "below 11 V", "Check the power supply"),
        ("voltage:14.5", "SUPPLY_HIGH", "above 14 V", "Disconnect the supply at once"),
    ],
)
def test_a_bad_supply_keeps_no_new_camera_from_connecting(
    tmp_path: Path, fault: str, light: str, meaning: str, remedy: str
) -> None:
    """Nothing is known of this camera yet: it is asked what it can do, and says what is wrong with it."""
    with connected(tmp_path, prepare=lambda sim: sim.camera.faults.arm(fault)) as (sim, _, client):
        alarm = client.until("CAMERA_ALARMS", "Alert")[-1]
        assert [name for name, state in alarm.values.items() if state == "Alert"] == [light]
        assert meaning in alarm.message and remedy in alarm.message
        # There was no reading, and none is shown.
        assert client.definition("CCD_TEMPERATURE").attrib["state"] == "Alert"
        client.small_frame()
        client.expose(0.1)
        header, _ = client.picture()
        assert "CCD-TEMP" not in header
        sim.camera.set_environment(voltage=12)
        client.until("CAMERA_ALARMS", "Ok")
        client.until("CCD_TEMPERATURE", "Idle")


def test_a_cooler_that_was_left_running_goes_on_after_an_alarm_at_connect(client: Observer, sim: Sim) -> None:
    client.new("Number", "CCD_TEMPERATURE", CCD_TEMPERATURE_VALUE=5)
    client.until("CCD_TEMPERATURE", "Ok")
    client.disconnect_camera()
    sim.camera.set_environment(voltage=10.5)
    client.clear()
    client.connect_camera()
    client.until("CAMERA_ALARMS", "Alert")
    client.clear()
    sim.camera.set_environment(voltage=12)
    there = client.until("CCD_TEMPERATURE", "Ok")[-1]
    assert float(there.values["CCD_TEMPERATURE_VALUE"]) == pytest.approx(5, abs=0.6)
    assert client.updates("CCD_COOLER")[-1].values["COOLER_ON"] == "On"
    for _ in range(2):  # at once
        client.new("Switch", "CCD_COOLER", COOLER_OFF="On")
    client.until("CCD_TEMPERATURE", "Idle")


def test_a_shutter_that_fails(tmp_path: Path) -> None:
    with connected(tmp_path, speed=20) as (sim, _, client):  # it needs 6 s to power up
        client.small_frame()
        sim.camera.faults.arm("shutter-fail")
        client.expose(0.1)
        alert = client.until("CCD_EXPOSURE", "Alert")[-1]
        assert "shutter failed" in alert.message and "Power the camera off and on" in alert.message
        alarm = client.until("CAMERA_ALARMS", "Alert")[-1]
        assert alarm.values["SHUTTER"] == "Alert"
        client.expose(0.1)  # the camera goes on without it
        client.picture()
        client.new("Switch", "CCD_FRAME_TYPE", FRAME_DARK="On")
        client.expose(0.1)
        client.picture(2)
        assert values(client.definition("CAMERA_ALARMS"))["SHUTTER"] == "Alert"  # until the next power-up
        sim.camera.power_off()
        client.until("CONNECTION", "Alert")
        sim.camera.power_on()
        client.until("CONNECTION", "Ok")
        assert values(client.definition("CAMERA_ALARMS"))["SHUTTER"] == "Ok"
