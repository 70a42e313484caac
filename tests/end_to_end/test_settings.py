# SPDX-License-Identifier: LGPL-2.1-or-later
"""The camera's own settings and modes: which there are, what they do to the camera, how long they hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.indi import eventually, values
from tests.support.rig import Server, Sim, stand_alone
from tests.support.workbench import Observer, connected, happened, wait_event
from usbproto.capabilities import AGREED, NOTHING, FileCache, Learnt
from usbproto.packets import AltMode, TriggerMode

EVERYWHERE = {"CCD_ROLE", "Fan", "CCD_FLUSH", "STATUS_LED", "BEEPER", "AUTO_ZERO", "SHUTTER_OUTPUT"}


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sim]:
    """An interline camera of the 600 Series: it has everything. Fast, for a trigger is waited for 4 s."""
    with Sim(tmp_path_factory.mktemp("sim"), "640wsg", speed=4) as sim:
        yield sim


@pytest.fixture(scope="module")
def server(sim: Sim, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with stand_alone(tmp_path_factory.mktemp("server"), sim.environ) as server:
        yield server


@pytest.fixture
def client(sim: Sim, server: Server) -> Iterator[Observer]:
    with Observer(server.address) as client:
        client.connect_camera()
        client.small_frame()
        client.clear()
        sim.happened.clear()
        yield client


def settings(sim: Sim) -> dict[str, Any]:
    """What the camera was told last."""
    return happened(sim, "settings")[-1]


def known(sim: Sim, directory: Path) -> None:
    """The driver had this camera before: to find out what a 500 cannot do takes seconds."""
    if sim.camera.model.name.startswith("5"):
        cache = FileCache(directory / "home" / ".indi" / "qsi-capabilities.json")
        missed = dict.fromkeys(("features", "temperature_ex", "exposure_ex"), AGREED)
        cache.put(sim.camera.serial, sim.camera.hardware.firmware, Learnt(NOTHING, missed))


def shown(client: Observer, vector: str) -> str:
    """The switch that is on."""
    (on,) = [name for name, value in values(client.definition(vector)).items() if value == "On"]
    return on


@pytest.mark.parametrize(
    ("model", "more"),
    [
        ("583wsg", {"Gain", "CCD_SHUTTER"}),
        ("683wsg", {"Gain", "CCD_SHUTTER", "READOUT_QUALITY", "EXTERNAL_TRIGGER"}),
        ("683i", {"Gain", "READOUT_QUALITY", "EXTERNAL_TRIGGER"}),
        ("504s", {"CCD_SHUTTER"}),
        (
            "640wsg",
            {"Gain", "AntiBlooming", "READOUT_QUALITY", "SHUTTER_PRIORITY", "CCD_SHUTTER"}
            | {"HOST_TIMED", "HIGH_SPEED_READOUT", "EXTERNAL_TRIGGER"},
        ),
    ],
)
def test_each_model_has_its_own(tmp_path: Path, model: str, more: set[str]) -> None:
    with connected(tmp_path, model, lambda sim: known(sim, tmp_path)) as (_, _, client):
        client.wait_for("defTextVector", name="PIXEL_MASK")  # the last one
        defined = [m for m in client.messages if m.get("group") == "Camera Settings"]
        assert {m.get("name") for m in defined} == EVERYWHERE | more
        for vector in defined:
            assert list(values(vector).values()).count("On") == 1
            assert all(element.get("label") for element in vector)
        for trigger in (m for m in defined if m.get("name") == "EXTERNAL_TRIGGER"):
            assert len(trigger) == (5 if model == "640wsg" else 3)  # the short wait is for interline sensors


@pytest.mark.parametrize(
    ("vector", "element", "back", "field", "value"),
    [
        ("Fan", "Off", "Full", "fan", 0),
        ("Fan", "Quiet", "Full", "fan", 1),
        ("Gain", "Low", "High", "gain", 1),
        ("AntiBlooming", "High", "Normal", "anti_blooming", 1),
        ("READOUT_QUALITY", "QUALITY_LOW", "QUALITY_HIGH", "fast_readout", True),
        ("CCD_FLUSH", "FLUSH_NONE", "FLUSH_NORMAL", "flush", 0),
        ("CCD_FLUSH", "FLUSH_VERY_AGGRESSIVE", "FLUSH_NORMAL", "flush", 4),
        ("SHUTTER_PRIORITY", "PRIORITY_ELECTRONIC", "PRIORITY_MECHANICAL", "shutter_priority", 1),
        ("STATUS_LED", "INDI_DISABLED", "INDI_ENABLED", "led", False),
        ("BEEPER", "INDI_DISABLED", "INDI_ENABLED", "sound", False),
    ],
)
def test_a_setting_reaches_the_camera(
    client: Observer, sim: Sim, vector: str, element: str, back: str, field: str, value: Any
) -> None:
    before = {"fan": 2, "gain": 0, "anti_blooming": 0, "flush": 2, "shutter_priority": 0}
    before |= {"led": True, "sound": True, "fast_readout": False, "show_progress": False}
    updates = client.choose(vector, element)
    # Busy when it is asked for, Busy when the camera has it, Ok when it is saved.
    assert [update.state for update in updates] == ["Busy", "Busy", "Ok"]
    assert {name: settings(sim)[name] for name in before} == before | {field: value}
    client.choose(vector, element)  # again
    assert sim.count("settings") == 1
    client.choose(vector, back)
    assert {name: settings(sim)[name] for name in before} == before


def test_the_last_of_two_quick_requests_wins(client: Observer, sim: Sim) -> None:
    for element in ("Off", "Full"):
        client.new("Switch", "Fan", **{element: "On"})

    def settled() -> bool:
        updates = client.updates("Fan")
        return bool(updates) and (updates[-1].state, updates[-1].values["Full"]) == ("Ok", "On")

    eventually(settled, "the fan is at Full")
    client.choose("STATUS_LED", "INDI_DISABLED")  # everything before is done
    assert settings(sim)["fan"] == 2
    client.choose("STATUS_LED", "INDI_ENABLED")
    assert client.updates("Fan")[-1].values["Full"] == "On"


def test_a_change_during_an_exposure_waits_for_its_end(client: Observer, sim: Sim) -> None:
    client.expose(0.6)
    wait_event(sim, "exposure_start")
    client.new("Switch", "CCD_FLUSH", FLUSH_NONE="On")
    client.until("CCD_FLUSH", "Busy")
    client.picture()
    client.until("CCD_FLUSH", "Ok")
    assert [e["e"] for e in happened(sim, "transfer", "settings")] == ["transfer", "settings"]
    assert settings(sim)["flush"] == 0
    client.choose("CCD_FLUSH", "FLUSH_NORMAL")


def test_the_fan_does_not_wait_for_the_exposure(client: Observer, sim: Sim) -> None:
    client.expose(30)
    wait_event(sim, "exposure_start")
    client.choose("Fan", "Quiet")
    assert settings(sim)["fan"] == 1 and client.updates("CCD_EXPOSURE")[-1].state == "Busy"
    client.choose("Fan", "Full")
    client.new("Switch", "CCD_ABORT_EXPOSURE", ABORT="On")
    client.until("CCD_EXPOSURE", "Idle")


def test_a_duration_is_judged_by_the_settings_before_it(client: Observer) -> None:
    client.new("Switch", "SHUTTER_PRIORITY", PRIORITY_ELECTRONIC="On")
    client.expose(0.001)
    assert client.picture()[0]["EXPTIME"] == 0.001
    client.new("Switch", "SHUTTER_PRIORITY", PRIORITY_MECHANICAL="On")
    client.expose(0.001)
    assert "0.03" in client.until("CCD_EXPOSURE", "Alert")[-1].message


def test_gain_goes_by_the_binning_when_it_is_automatic(client: Observer, sim: Sim) -> None:
    client.choose("Gain", "Auto")
    for number, (binning, gain) in enumerate(((2, 1), (1, 0), (3, 1)), 1):
        client.new("Number", "CCD_BINNING", HOR_BIN=binning, VER_BIN=binning)
        client.expose(0.1)
        client.picture(number)
        assert sim.camera.firmware.settings.current.gain == gain
    client.new("Number", "CCD_BINNING", HOR_BIN=1, VER_BIN=1)
    client.choose("Gain", "High")
    assert sim.camera.firmware.settings.current.gain == 0


def test_the_shortest_exposure_goes_with_the_shutter_priority(client: Observer) -> None:
    def shortest() -> float:
        return float(client.definition("CCD_EXPOSURE")[0].attrib["min"])

    assert shortest() == 0.03
    client.choose("SHUTTER_PRIORITY", "PRIORITY_ELECTRONIC")
    assert shortest() == 0.0001
    client.expose(0.001)
    assert client.picture()[0]["EXPTIME"] == 0.001
    client.choose("SHUTTER_PRIORITY", "PRIORITY_MECHANICAL")
    assert shortest() == 0.03
    assert not [u for u in client.updates("CCD_EXPOSURE")[-2:] if u.state not in ("Ok", "Idle")]


def test_auto_zero_off_leaves_the_pixels_as_they_came(client: Observer, sim: Sim) -> None:
    client.choose("AUTO_ZERO", "INDI_DISABLED")
    client.expose(0.1)
    raw = sim.camera.last_frame if client.picture() else None
    assert raw is not None
    np.testing.assert_array_equal(client.picture()[1], np.minimum(raw, 64_000))
    client.choose("AUTO_ZERO", "INDI_ENABLED")
    client.expose(0.1)
    np.testing.assert_array_equal(client.picture(2)[1], sim.picture())


def test_the_manual_shutter(client: Observer, sim: Sim) -> None:
    client.choose("CCD_SHUTTER", "SHUTTER_ON")
    assert wait_event(sim, "shutter")["open"]
    client.expose(0.1)
    client.picture()
    assert sim.count("shutter") == 1  # exposures leave it alone
    client.choose("CCD_SHUTTER", "SHUTTER_OFF")
    assert not wait_event(sim, "shutter", 2)["open"]
    client.choose("CCD_SHUTTER", "SHUTTER_AUTO")
    assert happened(sim, "alt_mode")[-1]["bits"] == 0
    client.expose(0.1)
    client.picture(2)
    assert [e["open"] for e in happened(sim, "shutter")[2:]] == [True, False]


@pytest.mark.parametrize(
    ("vector", "bit"), [("SHUTTER_OUTPUT", AltMode.SHUTTER_OUTPUT), ("HOST_TIMED", AltMode.HOST_TIMED)]
)
def test_a_mode_is_switched(client: Observer, sim: Sim, vector: str, bit: AltMode) -> None:
    client.choose(vector, "INDI_ENABLED")
    assert sim.camera.firmware.settings.alt_mode == bit
    client.choose(vector, "INDI_DISABLED")
    assert sim.camera.firmware.settings.alt_mode == 0


def test_modes_end_with_the_connection(client: Observer, sim: Sim) -> None:
    """The camera would go on with them until it is switched off, under whatever program comes next."""
    client.choose("SHUTTER_OUTPUT", "INDI_ENABLED")
    client.choose("CCD_SHUTTER", "SHUTTER_ON")
    client.choose("EXTERNAL_TRIGGER", "TRIGGER_LONG_RISING")
    assert sim.camera.firmware.imager.trigger_mode is TriggerMode.LONG_WAIT_RISING
    client.disconnect_camera()
    assert sim.camera.firmware.settings.alt_mode == 0
    client.clear()
    client.connect_camera()
    assert sim.camera.firmware.imager.trigger_mode is TriggerMode.OFF
    for vector, element in (
        ("SHUTTER_OUTPUT", "INDI_DISABLED"),
        ("CCD_SHUTTER", "SHUTTER_AUTO"),
        ("EXTERNAL_TRIGGER", "TRIGGER_OFF"),
    ):
        assert shown(client, vector) == element


def test_high_speed_readout(client: Observer, sim: Sim) -> None:
    client.choose("HIGH_SPEED_READOUT", "INDI_ENABLED")
    client.expose(0.1)
    header, pixels = client.picture()
    assert (header["EXPTIME"], pixels.shape) == (0.1, (200, 320))
    np.testing.assert_array_equal(pixels, sim.picture())
    commands = [event["command"] for event in happened(sim, "command")]
    assert "HSRExposure" in commands and "TransferImage" not in commands
    client.choose("HIGH_SPEED_READOUT", "INDI_DISABLED")


@pytest.mark.parametrize("frame_type", ["FRAME_DARK", "FRAME_BIAS"])
def test_high_speed_readout_is_for_light(client: Observer, sim: Sim, frame_type: str) -> None:
    """It always opens the shutter; darks are dark, so they are taken the usual way."""
    client.choose("HIGH_SPEED_READOUT", "INDI_ENABLED")
    client.choose("CCD_FRAME_TYPE", frame_type)
    client.expose(0.1)
    client.picture()
    assert wait_event(sim, "exposure_start")["light"] is False
    client.choose("CCD_FRAME_TYPE", "FRAME_LIGHT")
    client.choose("HIGH_SPEED_READOUT", "INDI_DISABLED")


def test_a_long_wait_for_the_trigger(client: Observer, sim: Sim) -> None:
    client.choose("EXTERNAL_TRIGGER", "TRIGGER_LONG_FALLING")
    client.expose(0.3)
    eventually(
        lambda: [u for u in client.updates("EXPOSURE_PHASE") if u.values["PHASE"] == "Waiting for trigger"]
    )
    before = len(client.updates("CCD_TEMPERATURE"))
    client.new("Number", "CCD_TEMPERATURE", CCD_TEMPERATURE_VALUE=10)  # may not be sent now
    eventually(lambda: len(client.updates("CCD_TEMPERATURE")) > before + 2, "the temperature is polled")
    assert sim.count("exposure_start") == 0
    assert client.updates("CCD_EXPOSURE")[-1].state == "Busy"
    sim.camera.trigger()
    client.picture()
    client.until("CCD_EXPOSURE", "Ok")
    phases = [u.values["PHASE"] for u in client.updates("EXPOSURE_PHASE")]
    assert phases[:3] == ["Flushing", "Waiting for trigger", "Exposing"]
    assert not happened(sim, "ignored")
    assert wait_event(sim, "temperature")["set_point"] == 10  # it was not forgotten
    client.new("Switch", "CCD_COOLER", COOLER_OFF="On")
    client.until("CCD_COOLER", "Busy")
    client.new("Switch", "CCD_COOLER", COOLER_OFF="On")
    client.until("CCD_COOLER", "Idle")

    client.expose(0.3)
    wait_event(sim, "waiting", 2)
    client.new("Switch", "CCD_ABORT_EXPOSURE", ABORT="On")
    client.until("CCD_EXPOSURE", "Idle")
    client.expose(0.1)  # the mode goes on
    wait_event(sim, "waiting", 3)
    sim.camera.trigger()
    client.picture(2)
    client.until("CCD_EXPOSURE", "Ok")
    client.choose("EXTERNAL_TRIGGER", "TRIGGER_OFF")
    client.expose(0.1)
    client.picture(3)


def test_a_short_wait_for_the_trigger(client: Observer, sim: Sim) -> None:
    client.choose("EXTERNAL_TRIGGER", "TRIGGER_SHORT_FALLING")
    client.expose(0.1)
    wait_event(sim, "waiting")
    sim.camera.trigger()
    client.picture()
    client.until("CCD_EXPOSURE", "Ok")
    client.expose(0.1)  # no trigger comes
    alert = client.until("CCD_EXPOSURE", "Alert")[-1]
    assert "trigger" in alert.message
    client.choose("EXTERNAL_TRIGGER", "TRIGGER_OFF")
    client.expose(0.1)
    client.picture(2)


def test_settings_are_kept_by_camera_and_role(tmp_path: Path) -> None:
    with connected(tmp_path, "640wsg") as (sim, server, client):
        home = server.home
        client.choose("Gain", "Low")
        client.choose("Fan", "Quiet")
        client.choose("AUTO_ZERO", "INDI_DISABLED")
        client.choose("CCD_ROLE", "ROLE_GUIDER")
        assert [shown(client, v) for v in ("Gain", "Fan", "AUTO_ZERO")] == ["High", "Full", "INDI_ENABLED"]
        client.choose("CCD_FLUSH", "FLUSH_NONE")
        client.choose("SHUTTER_PRIORITY", "PRIORITY_ELECTRONIC")

        client.new("Switch", "CONFIG_PROCESS", CONFIG_SAVE="On")
        client.until("CONFIG_PROCESS", "Ok")

        # The cable is pulled: everything is as it was when it is back, modes included.
        client.choose("EXTERNAL_TRIGGER", "TRIGGER_LONG_FALLING")
        client.clear()
        sim.camera.faults.arm("replug")
        client.until("CONNECTION", "Alert")
        client.until("CONNECTION", "Ok")
        assert sim.camera.firmware.imager.trigger_mode is TriggerMode.LONG_WAIT
        assert (settings(sim)["flush"], settings(sim)["shutter_priority"]) == (0, 1)
        assert shown(client, "EXTERNAL_TRIGGER") == "TRIGGER_LONG_FALLING"

    with connected(tmp_path, "640wsg") as (sim, _, client):
        told = settings(sim)  # at connect, by a new process
        assert (told["flush"], told["shutter_priority"], told["gain"], told["fan"]) == (0, 1, 0, 2)
        assert float(client.definition("CCD_EXPOSURE")[0].attrib["min"]) == 0.0001
        assert shown(client, "CCD_ROLE") == "ROLE_GUIDER"
        client.new("Switch", "CONFIG_PROCESS", CONFIG_LOAD="On")  # belongs to no camera and to no role
        client.until("CONFIG_PROCESS", "Ok")
        client.choose("CCD_ROLE", "ROLE_MAIN")
        told = settings(sim)
        assert (told["flush"], told["shutter_priority"], told["gain"], told["fan"]) == (2, 0, 1, 1)
        assert [shown(client, v) for v in ("Gain", "Fan", "AUTO_ZERO")] == ["Low", "Quiet", "INDI_DISABLED"]

    kept = home / ".indi" / "qsi-cameras.json"
    assert json.loads(kept.read_text())["00640001"]["role"] == {"role": "ROLE_MAIN"}
    # A file that somebody spoiled, and one of another camera: the camera's own defaults.
    kept.write_text('{"00640001": {"role": {"role": ["x"]}, "settings ROLE_MAIN": {"Gain": {}, "Fan": 7}}}')
    with connected(tmp_path, "640wsg") as (_, _, client):
        assert [shown(client, v) for v in ("Gain", "Fan")] == ["High", "Full"]
        client.choose("Fan", "Off")


def test_what_cannot_be_kept_holds_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".indi").write_text("not a directory")
    with connected(tmp_path) as (sim, _, client):
        update = client.choose("Fan", "Off")[-1]
        assert "cannot be saved" in update.message
        assert settings(sim)["fan"] == 0
        client.disconnect_camera()
        client.clear()
        client.connect_camera()
        assert shown(client, "Fan") == "Off"
