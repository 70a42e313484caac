# SPDX-License-Identifier: LGPL-2.1-or-later
"""The filter wheel as users and sequencers see it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.indi import eventually, values
from tests.support.rig import Server, Sim, stand_alone
from tests.support.workbench import Observer, Update, connected, happened, wait_event

SPEED = 6.0  # of the simulated camera: the wheel takes 0.7 s a slot


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
    """A client of the connected camera; the wheel is at 1."""
    with Observer(server.address) as client:
        client.connect_camera()
        client.small_frame()
        to(client, 1)
        client.clear()
        sim.happened.clear()
        yield client


def ask(client: Observer, slot: Any) -> int:
    """Asks for a filter; returns how many updates there were before."""
    before = len(client.updates("FILTER_SLOT"))
    client.new("Number", "FILTER_SLOT", FILTER_SLOT_VALUE=slot)
    return before


def to(client: Observer, slot: Any) -> list[Update]:
    """Asks for a filter, and waits for the answer."""
    before = ask(client, slot)
    return client.until("FILTER_SLOT", "Ok", "Alert", after=before)


def where(update: Update) -> float:
    return update.number("FILTER_SLOT_VALUE")


def move_wheel(sim: Sim, position: int) -> None:
    """Another program did that, before we came."""
    with sim.camera.timeline.lock:
        sim.camera.hardware.wheel.position = position


def test_a_move(client: Observer, sim: Sim) -> None:
    updates = to(client, 3)
    assert [(u.state, where(u)) for u in updates] == [("Busy", 1), ("Ok", 3)]
    (arrived,) = happened(sim, "filter_end")
    assert arrived["position"] == 2
    assert updates[-1].at > arrived["t"] - 0.03
    assert [where(u) for u in to(client, 2.0000001)][-1] == 2  # clients send floats for integers


def test_the_same_slot_is_no_move(client: Observer, sim: Sim) -> None:
    (update,) = to(client, 1)
    assert (update.state, where(update)) == ("Ok", 1)
    assert sim.count("filter") == 0


@pytest.mark.parametrize("slot", [0, 6, -1, 1e9, "nan"])
def test_out_of_range(client: Observer, sim: Sim, slot: Any) -> None:
    (update,) = to(client, slot)
    assert update.state == "Alert" and "1..5" in update.message
    assert where(update) == 1
    # Where the wheel is remains known: no move to make sure of it, and the header has its name.
    assert to(client, 1)[-1].state == "Ok"
    to(client, slot)
    assert sim.count("filter") == 0
    client.expose(0.1)
    assert client.picture()[0]["FILTER"] == "Red"


def test_a_newer_request_wins(client: Observer, sim: Sim) -> None:
    before = ask(client, 3)
    wait_event(sim, "filter")
    ask(client, 5)
    updates = client.until("FILTER_SLOT", "Ok", after=before)
    assert [(u.state, where(u)) for u in updates] == [
        *(("Busy", 1), ("Busy", 1), ("Busy", 3)),  # it passes by there
        ("Ok", 5),
    ]
    assert sim.camera.hardware.wheel.position == 4


def test_not_during_an_exposure(client: Observer, sim: Sim) -> None:
    client.expose(0.8)
    client.until("CCD_EXPOSURE", "Busy")
    (update,) = to(client, 4)
    assert update.state == "Alert" and "during an exposure" in update.message and where(update) == 1
    assert to(client, 1)[-1].state == "Ok"  # nothing would move
    client.picture()
    client.until("CCD_EXPOSURE", "Ok")
    assert sim.count("filter") == 0
    assert to(client, 4)[-1].state == "Ok"


def test_an_exposure_waits_for_the_wheel(client: Observer, sim: Sim) -> None:
    ask(client, 3)
    client.expose(0.1)
    header, _ = client.picture()
    assert [e["e"] for e in happened(sim, "filter", "filter_end", "expose")] == [
        "filter",
        "filter_end",
        "expose",
    ]
    assert header["FILTER"] == "Blue"


def test_an_exposure_that_waits_for_the_wheel_can_be_aborted(client: Observer, sim: Sim) -> None:
    ask(client, 3)
    client.expose(0.1)
    client.new("Switch", "CCD_ABORT_EXPOSURE", ABORT="On")
    client.until("CCD_EXPOSURE", "Idle")
    client.until("FILTER_SLOT", "Ok")
    assert sim.count("expose") == 0


def test_names(client: Observer) -> None:
    names = {
        f"FILTER_SLOT_NAME_{n}": text
        for n, text in enumerate(["Hα 3 nm", "O III", "赤", "L&lt;1&gt;", "👩‍🚀"], 1)
    }
    client.new("Text", "FILTER_NAME", **names)
    update = client.until("FILTER_NAME", "Ok", "Alert")[-1]
    assert update.state == "Ok"
    assert list(update.values.values()) == ["Hα 3 nm", "O III", "赤", "L<1>", "👩‍🚀"]
    for bad, why in (
        ("", "1 to 64 characters"),
        ("   ", "1 to 64"),
        ("x" * 65, "64"),
        ("a&#10;b", "control"),
    ):
        client.clear()
        client.new("Text", "FILTER_NAME", FILTER_SLOT_NAME_2=bad)
        update = client.until("FILTER_NAME", "Ok", "Alert")[-1]
        assert update.state == "Alert" and why in update.message
        assert update.values["FILTER_SLOT_NAME_2"] == "O III"
    client.clear()
    client.new("Text", "FILTER_NAME", FILTER_SLOT_NAME_2=" S II ")  # one alone, with blanks
    assert client.until("FILTER_NAME", "Ok")[-1].values["FILTER_SLOT_NAME_2"] == "S II"
    to(client, 2)
    client.expose(0.1)
    assert client.picture()[0]["FILTER"] == "S II"


def test_offsets_and_trims(client: Observer, sim: Sim) -> None:
    client.new("Number", "FILTER_FOCUS_OFFSET", FILTER_OFFSET_2=-120.4)
    assert client.until("FILTER_FOCUS_OFFSET", "Ok")[-1].number("FILTER_OFFSET_2") == -120
    client.new("Number", "FILTER_TRIM", FILTER_TRIM_1=25, FILTER_TRIM_2=-7)
    client.until("FILTER_TRIM", "Ok")
    for slot, trim in ((2, -7), (3, 0), (1, 25)):
        assert to(client, slot)[-1].state == "Ok"
        assert sim.camera.hardware.wheel.trim == trim
    client.new("Number", "FILTER_TRIM", FILTER_TRIM_1=30)
    client.until("FILTER_TRIM", "Ok")
    assert to(client, 1)[-1].state == "Ok"  # the same slot, but not quite the same place
    assert sim.camera.hardware.wheel.trim == 30
    client.new("Number", "FILTER_TRIM", FILTER_TRIM_1=1001)
    assert "-1000..1000" in client.until("FILTER_TRIM", "Alert")[-1].message
    client.new("Number", "FILTER_TRIM", FILTER_TRIM_1=0, FILTER_TRIM_2=0)
    client.until("FILTER_TRIM", "Ok")


def test_loading_the_config_moves_nothing_that_is_in_place(client: Observer, sim: Sim) -> None:
    to(client, 4)
    client.new("Switch", "CONFIG_PROCESS", CONFIG_SAVE="On")
    client.until("CONFIG_PROCESS", "Ok")
    sim.happened.clear()
    client.clear()
    client.new("Switch", "CONFIG_PROCESS", CONFIG_LOAD="On")
    assert where(client.until("FILTER_SLOT", "Ok")[-1]) == 4
    assert sim.count("filter") == 0
    to(client, 2)
    client.clear()
    client.new("Switch", "CONFIG_PROCESS", CONFIG_LOAD="On")
    assert where(client.until("FILTER_SLOT", "Ok")[-1]) == 4


def test_the_position_is_read_at_connect_and_names_are_the_cameras(tmp_path: Path) -> None:
    """Names are found again by a new process, belong to one camera, and no config file brings them to another."""
    with connected(tmp_path, "683wsg-8", lambda sim: move_wheel(sim, 5), speed=SPEED) as (sim, _, client):
        slot = client.definition("FILTER_SLOT")
        assert (float(values(slot)["FILTER_SLOT_VALUE"]), slot.get("state")) == (6, "Ok")
        assert float(slot[0].attrib["max"]) == 8
        assert list(values(client.definition("FILTER_NAME")).values()) == [
            *("Red", "Green", "Blue", "Luminance", "Filter 5", "Filter 6", "Filter 7", "Filter 8")
        ]
        assert to(client, 8)[-1].state == "Ok"
        client.new("Text", "FILTER_NAME", FILTER_SLOT_NAME_8="Dark slide")
        client.until("FILTER_NAME", "Ok")
        client.new("Switch", "CONFIG_PROCESS", CONFIG_SAVE="On")
        client.until("CONFIG_PROCESS", "Ok")

        # A new process while the wheel is on its way, in a camera that serves other commands meanwhile: the
        # process waits for the end.
        sim.camera.strange.add("wheel-answers-at-once")
        sim.camera.faults.arm("wheel-drags:6")
        ask(client, 1)
        wait_event(sim, "filter", 2)
        client.disconnect_camera()
        # CONNECTION is told first, by which the disconnection is known.
        eventually(lambda: client.updates("FILTER_SLOT")[-1].state == "Alert", "the move ends")
        client.connect_camera()
        # With the vendor's timing a connect may take longer than the move: then there is no update, only a definition.
        eventually(lambda: client.definition("FILTER_SLOT").get("state") == "Ok", "the wheel has arrived")
        assert float(values(client.definition("FILTER_SLOT"))["FILTER_SLOT_VALUE"]) == 1
        assert sim.camera.hardware.wheel.position == 0
        assert values(client.definition("FILTER_NAME"))["FILTER_SLOT_NAME_8"] == "Dark slide"

    serial = "00683777"
    with Sim(tmp_path, "683wsg-8", serial=serial, speed=SPEED) as sim:
        with stand_alone(tmp_path, {**sim.environ, "INDI_QSI_SERIAL": serial}) as server:
            with Observer(server.address) as client:
                client.connect_camera()
                client.new("Switch", "CONFIG_PROCESS", CONFIG_LOAD="On")
                client.until("CONFIG_PROCESS", "Ok")
                assert values(client.definition("FILTER_NAME"))["FILTER_SLOT_NAME_8"] == "Filter 8"


def test_without_a_wheel(tmp_path: Path) -> None:
    with connected(tmp_path, "683s") as (sim, _, client):
        names = {m.get("name") for m in client.messages if m.tag.startswith("def")}
        assert "CCD_EXPOSURE" in names
        assert not [name for name in names if name and name.startswith("FILTER")]
        client.new("Number", "FILTER_SLOT", FILTER_SLOT_VALUE=2)
        client.small_frame()
        client.expose(0.1)
        assert "FILTER" not in client.picture()[0]
        assert sim.count("filter") == 0


def test_a_jammed_wheel(tmp_path: Path) -> None:
    with connected(tmp_path, speed=SPEED) as (sim, _, client):
        client.small_frame()
        sim.camera.faults.arm("wheel-jam")
        update = to(client, 3)[-1]
        assert (update.state, where(update)) == ("Alert", 1)  # the last place that is known
        assert "filter wheel failed" in update.message and "Power the camera off and on" in update.message
        alarm = client.until("CAMERA_ALARMS", "Alert")[-1]
        assert alarm.values["FILTER_WHEEL"] == "Alert"
        assert to(client, 1)[-1].state == "Alert"  # no "already there"
        assert len(client.until("CAMERA_ALARMS", "Alert")) == 1  # said once
        client.expose(0.1)
        assert "FILTER" not in client.picture()[0]  # nobody knows; the camera goes on without the wheel

        client.disconnect_camera()
        client.clear()
        client.connect_camera()
        assert client.wait_for("defNumberVector", name="FILTER_SLOT").get("state") == "Alert"
        eventually(lambda: client.messages_with("filter wheel failed"), "it is told to the user")
        client.until("CAMERA_ALARMS", "Alert")

        sim.camera.power_off()
        client.until("CONNECTION", "Alert")
        sim.camera.power_on()
        client.until("CONNECTION", "Ok")
        assert to(client, 2)[-1].state == "Ok"
