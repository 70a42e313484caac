# SPDX-License-Identifier: LGPL-2.1-or-later
"""The CSV log: a line a camera and interval, whole lines only, appended to what is there."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from qsi_tools.watch.state import Snapshot

COLUMNS = (
    "time",
    "device",
    "temperature_c",
    "power_percent",
    "phase",
    "seconds_left",
    "filter",
    "guide_pulses",
    "alarms",
)


class BadLog(Exception):
    """A file is no log of this program; the text says where."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a plot needs of a line."""

    time: datetime
    device: str
    temperature: float | None
    power: float | None
    phase: str


class Log:
    """Appends to a file. Raises `BadLog` for a file that is something else, OSError."""

    def __init__(self, path: Path) -> None:
        start = path.read_bytes()[:4096] if path.exists() else b""
        header = _line(COLUMNS)
        if start and not start.startswith(header):
            raise BadLog(f"{path} is there already and is no log of qsi-watch: choose another name")
        # Each line is one write at the file's end: two programs may log into one file.
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        if not start:
            self._write(header)
        elif not _ends_with_newline(path):
            self._write(b"\n")  # the last line was cut off when the power went

    def add(self, now: datetime, camera: Snapshot) -> None:
        """A line, which is in the file afterwards. Raises OSError."""
        self._write(
            _line(
                (
                    stamp(now),
                    camera.device,
                    _text(camera.temperature, 2),
                    _text(camera.power, 1),
                    camera.phase if camera.connected else "not connected",
                    _text(camera.seconds_left, 1),
                    camera.filter,
                    str(camera.pulses),
                    "; ".join(camera.alarms),
                )
            )
        )

    def close(self) -> None:
        """Ends it."""
        os.close(self._file)

    def _write(self, data: bytes) -> None:
        written = os.write(self._file, data)
        if written != len(data):
            raise OSError("the disk is full")


def read(path: Path) -> list[Entry]:
    """The entries of a log. A line that was cut off by a power failure is left out.

    Raises `BadLog`, OSError.
    """
    entries = []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = csv.reader(file)
        if tuple(next(rows, ())) != COLUMNS:
            raise BadLog(f"{path} is no log of qsi-watch: its first line is not {','.join(COLUMNS)}")
        for row in rows:
            if len(row) < len(COLUMNS):
                continue
            time, device, temperature, power, phase = row[:5]
            try:
                entries.append(
                    Entry(datetime.fromisoformat(time), device, _number(temperature), _number(power), phase)
                )
            except ValueError as error:
                raise BadLog(f"{path}, line {rows.line_num}: {error}") from None
    return entries


def stamp(now: datetime) -> str:
    """UTC, milliseconds: '2026-11-22T23:10:05.250+00:00'."""
    return now.astimezone(UTC).isoformat(timespec="milliseconds")


def _line(values: tuple[str, ...]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue().encode()


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _text(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _number(text: str) -> float | None:
    return float(text) if text else None
