# SPDX-License-Identifier: LGPL-2.1-or-later
"""What flight recorders have left: files of exchanges around something odd or wrong."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from qsi_tools.doctor.facts import Flights
from usbproto import flightfiles
from usbproto.flightfiles import FOLDER, FlightFile
from usbproto.recording import RecordingError

STATE_FOLDER = f".indi/{FOLDER}"  # in the home directory of a driver's user
SERVICE_HOME = "var/lib/indi-qsi"  # the StateDirectory of indi-qsi.service
SHOWN = 300  # characters of a reason; the file may come from anywhere


def collect(root: Path, homes: Iterable[Path]) -> tuple[Flights, ...]:
    """Of the users with these homes, and of the service; only folders with files, or with a problem."""
    folders = [home / STATE_FOLDER for home in (*homes, root / SERVICE_HOME)]
    found = (_folder(folder) for folder in dict.fromkeys(folders))
    return tuple(flights for flights in found if flights.count or flights.problem)


def _folder(folder: Path) -> Flights:
    try:
        files = flightfiles.files(folder)
    except OSError as error:
        return Flights(str(folder), problem=error.strerror or str(error))
    if not files:
        return Flights(str(folder))
    newest = files[-1]
    age = max(0.0, time.time() - newest.at.timestamp())
    return Flights(str(folder), len(files), str(newest.path), newest.kind, _reason(newest), age)


def _reason(file: FlightFile) -> str | None:
    try:
        reason = str(flightfiles.read(file.path)[0].get("reason", ""))
    except (RecordingError, OSError):
        return None
    return "".join(char if char.isprintable() else "?" for char in reason[:SHOWN])
