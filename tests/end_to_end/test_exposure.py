# SPDX-License-Identifier: LGPL-2.1-or-later
"""The life of exposures as a client sees it, and what bad input does to it."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree.ElementTree import Element

import numpy as np
import pytest

from tests.support.indi import eventually, values
from tests.support.rig import DEVICE, IndiClient, Server, Sim, stand_alone


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sim]:
    with Sim(tmp_path_factory.mktemp("sim")) as sim:
        yield sim


@pytest.fixture(scope="module")
def server(sim: Sim, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with stand_alone(tmp_path_factory.mktemp("server"), sim.environ) as server:
        yield server


@pytest.fixture
def client(sim: Sim, server: Server) -> Iterator[IndiClient]:
    """A client of the connected camera, with a small frame; disconnects in the end."""
    with IndiClient(server.address) as client:
        client.connect_camera()
        client.new("Number", "CCD_FRAME", X=0, Y=0, WIDTH=320, HEIGHT=200)
        client.wait_for("setNumberVector", name="CCD_FRAME", state="Ok")
        client.clear()
        sim.happened.clear()
        yield client
        client.clear()
        client.new("Switch", "CONNECTION", DISCONNECT="On")
        client.wait_for("setSwitchVector", name="CONNECTION", state="Idle")


def exposure_states(client: IndiClient) -> list[str]:
    """Without repetitions: Busy comes once a second."""
    states: list[str] = []
    for state in client.states("CCD_EXPOSURE"):
        if states[-1:] != [state]:
            states.append(state)
    return states


def wait_end(client: IndiClient, state: str) -> Element:
    return client.wait_for("setNumberVector", name="CCD_EXPOSURE", state=state)


def takes_a_picture(client: IndiClient, sim: Sim) -> None:
    client.clear()
    client.blobs.clear()
    client.expose(0.1)
    _, pixels = client.picture()
    wait_end(client, "Ok")
    np.testing.assert_array_equal(pixels, sim.picture())


def test_life_cycle(client: IndiClient) -> None:
    client.expose(2.2)
    wait_end(client, "Ok")
    assert exposure_states(client) == ["Busy", "Ok"]
    updates = [m for m in client.messages if m.get("name") in ("CCD_EXPOSURE", "CCD1")]
    remaining = [float(values(m)["CCD_EXPOSURE_VALUE"]) for m in updates if m.get("name") == "CCD_EXPOSURE"]
    assert remaining[0] == 2.2  # what was asked for, at once
    assert remaining == sorted(remaining, reverse=True)
    assert any(0 < value < 1.5 and value != round(value) for value in remaining)  # it counts, in decimals
    assert remaining[-2:] == [0, 0]  # reading out, then done
    assert [m.get("name") for m in updates[-2:]] == ["CCD1", "CCD_EXPOSURE"]  # the picture before the Ok
    assert len(client.blobs) == 1


def test_abort_in_mid_exposure(client: IndiClient, sim: Sim) -> None:
    client.expose(30)
    eventually(lambda: sim.count("exposure_start"), "the shutter opens")
    client.new("Switch", "CCD_ABORT_EXPOSURE", ABORT="On")
    answer = client.wait_for("setSwitchVector", name="CCD_ABORT_EXPOSURE", state="Ok")
    assert client.states("CCD_ABORT_EXPOSURE") == ["Busy", "Ok"]  # Ok when the camera has ended it
    assert values(answer) == {"ABORT": "Off"}
    assert float(values(wait_end(client, "Idle"))["CCD_EXPOSURE_VALUE"]) == 0
    takes_a_picture(client, sim)


def test_abort_before_the_shutter_opens_and_twice(client: IndiClient, sim: Sim) -> None:
    client.expose(30)
    for _ in range(2):
        client.new("Switch", "CCD_ABORT_EXPOSURE", ABORT="On")
    wait_end(client, "Idle")
    takes_a_picture(client, sim)
    assert len(client.blobs) == 1


def test_abort_when_idle_is_harmless(client: IndiClient, sim: Sim) -> None:
    client.new("Switch", "CCD_ABORT_EXPOSURE", ABORT="On")
    client.wait_for("setSwitchVector", name="CCD_ABORT_EXPOSURE", state="Ok")
    wait_end(client, "Idle")
    takes_a_picture(client, sim)


def test_a_second_exposure_restarts_the_first(client: IndiClient, sim: Sim) -> None:
    client.expose(30)
    eventually(lambda: sim.count("exposure_start"), "the shutter opens")
    client.expose(0.2)
    wait_end(client, "Ok")
    assert sim.count("expose") == 2
    assert len(client.blobs) == 1
    assert client.picture()[0]["EXPTIME"] == 0.2
    assert exposure_states(client) == ["Busy", "Ok"]
    # Clients take any update of the abort switch for an abort.
    assert not client.states("CCD_ABORT_EXPOSURE")


def test_two_requests_at_once_give_one_picture(client: IndiClient) -> None:
    vector = (
        f"<newNumberVector device='{DEVICE}' name='CCD_EXPOSURE'>"
        "<oneNumber name='CCD_EXPOSURE_VALUE'>%s</oneNumber></newNumberVector>"
    )
    client.send(vector % "0.3" + vector % "0.2")
    wait_end(client, "Ok")
    assert [client.picture()[0]["EXPTIME"], len(client.blobs)] == [0.2, 1]


@pytest.mark.parametrize(
    ("frame_type", "opens", "duration"),
    [
        ("FRAME_LIGHT", True, 0.1),
        ("FRAME_FLAT", True, 0.1),
        ("FRAME_DARK", False, 0.1),
        ("FRAME_BIAS", False, 0),
    ],
)
def test_the_frame_type_drives_the_shutter(
    client: IndiClient, sim: Sim, frame_type: str, opens: bool, duration: float
) -> None:
    client.new("Switch", "CCD_FRAME_TYPE", **{frame_type: "On"})
    client.expose(0.1)
    header, _ = client.picture()
    name = frame_type.removeprefix("FRAME_").capitalize()
    assert header["FRAME"] == name
    assert header["IMAGETYP"] == f"{name} Frame"
    assert header["EXPTIME"] == duration
    assert ("DARKTIME" in header) == (name == "Dark")
    (start,) = [happening for happening in sim.happened if happening["e"] == "exposure_start"]
    assert start["light"] is opens


@pytest.mark.parametrize("value", ["0.0001", "100000", "-1", "0", "nan", "inf", "1e999", "soon", "", "0x10"])
def test_a_bad_duration_is_refused_and_nothing_starts(client: IndiClient, sim: Sim, value: str) -> None:
    client.expose(value)  # type: ignore[arg-type]
    refusal = wait_end(client, "Alert")
    assert "0.03..14400" in refusal.attrib["message"]
    assert sim.count("expose") == 0
    takes_a_picture(client, sim)


def test_a_bad_duration_leaves_a_running_exposure_alone(client: IndiClient) -> None:
    client.expose(1.5)
    wait_end(client, "Busy")
    client.expose(100_000)
    wait_end(client, "Ok")
    assert exposure_states(client) == ["Busy", "Ok"]
    assert client.picture()[0]["EXPTIME"] == 1.5


@pytest.mark.parametrize(
    ("vector", "request_values", "valid"),
    [
        ("CCD_FRAME", {"X": 4000}, "0..3325"),
        ("CCD_FRAME", {"WIDTH": 0}, "1..3326"),
        ("CCD_FRAME", {"X": 3000, "WIDTH": 1000}, "1..326"),
        ("CCD_BINNING", {"HOR_BIN": 10, "VER_BIN": 10}, "1..9"),
        ("CCD_BINNING", {"HOR_BIN": 2}, "both axes alike"),
        ("CCD_BINNING", {"HOR_BIN": 0, "VER_BIN": 0}, "1..9"),
        ("CCD_TEMPERATURE", {"CCD_TEMPERATURE_VALUE": -60}, "-40..50"),
    ],
)
def test_bad_values_are_refused_with_the_valid_range(
    client: IndiClient, vector: str, request_values: dict[str, float], valid: str
) -> None:
    client.send(f"<getProperties version='1.7' device='{DEVICE}' name='{vector}'/>")
    before = values(client.wait_for("defNumberVector", name=vector))
    client.new("Number", vector, **request_values)
    refusal = client.wait_for("setNumberVector", name=vector, state="Alert")
    assert valid in refusal.attrib["message"]
    if vector != "CCD_TEMPERATURE":
        assert values(refusal) == before


def test_frame_and_binning_in_either_order(client: IndiClient, sim: Sim) -> None:
    """Wanted: 1663 x 1252 pixels of 2x2. A frame that is odd in between is none of our business."""
    for order in ((1, 2), (2, 1)):
        client.blobs.clear()
        requests = {
            1: ("CCD_BINNING", {"HOR_BIN": 2, "VER_BIN": 2}),
            2: ("CCD_FRAME", {"X": 3, "Y": 5, "WIDTH": 101, "HEIGHT": 77}),
        }
        for number in order:
            vector, wanted = requests[number]
            client.new("Number", vector, **wanted)
        client.expose(0.1)
        header, pixels = client.picture()
        assert pixels.shape == (38, 50)
        assert (header["XORGSUBF"], header["YORGSUBF"]) == (1, 2)
        np.testing.assert_array_equal(pixels, sim.picture())
        client.new("Number", "CCD_BINNING", HOR_BIN=1, VER_BIN=1)


def test_geometry_changes_during_an_exposure_are_for_the_next(client: IndiClient, sim: Sim) -> None:
    client.expose(0.5)
    eventually(lambda: sim.count("exposure_start"), "the shutter opens")
    client.new("Number", "CCD_FRAME", X=0, Y=0, WIDTH=100, HEIGHT=100)
    client.new("Number", "CCD_BINNING", HOR_BIN=3, VER_BIN=3)
    assert client.picture()[1].shape == (200, 320)
    client.new("Number", "CCD_BINNING", HOR_BIN=1, VER_BIN=1)


def test_cooling_and_warming_up(client: IndiClient) -> None:
    client.new("Number", "CCD_TEMPERATURE", CCD_TEMPERATURE_VALUE=-5)
    client.wait_for("setSwitchVector", name="CCD_COOLER", state="Ok")
    client.clear()
    updates = eventually(
        lambda: [m for m in list(client.messages) if m.get("name") == "CCD_TEMPERATURE"][2:],
        "updates keep coming",
    )
    temperatures = [float(values(m)["CCD_TEMPERATURE_VALUE"]) for m in updates]
    assert all(-40 < value < 30 for value in temperatures)
    assert updates[-1].get("state") == "Busy"
    client.wait_for("setNumberVector", name="CCD_COOLER_POWER")

    client.clear()
    client.new("Switch", "CCD_COOLER", COOLER_OFF="On")
    warming = client.wait_for("setSwitchVector", name="CCD_COOLER", state="Busy")
    assert values(warming)["COOLER_ON"] == "On"
    eventually(lambda: any("Warming up" in m.get("message", "") for m in client.messages), "it says so")
    client.new("Switch", "CCD_COOLER", COOLER_OFF="On")  # the second "off" forces it
    off = client.wait_for("setSwitchVector", name="CCD_COOLER", state="Idle")
    assert values(off) == {"COOLER_ON": "Off", "COOLER_OFF": "On"}


@pytest.mark.parametrize(
    "rubbish",
    [
        b"<newNumberVector device='QSI CCD' name='CCD_EXPOSURE'><oneNumber name='NO_SUCH'>1</oneNumber></newNumberVector>",
        b"<newNumberVector device='QSI CCD' name='NO_SUCH'><oneNumber name='X'>1</oneNumber></newNumberVector>",
        b"<newNumberVector device='Other' name='CCD_EXPOSURE'><oneNumber name='X'>1</oneNumber></newNumberVector>",
        b"<newSwitchVector device='QSI CCD' name='CCD_EXPOSURE'><oneSwitch name='X'>On</oneSwitch></newSwitchVector>",
        b"<noSuchElement a='b'><c>d</c></noSuchElement>",
    ],
)
def test_unknown_things_are_ignored(client: IndiClient, sim: Sim, rubbish: bytes) -> None:
    client.send(rubbish)
    takes_a_picture(client, sim)


@pytest.mark.parametrize(
    "rubbish",
    [
        b"<<<>>>\0\xff",
        b"<getProperties><b></getProperties>",
        b"<!DOCTYPE x [<!ENTITY e 'e'>]><x>&e;</x>",
        b"&&&" * 99,
    ],
)
def test_broken_xml_ends_its_own_client_only(
    client: IndiClient, sim: Sim, server: Server, rubbish: bytes
) -> None:
    with IndiClient(server.address) as hostile:
        hostile.send(rubbish)
        assert hostile.closed.wait(20)
    takes_a_picture(client, sim)


def test_a_second_getproperties_defines_again_without_side_effects(client: IndiClient) -> None:
    client.expose(1)
    wait_end(client, "Busy")
    client.clear()
    client.send("<getProperties version='1.7'/>")
    again = client.wait_for("defNumberVector", name="CCD_EXPOSURE")
    assert again.get("state") == "Busy"
    wait_end(client, "Ok")
    assert len(client.blobs) == 1
