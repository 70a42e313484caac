# SPDX-License-Identifier: LGPL-2.1-or-later
"""`qsi-firmware` through the whole USB stack: in this process, and as the real program over USB/IP."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from qsi_tools.firmware import backups
from qsi_tools.firmware.access import Access
from qsi_tools.firmware.errors import Exit
from qsi_tools.firmware.image import Target

from tests.docs.pages import blocks
from tests.support.rig import PROGRAMS
from tests.tools.firmware_bench import FAST, NEW, Tool, UsbBench, claim_is_true
from usbproto import discovery
from usbproto.simulator.camera import SimulatedCamera
from usbproto.simulator.usbip_client import UsbIpBackend
from usbproto.simulator.usbip_server import UsbIpServer

LONG = 60.0  # s, for a program on a busy machine
# Moments of an update, as faults of the simulated camera: the events of its loader, counted.
MOMENTS = {
    "entering": "loader#1",
    "identifying": "loader#2",
    "erasing": "loader#3",
    "the first block": "loader#4",
    "the last block": "loader#7",
    "reading back": "loader#8",
    "validating": "loader#13",
    "restarting": "loader#15",
}


@pytest.fixture
def usb(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[UsbBench]:
    made = UsbBench(tmp_path, *getattr(request, "param", ("683wsg",)))
    yield made
    made.close()


def bring_back(camera: SimulatedCamera) -> None:
    camera.power_off()
    camera.power_on()
    deadline = time.monotonic() + LONG
    while not camera.firmware.ready:
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("usb", "target"),
    [(("583wsg",), Target.FIRMWARE), (("683wsg",), Target.FIRMWARE), (("690i",), Target.CORE)],
    indirect=["usb"],
)
def test_success(usb: UsbBench, target: Target) -> None:
    usb.back_up()
    assert usb.update(target) == Exit.DONE, usb.err
    assert usb.region(target).version == NEW[target] == usb.facts().version(target)
    assert bytes(usb.region(target).data).startswith(usb.new_image(target))
    camera = discovery.open_camera(backend=usb.backend)  # as the driver does
    try:
        firmware = camera.identity.firmware
    finally:
        camera.close()
    assert firmware == usb.region(Target.FIRMWARE).version


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("fault", ["unplug", "power-off", "silence-in:0.6", "insert:a5a5"])
def test_cut(usb: UsbBench, fault: str, moment: str) -> None:
    usb.back_up()
    old = bytes(usb.region(Target.FIRMWARE).data[:2048])
    name, _, value = fault.partition(":")
    usb.camera.faults.arm(f"{name}@{MOMENTS[moment]}" + (f":{value}" if value else ""))
    status = usb.update()
    if status != Exit.DONE:  # a question is asked again
        assert claim_is_true(usb, Target.FIRMWARE, old)
    bring_back(usb.camera)
    assert usb.recover() == Exit.DONE, usb.err
    assert usb.works()
    assert usb.region(Target.FIRMWARE).version in ("06.03.04", NEW[Target.FIRMWARE])


@pytest.mark.parametrize("usb", [("683wsg", "690i", "583ws")], indirect=True)
def test_a_second_camera_is_never_touched(usb: UsbBench) -> None:
    heard: list[Any] = []
    for other in usb.cameras[1:]:
        other.events.listeners.append(lambda name, facts: heard.append((name, facts)))
    for command in ("info", "backup"):
        assert usb.run(command) == Exit.REFUSED
        assert "00683001" in usb.err and "--serial" in usb.err
    assert usb.run("backup", serial="00683001") == Exit.DONE
    assert usb.update(serial="00683001") == Exit.DONE
    assert heard == []
    assert usb.run("list", json=True) == Exit.DONE
    assert [row["serial"] for row in json.loads(usb.out)] == ["00583001", "00683001", "00690001"]


def test_a_driver_that_holds_the_camera(usb: UsbBench) -> None:
    usb.back_up()
    driver = discovery.open_camera(backend=usb.backend)
    try:
        assert usb.update() == Exit.NO_ACCESS
        assert "in use by another program" in usb.err
        assert usb.run("list", json=True) == Exit.DONE
        assert "in use" in json.loads(usb.out)[0]["problem"]
    finally:
        driver.close()
    assert usb.update() == Exit.DONE


# --- the program ---


class Rig(Tool):
    """A simulated camera behind USB/IP, and the program in a process of its own."""

    def __init__(self, folder: Path, model: str = "683wsg") -> None:
        super().__init__(folder)
        self.camera = SimulatedCamera(model, speed=FAST)
        self.server = UsbIpServer([self.camera.device], [f"unix:{folder}/usb"])
        self.backend = UsbIpBackend(f"unix:{folder}/usb")
        self.access = Access(self.backend, answer_time=0.2)
        (folder / "new.hex").write_bytes(self.new_file(Target.FIRMWARE))
        (folder / "core.hex").write_bytes(self.new_file(Target.CORE) if model[0] == "6" else b"")
        backups.save(
            folder / "state" / "backups", self.facts(), bytes(self.camera.hardware.eeprom[: backups.SIZE])
        )

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        environ = {**os.environ, "INDI_QSI_USB": f"usbip:unix:{self.folder}/usb"}
        command = [str(PROGRAMS / "qsi-firmware"), *arguments, "--state", str(self.folder / "state")]
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, env=environ, text=True, **{**streams, **options})

    def program(self, *arguments: str) -> tuple[int, str, str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=LONG)
        return process.returncode, out, err

    def close(self) -> None:
        self.backend.close()
        self.server.close()
        self.camera.close()


@pytest.fixture
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path, getattr(request, "param", "683wsg"))
    yield made
    made.close()


def at_step(camera: SimulatedCamera, count: int, action: Any) -> None:
    """When the loader's `count`-th event happens, once."""
    seen = 0

    def listen(name: str, facts: dict[str, Any]) -> None:
        nonlocal seen
        seen += name == "loader"
        if seen == count:
            seen += 1
            action()

    camera.events.listeners.append(listen)


