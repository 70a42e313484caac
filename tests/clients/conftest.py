# SPDX-License-Identifier: LGPL-2.1-or-later
"""One connected camera for all the checklists, one that is not connected, and a witness of everything."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients.bench import POLLING, SMALL, Witness, bench
from tests.support.rig import Server, Sim, stand_alone

# Its shutter and its filter wheel need no half seconds.
SPEED = 10.0

Bench = tuple[Sim, Server, Witness]


@pytest.fixture(scope="module")
def connected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """The witness is there from the beginning."""
    with bench(tmp_path_factory.mktemp("bench"), speed=SPEED, readout=0.05) as everything:
        yield everything


@pytest.fixture
def sim(connected: Bench) -> Sim:
    connected[0].happened.clear()
    return connected[0]


@pytest.fixture
def client(connected: Bench) -> Iterator[Witness]:
    """A client of its own of the connected camera, as it is after connecting, but with a small frame."""
    with Witness(connected[1].address) as client:
        if client.definition("CONNECTION").get("state") != "Ok":
            client.connect()
        client.send("<getProperties version='1.7'/><enableBLOB device='QSI CCD'>Also</enableBLOB>")
        client.put("Switch", "CCD_FLUSH", FLUSH_NONE="On")
        client.put("Switch", "CCD_FRAME_TYPE", FRAME_LIGHT="On")
        client.put("Number", "CCD_BINNING", HOR_BIN=1, VER_BIN=1)
        client.put("Number", "CCD_FRAME", **SMALL)
        yield client


@pytest.fixture(scope="module")
def unconnected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sim, Server]]:
    """A camera and a server; whoever connects disconnects in the end."""
    folder = tmp_path_factory.mktemp("unconnected")
    with Sim(folder, speed=SPEED, readout=0.05) as sim, stand_alone(folder, sim.environ) as server:
        server.set(f"POLLING_PERIOD.PERIOD_MS={POLLING}")
        yield sim, server
