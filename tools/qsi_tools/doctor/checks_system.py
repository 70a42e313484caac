# SPDX-License-Identifier: LGPL-2.1-or-later
"""The machine around the camera: programs, driver file, service, disk, clock, power."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from indi_qsi.version import VERSION
from qsi_tools.doctor.facts import DRIVER, INDISERVER, LAUNCHERS, Facts
from qsi_tools.doctor.findings import Finding, note, ok, problem, unknown, warning

FRAME = 17_000_000  # bytes; a picture of 8.3 megapixels
NIGHT = 500 * FRAME  # a night of one-minute exposures
FEW = 20 * FRAME
SLOW_DISK = 4_000_000  # bytes/s; a picture takes more than four seconds
MANY_RESTARTS = 3

# Bits of the Raspberry Pi's get_throttled, by its documentation; the same 16 higher: since it was started.
LOW_VOLTAGE, CAPPED, THROTTLED = 1, 2, 4
SINCE_START = 16
BETTER_SUPPLY = "Use the official supply (5.1 V, 3 A; 5 A for a Pi 5) and a short thick cable"


def driver(facts: Facts) -> Iterable[Finding]:
    program = facts.system.programs[DRIVER]
    if "indi-qsi" in facts.system.packages:
        yield problem(
            "driver",
            f"The C++ driver is installed (package indi-qsi {facts.system.packages['indi-qsi']})",
            "Both want the same camera under the same name: sudo apt install indi-qsi-py removes it",
        )
    if not program.paths:
        if program.beside:
            yield warning(
                "driver",
                f"{DRIVER} is not on the PATH; it is {program.beside}",
                f"Start it by its whole path: indiserver {shlex.quote(program.beside)}",
            )
        else:
            yield problem(
                "driver", f"{DRIVER} is not installed", "Install indi-qsi-py, or pipx install indi-qsi"
            )
        return
    if program.compiled:
        yield problem(
            "driver",
            f"{program.paths[0]} is a compiled program: the C++ driver, not this one",
            f"Remove it (its package: dpkg -S {program.paths[0]}), or put ours before it on the PATH",
        )
    elif program.version and program.version != VERSION:
        yield warning(
            "driver",
            f"{program.paths[0]} is version {program.version}, this doctor {VERSION}",
            "Two installations are mixed: remove one (pip, pipx or apt)",
        )
    else:
        yield ok("driver", f"{program.paths[0]} {program.version}".strip())
    if len(program.paths) > 1:
        yield warning(
            "driver",
            f"There are several: {', '.join(program.paths)}; the first one counts",
            "Remove those that you do not want: launchers may look in another order",
        )


def indiserver(facts: Facts) -> Iterable[Finding]:
    program = facts.system.programs[INDISERVER]
    if program.paths:
        yield ok("indiserver", f"{program.paths[0]} {program.version}".strip())
    else:
        yield note(
            "indiserver",
            "It is not installed; 'indi-qsi serve' does without it",
            "For KStars' local profiles and other drivers: sudo apt install indi-bin",
        )


def driver_file(facts: Facts) -> Iterable[Finding]:
    """KStars and INDI Web Manager know drivers by these files."""
    files = facts.system.driver_files
    wanted = [name for name in LAUNCHERS if facts.system.programs[name].paths]
    good = [file for file in files if file.drivers and DRIVER in file.drivers]
    found = [file for file in good if file.path.startswith(("/usr/share/", "/usr/local/share/"))]
    for file in files:
        if file.drivers is None:
            yield problem("driver file", f"{file.path} is no XML", "Install it again; launchers show no QSI")
        elif file.is_link and file in found:
            yield warning("driver file", f"{file.path} is a link, which KStars ignores", "Put a copy there")
    if found:
        yield ok("driver file", found[0].path)
    elif good:
        yield (warning if wanted else note)(
            "driver file",
            f"{good[0].path} is where launchers do not look",
            f"sudo install -D -m 644 {shlex.quote(good[0].path)} /usr/share/indi/indi_qsi.xml",
        )
    else:
        yield (warning if wanted else note)(
            "driver file",
            "indi_qsi.xml is not installed: "
            + (f"{' and '.join(wanted)} will not offer the camera" if wanted else "only launchers need it"),
            "Install indi-qsi-py, or copy data/indi_qsi.xml to /usr/share/indi/",
        )


def service(facts: Facts) -> Iterable[Finding]:
    state = facts.system.service
    if state is None or state.load != "loaded":
        return
    journal = "journalctl -u indi-qsi -e says why"
    if state.active == "failed" or (state.sub == "auto-restart"):
        yield problem(
            "service",
            f"indi-qsi does not come up ({state.active}, {state.result})",
            f"{journal}; a frequent reason is that another server has its port 7624",
        )
    elif state.active == "active":
        text = f": {state.status}" if state.status else ""
        if state.restarts > MANY_RESTARTS:
            yield warning("service", f"indi-qsi was restarted {state.restarts} times{text}", journal)
        else:
            yield ok("service", f"indi-qsi runs{text}")
        if state.enabled == "disabled":
            yield note("service", "It will not start with the machine", "sudo systemctl enable indi-qsi")
    elif state.enabled == "enabled":
        yield problem(
            "service",
            f"indi-qsi is enabled, but {state.active}",
            f"sudo systemctl start indi-qsi; {journal}",
        )
    else:
        yield note(
            "service",
            "indi-qsi is installed and not enabled, which is right under KStars or indiserver",
            "For a headless machine: sudo systemctl enable --now indi-qsi",
        )


def folder(facts: Facts) -> Iterable[Finding]:
    found = facts.system.folder
    if found is None:
        return
    about, path = "pictures", found.path
    if found.problem:
        yield problem(about, f"{path} cannot be used: {found.problem}", "Choose another one (UPLOAD_DIR)")
        return
    others = [process.user for process in facts.usb.drivers if process.user != facts.system.user.name]
    if not found.writable and others:
        yield note(about, f"{path} is for {others[0]}: sudo -u {others[0]} qsi-doctor measures its speed")
    elif not found.writable:
        yield warning(
            about,
            f"{facts.system.user.name} may not write {path}: a driver of this user cannot save there",
            "Choose another folder (UPLOAD_DIR), or change its owner",
        )
    if found.free is not None:
        room = f"{found.free / 1e9:.1f} GB free in {path}, about {found.free // FRAME} pictures"
        if found.free < FEW:
            yield problem(about, room, "Make room, or choose another folder (UPLOAD_DIR)")
        elif found.free < NIGHT:
            yield warning(about, room, "This may not last a night: make room")
        else:
            yield ok(about, room)
    if found.speed is None:
        if not found.exists:
            yield note(about, f"{path} does not exist yet: the first picture makes it")
    elif found.speed < SLOW_DISK:
        yield warning(
            about,
            f"{path} takes {found.speed / 1e6:.1f} MB/s: {FRAME / found.speed:.0f} s a picture",
            "The card or disk is slow or dying: copy the pictures away and replace it",
        )
    else:
        yield ok(about, f"{path} takes {found.speed / 1e6:.0f} MB/s")


def flights(facts: Facts) -> Iterable[Finding]:
    """They tell of what is over, so they are no reason for a script to stop."""
    about = "flight recorder"
    if not facts.system.flights:
        yield ok(about, "It has left no files")
    for found in facts.system.flights:
        if found.problem:
            yield note(about, f"{found.path} cannot be read: {found.problem}", "Look again: sudo qsi-doctor")
            continue
        files = "1 file" if found.count == 1 else f"{found.count} files"
        reason = found.kind if not found.reason else f"{found.kind}, {found.reason}"
        show = f"qsi-replay show {shlex.quote(found.newest)}"
        yield note(
            about,
            f"{files} in {found.path}, the newest {_age(found.age)} old: {reason}",
            f"It shows the last exchanges with the camera: {'sudo ' * (found.reason is None)}{show}",
        )


def _age(seconds: float) -> str:
    """In the largest unit of which there are at least two."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"


