# SPDX-License-Identifier: LGPL-2.1-or-later
"""`qsi-sim` and its control socket; real time, real sockets."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from usbproto.simulator import cli
from usbproto.simulator.bodies import CameraModel, list_models
from usbproto.simulator.camera import SimulatedCamera
from usbproto.simulator.control import HELP, execute, status
from usbproto.simulator.events import EVENTS, EventLog
from usbproto.simulator.faults import FAULTS
from usbproto.simulator.strange import STRANGENESSES
from usbproto.simulator.timeline import ManualTimeline


class Program:
    """A running qsi-sim."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.events = folder / "events"
        command = [sys.executable, "-m", "usbproto.simulator.cli", "--listen", f"unix:{folder}/usb"]
        command += ["--control", f"unix:{folder}/control", "--events", str(self.events), *more]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.ready = self.process.stdout.readline().strip()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(f"{folder}/control")
        self._file = self._socket.makefile("rw")

    def say(self, line: str) -> str:
        self._file.write(line + "\n")
        self._file.flush()
        return self._file.readline().strip()

    def close(self) -> int:
        self._file.close()
        self._socket.close()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(10)


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    running = Program(
        tmp_path,
        *("--model", "583wsg", "--model", "583ws", "--model", "690i", "--serial", "12345678"),
        *("--strange", "slow-abort:2", "--strange", "late-busy"),
    )
    yield running
    if running.process.poll() is None:
        running.close()


def test_program(program: Program, tmp_path: Path) -> None:
    assert program.ready == f"listening on unix:{tmp_path}/usb; control on unix:{tmp_path}/control"
    first = json.loads(program.say("status").removeprefix("ok "))
    assert (first["model"], first["serial"], first["state"]) == ("583wsg", "12345678", "IDLE")
    second = json.loads(program.say("00583001: status").removeprefix("ok "))
    assert second["model"] == "583ws"
    assert program.say("fault unplug") == "ok"
    assert not json.loads(program.say("status").removeprefix("ok "))["plugged"]
    assert program.say("replug") == "ok"
    assert program.say("nonsense").startswith("error")
    assert json.loads(program.say("status").removeprefix("ok "))["strange"] == ["slow-abort:2", "late-busy"]
    assert program.say("strange slow-abort:3") == "ok"
    assert program.say("strange") == "ok late-busy slow-abort:3"
    assert program.say("strange none") == "ok"
    assert program.say("strange") == "ok"
    assert program.say("strange late-busy:x") == "error late-busy:x: 'x' is not a number"
    assert program.say("00690001: power off") == "ok"
    assert program.close() == 0
    happened = [json.loads(line) for line in program.events.read_text().splitlines()]
    assert [(line["camera"], line["e"]) for line in happened if line["e"] in ("usb", "power")][:3] == [
        ("12345678", "usb"),
        ("12345678", "usb"),
        ("00690001", "power"),
    ]
    assert all(abs(line["t"] - time.time()) < 60 for line in happened)
    assert not (tmp_path / "usb").exists()
    assert not (tmp_path / "control").exists()


def test_lists(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--list-models"]) == 0
    assert capsys.readouterr().out.split() == list_models()
    assert cli.main(["--list-faults"]) == 0
    assert capsys.readouterr().out.count("\n") == len(FAULTS)
    assert cli.main(["--list-strange"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(STRANGENESSES)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--model", "999x"],
        ["--fault", "nothing"],
        ["--strange", "nothing"],
        ["--strange", "slow-init:soon"],
        ["--listen", "0.0.0.0:0"],
        ["--model", "583ws", "--serial", "1", "--serial", "2"],
        ["--events", "/no/such/place"],
    ],
)
def test_what_cannot_be_started(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        assert cli.main([*arguments]) == 1
    finally:
        signal.signal(signal.SIGINT, handlers[0])
        signal.signal(signal.SIGTERM, handlers[1])
    assert capsys.readouterr().err.startswith("qsi-sim: ")


def test_control_commands() -> None:
    timeline = ManualTimeline()
    with SimulatedCamera("690wsg", timeline=timeline) as camera:
        for line in (
            "ambient -5",
            "voltage 11.5",
            "scene flat 20000",
            "defocus 3",
            "trigger",
            "fault silence@expose wheel-jam",
            "unplug",
            "replug",
            "power off",
            "power on",
        ):
            assert execute(camera, line) == "ok", line
        now = status(camera)
        assert (now["ambient"], now["voltage"], now["scene"]) == (-5, 11.5, "flat")
        assert (now["powered"], now["ready"], now["led"]) == (True, False, "yellow")
        assert now["faults_armed"] == ["silence@expose"]
        json.dumps(now)
        assert set(execute(camera, "faults").split()[1:]) == set(FAULTS)
        assert "status" in execute(camera, "help")
        for bad in ("", "power maybe", "ambient hot", "scene moon"):
            with pytest.raises((ValueError, KeyError)):
                execute(camera, bad)


def test_models() -> None:
    assert {"583wsg", "683wsg", "683wsg-8", "540cwsg", "690ws", "520i", "583cws-8"} <= set(list_models())
    assert CameraModel.parse("683WSG-8").filter_count == 8
    for bad in ("683", "683x", "516cws", "683i-8", "700ws", "683wsg-5", ""):
        with pytest.raises(ValueError):
            CameraModel.parse(bad)


def test_events_are_known() -> None:
    with pytest.raises(ValueError):
        EventLog().emit("party")
    assert all(EVENTS.values())


def test_real_time(tmp_path: Path) -> None:
    """The firmware in a timeline that runs, pictures computed in their thread."""
    from usbproto import packets as p

    with SimulatedCamera("683wsg", readout=0.1, speed=10.0) as camera:
        request = p.StartExposureEx(100, 0, 0, 0, 3326, 2504, 1, 1, True)
        with camera.timeline.lock:
            camera.fifo.host_wrote(p.encode_request(p.START_EXPOSURE_EX, request))
        end = time.monotonic() + 10
        while not camera.firmware.imager.ready:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert camera.last_frame is not None
        assert camera.last_frame.shape == (2504, 3326)


def test_the_page_is_complete() -> None:
    """docs/simulator.md has every option, event, fault, strangeness and control command."""
    text = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text()
    options = [option for action in cli._parser()._actions for option in action.option_strings]
    for name in [*options, *EVENTS, *FAULTS, *(word.split()[0] for word in HELP)]:
        assert f"`{name}" in text or name in ("-h", "--help"), name
    for fault in FAULTS.values():
        assert f"| `{fault.name}` | {fault.description} |" in text
    for strange in STRANGENESSES.values():
        assert f"| `{strange.name}` | {strange.description} |" in text
