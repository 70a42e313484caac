# SPDX-License-Identifier: LGPL-2.1-or-later
"""Recorded sessions of real clients, against our driver: every request gets the answer its client waits for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.clients.bench import POLLING, Witness
from tests.clients.replay import Replay
from tests.clients.sessions import load
from tests.support.rig import DEVICE, Sim, stand_alone, under_indiserver

GUIDER = f"{DEVICE} Guider"
# Session -> recorded device -> ours, and how many requests and pictures there must be in the end. Left out are:
# - ekos-capture-1: the Guide Simulator, a second camera of that server, of which Ekos only opened a BLOB
#   connection; and the Telescope Simulator, of which it asked for no BLOBs.
# - phd2-pulses-only: the Guide Simulator, the guide camera, of which PHD2 took no picture there.
SESSIONS: dict[str, tuple[Mapping[str, str], int, int]] = {
    "ekos-capture-1": ({"CCD Simulator": DEVICE}, 10, 1),
    "ekos-capture-2": ({"CCD Simulator": DEVICE}, 11, 2),
    "phd2-on-camera-guiding": ({"Guide Simulator": DEVICE}, 65, 38),
    "phd2-mount-guiding": ({"Guide Simulator": DEVICE, "Telescope Simulator": GUIDER}, 76, 41),
    "phd2-pulses-only": ({"CCD Simulator": DEVICE}, 5, 0),
    "pyindi-capture": ({"CCD Simulator": DEVICE}, 4, 1),
    "indipyclient-capture": ({"CCD Simulator": DEVICE}, 2, 1),
}
# The camera's time runs faster than ours: its shutter takes half a second, and its cooler minutes.
SPEED = 40.0
COOLING = {"ekos-capture-1": 200.0, "pyindi-capture": 200.0}
# Many pictures or a long cooling, so on one server each.
LONG = {
    "phd2-on-camera-guiding": under_indiserver,
    "phd2-mount-guiding": stand_alone,
    "ekos-capture-1": under_indiserver,
    "pyindi-capture": stand_alone,
}
RUNS = [
    pytest.param(name, kind, id=f"{name}-{kind.__name__}")
    for name in SESSIONS
    for kind in (under_indiserver, stand_alone)
    if LONG.get(name, kind) is kind
]


@pytest.mark.parametrize(("name", "server_kind"), RUNS)
def test_a_recorded_session_gets_all_its_answers(name: str, server_kind, tmp_path: Path) -> None:
    devices, requests, pictures = SESSIONS[name]
    session = load(name, devices)
    with Sim(tmp_path, readout=0.02, speed=COOLING.get(name, SPEED)) as sim:
        with server_kind(tmp_path, sim.environ) as server, Witness(server.address) as setting_up:
            prepare(setting_up, session, connected=GUIDER in devices.values())
            replay = Replay(session, server.address, ekos=name.startswith("ekos"))
            replay.run()
    assert (replay.answered, replay.pictures) == (requests, pictures)
    assert sim.count("transfer") == pictures


def prepare(client: Witness, session: list, connected: bool) -> None:
    """What was so when the recording began: where the client sends no CONNECT, the device was connected."""
    client.send("<getProperties version='1.7'/>")
    client.wait_for("defSwitchVector", name="CONNECTION")
    client.definition("POLLING_PERIOD")
    client.put("Number", "POLLING_PERIOD", PERIOD_MS=POLLING)
    if connected or not any(sent.vector == "CONNECTION" for sent in session):
        client.connect()
        client.put("Switch", "CCD_FLUSH", FLUSH_NONE="On")
    if any(sent.device == GUIDER for sent in session):
        client.put("Switch", "GUIDER_DEVICE", ENABLE="On")
        client.wait_for("defSwitchVector", name="CONNECTION", device=GUIDER)
        client.send(
            f"<newSwitchVector device='{GUIDER}' name='CONNECTION'>"
            "<oneSwitch name='CONNECT'>On</oneSwitch></newSwitchVector>"
        )
        client.wait_for("defNumberVector", name="TELESCOPE_TIMED_GUIDE_WE", device=GUIDER)
