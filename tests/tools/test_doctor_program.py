# SPDX-License-Identifier: LGPL-2.1-or-later
"""`qsi-doctor` itself: on a simulated camera over USB/IP, and beside the real indiserver with our driver."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from qsi_tools.doctor import checks, collect_server
from qsi_tools.doctor.facts import Server
from qsi_tools.indi.client import Client
from qsi_tools.indi.reader import Message

from indi_qsi.version import VERSION
from tests.support.indi import PATIENCE, free_port
from tests.support.rig import PROGRAMS, IndiClient, Sim, stand_alone, under_indiserver
from tests.support.workbench import happened, wait_event
from tests.tools.doctor_machine import Machine
from tests.tools.running import Running, run_unread
from usbproto.flight import FlightRecorder
from usbproto.flightfiles import FOLDER, FlightFiles

# Over USB/IP nothing but questions; see tests/protocol/test_checkup.py.
DISTURBING = ("settings", "expose", "abort", "filter", "relay", "temperature", "trigger_mode", "alt_mode")
# Other programs of this machine would be noise, and indiserver is asked only where a test starts one.
QUIET = ("--no-write", "--no-server")


def doctor(*arguments: str, environ: Mapping[str, str] | None = None, cwd: Path | None = None) -> Any:
    return subprocess.run(
        [str(PROGRAMS / "qsi-doctor"), *arguments],
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
        env={**os.environ, **(environ or {})},
        cwd=cwd,
    )


def examine(*arguments: str, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What it says as JSON; the status agrees with the exit status."""
    result = doctor("--json", *arguments, environ=environ)
    assert result.stderr == ""
    tree: dict[str, Any] = json.loads(result.stdout)
    assert tree["status"] == result.returncode
    return tree


def said(tree: dict[str, Any], check: str) -> list[tuple[str, str]]:
    return [(f["severity"], f["seen"]) for f in tree["findings"] if f["check"] == check]


def alarms(tree: dict[str, Any]) -> list[str]:
    return [f["seen"] for f in tree["findings"] if f["about"] == "alarms" and f["severity"] == "problem"]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "machine")


def test_a_healthy_camera_is_left_as_it_was(tmp_path: Path) -> None:
    with Sim(tmp_path) as sim:
        tree = examine(*QUIET, environ=sim.environ)
        assert not happened(sim, *DISTURBING)
    assert said(tree, "camera-seen")[0][0] == "ok"
    assert not alarms(tree)
    (camera,) = tree["facts"]["examined"]
    assert (camera["model"], camera["serial"], camera["errors"]) == ("683wsg", sim.camera.serial, [])


def test_the_json_has_its_shape(tmp_path: Path) -> None:
    with Sim(tmp_path, "583wsg") as sim:
        tree = examine(*QUIET, environ=sim.environ)
    assert set(tree) == {"schema", "version", "time", "severity", "status", "findings", "facts"}
    assert (tree["schema"], tree["version"]) == (1, VERSION)
    assert set(tree["facts"]) == {"usb", "system", "server", "examined"}
    for finding in tree["findings"]:
        assert set(finding) == {"check", "severity", "about", "seen", "remedy"}
        assert finding["check"] in checks.CHECKS
        assert finding["severity"] in ("problem", "warning", "unknown", "note", "ok")


@pytest.mark.parametrize(("fault", "word"), [("voltage:10.5", "below 11 V"), ("voltage:15", "above 14 V")])
def test_a_bad_supply_is_a_problem(tmp_path: Path, fault: str, word: str) -> None:
    with Sim(tmp_path) as sim:
        sim.camera.faults.arm(fault)
        result = doctor(*QUIET, environ=sim.environ)
    assert result.returncode == 2
    assert word in result.stdout
    assert "\033" not in result.stdout  # no terminal, no colours


def test_no_camera_opens_none(tmp_path: Path) -> None:
    with Sim(tmp_path) as sim:
        tree = examine("--no-camera", *QUIET, environ=sim.environ)
        assert not happened(sim, "command")
    assert tree["facts"]["examined"] == []


@pytest.mark.parametrize(
    ("fault", "check", "severity", "words"),
    [
        ("deny-open:eacces", "camera-permission", "problem", "may not be opened"),
        ("deny-open:ebusy", "camera-in-use", "warning", "in use by another program"),
    ],
)
def test_a_camera_that_may_not_be_opened(
    tmp_path: Path, fault: str, check: str, severity: str, words: str
) -> None:
    with Sim(tmp_path) as sim:
        sim.camera.faults.arm(fault)
        tree = examine(*QUIET, environ=sim.environ)
    ((found, seen),) = said(tree, check)
    assert found == severity and words in seen
    assert tree["facts"]["examined"] == []


