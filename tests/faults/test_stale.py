# SPDX-License-Identifier: LGPL-2.1-or-later
"""Stale is never shown as fresh: readings that fail, cannot be true, or are of another time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.cells import prepare
from tests.faults.clock import Clock
from tests.faults.rig import Rig

MEASURED = ("CCD_TEMPERATURE", "CCD_COOLER_POWER", "CAMERA_TEMPERATURES")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with Clock():
        rig = Rig(tmp_path)
        prepare(rig)
        rig.client.wait(lambda: rig.client.state("CCD_TEMPERATURE") == "Ok", "it is cold")
        rig.client.forget()
        yield rig
        rig.close()


def states(rig: Rig) -> set[str]:
    return {rig.client.state(vector) for vector in MEASURED}


@pytest.mark.parametrize("reading", ["-273.15", "-100.01", "100.01", "327.67"])
def test_three_bad_readings_turn_everything_measured_to_alert(rig: Rig, reading: str) -> None:
    client = rig.client
    before = client.value("CCD_TEMPERATURE", "CCD_TEMPERATURE_VALUE")
    rig.camera.faults.arm(f"temperature:{reading},times=0")
    client.wait(lambda: states(rig) == {"Alert"}, "all are Alert")
    rig.timeline_pause(20)
    assert states(rig) == {"Alert"}
    assert client.value("CCD_TEMPERATURE", "CCD_TEMPERATURE_VALUE") == before  # never the nonsense
    said = client.said("CCD_TEMPERATURE")
    assert len(said) == 1 and "implausible reading" in said[0]
    rig.cure()
    client.wait(lambda: states(rig) == {"Ok"}, "all are Ok again")


def test_one_bad_reading_changes_nothing(rig: Rig) -> None:
    for _ in range(3):
        rig.camera.faults.arm("temperature:-273.15,times=2")
        rig.timeline_pause(10)
    assert all(update.get("state") != "Alert" for update in rig.client.updates)
    assert not rig.client.said("CCD_TEMPERATURE")


@pytest.mark.parametrize("code", [1, 2, 3, 4])
def test_a_device_error_is_no_reading(rig: Rig, code: int) -> None:
    client = rig.client
    rig.camera.faults.arm(f"device-error:{code},command=GetTemperature,times=0")
    client.wait(lambda: states(rig) == {"Alert"}, "all are Alert")
    rig.timeline_pause(20)
    assert states(rig) == {"Alert"} and client.state("CAMERA_ALARMS") == "Alert"
    assert len(client.said("CAMERA_ALARMS")) == len(client.said("CCD_TEMPERATURE")) == 1
    assert rig.expose() == "Ok"  # the camera goes on
    rig.cure()
    client.wait(lambda: states(rig) == {"Ok"}, "all are Ok again")
    assert client.state("CAMERA_ALARMS") == "Ok"


def test_a_camera_that_is_away_has_no_temperature(rig: Rig) -> None:
    rig.camera.faults.arm("unplug")
    rig.client.wait(lambda: rig.client.state("CONNECTION") == "Alert", "the loss is told")
    assert states(rig) == {"Alert"}
    rig.cure()
    rig.client.wait(lambda: states(rig) <= {"Ok", "Busy"}, "they are measured again")


def test_a_cooler_without_control_is_told(rig: Rig) -> None:
    client = rig.client
    rig.camera.faults.arm("cooler-fail")
    client.wait(lambda: client.state("CCD_TEMPERATURE") == "Alert", "the temperature is Alert")
    rig.timeline_pause(20)
    assert [m for m in client.said("CCD_TEMPERATURE") if "cannot control its cooler" in m] != []
    assert len(client.said("CCD_TEMPERATURE")) == 1  # once
    rig.cure()
    client.wait(lambda: client.state("CCD_TEMPERATURE") == "Ok", "it is cold again")


def test_a_silent_restart_of_the_camera_is_noticed(rig: Rig) -> None:
    """Its firmware starts anew without leaving the USB, and has forgotten everything."""
    client = rig.client
    rig.camera.faults.arm("restart")
    rig.timeline_pause(40)
    assert client.state("CONNECTION") == "Ok"
    assert rig.camera.hardware.cooler.on
    assert rig.camera.firmware.settings.current.fan.name == "QUIET"
    client.wait(lambda: client.state("CCD_TEMPERATURE") == "Ok", "it is cold again")


def test_moving_the_shutter_by_hand_shows_the_modes_it_ends(rig: Rig) -> None:
    client = rig.client
    rig.choose("SHUTTER_OUTPUT", "INDI_ENABLED")
    client.forget()
    rig.choose("CCD_SHUTTER", "SHUTTER_ON")
    client.wait(lambda: client.value("SHUTTER_OUTPUT", "INDI_DISABLED") == "On", "it is shown off")
    assert "drops it" in client.said("SHUTTER_OUTPUT")[-1]
    assert rig.camera.hardware.shutter.open
