# SPDX-License-Identifier: LGPL-2.1-or-later
"""Phases, download progress, and series of exposures without a pause."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tests.support.indi import eventually
from tests.support.rig import Server, Sim, stand_alone
from tests.support.workbench import Observer, happened, wait_event


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sim]:
    with Sim(tmp_path_factory.mktemp("sim"), rate=1_000_000) as sim:
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


def series(client: Observer, count: int) -> None:
    client.choose("CCD_FAST_TOGGLE", "INDI_ENABLED")
    client.new("Number", "CCD_FAST_COUNT", FRAMES=count)
    client.until("CCD_FAST_COUNT", "Ok")


def frames_left(client: Observer) -> list[float]:
    return [u.number("FRAMES") for u in client.updates("CCD_FAST_COUNT")]


@pytest.mark.parametrize("frame_type", ["FRAME_LIGHT", "FRAME_DARK", "FRAME_BIAS"])
def test_phases(client: Observer, frame_type: str) -> None:
    client.choose("CCD_FRAME_TYPE", frame_type)
    client.expose(0.2)
    client.picture()
    client.until("CCD_EXPOSURE", "Ok")
    phases = client.updates("EXPOSURE_PHASE")
    names = [u.values["PHASE"] for u in phases]
    assert names == ["Flushing", "Exposing", "Reading out", "Downloading", "Idle"]
    assert [u.state for u in phases] == ["Busy"] * 4 + ["Idle"]


def test_progress(client: Observer) -> None:
    client.new("Number", "CCD_FRAME", X=0, Y=0, WIDTH=1500, HEIGHT=1000)  # 3 s on the wire, 3 blocks
    client.expose(0.1)
    client.picture()
    client.until("CCD_EXPOSURE", "Ok")
    progress = client.updates("DOWNLOAD_PROGRESS")
    percents = [u.number("PERCENT") for u in progress]
    assert percents[0] == 0 and percents[-1] == 100
    assert percents == sorted(percents)
    assert len([p for p in percents if 0 < p < 100]) >= 2
    assert [u.state for u in progress] == ["Busy"] * (len(progress) - 1) + ["Ok"]


def test_an_abort_in_each_phase_leads_to_idle(client: Observer, sim: Sim) -> None:
    for event in ("expose", "exposure_start", "exposure_end"):
        client.clear()
        sim.happened.clear()
        client.expose(0.3)
        wait_event(sim, event)
        client.new("Switch", "CCD_ABORT_EXPOSURE", ABORT="On")
        client.until("CCD_EXPOSURE", "Idle")
        assert client.until("EXPOSURE_PHASE", "Idle")[-1].values["PHASE"] == "Idle"
        # On a busy machine the frame may have been faster than the abort.
        if "Ok" not in [update.state for update in client.updates("CCD_EXPOSURE")]:
            wait_event(sim, "abort")
    before = len(client.blobs)
    client.expose(0.1)
    client.picture(before + 1)
    assert len(client.blobs) == before + 1


def test_a_series(client: Observer, sim: Sim) -> None:
    series(client, 5)
    client.clear()
    client.expose(0.1)
    pictures = [client.picture(number)[1] for number in range(1, 6)]
    updates = client.until("CCD_EXPOSURE", "Ok")
    eventually(lambda: frames_left(client)[-1:] == [1], "the count is 1 again")
    assert frames_left(client) == [4, 3, 2, 1, 1]
    assert client.updates("CCD_FAST_COUNT")[-1].state == "Idle"
    assert [u.state for u in updates].count("Ok") == 5
    assert sim.count("expose") == 5
    np.testing.assert_array_equal(pictures[-1], sim.picture())
    assert len({picture.tobytes() for picture in pictures}) == 5
    # The next one starts while the one before is still on its way to the client.
    order = [event["e"] for event in happened(sim, "auto_zero", "expose")]
    assert order == ["expose", "auto_zero"] * 5

    client.clear()  # the series is over, the mode is not: one at a time
    client.expose(0.1)
    client.picture(6)
    client.until("CCD_EXPOSURE", "Ok")
    assert sim.count("expose") == 6


def test_an_abort_ends_the_series(client: Observer, sim: Sim) -> None:
    series(client, 50)
    client.clear()
    client.expose(0.1)
    client.picture(2)
    client.new("Switch", "CCD_ABORT_EXPOSURE", ABORT="On")
    client.until("CCD_EXPOSURE", "Idle")
    eventually(lambda: frames_left(client)[-1:] == [1], "the count is 1 again")
    wait_event(sim, "abort")  # until then, the next one may just be starting
    started = sim.count("expose")
    client.choose("CCD_FAST_TOGGLE", "INDI_DISABLED")
    client.expose(0.1)
    client.until("CCD_EXPOSURE", "Ok")
    assert sim.count("expose") == started + 1
    assert client.updates("EXPOSURE_PHASE")[-1].values["PHASE"] == "Idle"


def test_a_failure_ends_the_series(client: Observer, sim: Sim) -> None:
    series(client, 20)
    client.clear()
    sim.camera.faults.arm("lost-image@idle#2")
    client.expose(0.1)
    alert = client.until("CCD_EXPOSURE", "Alert")[-1]
    assert alert.message
    assert sim.count("expose") == 2
    eventually(lambda: frames_left(client)[-1:] == [1], "the count is 1 again")
    client.choose("CCD_FAST_TOGGLE", "INDI_DISABLED")
    client.blobs.clear()
    client.expose(0.1)
    client.picture()


@pytest.mark.parametrize("count", [-1, 100_001, "many"])
def test_a_bad_count(client: Observer, count: object) -> None:
    client.new("Number", "CCD_FAST_COUNT", FRAMES=count)
    assert "0..100000" in client.until("CCD_FAST_COUNT", "Alert")[-1].message
