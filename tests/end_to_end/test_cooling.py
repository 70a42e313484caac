# SPDX-License-Identifier: LGPL-2.1-or-later
"""Cooling down, warming up, and a thermometer that never falls silent."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.indi import eventually, values
from tests.support.rig import Server, Sim, stand_alone
from tests.support.workbench import Observer, Update, happened, wait_event

VALUE = "CCD_TEMPERATURE_VALUE"
SPEED = 300.0  # of the simulated camera: a cool-down takes minutes


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
    """A client of the connected camera, polled often; the cooler is off before and after."""
    with Observer(server.address) as client:
        client.connect_camera()
        client.new("Number", "POLLING_PERIOD", PERIOD_MS=100)
        client.clear()
        sim.happened.clear()
        yield client
        off(client)
        client.new("Number", "CCD_TEMP_RAMP", RAMP_SLOPE=0, RAMP_THRESHOLD=0.2)
        client.until("CCD_TEMP_RAMP", "Ok")


def cool(client: Observer, target: float) -> int:
    """Asks for a temperature; returns how many updates there were before."""
    before = len(client.updates("CCD_TEMPERATURE"))
    client.new("Number", "CCD_TEMPERATURE", CCD_TEMPERATURE_VALUE=target)
    return before


def switch(client: Observer, element: str, *states: str) -> Update:
    before = len(client.updates("CCD_COOLER"))
    client.new("Switch", "CCD_COOLER", **{element: "On"})
    return client.until("CCD_COOLER", *states, after=before)[-1]


def off(client: Observer) -> None:
    """At once, by saying it twice."""
    before = len(client.updates("CCD_COOLER"))
    for _ in range(2):
        client.new("Switch", "CCD_COOLER", COOLER_OFF="On")
    client.until("CCD_COOLER", "Idle", after=before)


def measured(client: Observer) -> float:
    update = eventually(lambda: client.updates("CCD_TEMPERATURE"), "a temperature")[-1]
    return update.number(VALUE)


def test_cooling_to_a_set_point(client: Observer, sim: Sim) -> None:
    target = measured(client) - 6
    before = cool(client, target)
    updates = client.until("CCD_TEMPERATURE", "Ok", after=before)
    assert updates[0].state == "Busy"  # at once
    assert abs(updates[-1].number(VALUE) - target) <= 0.2
    assert all(u.state == "Busy" for u in updates if abs(u.number(VALUE) - target) > 0.2)
    (told,) = happened(sim, "temperature")
    assert (told["on"], told["ambient"], told["set_point"]) == (True, False, pytest.approx(target, abs=0.005))
    cooler = client.updates("CCD_COOLER")[-1]
    assert (cooler.state, cooler.values) == ("Ok", {"COOLER_ON": "On", "COOLER_OFF": "Off"})
    assert client.updates("CCD_COOLER_POWER")[-1].number("CCD_COOLER_VALUE") > 0
    # It stays so, and keeps being told.
    later = eventually(
        lambda: client.updates("CCD_TEMPERATURE")[before + len(updates) + 3 :], "updates go on"
    )
    assert all(abs(u.number(VALUE) - target) < 0.3 for u in later)


def test_the_temperature_that_it_has_is_a_set_point_too(client: Observer, sim: Sim) -> None:
    target = measured(client)
    before = cool(client, target)
    eventually(lambda: len(client.updates("CCD_TEMPERATURE")) >= before + 3, "updates after the first")
    assert wait_event(sim, "temperature")["set_point"] == pytest.approx(target, abs=0.005)
    assert client.until("CCD_COOLER", "Ok")[-1].values["COOLER_ON"] == "On"


@pytest.mark.parametrize("target", [-40.5, 51, "nan", "cold"])
def test_out_of_range(client: Observer, sim: Sim, target: float) -> None:
    before = cool(client, target)
    alert = eventually(
        lambda: [u for u in client.updates("CCD_TEMPERATURE")[before:] if u.state == "Alert"], "a refusal"
    )[0]
    assert "-40..50" in alert.message
    assert sim.count("temperature") == 0
    client.until("CCD_TEMPERATURE", "Idle")  # measuring goes on


def test_a_ramp_is_never_steeper_than_asked_for(client: Observer, sim: Sim) -> None:
    slope = 30.0
    client.new("Number", "CCD_TEMP_RAMP", RAMP_SLOPE=slope, RAMP_THRESHOLD=0.2)
    client.until("CCD_TEMP_RAMP", "Ok")
    start = measured(client)
    before = cool(client, start - 1.5)
    updates = client.until("CCD_TEMPERATURE", "Ok", after=before)
    steps = happened(sim, "temperature")
    assert len(steps) >= 3
    assert steps[0]["set_point"] == pytest.approx(start, abs=0.1)
    assert steps[-1]["set_point"] == pytest.approx(start - 1.5, abs=0.01)
    for one, other in pairwise(steps):
        assert 0 < one["set_point"] - other["set_point"] <= slope / 60 * (other["t"] - one["t"]) + 0.02
    assert {u.state for u in updates[:-1]} == {"Busy"}

    # Upwards as well; and a set point in mid-ramp begins at the temperature that it has now.
    client.until("CCD_TEMPERATURE", "Ok")
    sim.happened.clear()
    cool(client, start - 0.2)
    wait_event(sim, "temperature", 2)
    first, second = happened(sim, "temperature")[:2]
    assert 0 < second["set_point"] - first["set_point"] <= slope / 60 * (second["t"] - first["t"]) + 0.02


def test_off_warms_up_first(client: Observer, sim: Sim) -> None:
    cool(client, measured(client) - 8)
    client.until("CCD_TEMPERATURE", "Ok")
    sim.happened.clear()
    warming = switch(client, "COOLER_OFF", "Busy")
    client.until("CCD_COOLER", "Idle")
    assert warming.values["COOLER_ON"] == "On"
    assert client.messages_with("Warming up") and client.messages_with("at ambient")
    orders = [(e["on"], e["ambient"]) for e in happened(sim, "temperature")]
    assert orders in (
        [(True, True), (False, False)],
        [(False, False)],
    )  # the first one may not have begun yet
    assert client.updates("CCD_COOLER")[-1].values["COOLER_OFF"] == "On"
    client.until("CCD_TEMPERATURE", "Idle")
    assert sim.camera.hardware.environment.ambient - measured(client) < 2


def test_a_second_off_forces_it(client: Observer, sim: Sim) -> None:
    cool(client, measured(client) - 8)
    client.until("CCD_TEMPERATURE", "Ok")
    sim.happened.clear()
    off(client)  # both at once
    orders = [(e["on"], e["ambient"]) for e in happened(sim, "temperature")]
    assert orders in (
        [(True, True), (False, False)],
        [(False, False)],
    )  # the first one may not have begun yet
    sim.happened.clear()
    assert switch(client, "COOLER_OFF", "Idle").values["COOLER_OFF"] == "On"  # a third changes nothing
    assert sim.count("temperature") == 0


def test_on_goes_on_to_the_set_point_of_the_camera(client: Observer, sim: Sim) -> None:
    target = round(measured(client)) - 5
    cool(client, target)
    client.until("CCD_TEMPERATURE", "Ok")
    off(client)
    sim.happened.clear()
    switch(client, "COOLER_ON", "Ok")
    assert wait_event(sim, "temperature")["set_point"] == target
    client.until("CCD_TEMPERATURE", "Ok")


@pytest.mark.parametrize(
    ("policy", "orders"),
    [
        ("AT_DISCONNECT_KEEP", []),
        ("AT_DISCONNECT_WARM", [(True, True)]),
        ("AT_DISCONNECT_OFF", [(False, False)]),
    ],
)
def test_what_disconnecting_does_is_the_users_choice(
    client: Observer, sim: Sim, policy: str, orders: list[tuple[bool, bool]]
) -> None:
    client.choose("COOLER_AT_DISCONNECT", policy)
    target = round(measured(client)) - 12
    cool(client, target)
    wait_event(sim, "temperature")
    eventually(lambda: measured(client) < target + 8, "it gets colder")
    sim.happened.clear()
    client.disconnect_camera()
    assert [(e["on"], e["ambient"]) for e in happened(sim, "temperature")] == orders
    sim.happened.clear()
    client.clear()
    client.connect_camera()
    cooler = client.wait_for("defSwitchVector", name="CCD_COOLER")
    shown = (cooler.get("state"), values(cooler)["COOLER_ON"])
    if policy == "AT_DISCONNECT_KEEP":
        assert shown == ("Ok", "On")
        assert client.wait_for("defNumberVector", name="CCD_TEMPERATURE").get("state") in ("Busy", "Ok")
    elif policy == "AT_DISCONNECT_WARM":
        assert shown == ("Busy", "On")
        client.until("CCD_COOLER", "Idle")  # switched off as soon as it is warm
        assert sim.count("temperature") == 1
    else:
        assert shown == ("Idle", "Off")
    if policy != "AT_DISCONNECT_WARM":
        assert sim.count("temperature") == 0  # connecting changes nothing
    client.choose("COOLER_AT_DISCONNECT", "AT_DISCONNECT_KEEP")


def test_a_bad_reading_is_not_believed(client: Observer, sim: Sim) -> None:
    sim.camera.faults.arm("temperature:-273.15,times=2")
    eventually(lambda: len(client.updates("CCD_TEMPERATURE")) >= 8, "updates go on")
    assert {u.state for u in client.updates("CCD_TEMPERATURE")} == {"Idle"}
    client.clear()
    sim.camera.faults.arm("temperature:180,times=5")
    client.until("CCD_TEMPERATURE", "Alert")
    client.until("CCD_TEMPERATURE", "Idle")
    updates = client.updates("CCD_TEMPERATURE")
    assert all(-40 < u.number(VALUE) < 40 for u in updates)
    (message,) = client.messages_with("No temperature")  # once
    assert "180" in message and "implausible reading" in message


@pytest.mark.parametrize(
    "fault",
    [
        "device-error:9,times=4,command=GetTemperature",
        "wrong-echo:9,times=11,command=GetTemperature",
    ],
)
def test_the_polling_survives(client: Observer, sim: Sim, fault: str) -> None:
    sim.camera.faults.arm(fault)
    alert = client.until("CCD_TEMPERATURE", "Alert")[-1]
    assert "No temperature" in alert.message or client.messages_with("No temperature")
    client.until("CCD_TEMPERATURE", "Idle")
    cool(client, measured(client) - 3)
    client.until("CCD_TEMPERATURE", "Ok")


def test_a_failing_order_is_told(client: Observer, sim: Sim) -> None:
    sim.camera.faults.arm("device-error:9,command=SetTemperature")
    before = cool(client, 0)
    assert eventually(
        lambda: [u for u in client.updates("CCD_TEMPERATURE")[before:] if u.state == "Alert"], "a refusal"
    )
    sim.camera.faults.arm("device-error:9,command=SetTemperature")
    # The simulated camera obeys although it complains: what it does is what is shown.
    assert switch(client, "COOLER_ON", "Alert").values["COOLER_ON"] == "On"
    assert switch(client, "COOLER_ON", "Ok").values["COOLER_ON"] == "On"


def test_ramp_and_policy_hold_from_the_moment_they_are_set(tmp_path: Path) -> None:
    """Without a request to save: nobody remembers one in the night in which the power fails."""
    with Sim(tmp_path) as sim:
        with stand_alone(tmp_path, sim.environ) as server, Observer(server.address) as client:
            client.connect_camera()
            client.new("Number", "CCD_TEMP_RAMP", RAMP_SLOPE=3, RAMP_THRESHOLD=0.5)
            client.until("CCD_TEMP_RAMP", "Ok")
            client.new("Switch", "COOLER_AT_DISCONNECT", AT_DISCONNECT_WARM="On")
            client.until("COOLER_AT_DISCONNECT", "Ok")
        with stand_alone(tmp_path, sim.environ) as server, Observer(server.address) as client:
            client.connect_camera()
            ramp = client.wait_for("defNumberVector", name="CCD_TEMP_RAMP")
            assert {name: float(value) for name, value in values(ramp).items()} == {
                "RAMP_SLOPE": 3,
                "RAMP_THRESHOLD": 0.5,
            }
            policy = client.wait_for("defSwitchVector", name="COOLER_AT_DISCONNECT")
            assert values(policy)["AT_DISCONNECT_WARM"] == "On"
            # They are never set after a client can know them: that might undo what it has just asked for.
            client.until("CCD_TEMPERATURE", "Idle")
            assert not client.updates("CCD_TEMP_RAMP") and not client.updates("COOLER_AT_DISCONNECT")


def test_a_ramp_that_makes_no_sense_is_told_and_the_rest_holds(tmp_path: Path) -> None:
    indi = tmp_path / "home" / ".indi"
    indi.mkdir(parents=True)
    (indi / "QSI CCD_config.xml").write_text(
        "<INDIDriver><newNumberVector device='QSI CCD' name='CCD_TEMP_RAMP'>"
        "<oneNumber name='RAMP_SLOPE'>steep</oneNumber></newNumberVector>"
        "<newSwitchVector device='QSI CCD' name='COOLER_AT_DISCONNECT'>"
        "<oneSwitch name='AT_DISCONNECT_OFF'>On</oneSwitch></newSwitchVector></INDIDriver>"
    )
    with (
        Sim(tmp_path) as sim,
        stand_alone(tmp_path, sim.environ) as server,
        Observer(server.address) as client,
    ):
        client.connect_camera()
        ramp = client.wait_for("defNumberVector", name="CCD_TEMP_RAMP")
        assert float(values(ramp)["RAMP_SLOPE"]) == 0
        policy = client.wait_for("defSwitchVector", name="COOLER_AT_DISCONNECT")
        assert values(policy)["AT_DISCONNECT_OFF"] == "On"
        assert "QSI CCD_config.xml: RAMP_SLOPE" in server.log
