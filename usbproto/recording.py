# SPDX-License-Identifier: LGPL-2.1-or-later
"""A recording: what went over the USB and what clients asked for, one JSON object a line.

docs/recording.md is its description.

Whatever happens to the recorder, the camera goes on: an error is logged once, and the recording ends.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from usbproto.models import EEPROM_TEXT_BYTES, Address
from usbproto.packets import GET_DEVICE_DETAILS, GET_EEPROM, HEADER_BYTES, printable

log = logging.getLogger(__name__)

FORMAT = "qsi-recording"
VERSION = 1
# Bytes. A night of exposures takes some 10 MB; what is larger got its size from pixels or from a fault.
MAX_FILE = 64 << 20
# Recordings beside each other: a server starts a driver that crashed ten times, and each has a file.
MAX_FILES = 100
# Lines that wait for the disk. A busy camera makes a hundred in a second.
MAX_WAITING = 2000
CLOSE_TIME = 3.0  # s
SHOWN_DIGITS = 3  # of a masked serial number: they tell the series
MAX_SERIALS = 100  # that are masked; a computer has some cameras, and a broken capture any number
UNKNOWN_DIGIT = b"0"  # stands for a digit of a serial number that is read before the number is known
# Where the answer of GetDeviceDetails has the serial number (wire protocol, section 3.2).
_SERIAL_FIELD = slice(87, 103)
_VALUE = HEADER_BYTES  # where the answer of GetEEPROM has its byte (section 3.1)

# What a line tells, by its "e". The names are the format: a new meaning gets a new name.
EVENTS: dict[str, str] = {
    "claim": "n, product, serial: connection n to a camera begins (error: it was refused)",
    "kept": "serial, files: what the host remembered of this camera",
    "control": "n, setup: a vendor request (error)",
    "write": "n, data: bytes to the camera (error)",
    "read": "n, data: bytes from it, the first at t; of pixels behind them length, sha256, took, or pixels; "
    "lost: number of bytes that an imported capture does not have",
    "unknown": "n, data, size, answer, answer_size: beginnings of bytes that are not a command of the "
    "driver's table, and of what came then; evidence of an imported capture, never played",
    "fail": "n, error: a read failed",
    "release": "n: the connection ends",
    "request": "device, kind, name, values: a client asks",
    "state": "device, name, state: a property's state has changed",
    "stop": "the driver ends",
    "end": "reason: the recording ends before the driver",
}
# Where digits are bytes: these are masked as bytes.
IN_HEXADECIMAL = frozenset({"control", "write", "read", "fail", "unknown"})


class Masks:
    """Serial numbers that must not be told, each with a number of the same length that stands for it."""

    def __init__(self) -> None:
        self._masked: dict[str, str] = {}

    def add(self, serial: str) -> None:
        digits = len(serial) - SHOWN_DIGITS
        if serial not in self._masked and digits > 0 and len(self._masked) < MAX_SERIALS:
            number = str(len(self._masked) + 1)[-digits:]
            self._masked[serial] = serial[:SHOWN_DIGITS] + number.zfill(digits)

    def text(self, text: str) -> str:
        for serial, masked in tuple(self._masked.items()):
            text = text.replace(serial, masked)
        return text

    def stand_in(self, number: int, digit: bytes) -> bytes:
        """What is shown instead of the character `number` of a serial number; bytes that are no text stay."""
        if not digit.isalnum():
            return digit
        for serial, masked in tuple(self._masked.items()):
            if serial.encode()[number : number + 1] == digit:
                return masked.encode()[number : number + 1]
        return UNKNOWN_DIGIT

    def bytes(self, data: bytes) -> bytes:
        for serial, masked in tuple(self._masked.items()):
            data = data.replace(serial.encode(), masked.encode())
        return data


def masked_answer(masks: Masks | None, request: bytes, answer: bytes) -> bytes:
    """`answer` without the serial numbers in it, also without those that only the `request` betrays.

    GetDeviceDetails has a field of its own for one, and GetEEPROM fetches one byte by byte. Without `masks`
    nothing is replaced.
    """
    if masks is None:
        return answer
    if request[:1] == answer[:1] == bytes((GET_DEVICE_DETAILS.code,)):
        masks.add(printable(answer[_SERIAL_FIELD]))
    elif request[:1] == answer[:1] == bytes((GET_EEPROM.code,)):
        number = int.from_bytes(request[HEADER_BYTES : HEADER_BYTES + 2], "big") - Address.HARDWARE_SERIAL
        if SHOWN_DIGITS <= number < EEPROM_TEXT_BYTES:
            digit = masks.stand_in(number, answer[_VALUE : _VALUE + 1])
            answer = answer[:_VALUE] + digit + answer[_VALUE + 1 :]
    return masks.bytes(answer)


class Recorder:
    """Writes one recording; any thread. `masks` is None when serial numbers may be told.

    A thread of its own does the writing, because who notes something may hold locks, and disks can hang.
    `remembered` is asked, once for each camera, what the host keeps of a serial number.
    """

    def __init__(self, path: Path, *, version: str = "", mask: bool = True, pixels: bool = False) -> None:
        """Raises OSError. A file that exists is left alone: the next free name is taken, see `path`."""
        self.path, fd = _create(path)
        self.pixels = pixels
        self.masks = Masks() if mask else None
        self.remembered: Callable[[str], Mapping[str, object]] = lambda serial: {}
        self._file = os.fdopen(fd, "w", encoding="utf-8")
        self._origin = time.monotonic()
        self._size = 0
        self._open = True
        self._known: set[str] = set()
        # None ends the thread.
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue(MAX_WAITING)
        self._lines.put({FORMAT: VERSION, "driver": version, "masked": mask, "pixels": pixels})
        self._thread = threading.Thread(target=self._write_out, name="recorder", daemon=True)
        self._thread.start()
        log.warning("everything that passes over the USB is recorded in %s", self.path)

    @property
    def recording(self) -> bool:
        return self._open

    def serial(self, serial: str) -> str:
        """A serial number as it is to be told; from now on it is masked everywhere."""
        if self.masks is None:
            return serial
        self.masks.add(serial)
        return self.masks.text(serial)

    def note(self, event: str, at: float | None = None, **facts: Any) -> None:
        """One line, written very soon; `at` (monotonic) when it happened earlier. Never waits or raises."""
        assert event in EVENTS
        if not self._open:
            return
        when = time.monotonic() if at is None else at
        try:
            self._lines.put_nowait({"t": round(when - self._origin, 6), "e": event, **facts})
        except queue.Full:
            self._open = False
            log.error(
                "the recording %s ends here: its disk does not answer. Nothing else is affected", self.path
            )

    def met(self, serial: str) -> None:
        """A camera is about to be used for the first time: notes what the host keeps of it."""
        if serial in self._known:
            return
        self._known.add(serial)
        try:
            files = dict(self.remembered(serial))
        except Exception:
            log.exception("what is kept of a camera is not recorded")
            return
        self.note("kept", serial=serial, files=files)

    def close(self) -> None:
        """Writes what waits, for `CLOSE_TIME` at most."""
        self._open = False
        with suppress(queue.Full):
            self._lines.put_nowait(None)
        self._thread.join(CLOSE_TIME)

    def _write_out(self) -> None:
        try:
            with self._file:
                while (line := self._lines.get()) is not None:
                    text = as_text(line, self.masks)
                    if self._size + len(text) > MAX_FILE:
                        self._open = False
                        reason = f"it has reached {MAX_FILE >> 20} MB"
                        log.warning("the recording %s ends: %s", self.path, reason)
                        self._file.write(json.dumps({"e": "end", "reason": reason}) + "\n")
                        return
                    self._file.write(text)
                    self._file.flush()  # what was written before a crash is what matters
                    self._size += len(text)
        except Exception as error:
            self._open = False
            log.error("the recording %s ends here: %s. Nothing else is affected", self.path, error)


class RecordingError(ValueError):
    """A file is no recording, or one that cannot be used; the text says why."""


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a recording, the heading first. Raises `RecordingError`, OSError.

    A last line that was cut by a crash is left out.
    """
    with path.open(encoding="utf-8", errors="replace") as file:
        number = 0
        for number, text in enumerate(file, 1):
            try:
                line = json.loads(text)
                if not isinstance(line, dict):
                    raise ValueError("no object")
            except (ValueError, RecursionError) as error:
                if number > 1 and not text.endswith("\n"):
                    return
                raise RecordingError(f"{path}, line {number}: {error}") from error
            if number == 1 and line.get(FORMAT) != VERSION:
                raise RecordingError(f"{path} is no recording of version {VERSION}, the only one there is")
            yield line
    if number == 0:
        raise RecordingError(f"{path} is empty")


