# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where pictures go and as what: to the clients, into local files, or both; FITS, compressed, or bare pixels.

Whatever a guiding program could not live with is off after each connect: it waits for a picture that never
comes when another client left the mode at Local, and it reads plain FITS only.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indi_qsi.device import compression, files
from indi_qsi.device.optics import is_colour
from indi_qsi.device.subject import IMAGE_INFO, IMAGE_SETTINGS, OPTIONS, Subject, explain
from indi_qsi.properties import (
    Device,
    Level,
    Permission,
    Request,
    Rule,
    State,
    SwitchElement,
    SwitchVector,
    TextElement,
    TextVector,
    Vector,
)
from indi_qsi.properties.vectors import MODEL_LOCK
from indi_qsi.storage import Storage
from usbproto.errors import BadArgument

if TYPE_CHECKING:
    from usbproto.camera import Camera

TIMEOUT = 60.0  # s, advisory
DIRECTORY, PREFIX, PATH = "UPLOAD_DIR", "UPLOAD_PREFIX", "FILE_PATH"
USUAL_PREFIX = "IMAGE_XXX"
ENABLED, DISABLED = "INDI_ENABLED", "INDI_DISABLED"
MONO, RAW = "INDI_MONO", "INDI_RAW"
FITS, NATIVE = "FORMAT_FITS", "FORMAT_NATIVE"


class Mode(Enum):
    """Where pictures go; the value is the switch. KStars goes by the order."""

    CLIENT = "UPLOAD_CLIENT"
    LOCAL = "UPLOAD_LOCAL"
    BOTH = "UPLOAD_BOTH"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to become of one picture."""

    mode: Mode
    directory: str
    prefix: str
    native: bool
    compress: bool

    @property
    def suffix(self) -> str:
        """Of the local file, and of what is sent uncompressed."""
        return ".bin" if self.native else ".fits"

    def folder(self) -> Path:
        """Raises `BadArgument`."""
        return files.resolve(self.directory, home())

    def prepare(self) -> None:
        """Makes the folder of local files ready, before the time of an exposure is spent.

        A disk that sleeps takes its time, and one of another computer may hang. Raises `QsiError`s.
        """
        files.prepare(self.folder())

    def save(self, data: memoryview, end: float) -> files.Saved:
        """Writes the picture's local file. `end` (Unix time) is that of the exposure. Raises `QsiError`s."""
        return files.save(self.folder(), self.prefix, datetime.fromtimestamp(end), self.suffix, data)


