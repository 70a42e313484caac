# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the doctor reads off a machine: a laid-out one, and programs of which it asks something."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from qsi_tools.doctor import (
    collect_camera,
    collect_flights,
    collect_folder,
    collect_system,
    collect_usb,
    command,
)
from qsi_tools.doctor.facts import Camera, Folder, Hub, Program, Service
from qsi_tools.doctor.ruletext import concerns_cameras

from indi_qsi.bus import Bus
from tests.tools.doctor_machine import RULES, Machine
from usbproto.flight import FlightRecorder
from usbproto.flightfiles import FlightFiles


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "machine")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def program(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def cameras(machine: Machine) -> tuple[Camera, ...]:
    return collect_usb.collect(Bus(), machine.root).cameras


def test_a_camera_behind_two_hubs(machine: Machine) -> None:
    machine.hub("1-1")
    machine.hub("1-1.3", attributes="80", speed="12")
    machine.camera("1-1.3.2", serial="00602123A\0")
    # Neighbours that are none of our business: a mount's FTDI cable, and an interface.
    machine.device("1-1.4", idVendor="0403", idProduct="6001", serial="A1", busnum="1", devnum="9")
    (camera,) = cameras(machine)
    assert (camera.series, camera.serial, camera.location) == ("600", "00602123", "001:004")
    assert (camera.path, camera.speed, camera.control) == ("1-1.3.2", 480.0, "on")
    assert camera.authorized is True and camera.driver is None and not camera.problem
    assert camera.hubs == (
        Hub("1-1.3", "USB2.0 Hub", 12.0, self_powered=False),
        Hub("1-1", "USB2.0 Hub", 480.0, self_powered=True),
    )
    assert camera.node is not None and camera.node.accessible
    assert camera.properties is not None
    assert camera.properties["ID_MM_DEVICE_IGNORE"] == "1" and camera.properties["TAGS"] == "uaccess"


def test_a_machine_with_little_to_read(machine: Machine) -> None:
    folder = machine.camera("1-2", product="eb48", serial="")
    for path in (folder / "serial", folder / "speed", folder / "dev", folder / "power/control"):
        path.unlink()
    (machine.root / "dev/bus/usb/001/004").unlink()
    (camera,) = cameras(machine)
    assert (camera.series, camera.serial, camera.hubs) == ("500", None, ())
    assert (camera.speed, camera.node, camera.properties, camera.control) == (None, None, None, None)


def test_no_usb_is_not_no_camera(tmp_path: Path) -> None:
    usb = collect_usb.collect(Bus(), tmp_path)
    assert not usb.readable and usb.problem


def test_who_has_the_camera(machine: Machine) -> None:
    machine.camera()
    machine.bind("1-1.3:1.0", "usbfs")
    node = machine.root / "dev/bus/usb/001/004"
    machine.process(700, "indi_qsi_ccd", node)
    machine.process(80, "ModemManager")
    machine.process(90, "bash")
    machine.process(95, "old", Path(f"{node} (deleted)"))  # of a camera that was unplugged
    usb = collect_usb.collect(Bus(), machine.root)
    assert usb.cameras[0].driver == "usbfs"
    assert [(p.pid, p.name, p.holds) for p in usb.processes] == [
        (80, "ModemManager", ()),
        (700, "indi_qsi_ccd", (str(node),)),
    ]
    assert collect_camera.collect(Bus(), usb) == ()


def test_a_real_process_that_has_a_file_open(machine: Machine) -> None:
    node = machine.root / "dev/bus/usb/001/004"
    machine.camera()
    code = "import sys; f = open(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(node)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        found = collect_usb.processes(Path("/"), [str(node)])
        holder.communicate()
    assert [(p.pid, p.holds) for p in found if p.holds] == [(holder.pid, (str(node),))]


AS_NOBODY = """
import os, sys
from pathlib import Path
from indi_qsi.bus import Bus
from qsi_tools.doctor import collect_camera, collect_usb
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
(camera,) = collect_usb.collect(Bus(), Path(sys.argv[1])).cameras
print(camera.node.accessible, collect_camera.may_be_opened(camera))
"""


@pytest.mark.parametrize(("mode", "told"), [(0o666, "True True"), (0o000, "False False")])
def test_a_user_with_and_without_the_right(mode: int, told: str) -> None:
    """Not as root, to whom everything is allowed; and not in pytest's own folder, which only its owner sees."""
    with tempfile.TemporaryDirectory(prefix="qsi-doctor-") as folder:
        Path(folder).chmod(0o755)
        machine = Machine(Path(folder) / "machine")
        machine.camera()
        machine.node(4).chmod(mode)
        command = [sys.executable, "-c", AS_NOBODY, str(machine.root)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == told, result.stderr


def test_a_kernel_driver_or_a_denial_keeps_the_doctor_out(machine: Machine) -> None:
    machine.camera("1-1", 4)
    machine.camera("1-2", 5, authorized="0")
    machine.bind("1-1:1.0", "ftdi_sio")
    assert [collect_camera.may_be_opened(camera) for camera in cameras(machine)] == [False, False]
    assert cameras(machine)[0].driver == "ftdi_sio"


# --- rules ---


def test_the_rules_that_count(machine: Machine) -> None:
    machine.install_rules()
    machine.write("etc/udev/rules.d/99-qsi.rules", 'SYSFS{idVendor}=="0403", ATTRS{idProduct}=="EB48"\n')
    machine.write("etc/udev/rules.d/50-ftdi.rules", 'ATTR{idVendor}=="0403", MODE="0666"\n')
    machine.write("etc/udev/rules.d/51-arduino.rules", 'ATTR{idVendor}=="0403", ATTR{idProduct}=="6001"\n')
    machine.write("usr/lib/udev/rules.d/60-x.rules", '# ATTR{idProduct}=="eb48"\n')
    # Debian: /lib is a link, and no second place.
    (machine.root / "lib").symlink_to(machine.root / "usr/lib")
    assert [file.path for file in collect_system.rules(machine.root)] == [
        "/etc/udev/rules.d/50-ftdi.rules",
        "/etc/udev/rules.d/99-qsi.rules",
        f"/{RULES}",
    ]


@pytest.mark.parametrize(
    ("text", "concerns"),
    [
        ('ATTR{idVendor}=="0403", \\\n  ATTR{idProduct}=="eb49", MODE="0666"', True),
        ('ENV{PRODUCT}=="0403 eb48"', True),
        ('ATTR{idVendor}=="0403", ATTR{idProduct}=="6015"', False),
        ("", False),
    ],
)
def test_which_rules_concern_the_cameras(text: str, concerns: bool) -> None:
    assert concerns_cameras(text) is concerns


# --- programs that are asked ---


def test_another_program_has_a_time_limit(programs: Path) -> None:
    program(programs, "hangs", "exec /bin/sleep 60")
    started = time.monotonic()
    assert command.ask("hangs", seconds=0.2) is None
    assert time.monotonic() - started < 30
    assert command.ask("missing") is None
    program(programs, "fails", "echo told; echo as well >&2; exit 3")
    assert command.ask("fails") == "told\nas well\n"


def test_programs_on_the_path(programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:{other}:{programs}")
    first = program(programs, "indi_qsi_ccd", "")
    second = program(other, "indi_qsi_ccd", "")
    program(programs, "indi-qsi", "echo indi-qsi 9.9.9")
    server = program(programs, "indiserver", "echo 'INDI Library: 1.9.9' >&2; exit 2")
    monkeypatch.setattr("sys.argv", [str(other / "qsi-doctor")])
    found = collect_system.collect(tmp_path, None).programs
    assert found["indi_qsi_ccd"] == Program(
        "indi_qsi_ccd", (str(first), str(second)), str(second), False, "9.9.9"
    )
    assert found["indiserver"] == Program("indiserver", (str(server),), "", False, "1.9.9")
    assert found["kstars"] == Program("kstars")
    first.write_bytes(b"\x7fELF\2\1\1")
    assert collect_system.collect(tmp_path, None).programs["indi_qsi_ccd"].compiled


def test_the_service_as_systemd_tells_it(programs: Path, tmp_path: Path) -> None:
    assert collect_system.collect(tmp_path, None).service is None
    program(
        programs,
        "systemctl",
        "printf 'Result=success\\nNRestarts=2\\nStatusText=683wsg, -10.0 °C\\n"
        "LoadState=loaded\\nActiveState=active\\nSubState=running\\nUnitFileState=enabled\\n'",
    )
    assert collect_system.collect(tmp_path, None).service == Service(
        "loaded", "active", "running", "enabled", 2, "success", "683wsg, -10.0 °C"
    )


def test_packages(programs: Path, tmp_path: Path) -> None:
    program(
        programs,
        "dpkg-query",
        "echo 'installed=indi-qsi-py=0.1.0'; echo 'config-files=indi-qsi=2.1'; "
        "echo 'dpkg-query: no packages found matching libqsi7'; exit 1",
    )
    assert collect_system.collect(tmp_path, None).packages == {"indi-qsi-py": "0.1.0"}


def test_the_clock(programs: Path, machine: Machine) -> None:
    def synchronised() -> bool | None:
        return collect_system.collect(machine.root, None).synchronised

    assert synchronised() is None
    program(programs, "chronyc", "echo 'Leap status     : Not synchronised'")
    assert synchronised() is False
    program(programs, "chronyc", "echo 'Leap status     : Normal'")
    assert synchronised() is True
    program(programs, "timedatectl", "echo NTPSynchronized=no")
    assert synchronised() is False
    machine.write("run/systemd/timesync/synchronized", "")
    assert synchronised() is True


def test_the_supply_of_a_pi(programs: Path, machine: Machine) -> None:
    assert collect_system.collect(machine.root, None).power is None
    machine.pi(alarm="1")
    power = collect_system.collect(machine.root, None).power
    assert power is not None and (power.throttled, power.low_now) == (None, True)
    program(programs, "vcgencmd", "echo throttled=0x50005")
    power = collect_system.collect(machine.root, None).power
    assert power is not None and power.throttled == 0x50005
    machine.pi(throttled="0", alarm="0")
    power = collect_system.collect(machine.root, None).power
    assert power is not None and (power.throttled, power.low_now) == (0, False)


def test_driver_files(programs: Path, machine: Machine) -> None:
    good = Path(__file__).resolve().parents[2] / "data" / "indi_qsi.xml"
    machine.write("usr/share/indi/indi_qsi.xml", good.read_text())
    machine.write("usr/local/share/indi/indi_qsi.xml", "<driversList>")
    found = collect_system.collect(machine.root, None).driver_files
    assert [(file.is_link, file.drivers) for file in found[:2]] == [(False, ("indi_qsi_ccd",)), (False, None)]


# --- the folder of the pictures ---


def test_the_folder_is_measured_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "M31.fits").write_text("a picture")
    found = collect_folder.collect(tmp_path, write=True)
    assert found.exists and found.writable and found.free and found.speed and not found.problem
    assert [path.name for path in tmp_path.iterdir()] == ["M31.fits"]
    assert collect_folder.collect(tmp_path, write=False).speed is None


def test_a_folder_that_does_not_exist_is_not_made(tmp_path: Path) -> None:
    found = collect_folder.collect(tmp_path / "not" / "yet", write=True)
    assert (found.exists, found.writable, found.speed) == (False, True, None)
    assert not list(tmp_path.iterdir())


FOLDER_AS_NOBODY = """
import os, sys
from pathlib import Path
from qsi_tools.doctor import collect_folder
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
found = collect_folder.collect(Path(sys.argv[1]), write=True)
print(found.exists, found.writable, found.free, found.problem)
"""


def test_a_folder_in_a_home_that_is_closed() -> None:
    """As that of the service's user may be."""
    with tempfile.TemporaryDirectory(prefix="qsi-doctor-") as folder:
        Path(folder).chmod(0o755)
        home = Path(folder) / "home"
        (home / "pictures").mkdir(parents=True)
        home.chmod(0o000)
        command = [sys.executable, "-c", FOLDER_AS_NOBODY, str(home / "pictures")]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60)
        home.chmod(0o700)
    assert result.stdout.strip() == "True False None", result.stderr


def test_a_disk_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(number: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.fsync", fails)
    found = collect_folder.collect(tmp_path, write=True)
    assert found == Folder(str(tmp_path), True, False, found.free, None, "Input/output error")
    assert not list(tmp_path.iterdir())


# --- flight recorders ---


def flight(home: Path, kind: str, reason: str) -> Path:
    files = FlightFiles(home / collect_flights.STATE_FOLDER)
    path = files.save(FlightRecorder(), kind, reason)
    files.close()
    assert path is not None
    return path


def test_flights_of_a_user_and_of_the_service(tmp_path: Path, machine: Machine) -> None:
    home, service = tmp_path / "home", machine.root / collect_flights.SERVICE_HOME
    assert collect_flights.collect(machine.root, (home, home)) == ()
    flight(home, "odd", "first")
    newest = flight(home, "lost", "second \33[2J")
    flight(service, "link", "third")
    own, theirs = collect_flights.collect(machine.root, (home, home))
    assert (own.path, own.count, own.newest) == (str(newest.parent), 2, str(newest))
    assert (own.kind, own.reason) == ("lost", "second ?[2J")
    assert 0 <= own.age < 3600 and not own.problem
    assert (theirs.count, theirs.kind, theirs.reason) == (1, "link", "third")


def test_flights_that_cannot_be_read(tmp_path: Path, machine: Machine) -> None:
    flight(tmp_path, "odd", "first").write_text("garbage")
    (found,) = collect_flights.collect(machine.root, (tmp_path,))
    assert (found.count, found.kind, found.reason) == (1, "odd", None)
    # Of an unreadable folder only that is known; as root, a file in its place is one.
    place = machine.root / collect_flights.SERVICE_HOME / collect_flights.STATE_FOLDER
    place.parent.mkdir(parents=True)
    place.write_text("")
    _, closed = collect_flights.collect(machine.root, (tmp_path,))
    assert (closed.count, closed.problem) == (0, "Not a directory")
