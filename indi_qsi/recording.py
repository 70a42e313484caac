# SPDX-License-Identifier: LGPL-2.1-or-later
"""INDI_QSI_RECORD: what a recording has beside the USB (usbproto.recording): clients, and what is kept.

What clients ask for is noted, and the states that answer it, so that a replay can ask the same. Texts are
not: they are names and paths of the user's, and none of them reaches the camera.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path

from indi_qsi.device.memory import FILE as MEMORY_FILE
from indi_qsi.device.source import CACHE_FILE
from indi_qsi.properties import Hub
from indi_qsi.properties.ports import BlobItem
from indi_qsi.version import VERSION
from indi_qsi.wire.messages import BlobPolicy, Kind, NewVector
from usbproto.recording import Recorder

log = logging.getLogger(__name__)

FILE_VARIABLE = "INDI_QSI_RECORD"
MASK_VARIABLE = "INDI_QSI_RECORD_MASK"
PIXELS_VARIABLE = "INDI_QSI_RECORD_PIXELS"

_SET = re.compile(rb"<set\w+Vector\s+([^>]*)>")
_ATTRIBUTE = re.compile(rb"(device|name|state)=[\"']([^\"']*)[\"']")
# Texts of the user's among what is kept of a camera.
_FILTER_NAME = re.compile(r"FILTER_SLOT_NAME_(\d+)")


def recorder(environ: Mapping[str, str] = os.environ) -> Recorder | None:
    """The recorder that the user asked for. A file that cannot be made is said, and nothing recorded."""
    path = environ.get(FILE_VARIABLE)
    if not path:
        return None
    try:
        return Recorder(
            Path(path),
            version=VERSION,
            mask=environ.get(MASK_VARIABLE) != "0",
            pixels=environ.get(PIXELS_VARIABLE) == "1",
        )
    except OSError as error:
        log.error("%s: nothing is recorded, %s: %s", FILE_VARIABLE, path, error.strerror or error)
        return None


class Witness:
    """Hears what clients ask of the hub and what is told to them. A link that goes nowhere."""

    name = "recording"
    can_snoop = False

    def __init__(self, hub: Hub, recorder: Recorder, directory: Path) -> None:
        """`directory` is where the driver keeps what it knows of cameras."""
        self._recorder = recorder
        self._directory = directory
        self._states: dict[tuple[str, str], str] = {}
        recorder.remembered = self._remembered
        hub.attach(self)
        hub.listen(self._requested)

    def stopping(self) -> None:
        """The driver is about to end."""
        self._recorder.note("stop")

    def _requested(self, message: NewVector) -> None:
        if message.kind is Kind.TEXT:
            return
        values = [list(pair) for pair in message.values]
        self._recorder.note(
            "request",
            device=message.device,
            kind=message.kind.value,
            name=message.name,
            values=values,
        )

    def _remembered(self, serial: str) -> dict[str, object]:
        """What the files say of this camera alone."""
        found: dict[str, object] = {}
        for name in (CACHE_FILE, MEMORY_FILE):
            with contextlib.suppress(OSError, ValueError, RecursionError):
                entries = json.loads((self._directory / name).read_text())
                mine = {key: _public(entry) for key, entry in entries.items() if key.split()[:1] == [serial]}
                if mine:
                    found[name] = mine
        return found

    # What a link has to have.

    def watch(self, device: str | None, name: str | None) -> None: ...

    def wants(self, device: str, name: str | None) -> bool:
        return name is not None

    def wants_blob(self, device: str, name: str) -> bool:
        return False

    def set_policy(self, device: str, name: str | None, policy: BlobPolicy) -> None: ...

    def post(self, data: bytes) -> None:
        for match in _SET.finditer(data):
            facts = {
                key.decode(): value.decode("utf-8", "replace") for key, value in _ATTRIBUTE.findall(match[1])
            }
            vector = facts.get("device", ""), facts.get("name", "")
            state = facts.get("state", "")
            if self._states.get(vector) != state:
                self._states[vector] = state
                self._recorder.note("state", device=vector[0], name=vector[1], state=state)

    def make_room(self, size: int) -> None: ...

    def post_blob(self, item: BlobItem) -> None:
        item.frame.release()

    def pong(self, uid: str) -> None: ...


def _public(entry: object) -> object:
    """Without the user's own texts."""
    if not isinstance(entry, dict):
        return entry
    return {
        key: f"Filter {match[1]}" if (match := _FILTER_NAME.fullmatch(key)) else _public(value)
        for key, value in entry.items()
    }