def test_old_firmware(tmp_path: Path) -> None:
    with Sim(tmp_path, firmware="06.01.07") as sim:
        tree = examine(*QUIET, environ=sim.environ)
    assert any(severity == "warning" and "6.1.7" in seen for severity, seen in said(tree, "camera-examined"))


def test_no_camera_at_all(machine: Machine) -> None:
    result = doctor("--root", str(machine.root), *QUIET)
    assert result.returncode == 2
    assert "No QSI camera on the USB" in result.stdout and "lsusb" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("1 problem")


@pytest.mark.parametrize("more", [(), ("--json",)], ids=["text", "json"])
def test_a_report_that_nobody_reads_keeps_its_status(
    machine: Machine, tmp_path: Path, more: tuple[str, ...]
) -> None:
    ended = run_unread(tmp_path, "qsi-doctor", "--root", str(machine.root), *QUIET, *more)
    assert (ended.code, ended.err) == (2, "")


def test_ctrl_c_ends_it_without_a_traceback(tmp_path: Path) -> None:
    asked = threading.Event()
    with says("127.0.0.1", b"", asked=asked) as address:
        running = Running(tmp_path, "qsi-doctor", "--server", address)
        assert asked.wait(PATIENCE)
        running.process.send_signal(signal.SIGINT)
        ended = running.ended()
    assert (ended.code, ended.err) == (130, "qsi-doctor: interrupted\n")


def test_flights_are_in_the_report_and_leave_its_status(machine: Machine, tmp_path: Path) -> None:
    files = FlightFiles(tmp_path / ".indi" / FOLDER)
    path = files.save(FlightRecorder(), "odd", "The answer was longer than its layout")
    files.close()
    before = doctor("--root", str(machine.root), *QUIET)
    result = doctor("--root", str(machine.root), *QUIET, environ={"HOME": str(tmp_path)})
    assert result.returncode == before.returncode
    words = " ".join(result.stdout.split())
    assert f"1 file in {tmp_path}/.indi/{FOLDER}" in words and "longer than its layout" in words
    assert f"qsi-replay show {path}" in words
    tree = json.loads(
        doctor("--json", "--root", str(machine.root), *QUIET, environ={"HOME": str(tmp_path)}).stdout
    )
    (flights,) = tree["facts"]["system"]["flights"]
    assert (flights["count"], flights["newest"], flights["kind"]) == (1, str(path), "odd")


def test_who_has_it_is_told(machine: Machine) -> None:
    machine.install_rules()
    machine.hub("1-1")
    machine.camera()
    machine.bind("1-1.3:1.0", "usbfs")
    machine.process(700, "ccdciel", machine.root / "dev/bus/usb/001/004")
    result = doctor("--root", str(machine.root), *QUIET)
    assert result.returncode == 1
    assert "ccdciel (process 700" in result.stdout and "kill 700" in result.stdout


@pytest.mark.parametrize(
    "arguments", [("--nonsense",), ("--server", "pi.local:http"), ("--server", ":7624")], ids=str
)
def test_arguments_that_make_no_sense_are_not_a_problem_of_the_camera(arguments: tuple[str, ...]) -> None:
    result = doctor(*arguments)
    assert result.returncode == 3
    assert result.stdout == "" and "qsi-doctor: " in result.stderr


def test_a_usb_that_makes_no_sense() -> None:
    result = doctor(environ={"INDI_QSI_USB": "nonsense"})
    assert result.returncode == 3 and "libusb, usbip:HOST:PORT" in result.stderr


# --- a driver has the camera ---


def test_under_indiserver_the_server_is_asked(tmp_path: Path) -> None:
    with Sim(tmp_path) as sim, under_indiserver(tmp_path, sim.environ) as server:
        tree = examine("--no-write", "--server", server.address, environ=sim.environ)
        assert [f for f in said(tree, "indi-server") if "not connected" in f[1]]
        with IndiClient(server.address) as client:
            client.connect_camera()
            sim.camera.faults.arm("voltage:10.5")
            client.wait_for("setLightVector", name="CAMERA_ALARMS", state="Alert")
            client.new("Number", "CCD_EXPOSURE", CCD_EXPOSURE_VALUE=600)
            wait_event(sim, "exposure_start")
            before = len(happened(sim, *DISTURBING))
            tree = examine("--no-write", "--server", server.address, environ=sim.environ)
            assert len(happened(sim, *DISTURBING)) == before
            assert not happened(sim, "exposure_end", "abort")
        processes = {process["name"] for process in tree["facts"]["usb"]["processes"]}
        pictures = tree["facts"]["system"]["folder"]["path"]
    assert tree["status"] == 2
    assert alarms(tree) == ["The supply voltage is too low (below 11 V)"]
    assert [s for s, seen in said(tree, "camera-in-use") if "driver of the INDI server" in seen] == ["ok"]
    assert tree["facts"]["examined"] == []
    assert {"indiserver", "indi_qsi_ccd"} <= processes
    (device,) = tree["facts"]["server"]["devices"]
    assert device["values"]["CAMERA_INFO"]["MODEL"] == "683wsg"
    assert Path(pictures).is_absolute()


