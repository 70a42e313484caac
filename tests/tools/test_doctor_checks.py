# SPDX-License-Identifier: LGPL-2.1-or-later
"""The doctor's judgement: what it says of which facts. Each line is one thing that is wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from qsi_tools.doctor import checks
from qsi_tools.doctor.checks_camera import LIGHTS
from qsi_tools.doctor.facts import Camera, DriverFile, Facts, Flights, Process, Program, RuleFile, Server
from qsi_tools.doctor.findings import STATUS, Finding, Severity, ok, problem, unknown, warning, worst
from qsi_tools.doctor.report import summary, text

from indi_qsi.device.status import ALARMS
from indi_qsi.udevrules import rules
from tests.tools.doctor_facts import (
    CAMERA,
    DEVICE,
    DRIVER_FILE,
    EXAMINED,
    FLIGHTS,
    FOLDER,
    FREE,
    HUB,
    NODE,
    OUR_RULES,
    PI,
    PROGRAMS,
    SERVER,
    SERVICE,
)
from usbproto.packets import CameraState, CoolerState

PROBLEM, WARNING, UNKNOWN, NOTE, OK = Severity

SERVICE_PROCESS = Process(700, "indi-qsi", "indi-qsi")
CPP_RULES = 'ATTRS{idVendor}=="0403", ATTRS{idProduct}=="eb48", MODE="0666"\n'


def usb(**changes: Any) -> Facts:
    return replace(FREE, usb=replace(FREE.usb, **changes))


def camera(**changes: Any) -> Facts:
    return usb(cameras=(replace(CAMERA, **changes),))


def system(**changes: Any) -> Facts:
    return replace(FREE, system=replace(FREE.system, **changes))


def examined(**changes: Any) -> Facts:
    return replace(FREE, examined=(replace(EXAMINED, **changes),))


def held(*names: str, **changes: Any) -> Facts:
    processes = tuple(Process(500 + n, name, "pi", (NODE.path,)) for n, name in enumerate(names))
    cameras = (replace(CAMERA, driver="usbfs", **changes),)
    return replace(FREE, usb=replace(FREE.usb, cameras=cameras, processes=processes), examined=())


def program(name: str, **changes: Any) -> Facts:
    return system(programs={**PROGRAMS, name: replace(PROGRAMS[name], **changes)})


def server(**changes: Any) -> Facts:
    return replace(FREE, server=replace(SERVER, **changes))


def device(states: dict[str, str] | None = None, **values: dict[str, str]) -> Facts:
    return server(
        devices=(replace(DEVICE, states=DEVICE.states | (states or {}), values=DEVICE.values | values),)
    )


def rule_files(*files: tuple[str, str]) -> Facts:
    return system(rules=tuple(RuleFile(path, text) for path, text in files))


def user(**changes: Any) -> Facts:
    denied = camera(node=replace(NODE, accessible=False))
    return replace(denied, system=replace(denied.system, user=replace(denied.system.user, **changes)))


OURS, ETC = OUR_RULES.path, "/etc/udev/rules.d/70-indi-qsi.rules"

# What the test is called, the facts, the check that must speak, how badly, and words of what it says.
CASES: list[tuple[str, Facts, str, Severity, tuple[str, ...]]] = [
    ("no camera", usb(cameras=()), "camera-seen", PROBLEM, ("No QSI camera", "12 V", "lsusb", "flashes")),
    ("no USB/IP server", usb(choice="usbip:pi:3240", cameras=()), "camera-seen", PROBLEM, ("qsi-sim",)),
    ("no USB", usb(cameras=(), readable=False, problem="no /sys"), "camera-seen", UNKNOWN, ("no USB",)),
    ("no libusb", usb(cameras=(), problem="libusb was not found"), "camera-seen", PROBLEM, ("libusb",)),
    ("blocked", camera(authorized=False), "camera-seen", PROBLEM, ("blocked", "USBGuard")),
    ("no serial", camera(serial=None), "camera-seen", WARNING, ("no serial number",)),
    ("elsewhere", replace(usb(cameras=()), server=SERVER), "camera-seen", NOTE, ("127.0.0.1:7624",)),
    ("no node", camera(node=None), "camera-permission", PROBLEM, ("/dev/bus/usb", "container")),
    ("group root", camera(node=replace(NODE, accessible=False, group="root", mode=0o664)),
     "camera-permission", PROBLEM, ("group root", "0664", "udevadm trigger")),
    ("not in group", user(in_session=False, in_database=False), "camera-permission", PROBLEM,
     ("sudo usermod -aG plugdev pi",)),
    ("not yet in group", user(in_session=False), "camera-permission", PROBLEM, ("Log out",)),
    ("denied over USB/IP", usb(choice="usbip:x:1", cameras=(Camera("600", None, "001:002",
     problem="it may not be opened", trouble="NoPermission"),)), "camera-permission", PROBLEM, ("may not",)),
    ("our driver", held("indi_qsi_ccd"), "camera-in-use", OK, ("indi_qsi_ccd (process 500, user pi)",)),
    ("the service", usb(cameras=(replace(CAMERA, driver="usbfs"),), processes=(SERVICE_PROCESS,)),
     "camera-in-use", OK, ("another user", "indi-qsi (process 700, user indi-qsi)")),
    ("the service's right", replace(user(in_session=False, in_database=False), server=SERVER),
     "camera-permission", NOTE, ("the driver of the server does",)),
    ("another program", held("phd2.bin"), "camera-in-use", WARNING, ("phd2.bin", "kill 500")),
    ("two programs", held("indi_qsi_ccd", "indi-qsi"), "camera-in-use", PROBLEM, ("2 programs",)),
    ("another user's", held(), "camera-in-use", UNKNOWN, ("another user", "sudo qsi-doctor")),
    ("ftdi_sio", camera(driver="ftdi_sio"), "camera-in-use", WARNING, ("ftdi_sio", "new_id")),
    ("exported", camera(driver="usbip-host"), "camera-in-use", PROBLEM, ("usbip unbind -b 1-1.3",)),
    ("busy over USB/IP", camera(node=None, problem="in use", trouble="CameraInUse"), "camera-in-use",
     WARNING, ("in use",)),
    ("served over USB/IP", replace(camera(node=None, problem="in use", trouble="CameraInUse"),
     server=SERVER), "camera-in-use", OK, ("driver of the INDI server",)),
    ("gone", camera(problem="it left the USB", trouble="Disconnected"), "camera-in-use", PROBLEM, ("left",)),
    ("600 at full speed", camera(speed=12.0), "usb-speed", WARNING, ("12 Mbit/s", "480")),
    ("500 at full speed", camera(series="500", speed=12.0), "usb-speed", OK, ("all that its kind does",)),
    ("low speed", camera(series="500", speed=1.5), "usb-speed", PROBLEM, ("1.5 Mbit/s",)),
    ("autosuspend", camera(control="auto"), "usb-power-saving", WARNING, ("power/control is auto",)),
    ("starving hub", camera(hubs=(replace(HUB, self_powered=False),)), "usb-hubs", WARNING, ("supply",)),
    ("many hubs", camera(hubs=(HUB,) * 3), "usb-hubs", WARNING, ("3 hubs",)),
    ("slow hub", camera(hubs=(replace(HUB, speed=12.0),)), "usb-hubs", WARNING, ("slow hub", "12")),
    ("no hub", camera(hubs=()), "usb-hubs", OK, ("port of the computer",)),
    ("ModemManager", replace(camera(properties={}), usb=replace(camera(properties={}).usb,
     processes=(Process(9, "ModemManager", "root"),))), "modem-manager", WARNING, ("may send bytes",)),
    ("ModemManager tamed", usb(processes=(Process(9, "ModemManager", "root"),)), "modem-manager", OK,
     ("leaves",)),
    ("no rules", rule_files(), "rules-installed", WARNING, ("setup-udev",)),
    ("no rules, denied", replace(user(), system=replace(user().system, rules=())), "rules-installed",
     PROBLEM, ("not installed", "setup-udev")),
    ("old rules", rule_files((OURS, rules() + "# more\n")), "rules-installed", WARNING, ("differs",)),
    ("hidden rules", rule_files((ETC, rules() + "# more\n"), (OURS, rules())), "rules-installed", WARNING,
     (f"hides {OURS}", f"sudo rm {ETC}")),
    ("masked rules", rule_files((ETC, ""), (OURS, rules())), "rules-installed", PROBLEM, ("switches",)),
    ("rules came later", camera(properties={"TAGS": ""}), "rules-in-force", WARNING, ("not acted",)),
    ("C++ rules", rule_files((OURS, rules()), ("/usr/lib/udev/rules.d/99-qsi.rules", CPP_RULES)),
     "rules-foreign", WARNING, ("every program", "sudo rm")),
    ("earlier rules", rule_files((OURS, rules()), ("/etc/udev/rules.d/10-qsi.rules", CPP_RULES)),
     "rules-foreign", NOTE, ("rules for the camera too",)),
    ("binding rules", rule_files((OURS, rules()), ("/etc/udev/rules.d/99-x.rules",
     'ATTR{idProduct}=="eb49", RUN+="/sbin/modprobe ftdi_sio"')), "rules-foreign", WARNING, ("kernel",)),
    ("supply low", examined(errors=(3,)), "camera-examined", PROBLEM, ("11 V", "power supply")),
    ("supply high", examined(errors=(4,)), "camera-examined", PROBLEM, ("14 V", "Disconnect")),
    ("wheel", examined(errors=(5,)), "camera-examined", PROBLEM, ("filter wheel failed",)),
    ("unknown error", examined(errors=(9,)), "camera-examined", WARNING, ("device error 9",)),
    ("error state", examined(state=CameraState.ERROR), "camera-examined", PROBLEM, ("error state",)),
    ("left over", examined(state=CameraState.EXPOSING, model=""), "camera-examined", NOTE, ("nobody",)),
    ("trigger", examined(state=CameraState.WAITING_FOR_TRIGGER), "camera-examined", NOTE, ("trigger",)),
    ("silent", examined(link_errors=("did not answer",)), "camera-examined", PROBLEM, ("another cable",)),
    ("not opened", examined(problem="gone"), "camera-examined", UNKNOWN, ("gone",)),
    ("nonsense", examined(ccd=-273.15), "camera-examined", PROBLEM, ("cannot be",)),
    ("full power", examined(power=100.0), "camera-examined", NOTE, ("set point",)),
    ("brown-out", examined(cooler=CoolerState.BROWN_OUT), "camera-examined", PROBLEM, ("brown-out",)),
    ("no control", examined(cooler=CoolerState.NO_CONTROL), "camera-examined", PROBLEM, ("control",)),
    ("old 600", examined(firmware="06.01.07"), "camera-examined", WARNING, ("6.1.7", "6.1.8", "Updater")),
    ("old 500", examined(series="500", base_type="583", firmware="03.05.10"), "camera-examined", NOTE,
     ("3.5.11",)),
    ("blank memory", examined(firmware=""), "camera-examined", WARNING, ("cannot be read",)),
    ("new model", examined(base_type="999"), "camera-examined", NOTE, ("999", "report")),
    ("no server asked for", server(reachable=False, asked=True, problem="refused"), "indi-server",
     PROBLEM, ("refused",)),
    ("other port", replace(held("indi_qsi_ccd"), server=Server("127.0.0.1:7624", False)), "indi-server",
     NOTE, ("--server",)),
    ("other devices", server(devices=(), others=("Telescope Simulator",)), "indi-server", WARNING,
     ("no QSI driver", "Telescope Simulator")),
    ("not connected", device(CONNECTION={"CONNECT": "Off"}), "indi-server", NOTE, ("not connected",)),
    ("connect failed", device({"CONNECTION": "Alert"}, CONNECTION={"CONNECT": "Off"}), "indi-server",
     PROBLEM, ("could not connect",)),
    ("lost", device({"CONNECTION": "Alert"}, CONNECTION={"CONNECT": "Off"}, CCD_EXPOSURE={}), "indi-server",
     PROBLEM, ("lost its camera",)),
    ("alarm", device(CAMERA_ALARMS={"SUPPLY_LOW": "Alert"}), "indi-server", PROBLEM, ("11 V",)),
    ("exposure failed", device({"CCD_EXPOSURE": "Alert"}), "indi-server", WARNING, ("CCD_EXPOSURE",)),
    ("old by server", device(CAMERA_INFO={"MODEL": "683wsg", "FIRMWARE": "06.01.07"}), "indi-server",
     WARNING, ("6.1.7",)),
    ("C++ package", system(packages={"indi-qsi": "2.1"}), "driver", PROBLEM, ("C++", "indi-qsi 2.1")),
    ("C++ program", program("indi_qsi_ccd", compiled=True), "driver", PROBLEM, ("compiled", "dpkg -S")),
    ("no driver", program("indi_qsi_ccd", paths=()), "driver", PROBLEM, ("not installed",)),
    ("not on the PATH", program("indi_qsi_ccd", paths=(), beside="/home/pi/my venv/bin/indi_qsi_ccd"),
     "driver", WARNING, ("indiserver '/home/pi/my venv/bin/indi_qsi_ccd'",)),
    ("two drivers", program("indi_qsi_ccd", paths=("/usr/local/bin/x", "/usr/bin/x")), "driver", WARNING,
     ("several",)),
    ("other version", program("indi_qsi_ccd", version="0.0.1"), "driver", WARNING, ("0.0.1",)),
    ("no indiserver", program("indiserver", paths=()), "indiserver", NOTE, ("indi-bin",)),
    ("no driver file", system(driver_files=()), "driver-file", WARNING, ("kstars",)),
    ("no launcher", system(driver_files=(), programs={**PROGRAMS, "kstars": Program("kstars")}),
     "driver-file", NOTE, ("only launchers",)),
    ("linked file", system(driver_files=(replace(DRIVER_FILE, is_link=True),)), "driver-file", WARNING,
     ("link",)),
    ("broken file", system(driver_files=(replace(DRIVER_FILE, drivers=None),)), "driver-file", PROBLEM,
     ("no XML",)),
    ("file of pip", system(driver_files=(DriverFile("/home/pi/v/share/indi/indi_qsi.xml", False,
     ("indi_qsi_ccd",)),)), "driver-file", WARNING, ("sudo install -D", "/usr/share/indi/indi_qsi.xml")),
    ("failed", system(service=replace(SERVICE, active="failed", result="exit-code")), "service", PROBLEM,
     ("exit-code", "journalctl -u indi-qsi")),
    ("restarting", system(service=replace(SERVICE, active="activating", sub="auto-restart")), "service",
     PROBLEM, ("does not come up",)),
    ("unsteady", system(service=replace(SERVICE, active="active", restarts=9)), "service", WARNING,
     ("9 times",)),
    ("stopped", system(service=replace(SERVICE, enabled="enabled")), "service", PROBLEM, ("start",)),
    ("disk full", system(folder=replace(FOLDER, free=100_000_000)), "picture-folder", PROBLEM, ("room",)),
    ("disk small", system(folder=replace(FOLDER, free=2_000_000_000)), "picture-folder", WARNING, ("night",)),
    ("disk slow", system(folder=replace(FOLDER, speed=1e6)), "picture-folder", WARNING, ("17 s a picture",)),
    ("disk broken", system(folder=replace(FOLDER, problem="Read-only file system")), "picture-folder",
     PROBLEM, ("Read-only", "UPLOAD_DIR")),
    ("not writable", system(folder=replace(FOLDER, writable=False, speed=None)), "picture-folder", WARNING,
     ("may not write", "UPLOAD_DIR")),
    ("the service's folder", replace(system(folder=replace(FOLDER, writable=False, speed=None)),
     usb=replace(FREE.usb, processes=(SERVICE_PROCESS,))), "picture-folder", NOTE, ("sudo -u indi-qsi",)),
    ("no folder yet", system(folder=replace(FOLDER, exists=False, speed=None)), "picture-folder", NOTE,
     ("first picture",)),
    ("no flights", system(), "flight-recorder", OK, ("no files",)),
    ("one flight", system(flights=(replace(FLIGHTS, count=1),)), "flight-recorder", NOTE,
     ("1 file in /home/pi/.indi/qsi-flight", "3 hours old", "link-error, The camera did not answer",
      "camera: qsi-replay show /home/pi/.indi/qsi-flight/flight-")),
    ("two folders", system(flights=(FLIGHTS, replace(FLIGHTS, path="/srv", problem="denied"))),
     "flight-recorder", NOTE, ("20 files",)),
    ("closed flight", system(flights=(replace(FLIGHTS, reason=None, age=5 * 86400.0),)), "flight-recorder",
     NOTE, ("5 days old: link-error", "sudo qsi-replay show")),
    ("closed folder", system(flights=(Flights("/srv", problem="Permission denied"),)), "flight-recorder",
     NOTE, ("/srv cannot be read: Permission denied", "sudo qsi-doctor")),
    ("no time", system(synchronised=False), "clock", WARNING, ("headers", "timedatectl")),
    ("whose time", system(synchronised=None), "clock", UNKNOWN, ("date -u",)),
    ("Pi low now", system(power=replace(PI, throttled=0x50005)), "pi-power", PROBLEM, ("5.1 V",)),
    ("Pi low by the sensor", system(power=replace(PI, throttled=None, low_now=True)), "pi-power", PROBLEM,
     ("too low",)),
    ("Pi was low", system(power=replace(PI, throttled=0x50000)), "pi-power", WARNING, ("since the start",)),
    ("Pi hot", system(power=replace(PI, throttled=0x4)), "pi-power", WARNING, ("slows itself",)),
    ("Pi silent", system(power=replace(PI, throttled=None, low_now=None)), "pi-power", UNKNOWN, ("flags",)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "check", "severity", "words"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_what_is_wrong_is_said_with_a_remedy(
    facts: Facts, check: str, severity: Severity, words: tuple[str, ...]
) -> None:
    findings = list(checks.CHECKS[check](facts))
    matching = [f for f in findings if all(word in f"{f.seen} {f.remedy}" for word in words)]
    assert [f.severity for f in matching] == [severity], findings
    assert not [f for f in findings if f.severity in (PROBLEM, WARNING) and not f.remedy]


def test_every_check_is_in_the_table_of_cases() -> None:
    assert {case[2] for case in CASES} == set(checks.CHECKS)


@pytest.mark.parametrize("facts", [FREE, replace(held("indi_qsi_ccd"), server=SERVER)], ids=["free", "held"])
def test_where_all_is_well_nobody_is_alarmed(facts: Facts) -> None:
    findings = [result.finding for result in checks.run(facts)]
    assert {f.severity for f in findings} <= {OK, NOTE}, findings
    assert STATUS[worst(findings)] == 0
    assert summary(checks.run(facts)) == "Everything is fine."


def test_the_lights_are_those_of_the_driver() -> None:
    assert {code: name for name, code in LIGHTS.items()} == {code: name for code, (name, _) in ALARMS.items()}


@pytest.mark.parametrize(
    ("findings", "status"),
    [
        ((), 0),
        ((ok("a", "b"),), 0),
        ((ok("a", "b"), unknown("a", "b")), 3),
        ((unknown("a", "b"), warning("a", "b", "c")), 1),
        ((warning("a", "b", "c"), problem("a", "b", "c"), unknown("a", "b")), 2),
    ],
)
def test_the_exit_status_is_that_of_the_worst(findings: tuple[Finding, ...], status: int) -> None:
    assert STATUS[worst(findings)] == status


def test_the_report_has_the_worst_last_and_fits_the_terminal() -> None:
    results = checks.run(replace(user(in_session=False, in_database=False), examined=()))
    lines = text(results, 60, colour=False).splitlines()
    marks = [line.split()[0] for line in lines if not line.startswith(" ")]
    assert marks[0] == "ok" and marks[-2:] == ["problem", "1"]
    assert lines[-1] == "1 problem."
    assert max(map(len, lines)) <= 60
    assert "\033" not in "".join(lines)
    assert "\033[31;1mproblem" in text(results, 60, colour=True)
    quiet = text(results, 60, colour=False, quiet=True).splitlines()
    assert [line.split()[0] for line in quiet if not line.startswith(" ")] == ["problem", "1"]
