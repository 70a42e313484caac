# SPDX-License-Identifier: LGPL-2.1-or-later
"""What happens in a simulated camera, told at the moment at which it happens: to a file and to listeners."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any, TextIO

# Every event and what it says beyond its name. The names are a contract: tests and faults use them.
EVENTS: dict[str, str] = {
    "power": "on: the supply was switched",
    "ready": "power-up is over, the camera listens",
    "command": "code, command: a command was understood and begins",
    "answer": "code, error, bytes: a command was answered (bytes of data behind the answer)",
    "ignored": "why, and code or bytes: something from the host was not served",
    "expose": "seconds, x, y, columns, rows, bin_x, bin_y, light: the command was taken",
    "waiting": "the camera is armed and waits for the external trigger",
    "trigger": "the external trigger came",
    "exposure_start": "n, light: the exposure begins (the shutter is open when light is asked for)",
    "exposure_end": "n, seconds: the exposure is over (the shutter closes)",
    "idle": "n: the image is read out and waits for the host",
    "transfer": "n, bytes: the pixels leave for the host",
    "auto_zero": "count, level: the overscan pixels leave for the host",
    "abort": "state: an exposure was ended before its time, in this state",
    "shutter": "open, failed: the mechanical shutter has moved, or failed to",
    "relay": "x, y: pulse lengths in 10 ms; a relay closes",
    "relay_end": "axis, aborted: the relay opens",
    "filter": "position (from 0): the wheel begins to move there",
    "filter_end": "position, failed: the wheel is there, or jammed",
    "temperature": "on, ambient, set_point: the cooler was told",
    "settings": "led, sound, fan, gain, ...: the advanced settings were set",
    "alt_mode": "bits",
    "trigger_mode": "mode",
    "loader": "step, and valid: the loader took over (enter), or began this step; validated: it is done",
    "usb": "plugged: the cable was pulled or put in",
    "led": "shows: off, green, yellow, red flashing, or the flashes of an error",
    "beep": "sound: chirp, chirp-chirp, or the beeps of an error",
    "error": "code: a device error began (0: it is over)",
    "fault": "fault, args: an armed fault happens (error: its arguments were wrong)",
    "strange": "strange, args: the camera is strange in this way from now on (none: in no way)",
    "transfer_error": "direction, pixels, errno: a bulk transfer fails (pixels: an image is on its way)",
    "spoilt": "n, command: the image was disturbed by this command before it was transferred",
    "environment": "what was changed from outside: scene, ambient, voltage",
}

# Several cameras may share a file, each in its own time.
_writing = threading.Lock()

Listener = Callable[[str, dict[str, Any]], None]


class EventLog:
    """`listeners` are called with (name, facts) in the order in which they were added."""

    def __init__(self, file: TextIO | None = None, source: str = "") -> None:
        self.listeners: list[Listener] = []
        self._file = file
        self._source = {"camera": source} if source else {}

    def emit(self, name: str, **facts: Any) -> None:
        """Write one JSON line and tell the listeners. The facts must be plain JSON values."""
        if name not in EVENTS:
            raise ValueError(f"{name!r} is not in the table of events")
        if self._file is not None:
            line = {"t": time.time(), "e": name, **self._source, **facts}
            with _writing:
                self._file.write(json.dumps(line) + "\n")
                self._file.flush()
        for listener in list(self.listeners):
            listener(name, facts)