@pytest.mark.parametrize("rig", ["583wsg", "683wsg"], indirect=True)
def test_the_program(rig: Rig) -> None:
    code, out, err = rig.program("backup")
    assert code == Exit.DONE and "569 bytes" in out, err
    code, out, err = rig.program(str(rig.folder / "new.hex"))
    assert code == Exit.DONE and "Nothing was done" in out, err
    code, out, err = rig.program("update", str(rig.folder / "new.hex"))
    assert code == Exit.REFUSED and "Nobody is there to confirm" in err
    code, out, err = rig.program(
        "update", str(rig.folder / "new.hex"), "--confirm", rig.camera.serial, "--json"
    )
    assert code == Exit.DONE, err
    assert json.loads(out)["camera"]["firmware"] == NEW[Target.FIRMWARE]
    code, out, err = rig.program("recover")
    assert code == Exit.DONE and "Nothing to recover" in out


def test_the_commands_of_the_page(rig: Rig) -> None:
    """All of docs/firmware.md from top to bottom; the rig stands for its qsi-sim."""
    ran = []
    for command in (line for block in blocks("docs/firmware.md", "sh") for line in block.commands):
        program, *words = command.rstrip(" &").split()
        if program != "qsi-firmware":
            assert program in ("qsi-sim", "export"), command
            continue
        file = rig.folder / ("core.hex" if "--core" in words else "new.hex")
        confirmed = ["--confirm", "00683001"] if words[0] == "update" else []
        arguments = [str(file) if word == "FILE" else word for word in words]
        code, _, err = rig.program(*arguments, *confirmed)
        assert code == Exit.DONE, (command, err)
        ran.append(words[0])
    assert {"list", "info", "check", "backup", "plan", "update", "recover"} == set(ran)
    assert rig.facts().firmware == NEW[Target.FIRMWARE]
    assert rig.facts().version(Target.CORE) == NEW[Target.CORE]


@pytest.mark.parametrize("moment", MOMENTS)
def test_kill_9(rig: Rig, moment: str) -> None:
    old = bytes(rig.region(Target.FIRMWARE).data[:2048])
    started: list[subprocess.Popen[str]] = []
    at_step(rig.camera, int(MOMENTS[moment].partition("#")[2]), lambda: started[0].kill())
    started.append(rig.start("update", str(rig.folder / "new.hex"), "--confirm", "00683001"))
    started[0].communicate(timeout=LONG)
    assert started[0].returncode == -signal.SIGKILL
    assert claim_is_true(rig, Target.FIRMWARE, old)
    code, _, err = rig.program("recover", "--confirm", "00683001")
    assert code == Exit.DONE, err
    assert rig.works()
    assert rig.region(Target.FIRMWARE).version in ("06.03.04", NEW[Target.FIRMWARE])


def test_kill_9_and_a_power_cut_in_the_core(rig: Rig) -> None:
    started: list[subprocess.Popen[str]] = []
    at_step(rig.camera, 5, lambda: started[0].kill())
    started.append(rig.start("update", "--core", str(rig.folder / "core.hex"), "--confirm", "00683001"))
    started[0].communicate(timeout=LONG)
    bring_back(rig.camera)
    code, out, err = rig.program("info")
    assert code == Exit.DONE and "IT RUNS NOW" in out and "qsi-firmware recover" in out
    code, out, err = rig.program("recover", "--confirm", "00683001")
    assert code == Exit.DONE, err
    assert rig.facts().version(Target.CORE) == NEW[Target.CORE]


def test_a_lost_ssh_session_changes_nothing(rig: Rig) -> None:
    """The terminal goes away while blocks are written: SIGHUP, and nobody to write to."""
    master, slave = pty.openpty()
    started: list[subprocess.Popen[str]] = []

    def hang_up() -> None:
        os.close(master)
        started[0].send_signal(signal.SIGHUP)
        started[0].send_signal(signal.SIGINT)
        started[0].send_signal(signal.SIGTERM)

    at_step(rig.camera, 4, hang_up)
    started.append(
        rig.start(
            *("update", str(rig.folder / "new.hex"), "--confirm", "00683001"),
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        )
    )  # fmt: skip
    os.close(slave)
    assert started[0].wait(LONG) == Exit.DONE
    assert rig.facts().firmware == NEW[Target.FIRMWARE]


def test_interrupted_before_anything_was_begun(rig: Rig) -> None:
    master, slave = pty.openpty()
    process = rig.start("update", str(rig.folder / "new.hex"), stdin=slave)
    os.close(slave)
    assert process.stderr is not None
    while "serial number to go on" not in (line := process.stderr.read(1) and process.stderr.readline()):
        if "backup:" in line:
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=LONG)
    os.close(master)
    assert process.returncode == 130
    assert "was not changed" in err
    assert rig.entry() is None
