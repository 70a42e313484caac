# SPDX-License-Identifier: LGPL-2.1-or-later
"""The device for the guide port alone, simulation, and the driver's log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.rig import DEVICE, IndiClient, Server, Sim, stand_alone
from tests.indi.indi_support import eventually, values

GUIDER = f"{DEVICE} Guider"


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[Sim]:
    with Sim(tmp_path) as sim:
        yield sim


@pytest.fixture
def server(sim: Sim, tmp_path: Path) -> Iterator[Server]:
    with stand_alone(tmp_path, sim.environ) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[IndiClient]:
    with IndiClient(server.address) as client:
        client.send("<getProperties version='1.7'/>")
        client.wait_for("defSwitchVector", name="CONNECTION", device=DEVICE)
        yield client


def switch(client: IndiClient, device: str, vector: str, element: str) -> None:
    client.send(
        f"<newSwitchVector device='{device}' name='{vector}'>"
        f"<oneSwitch name='{element}'>On</oneSwitch></newSwitchVector>"
    )


def test_a_guider_device_connects_the_camera_and_guides(client: IndiClient, sim: Sim) -> None:
    client.new("Switch", "GUIDER_DEVICE", ENABLE="On")
    client.wait_for("defSwitchVector", name="CONNECTION", device=GUIDER)
    info = client.wait_for("defTextVector", name="DRIVER_INFO", device=GUIDER)
    assert values(info)["DRIVER_INTERFACE"] == "4"
    switch(client, GUIDER, "CONNECTION", "CONNECT")
    client.wait_for("setSwitchVector", name="CONNECTION", device=GUIDER, state="Ok")
    client.wait_for("setSwitchVector", name="CONNECTION", device=DEVICE, state="Ok")
    client.wait_for("defNumberVector", name="TELESCOPE_TIMED_GUIDE_NS", device=GUIDER)
    client.send(
        f"<newNumberVector device='{GUIDER}' name='TELESCOPE_TIMED_GUIDE_NS'>"
        "<oneNumber name='TIMED_GUIDE_N'>200</oneNumber><oneNumber name='TIMED_GUIDE_S'>0</oneNumber>"
        "</newNumberVector>"
    )
    client.wait_for("setNumberVector", name="TELESCOPE_TIMED_GUIDE_NS", device=GUIDER, state="Busy")
    client.wait_for("setNumberVector", name="TELESCOPE_TIMED_GUIDE_NS", device=GUIDER, state="Idle")
    assert sim.count("relay_end") == 1
    # The camera's own vectors had nothing to do with it.
    assert not [
        m
        for m in client.messages
        if m.get("device") == DEVICE and "GUIDE_NS" in m.get("name", "") and m.tag.startswith("set")
    ]

    switch(client, GUIDER, "CONNECTION", "DISCONNECT")
    client.wait_for("setSwitchVector", name="CONNECTION", device=GUIDER, state="Idle")
    client.wait_for("delProperty", name="TELESCOPE_TIMED_GUIDE_NS", device=GUIDER)
    client.clear()
    client.send(f"<enableBLOB device='{DEVICE}'>Also</enableBLOB>")
    client.expose(0.1)  # the camera goes on
    client.picture()


def test_a_guider_device_without_a_camera_says_so(client: IndiClient, sim: Sim) -> None:
    sim.camera.device.unplug()
    client.new("Switch", "GUIDER_DEVICE", ENABLE="On")
    client.wait_for("defSwitchVector", name="CONNECTION", device=GUIDER)
    switch(client, GUIDER, "CONNECTION", "CONNECT")
    client.wait_for("setSwitchVector", name="CONNECTION", device=GUIDER, state="Alert")
    client.wait_for("setSwitchVector", name="CONNECTION", device=DEVICE, state="Alert")


def test_the_guider_device_comes_back_with_the_saved_config(sim: Sim, tmp_path: Path) -> None:
    with stand_alone(tmp_path, sim.environ) as server, IndiClient(server.address) as client:
        client.send("<getProperties version='1.7'/>")
        client.wait_for("defSwitchVector", name="CONNECTION", device=DEVICE)
        client.new("Switch", "GUIDER_DEVICE", ENABLE="On")
        client.wait_for("setSwitchVector", name="GUIDER_DEVICE", state="Ok")
        client.new("Switch", "CONFIG_PROCESS", CONFIG_SAVE="On")
        client.wait_for("setSwitchVector", name="CONFIG_PROCESS", state="Ok")
    with stand_alone(tmp_path, sim.environ) as server, IndiClient(server.address) as client:
        client.send("<getProperties version='1.7'/>")
        client.wait_for("defSwitchVector", name="CONNECTION", device=GUIDER)
        client.new("Switch", "GUIDER_DEVICE", DISABLE="On")
        client.wait_for("delProperty", device=GUIDER)


def test_simulation_takes_a_camera_of_its_own(client: IndiClient, sim: Sim) -> None:
    client.new("Switch", "SIMULATION", ENABLE="On")
    client.wait_for("setSwitchVector", name="SIMULATION", state="Ok")
    client.connect_camera()
    assert sim.count("command") == 0
    client.clear()
    client.new("Switch", "SIMULATION", DISABLE="On")
    client.wait_for("setSwitchVector", name="SIMULATION", state="Alert")  # not while it is connected
    client.new("Switch", "CONNECTION", DISCONNECT="On")
    client.wait_for("setSwitchVector", name="CONNECTION", state="Idle")
    client.clear()
    client.new("Switch", "SIMULATION", DISABLE="On")
    client.wait_for("setSwitchVector", name="SIMULATION", state="Ok")
    client.connect_camera()
    assert sim.count("command") > 0


def test_debug_brings_the_log_to_clients_and_into_a_file(client: IndiClient, server: Server) -> None:
    client.new("Switch", "DEBUG", ENABLE="On")
    for vector in ("DEBUG_LEVEL", "LOGGING_LEVEL", "LOG_OUTPUT"):
        client.wait_for("defSwitchVector", name=vector)
    client.new("Switch", "DEBUG_LEVEL", DBG_DEBUG="On")
    client.new("Switch", "LOGGING_LEVEL", LOG_DEBUG="On")
    client.new("Switch", "LOG_OUTPUT", FILE_DEBUG="On")
    client.wait_for("setSwitchVector", name="LOG_OUTPUT", state="Ok")
    (log,) = (server.home / ".indi" / "logs").rglob("*.log")
    client.connect_camera()
    client.clear()
    client.send(
        "<newNumberVector device='No Such' name='X'><oneNumber name='Y'>1</oneNumber></newNumberVector>"
    )
    eventually(lambda: "No Such" in log.read_text(), "the file has it")
    eventually(lambda: any("No Such" in m.get("message", "") for m in client.messages), "the client has it")
    client.new("Switch", "DEBUG", DISABLE="On")
    client.wait_for("delProperty", name="DEBUG_LEVEL")