def clock(facts: Facts) -> Iterable[Finding]:
    match facts.system.synchronised:
        case True:
            yield ok("clock", "It follows a time server")
        case False:
            yield warning(
                "clock",
                "It is not synchronised: the times in the pictures' headers may be wrong",
                "Give the machine a network, a GPS or a clock chip; timedatectl shows its state",
            )
        case None:
            yield unknown("clock", "Nobody here can tell whether it is right", "Compare: date -u")


def power(facts: Facts) -> Iterable[Finding]:
    """Of the computer; the camera's own supply is asked of the camera."""
    pi = facts.system.power
    if pi is None:
        return
    if pi.throttled is None and pi.low_now is None:
        yield unknown(
            "Pi supply", f"{pi.board} does not tell its flags", "sudo apt install libraspberrypi-bin"
        )
        return
    now = pi.throttled or 0
    before = now >> SINCE_START
    if now & LOW_VOLTAGE or pi.low_now:
        yield problem("Pi supply", "The voltage is too low at this moment", BETTER_SUPPLY)
    elif before & LOW_VOLTAGE:
        yield warning("Pi supply", "The voltage was too low since the start", BETTER_SUPPLY)
    else:
        yield ok("Pi supply", f"{pi.board}: the voltage was never too low")
    if now & (CAPPED | THROTTLED):
        yield warning("Pi supply", "The Pi slows itself down: too hot, or too little voltage", "Cool it")
