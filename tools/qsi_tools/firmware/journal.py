# SPDX-License-Identifier: LGPL-2.1-or-later
"""How far an update came, on disk, so that it can be told after the power was cut.

One file a camera, written before each step: it names the last step that may have been begun. Beside it lies a
copy of the image, so that `recover` needs nothing else.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path

from qsi_tools.firmware import files
from qsi_tools.firmware.errors import FileError, JournalError
from qsi_tools.firmware.image import Image, read_image

FORMAT = 1


class Standing(Enum):
    """What is known of the part that is being written."""

    OLD = "what was there before; nothing was erased"
    UNKNOWN = "what was there before, or nothing: it may have been erased or not"
    NONE = "nothing that is whole: it was erased, and the camera starts in its loader"
    UNCHECKED = "the new one; whether the camera has found it whole is not known"
    NEW = "the new one, which the camera has found whole"


class Step(Enum):
    """In their order. The value is what the journal has."""

    ENTER = "start the loader"
    IDENTIFY = "ask the loader who it is"
    ERASE = "erase"
    WRITE = "write"
    COMPARE = "read back and compare"
    VALIDATE = "have the camera check it"
    RESTART = "restart the camera"
    CONFIRM = "read the version again"
    DONE = "done"

    @property
    def standing(self) -> Standing:
        """When this step may have been begun, and nothing later."""
        if self in (Step.ENTER, Step.IDENTIFY):
            return Standing.OLD
        if self in (Step.WRITE, Step.COMPARE):
            return Standing.NONE
        if self is Step.ERASE:
            return Standing.UNKNOWN
        return Standing.UNCHECKED if self is Step.VALIDATE else Standing.NEW


@dataclass(frozen=True, slots=True)
class Entry:
    """What the journal says. Times are in seconds since 1970."""

    serial: str
    model: str
    target: str
    old_version: str
    new_version: str
    sha256: str  # of the image's bytes
    step: str
    begun: float
    changed: float
    error: str = ""
    format: int = FORMAT

    @property
    def open(self) -> bool:
        return self.step != Step.DONE.name

    @property
    def standing(self) -> Standing:
        return Step[self.step].standing

    def story(self) -> str:
        """What happened, and what state the camera is in."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.begun))
        return (
            f"The update of the {self.target} of {self.model} {self.serial} "
            f"from {self.old_version or '(unknown)'} to {self.new_version}, "
            f"begun {stamp}, was not finished.\n"
            f"  last step:  {Step[self.step].value}\n"
            f"  in the camera:  {self.standing.value}"
        )

    def explain(self) -> str:
        """The story, and what to do."""
        return f"{self.story()}\nLeave the camera plugged in and powered, and run: qsi-firmware recover"


class Journal:
    """Of one camera. Methods that write raise `JournalError` when the disk does not take it."""

    def __init__(self, folder: Path, serial: str) -> None:
        name = files.safe_name(serial)
        self._path = folder / f"{name}.journal.json"
        self._image_path = folder / f"{name}.image.bin"
        self.entry = self._read()

    @property
    def open(self) -> bool:
        """An update was begun and is not done."""
        return self.entry is not None and self.entry.open

    def _read(self) -> Entry | None:
        try:
            values = json.loads(self._path.read_text())
            entry = Entry(**values)
            Step[entry.step]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise JournalError(
                f"The journal {self._path} cannot be read ({error})",
                "Move it away, and run qsi-firmware recover with the firmware file",
            ) from error
        return entry

    def begin(
        self, image: Image, serial: str, model: str, old_version: str, first: Step = Step.ENTER
    ) -> None:
        """The image first: a journal without it would be worth less."""
        now = time.time()
        with _told():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            files.replace(self._image_path, image.data)
        entry = Entry(
            *(serial, model, image.target.value, old_version, image.version),
            *(hashlib.sha256(image.data).hexdigest(), first.name, now, now),
        )
        self._write(entry)

    def step(self, step: Step) -> None:
        """This step is about to begin."""
        assert self.entry is not None
        self._write(replace(self.entry, step=step.name, changed=time.time(), error=""))

    def done(self) -> None:
        self.step(Step.DONE)

    def failed(self, why: str) -> None:
        """A note; the step stays."""
        if self.entry is not None:
            self._write(replace(self.entry, changed=time.time(), error=why))

    def image(self) -> Image | None:
        """The copy of what was being written; None when there is none, or it is damaged."""
        try:
            return read_image(self._image_path.read_bytes())
        except (OSError, FileError):
            return None

    def _write(self, entry: Entry) -> None:
        with _told():
            files.replace(self._path, (json.dumps(asdict(entry), indent=2) + "\n").encode())
        self.entry = entry


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise JournalError(
            f"The journal cannot be written ({error.strerror or error})",
            "See that there is room, or say --state FOLDER",
        ) from error
