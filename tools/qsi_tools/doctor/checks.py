# SPDX-License-Identifier: LGPL-2.1-or-later
"""The table of checks, in the order of the way from the camera's plug to the picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from qsi_tools.doctor import checks_camera, checks_rules, checks_system, checks_usb
from qsi_tools.doctor.facts import Facts
from qsi_tools.doctor.findings import Finding

Check = Callable[[Facts], Iterable[Finding]]

CHECKS: dict[str, Check] = {
    "camera-seen": checks_usb.seen,
    "camera-permission": checks_usb.permission,
    "camera-in-use": checks_usb.holder,
    "usb-speed": checks_usb.speed,
    "usb-power-saving": checks_usb.autosuspend,
    "usb-hubs": checks_usb.hubs,
    "modem-manager": checks_usb.modem_manager,
    "rules-installed": checks_rules.installed,
    "rules-in-force": checks_rules.in_force,
    "rules-foreign": checks_rules.foreign,
    "camera-examined": checks_camera.examined,
    "indi-server": checks_camera.server,
    "driver": checks_system.driver,
    "driver-file": checks_system.driver_file,
    "indiserver": checks_system.indiserver,
    "service": checks_system.service,
    "picture-folder": checks_system.folder,
    "flight-recorder": checks_system.flights,
    "clock": checks_system.clock,
    "pi-power": checks_system.power,
}


@dataclass(frozen=True, slots=True)
class Result:
    """A finding, and the check that made it."""

    check: str
    finding: Finding


def run(facts: Facts) -> list[Result]:
    """All checks over the same facts."""
    return [Result(name, finding) for name, check in CHECKS.items() for finding in check(facts)]
