# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every environment variable of README's table does what it says, here or in another test."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.support.indi import eventually
from tests.support.rig import Server, Sim, stand_alone, under_indiserver

HERE = f"tests/docs/{Path(__file__).name}"
# Variable -> the test that sets it. A variable of the table that is missing here fails.
TRIED = {
    "INDI_QSI_USB": HERE,
    "INDI_QSI_SERIAL": HERE,
    "INDI_QSI_BLOB": "tests/indi/test_indiserver.py",
    "INDI_QSI_DEBUG": HERE,
    "INDI_QSI_RECORD": "tests/recording/test_recorder.py",
    "INDI_QSI_TIMING": "tests/first_contact/test_link_timing.py",
    "INDIDEV": "tests/end_to_end/test_connection.py",
    "INDICONFIG": "tests/end_to_end/test_connection.py",
}


def table() -> list[str]:
    rows = (ROOT / "README.md").read_text().partition("| environment variable |")[2].partition("\n\n")[0]
    names = (re.findall(r"`(\w+)`", row.split("|")[1]) for row in rows.splitlines()[2:])
    return [name for row in names for name in row]


def test_every_variable_is_tried() -> None:
    assert sorted(table()) == sorted(TRIED)
    for name, file in TRIED.items():
        assert f'"{name}"' in (ROOT / file).read_text() or f"{name}=" in (ROOT / file).read_text(), name


def connect(server: Server) -> None:
    server.get("CONNECTION.CONNECT")  # waits for the driver longer than indi_setprop does
    server.connect()


@pytest.mark.parametrize(("choice", "model"), [("sim", "683wsg"), ("sim:583wsg", "583wsg")])
def test_the_usb_can_be_a_simulated_camera(tmp_path: Path, choice: str, model: str) -> None:
    with under_indiserver(tmp_path, {"INDI_QSI_USB": choice}) as server:
        connect(server)
        assert server.get("CAMERA_INFO.MODEL") == model


def test_the_serial_number_chooses_the_camera(tmp_path: Path) -> None:
    with Sim(tmp_path, more=["540wsg"]) as sim:
        serial = sim.others[0].serial
        with under_indiserver(tmp_path, {**sim.environ, "INDI_QSI_SERIAL": serial}) as server:
            connect(server)
            assert server.get("CAMERA_INFO.MODEL") == "540wsg"


def has_systemd_python() -> bool:
    try:
        return find_spec("systemd.daemon") is not None
    except ModuleNotFoundError:
        return False


def test_debug_logs_the_exchanges_with_the_camera(tmp_path: Path) -> None:
    with under_indiserver(tmp_path, {"INDI_QSI_USB": "sim", "INDI_QSI_DEBUG": "1"}) as server:
        connect(server)
        for command in ("Init", "GetDeviceDetails", "SetAdvSettings"):
            line = rf"DEBUG usbproto\.exchanges: {command}: ok in [\d.]+ ms \([0-9a-f]+ -> [0-9a-f]+\)"
            eventually(lambda line=line: re.search(line, server.log), f"{command} is logged")


@pytest.mark.skipif(has_systemd_python(), reason="systemd-python does not fail where it is not heard")
def test_debug_logs_more(tmp_path: Path) -> None:
    """What fails without harm is only told then: here, a systemd that is not there."""
    logs = []
    for debug in ({}, {"INDI_QSI_DEBUG": "1"}):
        folder = tmp_path / str(len(logs))
        folder.mkdir()
        environ = {"NOTIFY_SOCKET": str(tmp_path / "nobody"), **debug}
        with stand_alone(folder, environ, "--model", "683wsg") as server:
            if debug:
                eventually(lambda: "DEBUG" in server.log, "a detail is logged")
        logs.append(server.log)
    assert ["DEBUG" in log for log in logs] == [False, True]