class UploadSubject(Subject):
    """UPLOAD_MODE, UPLOAD_SETTINGS, CCD_FILE_PATH, CCD_COMPRESSION, CCD_CAPTURE_FORMAT, CCD_TRANSFER_FORMAT.

    CCD_FILE_PATH is defined while frames are saved in files.
    """

    def __init__(self, device: Device, storage: Storage) -> None:
        self._device = device
        self._storage = storage
        self._connected = False
        self.mode = SwitchVector(
            "UPLOAD_MODE",
            "Upload",
            OPTIONS,
            (
                SwitchElement(Mode.CLIENT.value, "Client", True),
                SwitchElement(Mode.LOCAL.value, "Local"),
                SwitchElement(Mode.BOTH.value, "Both"),
            ),
            permission=Permission.RW,
            rule=Rule.ONE_OF_MANY,
            on_request=self._set_mode,
        )
        self.settings = TextVector(
            "UPLOAD_SETTINGS",
            "Upload Settings",
            OPTIONS,
            (TextElement(DIRECTORY, "Dir"), TextElement(PREFIX, "Prefix", USUAL_PREFIX)),
            permission=Permission.RW,
            timeout=TIMEOUT,
            on_request=self._set_settings,
        )
        self.file_path = TextVector(
            "CCD_FILE_PATH",
            "Filename",
            IMAGE_INFO,
            (TextElement(PATH, "Path"),),
            permission=Permission.RO,
            timeout=TIMEOUT,
        )
        self.compression = SwitchVector(
            "CCD_COMPRESSION",
            "Compression",
            IMAGE_SETTINGS,
            (SwitchElement(ENABLED, "Enabled"), SwitchElement(DISABLED, "Disabled", True)),
            permission=Permission.RW,
            rule=Rule.ONE_OF_MANY,
            timeout=TIMEOUT,
            on_request=self._set_compression,
        )
        self.capture_format = _capture_format(MONO, "Mono")
        self.transfer_format = SwitchVector(
            "CCD_TRANSFER_FORMAT",
            "Encode",
            IMAGE_SETTINGS,
            (SwitchElement(FITS, "FITS", True), SwitchElement(NATIVE, "Native")),
            permission=Permission.RW,
            rule=Rule.ONE_OF_MANY,
            timeout=TIMEOUT,
        )

    def vectors(self) -> Sequence[Vector[Any]]:
        return self.saved()  # CCD_FILE_PATH comes and goes with the mode

    def saved(self) -> Sequence[Vector[Any]]:
        return (self.mode, self.settings, self.compression, self.capture_format, self.transfer_format)

    def connect(self, camera: Camera) -> None:
        self.mode.select(Mode.CLIENT.value, state=State.IDLE)
        self.compression.select(DISABLED, state=State.IDLE)
        self.transfer_format.select(FITS, state=State.IDLE)
        colour = is_colour(camera.identity)
        self.capture_format = _capture_format(RAW, "RAW 16") if colour else _capture_format(MONO, "Mono")
        self.settings.set({DIRECTORY: self.settings[DIRECTORY] or home()}, state=State.IDLE)
        self.file_path.set({PATH: ""}, state=State.IDLE)
        self._connected = True

    def lost(self) -> None:
        """What clients have chosen stays while the camera is away ..."""

    def back(self, camera: Camera) -> None:
        """... and holds when it is there again."""

    def disconnect(self) -> None:
        with MODEL_LOCK:
            self._connected = False
            self._device.remove(self.file_path)
        for vector in self.vectors():
            vector.set(state=State.IDLE)

    # --- for the exposure and for the frame thread ---

    def plan(self) -> Plan:
        """What the clients want of an exposure that is asked for now. Any thread."""
        with MODEL_LOCK:
            native = self.transfer_format[NATIVE]
            return Plan(
                Mode(self.mode.selected),
                self.settings[DIRECTORY],
                self.settings[PREFIX],
                native,
                self.compression[ENABLED] and not native,  # fpack is for FITS
            )

    def written(self, saved: files.Saved) -> None:
        """Tells the clients of a new file; they take this for the end of a local capture."""
        message = None
        if saved.taken is not None:
            message = (
                f"{saved.taken[-files.SHOWN :]} was there already and is kept; the new picture is "
                f"{saved.path.name[-files.SHOWN :]}. Prefixes with {files.INDEX_MARK} number all pictures"
            )
        self.file_path.set({PATH: str(saved.path)}, state=State.OK, message=message, level=Level.WARNING)

    # --- requests ---

    def _set_mode(self, request: Request[bool]) -> None:
        mode = next(mode for mode in Mode if request.values[mode.value])
        message = None
        if mode is Mode.LOCAL and not self.mode[mode.value]:
            message = "Pictures are saved in files and not sent: guiding programs get none"
        with MODEL_LOCK:
            self.mode.select(mode.value, state=State.OK, message=message)
            if mode is Mode.CLIENT:
                self._device.remove(self.file_path)
            elif self._connected and not self.file_path.defined:
                self._device.add(self.file_path)

    def _set_settings(self, request: Request[str]) -> None:
        directory, prefix = request.values[DIRECTORY].strip() or home(), request.values[PREFIX].strip()
        try:
            files.resolve(directory, home())
            files.check_prefix(prefix)
        except BadArgument as error:
            self.settings.refuse(str(error))
            return
        self.settings.set({DIRECTORY: directory, PREFIX: prefix}, state=State.OK)

    def _set_compression(self, request: Request[bool]) -> None:
        if not request.values[ENABLED]:
            self.compression.select(DISABLED, state=State.OK)
            return
        # What is asked for next is to be compressed, whether or not the program has been found by then.
        before = self.compression.selected
        answer = self.compression.accept({ENABLED: True})

        def found(error: Exception | None) -> None:
            if error is None:
                message = (
                    f"FITS pictures are sent as {compression.FORMAT}, which guiding programs cannot read"
                )
                answer.end(State.OK, message=message, level=Level.INFO)
            else:
                answer.end(State.ALERT, {before or DISABLED: True}, message=explain(error))

        self._storage.post(("fpack", answer), compression.look_for, found)


def home() -> str:
    """The home directory of the driver's user; empty where there is none, which no check lets pass."""
    given = os.environ.get("HOME")
    if given:
        return given
    try:
        return str(Path.home())
    except RuntimeError:
        return ""


def _capture_format(name: str, label: str) -> SwitchVector:
    """The only format that a camera has. Clients may choose it."""
    return SwitchVector(
        "CCD_CAPTURE_FORMAT",
        "Format",
        IMAGE_SETTINGS,
        (SwitchElement(name, label, True),),
        permission=Permission.RW,
        rule=Rule.ONE_OF_MANY,
        timeout=TIMEOUT,
    )
