# SPDX-License-Identifier: LGPL-2.1-or-later
"""Guide pulses as guiding programs need them: Busy at once, one final state at the real end, never one unasked."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.support.indi import eventually
from tests.support.rig import DEVICE, Server, Sim, stand_alone, under_indiserver
from tests.support.workbench import Observer, Update, connected, happened, wait_event

NS, WE = "TELESCOPE_TIMED_GUIDE_NS", "TELESCOPE_TIMED_GUIDE_WE"
# The events of the camera and the updates of the driver have clocks in different processes of a busy machine.
SLACK = 0.03  # s


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sim]:
    with Sim(tmp_path_factory.mktemp("sim"), "640wsg") as sim:
        yield sim


@pytest.fixture(scope="module")
def server(sim: Sim, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with stand_alone(tmp_path_factory.mktemp("server"), sim.environ) as server:
        with Observer(server.address) as client:
            client.connect_camera()
            client.small_frame()
        yield server


@pytest.fixture
def client(sim: Sim, server: Server) -> Iterator[Observer]:
    """A client of the connected camera; at the end nothing runs any more, and nothing was told unasked."""
    with Observer(server.address) as client:
        client.connect_camera()
        client.clear()
        sim.happened.clear()
        yield client
        eventually(lambda: sim.camera.hardware.relays.active is None, "the relays are open")
        for vector in (NS, WE):
            if updates := client.updates(vector):
                assert updates[-1].state != "Busy"
                assert all(float(value) == 0 for value in updates[-1].values.values())


def pulse(client: Observer, **milliseconds: float) -> str:
    """Asks for a pulse as clients do, both elements of the axis given; returns the vector."""
    (name,) = [name for name, length in milliseconds.items() if length] or list(milliseconds)[:1]
    pair = ("N", "S") if name in ("N", "S") else ("W", "E")
    elements = {f"TIMED_GUIDE_{one}": milliseconds.get(one, 0) for one in pair}
    vector = NS if name in ("N", "S") else WE
    client.new("Number", vector, **elements)
    return vector


def ended(client: Observer, vector: str, *, after: int = 0) -> list[Update]:
    """The updates since a request, when the pulse has ended: exactly one of them is not Busy."""
    updates = client.until(vector, "Idle", "Ok", "Alert", after=after)
    assert [update.state == "Busy" for update in updates].count(False) == 1
    return updates


def no_overlap(events: list[dict[str, Any]]) -> None:
    """One relay at a time is closed."""
    assert [event["e"] for event in events] == ["relay", "relay_end"] * (len(events) // 2)


@pytest.mark.parametrize(("direction", "x", "y"), [("N", 0, 20), ("S", 0, -20), ("W", -20, 0), ("E", 20, 0)])
def test_a_pulse(client: Observer, sim: Sim, direction: str, x: int, y: int) -> None:
    vector = pulse(client, **{direction: 200})
    busy, idle = ended(client, vector)
    other = {"N": "S", "S": "N", "W": "E", "E": "W"}[direction]
    assert busy.state == "Busy" and idle.state == "Idle"
    assert busy.number(f"TIMED_GUIDE_{direction}") == 200
    assert busy.number(f"TIMED_GUIDE_{other}") == 0
    assert not idle.message
    (start, end) = happened(sim, "relay", "relay_end")
    assert (start["x"], start["y"]) == (x, y)
    assert not end["aborted"]
    assert busy.at < end["t"] and idle.at > end["t"] - SLACK


def test_the_opposite_direction_left_out_counts_as_zero(client: Observer, sim: Sim) -> None:
    pulse(client, S=50)
    ended(client, NS)
    client.new("Number", NS, TIMED_GUIDE_N=50)
    busy, _ = ended(client, NS, after=2)
    assert busy.number("TIMED_GUIDE_S") == 0
    client.new("Number", NS, TIMED_GUIDE_N=50, TIMED_GUIDE_S=70)  # the first direction wins
    busy, _ = ended(client, NS, after=4)
    assert [float(value) for value in busy.values.values()] == [50, 0]
    assert [event["y"] for event in happened(sim, "relay")] == [-5, 5, 5]


@pytest.mark.parametrize("north", [150, 1300])
def test_both_axes_in_one_packet_take_turns(client: Observer, sim: Sim, north: int) -> None:
    """However long the first one is: to wait for the other axis does not make a pulse stale."""
    client.send(
        f"<newNumberVector device='{DEVICE}' name='{NS}'><oneNumber name='TIMED_GUIDE_N'>{north}</oneNumber>"
        "<oneNumber name='TIMED_GUIDE_S'>0</oneNumber></newNumberVector>"
        f"<newNumberVector device='{DEVICE}' name='{WE}'><oneNumber name='TIMED_GUIDE_W'>100</oneNumber>"
        "<oneNumber name='TIMED_GUIDE_E'>0</oneNumber></newNumberVector>"
    )
    ns, we = ended(client, NS), ended(client, WE)
    events = happened(sim, "relay", "relay_end")
    no_overlap(events)
    assert [(e["x"], e["y"]) for e in events if e["e"] == "relay"] == [(0, north // 10), (-10, 0)]
    assert max(ns[0].at, we[0].at) < events[1]["t"]  # both Busy at once
    assert ns[-1].at > events[1]["t"] - SLACK and we[-1].at > events[3]["t"] - SLACK
    assert [ns[-1].state, we[-1].state] == ["Idle", "Idle"]


def test_a_new_pulse_replaces_the_one_of_its_axis(client: Observer, sim: Sim) -> None:
    pulse(client, N=30_000)
    wait_event(sim, "relay")
    pulse(client, S=100)
    updates = ended(client, NS)
    assert [update.state for update in updates] == ["Busy", "Busy", "Idle"]
    first, cut, second, end = happened(sim, "relay", "relay_end")
    assert (first["y"], second["y"]) == (3000, -10)
    assert cut["aborted"] and not end["aborted"]
    assert updates[-1].at > end["t"] - SLACK


def test_a_waiting_pulse_is_replaced_too(client: Observer, sim: Sim) -> None:
    pulse(client, N=400)
    for length in (200, 50):
        pulse(client, W=length)
    assert ended(client, WE)[-1].state == "Idle"
    assert ended(client, NS)[-1].state == "Idle"
    assert [(e["x"], e["y"]) for e in happened(sim, "relay")] == [(0, 40), (-5, 0)]


def test_zero_stops(client: Observer, sim: Sim) -> None:
    pulse(client, N=30_000)
    wait_event(sim, "relay")
    pulse(client, W=20_000)  # waits for its turn, and is withdrawn before
    client.until(WE, "Busy")
    pulse(client, W=0)
    ended(client, WE)
    pulse(client, N=0)
    idle = ended(client, NS)[-1]
    (end,) = happened(sim, "relay_end")
    assert end["aborted"] and idle.at > end["t"] - SLACK
    assert sim.count("relay") == 1


@pytest.mark.parametrize("length", [0, 3])
def test_less_than_the_camera_can_time_is_nothing(client: Observer, sim: Sim, length: int) -> None:
    vector = pulse(client, E=length)
    assert [update.state for update in ended(client, vector)] == ["Idle"]
    assert sim.count("relay") == 0


@pytest.mark.parametrize("length", [50_001, -1, "nan"])
def test_a_bad_length_is_refused_with_the_range(client: Observer, sim: Sim, length: Any) -> None:
    client.new("Number", WE, TIMED_GUIDE_W=length)
    (alert,) = ended(client, WE)
    assert alert.state == "Alert" and "0..50000" in alert.message
    assert sim.count("relay") == 0


def test_during_an_exposure_pulses_are_prompt(client: Observer, sim: Sim) -> None:
    client.expose(1)
    wait_event(sim, "exposure_start")
    asked = time.time()
    pulse(client, N=100)
    pulse(client, E=100)
    ended(client, NS)
    ended(client, WE)
    assert sim.count("exposure_end") == 0
    assert sim.times("relay")[0] < asked + 0.5
    client.picture()


def test_nothing_is_told_unasked(client: Observer, sim: Sim) -> None:
    client.expose(0.2)
    client.picture()
    client.new("Switch", "CCD_ABORT_EXPOSURE", ABORT="On")
    for name in ("CCD_ABORT_EXPOSURE", "CCD_TEMPERATURE"):
        eventually(lambda name=name: client.updates(name), name)
    client.send("<getProperties version='1.7'/>")
    assert client.wait_for("defNumberVector", name=WE).get("state") in ("Idle", "Alert")
    assert not client.updates(NS) + client.updates(WE)


def test_a_flush_does_not_keep_the_end_of_a_pulse(client: Observer, sim: Sim) -> None:
    client.choose("CCD_FLUSH", "FLUSH_VERY_AGGRESSIVE")  # about half a second
    pulse(client, N=100)
    wait_event(sim, "relay")
    client.expose(0.1)
    wait_event(sim, "expose")
    pulse(client, W=50)
    idle = ended(client, NS)[-1]
    assert idle.at < wait_event(sim, "exposure_start")["t"]
    assert ended(client, WE)[-1].state == "Idle"  # after the flush
    client.picture()
    client.choose("CCD_FLUSH", "FLUSH_NORMAL")


def test_while_the_camera_waits_for_its_trigger(client: Observer, sim: Sim) -> None:
    """It may not be sent relay commands then."""
    client.choose("EXTERNAL_TRIGGER", "TRIGGER_LONG_FALLING")
    pulse(client, N=700)
    wait_event(sim, "relay")
    client.expose(0.1)
    waiting = wait_event(sim, "waiting")
    asked = time.time()
    pulse(client, W=100)
    assert ended(client, NS)[-1].state == "Idle"  # by the clock
    alert = ended(client, WE)[-1]
    assert alert.state == "Alert" and "trigger" in alert.message
    assert alert.at > asked + 0.9
    assert sim.count("relay") == 1
    assert not [e for e in happened(sim, "ignored") if e["t"] > waiting["t"]]
    client.new("Switch", "CCD_ABORT_EXPOSURE", ABORT="On")
    client.until("CCD_EXPOSURE", "Idle")
    client.choose("EXTERNAL_TRIGGER", "TRIGGER_OFF")
    pulse(client, W=50)
    assert ended(client, WE, after=2)[-1].state == "Idle"


def test_a_short_wait_for_the_trigger_keeps_the_link(client: Observer, sim: Sim) -> None:
    client.choose("EXTERNAL_TRIGGER", "TRIGGER_SHORT_FALLING")
    client.expose(0.1)
    wait_event(sim, "waiting")
    asked = time.time()
    pulse(client, W=100)
    alert = ended(client, WE)[-1]
    assert alert.state == "Alert"
    assert sim.count("relay") == 0
    assert alert.at > asked + 0.9
    assert client.updates("CCD_EXPOSURE")[-1].state != "Alert"  # told long before the wait is over
    sim.camera.trigger()
    client.picture()
    client.choose("EXTERNAL_TRIGGER", "TRIGGER_OFF")


def test_the_shutter_on_the_guide_port_takes_the_north(client: Observer, sim: Sim) -> None:
    client.choose("SHUTTER_OUTPUT", "INDI_ENABLED")
    pulse(client, N=100)
    (alert,) = ended(client, NS)
    assert alert.state == "Alert" and "north" in alert.message and "Shutter on Guide Port" in alert.message
    pulse(client, S=50)
    assert ended(client, NS, after=1)[-1].state == "Idle"
    client.choose("SHUTTER_OUTPUT", "INDI_DISABLED")
    pulse(client, N=50)
    assert ended(client, NS, after=3)[-1].state == "Idle"
    assert [event["y"] for event in happened(sim, "relay")] == [-5, 5]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_trains(client: Observer, sim: Sim, seed: int) -> None:
    """Requests fall on each other; each vector ends, relays never overlap, and what was not cut off is exact."""
    chance = random.Random(seed)
    asked: dict[str, list[int]] = {NS: [], WE: []}
    for _ in range(25):
        name = chance.choice("NSWE")
        length = chance.choice([0, 10, 20, 40, 90, 150])
        asked[pulse(client, **{name: length})].append(length)
        time.sleep(chance.choice([0, 0, 0.01, 0.06]))
    for vector, lengths in asked.items():
        finals = [u for u in client.until(vector, "Idle", "Alert") if u.state != "Busy"]
        assert all(final.state == "Idle" for final in finals)
        states = [update.state for update in client.updates(vector)]
        # A stop is answered by Idle, whether something ran or not; a pulse by one Idle after its Busy.
        assert states.count("Busy") == sum(length > 0 for length in lengths)
        useless = sum(one == other == "Idle" for one, other in pairwise(["Idle", *states]))
        assert useless <= lengths.count(0)
    eventually(lambda: sim.count("relay") == sim.count("relay_end"), "the relays open")
    events = happened(sim, "relay", "relay_end")
    no_overlap(events)
    for axis, vector in (("y", NS), ("x", WE)):
        whole = [
            abs(start[axis]) * 10
            for start, end in zip(events[::2], events[1::2], strict=True)
            if start[axis] and not end["aborted"]
        ]
        assert not set(whole) - set(asked[vector])
        if asked[vector][-1]:
            assert whole[-1] == asked[vector][-1]  # nothing came after it that could cut it off


def test_a_train_that_waits_gives_the_sum(client: Observer, sim: Sim) -> None:
    """As a guiding program does it: the next pulse after the end of the one before."""
    chance = random.Random(4)
    total = 0
    for number in range(12):
        length = chance.randrange(10, 120)
        total += (length + 5) // 10
        pulse(client, **{chance.choice("NS"): length})
        eventually(
            lambda number=number: len([u for u in client.updates(NS) if u.state == "Idle"]) > number,
            "its end",
        )
    assert sum(abs(event["y"]) for event in happened(sim, "relay")) == total
    assert not any(event["aborted"] for event in happened(sim, "relay_end"))


def test_a_slow_download(tmp_path: Path) -> None:
    with connected(tmp_path, rate=600_000) as (sim, _, client):
        client.new("Number", "CCD_FRAME", X=0, Y=0, WIDTH=1000, HEIGHT=600)  # 2 s on the wire
        client.clear()
        sim.happened.clear()
        client.expose(0.1)
        wait_event(sim, "exposure_end")
        pulse(client, E=500)
        wait_event(sim, "transfer")
        asked = time.time()
        pulse(client, N=100)
        assert client.until(NS, "Busy", "Alert")[0].state == "Busy"
        idle = ended(client, WE)[-1]
        assert idle.state == "Idle" and idle.at > wait_event(sim, "relay_end")["t"] - SLACK
        alert = ended(client, NS)[-1]
        assert alert.state == "Alert" and "dropped" in alert.message
        assert sim.count("auto_zero") == 0  # all that in the middle of the transfer
        assert alert.at > asked + 0.9
        client.picture()
        client.until("CCD_EXPOSURE", "Ok")
        assert [(e["x"], e["y"]) for e in happened(sim, "relay")] == [(50, 0)]
        (begin, end) = happened(sim, "transfer", "auto_zero")
        told = [update.at for update in client.updates("CCD_TEMPERATURE")]
        assert any(begin["t"] < at < end["t"] for at in told)  # its updates go on all the time

        # A shorter one: what waits is still good when it is over.
        client.new("Number", "CCD_FRAME", X=0, Y=0, WIDTH=600, HEIGHT=300)
        client.clear()
        sim.happened.clear()
        client.expose(0.1)
        wait_event(sim, "transfer")
        pulse(client, N=100)
        assert ended(client, NS)[-1].state == "Idle"
        assert happened(sim, "auto_zero", "relay")[-1]["e"] == "relay"


def test_the_camera_goes_in_mid_pulse(tmp_path: Path) -> None:
    with connected(tmp_path) as (sim, _, client):
        client.clear()
        pulse(client, N=30_000)
        wait_event(sim, "relay")
        pulse(client, E=100)
        client.disconnect_camera()
        for vector in (NS, WE):
            assert ended(client, vector)[-1].state == "Alert"
        assert happened(sim, "relay_end")[-1]["aborted"]

        client.connect_camera()
        client.clear()
        sim.happened.clear()
        pulse(client, W=30_000)
        wait_event(sim, "relay")
        sim.camera.faults.arm("unplug")
        alert = ended(client, WE)[-1]
        assert alert.state == "Alert" and "The camera was lost during a guide pulse" in alert.message
        pulse(client, W=100)
        assert "away" in ended(client, WE, after=2)[-1].message
        sim.camera.faults.arm("replug")
        client.until("CONNECTION", "Ok")
        assert len(client.updates(WE)) == 3 and not client.updates(NS)  # nothing unasked
        pulse(client, N=50)
        assert ended(client, NS)[-1].state == "Idle"

        sim.camera.faults.arm("stuck-relay")
        pulse(client, S=50)
        alert = ended(client, NS, after=2)[-1]
        assert alert.state == "Alert" and "power the camera off and on" in alert.message


def test_under_indiserver(tmp_path: Path) -> None:
    with Sim(tmp_path) as sim, under_indiserver(tmp_path, sim.environ) as server:
        server.connect()
        server.set(f"{NS}.TIMED_GUIDE_N;TIMED_GUIDE_S=300;0")
        server.wait_state(NS, 0)
        assert float(server.get(f"{NS}.TIMED_GUIDE_N")) == 0
        assert [(e["e"], e.get("y")) for e in happened(sim, "relay", "relay_end")] == [
            ("relay", 30),
            ("relay_end", None),
        ]