def test_our_own_server_whose_camera_has_left(tmp_path: Path) -> None:
    with Sim(tmp_path) as sim, stand_alone(tmp_path, sim.environ) as server:
        with IndiClient(server.address) as client:
            client.connect_camera()
            sim.camera.device.unplug()
            client.wait_for("setSwitchVector", name="CONNECTION", state="Alert")
            tree = examine("--no-write", "--server", server.address, environ=sim.environ)
    assert [severity for severity, seen in said(tree, "indi-server") if "lost its camera" in seen] == [
        "problem"
    ]


def test_the_folder_that_the_server_tells_is_measured(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    with Sim(tmp_path) as sim, stand_alone(tmp_path, sim.environ) as server:
        server.connect()
        server.set(f"UPLOAD_SETTINGS.UPLOAD_DIR;UPLOAD_PREFIX={pictures};M31_XXX")
        server.wait_state("UPLOAD_SETTINGS", 1)
        tree = examine("--server", server.address, environ=sim.environ)
    folder = tree["facts"]["system"]["folder"]
    assert folder["path"] == str(pictures) and folder["speed"] > 0
    assert not list(pictures.iterdir())


def test_a_server_that_is_not_there() -> None:
    address = f"127.0.0.1:{free_port()}"
    found = collect_server.collect(address)
    assert not found.reachable and found.asked and found.problem == "Connection refused"
    tree = examine("--no-camera", "--no-write", "--server", address)
    assert said(tree, "indi-server")[0][0] == "problem" and tree["status"] == 2


CLOCK = b"""<defTextVector device="Clock" name="DRIVER_INFO" state="Idle" perm="ro">
<defText name="DRIVER_EXEC">indi_clock</defText></defTextVector>"""


@contextmanager
def says(
    address: str, data: bytes, *, ends: bool = False, asked: threading.Event | None = None
) -> Iterator[str]:
    """A server that says this whatever it is asked, and then keeps quiet or ends. Its address."""
    family = socket.AF_UNIX if "/" in address else socket.AF_INET
    with socket.socket(family) as listener:
        listener.bind(address if "/" in address else (address, 0))
        listener.listen()

        def serve() -> None:
            connection = listener.accept()[0]
            with connection:
                while not connection.recv(4096).endswith(b"\n"):
                    pass
                if asked is not None:
                    asked.set()
                connection.sendall(data)
                if not ends:
                    while connection.recv(4096):
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield address if "/" in address else f"{address}:{listener.getsockname()[1]}"
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_a_server_of_others_by_its_unix_socket(tmp_path: Path) -> None:
    with says(str(tmp_path / "socket"), CLOCK) as address:
        found = collect_server.collect(address)
    assert found == Server(address, True, local=True, asked=True, others=("Clock",))


def test_what_a_server_told_before_it_ended_counts() -> None:
    with says("127.0.0.1", CLOCK, ends=True) as address:
        found = collect_server.collect(address)
    assert (found.reachable, found.local, found.others) == (True, True, ("Clock",))
    assert found.problem == "it closed the connection"


def test_what_is_no_indi_server_is_said_to_be_none() -> None:
    with says("127.0.0.1", b"HTTP/1.1 400 Bad Request\r\n\r\n<html></body>") as address:
        tree = examine("--no-camera", "--no-write", "--server", address)
    assert "this is no INDI" in said(tree, "indi-server")[0][1]


def test_a_server_that_says_nothing_has_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect_server, "FIRST_TIME", 0.2)
    monkeypatch.setattr(collect_server, "QUIET_TIME", 0.1)
    with says("127.0.0.1", b"") as address:
        found = collect_server.collect(address)
    assert found.reachable and not found.devices and not found.others


def test_a_server_that_never_falls_silent_has_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(Client):
        """Each look brings a device that was not there."""

        def poll(self, seconds: float) -> None:
            device = f"Clock {len(self.model.devices)}"
            self.model.take(Message("defTextVector", {"device": device, "name": "DRIVER_INFO"}, ()))

    monkeypatch.setattr(collect_server, "Client", Endless)
    monkeypatch.setattr(collect_server, "MORE_TIME", 0.3)
    with says("127.0.0.1", b"") as address:
        assert collect_server.collect(address).others
