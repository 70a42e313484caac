# SPDX-License-Identifier: LGPL-2.1-or-later
"""The udev rules: ours installed, of this version, in force, and not undone by others."""

from __future__ import annotations

import re
from collections.abc import Iterable

from indi_qsi.bus import LIBUSB
from indi_qsi.udevrules import FILE_NAME, rules
from qsi_tools.doctor.checks_usb import APPLY
from qsi_tools.doctor.facts import Facts, RuleFile
from qsi_tools.doctor.findings import Finding, note, ok, problem, warning
from qsi_tools.doctor.ruletext import active, concerns_cameras

ABOUT = "udev rules"
SET_UP = "sudo indi-qsi setup-udev (an installation from Debian's package: sudo apt reinstall indi-qsi-py)"
IN_FORCE = "ID_MM_DEVICE_IGNORE"  # a property that our rules give and INDI's do not
OPENS_TO_ALL = re.compile(r'MODE:?="0?666"')
BINDS = re.compile(r"ftdi_sio|new_id|modprobe")


def _name(file: RuleFile) -> str:
    return file.path.rpartition("/")[2]


def installed(facts: Facts) -> Iterable[Finding]:
    """The first of our files counts; udev does not read those of the same name behind it."""
    ours = [file for file in facts.system.rules if _name(file) == FILE_NAME]
    if not ours:
        denied = any(c.node is not None and not c.node.accessible for c in facts.usb.cameras)
        if facts.usb.choice != LIBUSB:
            return
        judge = problem if denied else warning
        yield judge(ABOUT, f"Our rules ({FILE_NAME}) are not installed", SET_UP)
        return
    first, *hidden = ours
    if first.text == rules():
        yield ok(ABOUT, f"{first.path} is of this version")
    elif not active(first.text):
        yield problem(
            ABOUT,
            f"{first.path} is empty and switches our rules off",
            f"sudo rm {first.path}, then {APPLY}",
        )
    elif hidden and hidden[0].text == rules():
        yield warning(
            ABOUT,
            f"{first.path} differs from this version's rules and hides {hidden[0].path}",
            f"sudo rm {first.path}, then {APPLY}. Own rules belong into a file with another name",
        )
    else:
        yield warning(ABOUT, f"{first.path} differs from this version's rules", SET_UP)


def in_force(facts: Facts) -> Iterable[Finding]:
    """Rules that came after the camera act at its next arrival."""
    there = any(_name(file) == FILE_NAME and file.text == rules() for file in facts.system.rules)
    for camera in facts.usb.cameras:
        if there and camera.properties is not None and IN_FORCE not in camera.properties:
            yield warning(ABOUT, f"They have not acted on {camera.name} yet", APPLY[0].upper() + APPLY[1:])


def foreign(facts: Facts) -> Iterable[Finding]:
    """Rules of others for the same devices. udev goes by the file's name: a later one has the last word."""
    for file in facts.system.rules:
        lines = [line for line in active(file.text) if concerns_cameras(line)]
        if _name(file) == FILE_NAME or not lines:
            continue
        remove = f"If nothing else needs it: sudo rm {file.path}"
        # A rule may go on in lines that do not repeat the ids.
        text = "\n".join(active(file.text))
        if BINDS.search(text):
            yield warning(ABOUT, f"{file.path} gives the camera to a driver of the kernel", remove)
        elif OPENS_TO_ALL.search(text) and _name(file) > FILE_NAME:
            yield warning(
                ABOUT,
                f"{file.path} opens the camera to every program on this machine, and overrides our rules",
                f"It is the C++ driver's, or old. {remove}",
            )
        else:
            yield note(ABOUT, f"{file.path} has rules for the camera too", remove)
