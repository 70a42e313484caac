# SPDX-License-Identifier: LGPL-2.1-or-later
"""The device for the guide port alone, simulation, and the driver's log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.indi import eventually, values
from tests.support.rig import DEVICE, IndiClient, Server, Sim, stand_alone

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


EXCHANGE = "usbproto.exchanges: "  # begins each line about an exchange with the camera


def log_file(client: IndiClient, server: Server) -> Path:
    """Has the log written into a file."""
    client.new("Switch", "DEBUG", ENABLE="On")
    for vector in ("DEBUG_LEVEL", "LOGGING_LEVEL", "LOG_OUTPUT"):
        client.wait_for("defSwitchVector", name=vector)
    client.new("Switch", "LOG_OUTPUT", FILE_DEBUG="On")
    client.wait_for("setSwitchVector", name="LOG_OUTPUT", state="Ok")
    (log,) = (server.home / ".indi" / "logs").rglob("*.log")
    return log


def exchanges(client: IndiClient, device: str = DEVICE) -> list[str]:
    """What a device told its clients of the exchanges with its camera."""
    return [
        text
        for m in list(client.messages)
        if m.get("device") == device and EXCHANGE in (text := m.get("message", ""))
    ]


def test_debug_brings_the_log_to_clients_and_into_a_file(client: IndiClient, server: Server) -> None:
    log = log_file(client, server)
    client.connect_camera()
    client.clear()
    client.send(
        "<newNumberVector device='No Such' name='X'><oneNumber name='Y'>1</oneNumber></newNumberVector>"
    )
    eventually(lambda: "No Such" in log.read_text(), "the file has it")
    eventually(lambda: any("No Such" in m.get("message", "") for m in client.messages), "the client has it")
    client.new("Switch", "DEBUG", DISABLE="On")
    client.wait_for("delProperty", name="DEBUG_LEVEL")


def test_the_levels_choose_who_gets_the_exchanges_with_the_camera(client: IndiClient, server: Server) -> None:
    log = log_file(client, server)
    client.connect_camera()
    client.clear()
    client.expose(0.1)
    client.picture()
    assert not exchanges(client) and EXCHANGE not in log.read_text()  # not unless they are asked for

    client.new("Switch", "LOGGING_LEVEL", LOG_DEBUG="On")
    client.wait_for("setSwitchVector", name="LOGGING_LEVEL", state="Ok")
    client.expose(0.1)
    client.picture(2)
    eventually(lambda: f"DEBUG {EXCHANGE}TransferImage: ok in" in log.read_text(), "the file has it")
    assert not exchanges(client)

    client.new("Switch", "DEBUG_LEVEL", DBG_DEBUG="On")
    client.wait_for("setSwitchVector", name="DEBUG_LEVEL", state="Ok")
    client.new("Switch", "LOGGING_LEVEL", LOG_DEBUG="Off")
    client.wait_for("setSwitchVector", name="LOGGING_LEVEL", state="Ok")
    size = log.read_text().count(EXCHANGE)
    client.expose(0.1)
    client.picture(3)
    told = eventually(lambda: [m for m in exchanges(client) if "GetAutoZero" in m], "the client has it")
    assert told[0].startswith("[DEBUG] ")
    assert log.read_text().count(EXCHANGE) == size

    client.new("Switch", "DEBUG", DISABLE="On")
    client.wait_for("delProperty", name="DEBUG_LEVEL")
    client.clear()
    client.expose(0.1)
    client.picture()
    assert not exchanges(client)
    assert "DEBUG" not in server.log, "what is for one client is not for whoever reads the driver's output"


def test_each_device_tells_of_its_own_camera(tmp_path: Path) -> None:
    with Sim(tmp_path, "683wsg", more=("583wsg",)) as sim, stand_alone(tmp_path, sim.environ) as server:
        with IndiClient(server.address) as client:
            client.send("<getProperties version='1.7'/>")
            devices = [DEVICE, f"{DEVICE} {sim.camera.serial}"]  # the plain name is that of the lowest number
            for device in devices:
                client.wait_for("defSwitchVector", name="CONNECTION", device=device)
                switch(client, device, "DEBUG", "ENABLE")
                client.wait_for("defSwitchVector", name="DEBUG_LEVEL", device=device)
                switch(client, device, "DEBUG_LEVEL", "DBG_DEBUG")
                client.wait_for("setSwitchVector", name="DEBUG_LEVEL", device=device, state="Ok")
            switch(client, devices[0], "CONNECTION", "CONNECT")
            client.wait_for("setSwitchVector", name="CONNECTION", device=devices[0], state="Ok")
            assert exchanges(client, devices[0]) and not exchanges(client, devices[1])
            # The one that does not want it any more takes nothing from the other.
            switch(client, devices[0], "DEBUG", "DISABLE")
            client.wait_for("delProperty", name="DEBUG_LEVEL", device=devices[0])
            client.clear()
            switch(client, devices[1], "CONNECTION", "CONNECT")
            client.wait_for("setSwitchVector", name="CONNECTION", device=devices[1], state="Ok")
            assert exchanges(client, devices[1]) and not exchanges(client, devices[0])
