# SPDX-License-Identifier: LGPL-2.1-or-later
"""The camera at one machine's indiserver, the clients at another's: two indiservers, one behind the other."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.support.indi import PATIENCE, eventually, values
from tests.support.rig import DEVICE, IndiClient, Server, Sim, opened, under_indiserver
from tests.vm import page

REMOTE = "telescope.local:7624"  # as the page for the Raspberry Pi calls it


@dataclass
class Chain:
    sim: Sim
    pi: Server
    desk: Server
    client: IndiClient  # of the desk's server

    def driver(self) -> int:
        """The process id of the Pi's driver: the only child of its server."""
        server = self.pi.process.pid
        (number,) = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        return int(number)


@contextmanager
def chain(tmp_path: Path) -> Iterator[Chain]:
    """The desk's server is started as the page says."""
    command = shlex.split(page.commands("chain", "tests/end_to_end/test_chained.py"))
    assert command == ["indiserver", f"{DEVICE}@{REMOTE}"]
    (tmp_path / "pi").mkdir()
    (tmp_path / "desk").mkdir()
    with Sim(tmp_path) as sim, under_indiserver(tmp_path / "pi", sim.environ, restarts=3) as pi:
        # By then the first server has the driver's definitions: what the second one asks for is there.
        pi.get("DRIVER_INFO.DRIVER_EXEC")
        remote = command[1].replace(REMOTE, pi.address)
        with (
            under_indiserver(tmp_path / "desk", {}, remote, restarts=3) as desk,
            IndiClient(desk.address) as client,
        ):
            yield Chain(sim, pi, desk, client)


@pytest.fixture
def chained(tmp_path: Path) -> Iterator[Chain]:
    with chain(tmp_path) as chained:
        yield chained


def definitions(client: IndiClient) -> dict[str, dict[str, str]]:
    return {m.attrib["name"]: values(m) for m in list(client.messages) if m.tag.startswith("def")}


def test_a_far_client_sees_and_sets_everything(chained: Chain) -> None:
    client = chained.client
    client.connect_camera()
    with IndiClient(chained.pi.address) as near:
        near.connect_camera()
        eventually(
            lambda: definitions(client).keys() == definitions(near).keys(),
            "the same definitions at both servers",
        )
        assert len(definitions(client)) > 50
        client.clear()
        near.clear()
        client.new("Number", "CCD_FRAME", X=10, Y=20, WIDTH=640, HEIGHT=480)
        for seen in (client.wait_for, near.wait_for):
            frame = values(seen("setNumberVector", name="CCD_FRAME", state="Ok"))
            assert [float(frame[name]) for name in ("X", "Y", "WIDTH", "HEIGHT")] == [10, 20, 640, 480]
        assert float(chained.desk.get("CCD_FRAME.WIDTH")) == 640


def take(chained: Chain, number: int) -> np.ndarray:
    """The pixels of the so-many-th frame, which has been through both servers; the second one takes seconds."""
    chained.client.expose(0.1)
    blobs = chained.client.blobs
    eventually(lambda: len(blobs) >= number, f"frame {number} comes", 4 * PATIENCE)
    return opened(blobs[number - 1])[1]


def test_a_far_clients_pictures_are_right(chained: Chain) -> None:
    chained.client.connect_camera()
    whole = take(chained, 1)
    assert whole.shape == (2504, 3326)
    np.testing.assert_array_equal(whole, chained.sim.picture())
    chained.client.new("Number", "CCD_FRAME", X=10, Y=20, WIDTH=640, HEIGHT=480)
    chained.client.wait_for("setNumberVector", name="CCD_FRAME", state="Ok")
    np.testing.assert_array_equal(take(chained, 2), chained.sim.picture())


def test_a_far_client_sees_the_driver_go_and_come(chained: Chain) -> None:
    client = chained.client
    client.connect_camera()
    client.clear()
    os.kill(chained.driver(), signal.SIGKILL)
    client.wait_for("delProperty", device=DEVICE)
    client.clear()
    client.wait_for("defSwitchVector", name="CONNECTION")
    client.connect_camera()
    client.new("Number", "CCD_FRAME", X=0, Y=0, WIDTH=320, HEIGHT=200)
    client.wait_for("setNumberVector", name="CCD_FRAME", state="Ok")
    np.testing.assert_array_equal(take(chained, 1), chained.sim.picture())


def test_the_desks_server_ends_when_it_cannot_reach_the_pi(chained: Chain) -> None:
    """As the page says."""
    chained.client.connect_camera()
    chained.pi.close()
    assert chained.desk.process.wait(PATIENCE) == 1
    assert "Connection refused" in chained.desk.log
