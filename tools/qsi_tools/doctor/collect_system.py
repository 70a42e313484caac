# SPDX-License-Identifier: LGPL-2.1-or-later
"""The machine: its udev rules, packages, programs, service, clock and power supply."""

from __future__ import annotations

import grp
import os
import pwd
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

from indi_qsi.udevrules import FILE_NAME, GROUP
from qsi_tools.doctor.command import ask, assignments
from qsi_tools.doctor.facts import (
    DRIVER,
    INDISERVER,
    LAUNCHERS,
    TOOL,
    DriverFile,
    Flights,
    Folder,
    Power,
    Program,
    RuleFile,
    Service,
    System,
    User,
)
from qsi_tools.doctor.ruletext import concerns_cameras

# In udev's order: of two files with one name, the one in the earlier folder counts.
RULE_FOLDERS = ("etc/udev/rules.d", "run/udev/rules.d", "usr/local/lib/udev/rules.d", "usr/lib/udev/rules.d")
PACKAGES = ("indi-qsi-py", "indi-qsi", "libqsi7", "modemmanager")
UNIT = "indi-qsi.service"
DRIVER_FILE = "share/indi/indi_qsi.xml"
MACHINE_CODE = b"\x7fELF"
MAX_RULE = 64 * 1024  # characters; real ones have a few thousand


def collect(root: Path, folder: Folder | None, flights: tuple[Flights, ...] = ()) -> System:
    """`root` is where /etc, /run, /sys and /usr are: another folder than / in tests."""
    return System(
        user=_user(),
        rules=rules(root),
        packages=_packages(),
        programs={name: _program(name) for name in (DRIVER, TOOL, INDISERVER, *LAUNCHERS)},
        driver_files=_driver_files(root),
        service=_service(),
        folder=folder,
        flights=flights,
        synchronised=_synchronised(root),
        power=_power(root),
    )


def _user() -> User:
    number = os.geteuid()
    try:
        name = pwd.getpwuid(number).pw_name
    except KeyError:
        name = str(number)
    try:
        group = grp.getgrnam(GROUP)
    except KeyError:
        return User(name, number == 0, False, False)
    return User(
        name,
        root=number == 0,
        in_session=group.gr_gid in (*os.getgroups(), os.getegid()),
        in_database=name in group.gr_mem,
    )


# --- udev rules ---


def rules(root: Path) -> tuple[RuleFile, ...]:
    """Ours by name, and all that match a camera or the whole vendor; in udev's order of folders."""
    found = []
    seen = set()
    for name in RULE_FOLDERS:
        folder = root / name
        for path in sorted(folder.glob("*.rules")):
            place = path.parent.resolve() / path.name  # /lib is a link to /usr/lib
            text = _text(path)
            if place not in seen and (path.name == FILE_NAME or concerns_cameras(text)):
                seen.add(place)
                found.append(RuleFile(f"/{path.relative_to(root)}", text))
    return tuple(found)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")[:MAX_RULE]
    except OSError:
        return ""


# --- packages, programs, driver files, service ---


def _packages() -> dict[str, str]:
    text = ask("dpkg-query", "-W", "-f", "${db:Status-Status}=${Package}=${Version}\\n", *PACKAGES) or ""
    parts = (line.split("=", 2) for line in text.splitlines() if line.startswith("installed="))
    return {name: version for _, name, version in parts}


def _program(name: str) -> Program:
    folders = os.environ.get("PATH", "").split(os.pathsep)
    candidates = (Path(folder) / name for folder in dict.fromkeys(folders) if folder)
    paths = list(dict.fromkeys(str(path) for path in candidates if os.access(path, os.X_OK)))
    beside = Path(sys.argv[0]).absolute().parent / name
    lies_beside = str(beside) if os.access(beside, os.X_OK) else ""
    if not paths:
        return Program(name, beside=lies_beside)
    return Program(name, tuple(paths), lies_beside, _is_compiled(paths[0]), _version(name, Path(paths[0])))


def _is_compiled(path: str) -> bool:
    try:
        with Path(path).open("rb") as file:
            return file.read(len(MACHINE_CODE)) == MACHINE_CODE
    except OSError:
        return False


def _version(name: str, path: Path) -> str:
    """indiserver tells it when it is started without drivers; our driver by the tool beside it."""
    if name == INDISERVER:
        found = re.search(r"INDI Library: (\S+)", ask(str(path)) or "")
        return found[1] if found else ""
    if name in (DRIVER, TOOL):
        return (ask(str(path.parent / TOOL), "--version") or "").removeprefix(f"{TOOL} ").strip()
    return ""


def _driver_files(root: Path) -> tuple[DriverFile, ...]:
    """Where launchers look, and where pip put it."""
    places = [root / "usr" / DRIVER_FILE, root / "usr/local" / DRIVER_FILE, Path(sys.prefix) / DRIVER_FILE]
    found = []
    for path in dict.fromkeys(places):
        if path.is_file():
            try:
                names = tuple(e.text or "" for e in ElementTree.parse(path).iter("driver"))
            except (ElementTree.ParseError, OSError):
                found.append(DriverFile(str(path), path.is_symlink(), None))
            else:
                found.append(DriverFile(str(path), path.is_symlink(), names))
    return tuple(found)


def _service() -> Service | None:
    """None without systemd."""
    wanted = "LoadState,ActiveState,SubState,UnitFileState,NRestarts,Result,StatusText"
    told = assignments(ask("systemctl", "--no-pager", "show", UNIT, f"--property={wanted}") or "")
    if "LoadState" not in told:
        return None
    restarts = told.get("NRestarts", "")
    return Service(
        load=told["LoadState"],
        active=told.get("ActiveState", ""),
        sub=told.get("SubState", ""),
        enabled=told.get("UnitFileState", ""),
        restarts=int(restarts) if restarts.isdecimal() else 0,
        result=told.get("Result", ""),
        status=told.get("StatusText", ""),
    )


# --- clock and power ---


def _synchronised(root: Path) -> bool | None:
    """Whether the clock follows another one. None where nobody can tell."""
    if (root / "run/systemd/timesync/synchronized").exists():
        return True
    # The kernel's own word, whoever sets the clock: timesyncd, chrony or ntpd.
    told = assignments(ask("timedatectl", "show", "--property=NTPSynchronized") or "")
    if "NTPSynchronized" in told:
        return told["NTPSynchronized"] == "yes"
    tracking = ask("chronyc", "-n", "tracking") or ""
    leap = re.search(r"^Leap status\s*: (.*)$", tracking, re.MULTILINE)
    return None if leap is None else leap[1].strip() != "Not synchronised"


def _power(root: Path) -> Power | None:
    """None on what is no Raspberry Pi."""
    board = _text(root / "proc/device-tree/model").strip("\0\n ")
    if "Raspberry Pi" not in board:
        return None
    low: bool | None = None
    for sensor in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if _text(sensor / "name").strip() == "rpi_volt":
            low = _text(sensor / "in0_lcrit_alarm").strip() == "1"
    return Power(board, _throttled(root), low)


def _throttled(root: Path) -> int | None:
    text = _text(root / "sys/devices/platform/soc/soc:firmware/get_throttled").strip()
    if not text:
        text = assignments(ask("vcgencmd", "get_throttled") or "").get("throttled", "")
    try:
        return int(text, 16)
    except ValueError:
        return None