_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class Writer:
    """Writes a recording of what has happened elsewhere. For one thread, which waits for the disk."""

    def __init__(self, path: Path, *, masks: Masks | None, origin: str) -> None:
        """`origin` is the program that made it. Raises OSError, and FileExistsError rather than overwrite."""
        # Only for its owner, as every recording.
        self._file = os.fdopen(os.open(path, _NEW_FILE, 0o600), "w", encoding="utf-8")
        self._masks = masks
        self._size = 0
        self.full = False
        self._write(
            {FORMAT: VERSION, "driver": "", "from": origin, "masked": masks is not None, "pixels": False}
        )

    def note(self, event: str, at: float, **facts: Any) -> None:
        """One line; `at` in s since the recording began. Ends the recording at `MAX_FILE`. Raises OSError."""
        assert event in EVENTS
        self._write({"t": round(at, 6), "e": event, **facts})

    def close(self) -> None:
        """Raises OSError when the disk does not take the rest."""
        self._file.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        if self.full:
            return
        text = as_text(line, self._masks)
        if self._size + len(text) > MAX_FILE:
            self.full = True
            text = json.dumps({"e": "end", "reason": f"it has reached {MAX_FILE >> 20} MB"}) + "\n"
        self._file.write(text)
        self._size += len(text)


def as_text(line: Mapping[str, Any], masks: Masks | None) -> str:
    """A line as it stands in the file."""
    text = json.dumps(line, separators=(",", ":")) + "\n"
    if masks is not None and line.get("e") not in IN_HEXADECIMAL:
        text = masks.text(text)
    return text


def _create(path: Path) -> tuple[Path, int]:
    for number in range(1, MAX_FILES + 1):
        candidate = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
        try:
            # Only for its owner: what is recorded is nobody else's business.
            return candidate, os.open(candidate, _NEW_FILE, 0o600)
        except FileExistsError:
            continue
    raise FileExistsError(f"{path} and {MAX_FILES - 1} names after it are taken")
