# SPDX-License-Identifier: LGPL-2.1-or-later
"""`qsi-replay`: has the driver do again what a recording tells, and says where it does something else.

The driver is the real one, in this process, on a USB that answers as recorded; the requests are those of the
recorded clients. A request is made when all that was recorded before it has happened. Where nothing happened
for long, the replay does not wait; exposures take their time.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indi_qsi import replay_import
from indi_qsi.bus import Bus
from indi_qsi.fleet import Fleet
from indi_qsi.journal import log_to_stderr
from indi_qsi.properties import Hub, Vector
from indi_qsi.show import show
from indi_qsi.version import VERSION
from indi_qsi.wire.messages import Kind, NewVector
from usbproto import recording
from usbproto.deadline import Deadline
from usbproto.errors import BadArgument
from usbproto.recording import RecordingError
from usbproto.simulator.replay import Difference, Replay

SAME, DIFFERENT, UNUSABLE = 0, 1, 2
# s more than it took when it was recorded: a driver that needs longer has come to a halt.
PATIENCE = 20.0
# s of the user's thinking that are waited for; while the camera exposes, all of them are.
LONGEST_PAUSE = 0.5
SETTLE = 0.3  # s for what the driver does on its own after everything was done as recorded
POLL = 0.002  # s
EXPOSURE = "CCD_EXPOSURE"
# Requests whose effect was recorded as requests of its own, because it comes from a file of the user's.
FROM_FILES = frozenset({"CONFIG_PROCESS"})


class _Left(Exception):
    """The driver left the recording."""

    def __init__(self, difference: Difference) -> None:
        super().__init__(str(difference))


@dataclass
class _Step:
    """What is to be done when all above its line has happened, and the states that belong to it."""

    line: int
    at: float
    what: str  # "request" or "stop"
    message: NewVector | None
    states: dict[tuple[str, str], str]
    exposing: bool


def replay(path: Path) -> str | None:
    """Replays a recording; None when the driver did the same, else the first difference.

    $HOME must be a directory of the replay's own: the driver keeps its files there. Raises
    `RecordingError`, OSError.
    """
    lines = list(recording.read(path))
    steps, end = _steps(lines)
    first = next((line for line in lines if line.get("e") == "claim"), None)
    if first is None:
        raise RecordingError(f"{path}: no camera was opened in it")
    if not steps and "from" in lines[0]:
        raise RecordingError(
            f"{path} was imported and has no requests of INDI clients. Use it as the camera of a driver: "
            f"INDI_QSI_USB=replay:{path}"
        )
    directory = Path(os.environ["HOME"]) / ".indi"
    _restore(lines, directory)
    hub = Hub()
    bus = Bus(f"replay:{path}")
    try:
        backend = bus.backend()
    except BadArgument as error:
        raise RecordingError(str(error)) from error
    name = next((step.message.device for step in steps if step.message is not None), "QSI CCD")
    fleet = Fleet(hub, bus, name, directory, first["serial"])
    player = _Player(hub, fleet, backend.replay)
    try:
        player.play(steps, end)
    except _Left as left:
        return str(left)
    finally:
        backend.replay.over = True
        player.close()
        bus.close()
    return None


def _restore(lines: Sequence[Mapping[str, Any]], directory: Path) -> None:
    """What the recorded driver knew of the camera."""
    directory.mkdir(parents=True, exist_ok=True)
    files: dict[str, dict[str, Any]] = {}
    for line in lines:
        if line.get("e") == "kept":
            for name, content in line["files"].items():
                files.setdefault(Path(name).name, {}).update(content)
    for name, content in files.items():
        (directory / name).write_text(json.dumps(content))


def _steps(lines: Sequence[Mapping[str, Any]]) -> tuple[list[_Step], _Step]:
    """The steps in their order, and the last one, which is only waited for. Raises `RecordingError`."""
    steps = []
    states: dict[tuple[str, str], str] = {}
    number = 0
    try:
        for number, line in enumerate(lines, 1):
            event = line.get("e")
            if event == "state":
                states[line["device"], line["name"]] = line["state"]
            elif event == "stop" or (event == "request" and line["name"] not in FROM_FILES):
                message = _message(line) if event == "request" else None
                exposing = any(name == EXPOSURE and state == "Busy" for (_, name), state in states.items())
                steps.append(_Step(number, line["t"], event, message, dict(states), exposing))
        end = _Step(len(lines) + 1, lines[-1].get("t", 0.0), "end", None, dict(states), True)
    except (KeyError, TypeError, ValueError) as error:
        raise RecordingError(f"line {number} is not understood ({error!r})") from error
    return steps, end


def _message(line: Mapping[str, Any]) -> NewVector:
    values = tuple((str(name), str(text)) for name, text in line["values"])
    return NewVector(Kind(line["kind"]), str(line["device"]), str(line["name"]), values)


class _Player:
    def __init__(self, hub: Hub, fleet: Fleet, wire: Replay) -> None:
        self._hub = hub
        self._fleet: Fleet | None = fleet
        self._wire = wire
        self._done_at = 0.0  # in the recording
        self._since = time.monotonic()

    def play(self, steps: Sequence[_Step], end: _Step) -> None:
        stopped = False
        for step in steps:
            self._until(step, stopped)
            if step.message is not None:
                self._hub.dispatch(None, step.message)
            elif step.what == "stop":
                stopped = True
                self.close()
            self._done_at, self._since = step.at, time.monotonic()
        self._until(end, stopped)
        time.sleep(SETTLE)
        self._check()
        if missing := self._wire.missing():
            raise _Left(missing)

    def close(self) -> None:
        fleet, self._fleet = self._fleet, None
        if fleet is not None:
            fleet.close()

    def _check(self) -> None:
        if self._wire.difference is not None:
            raise _Left(self._wire.difference)

    def _until(self, step: _Step, stopped: bool) -> None:
        """Waits until all above the step has happened, and as long as it was waited then."""
        recorded = max(0.0, step.at - self._done_at)
        limit = Deadline(recorded + PATIENCE)
        pause = self._since + (recorded if step.exposing else min(recorded, LONGEST_PAUSE))
        if step.what == "end":
            pause = self._since
        while True:
            self._check()
            wrong = None if stopped else self._wrong_state(step)
            reached = self._wire.reached(step.line)
            if reached and wrong is None and time.monotonic() >= pause:
                return
            if limit.passed:
                missing = self._wire.missing() if not reached else None
                raise _Left(missing or Difference(wrong or "the driver has come to a halt", step.line))
            time.sleep(POLL)

    def _wrong_state(self, step: _Step) -> str | None:
        for (device, name), state in step.states.items():
            vector = self._vector(device, name)
            # What was Busy for a moment need not be caught in the act.
            if vector is not None and state != "Busy" and vector.state.value != state:
                return f"{name} is {vector.state.value} instead of {state}"
        return None

    def _vector(self, device: str, name: str) -> Vector[Any] | None:
        found = next((d for d in self._hub.devices if d.name == device), None)
        return found.get(name) if found is not None else None


SUMMARY = "Plays a recording of INDI_QSI_RECORD back through the driver, without a camera."
LIST = """    play    the default
    import  reads a capture of the USB that was made of another program
    show    prints a recording, or a flight recorder's file, as a table"""


def play(arguments: Sequence[str]) -> int:
    """`qsi-replay play`: returns the exit status; `arguments` are those behind "play"."""
    parser = argparse.ArgumentParser(
        prog="qsi-replay",
        usage="qsi-replay [play] [--verbose] FILE\n       qsi-replay COMMAND ...",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=f"{SUMMARY}\n\ncommands, each with a --help of its own:\n{LIST}",
        epilog="Exit status: 0 the driver did the same as recorded, 1 it did something else (the first\n"
        "difference is printed), 2 the recording cannot be used.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the recording")
    parser.add_argument("--verbose", action="store_true", help="show the driver's log")
    parser.add_argument("--version", action="version", version=f"qsi-replay {VERSION}")
    options = parser.parse_args(arguments)
    if options.verbose:
        log_to_stderr(logging.DEBUG)
    else:
        logging.disable(logging.CRITICAL)
    path = options.file.absolute()
    with tempfile.TemporaryDirectory(prefix="qsi-replay-") as home:
        os.environ["HOME"] = home
        os.environ.pop("INDICONFIG", None)
        try:
            difference = replay(path)
        except (RecordingError, OSError) as error:
            print(f"qsi-replay: {error}", file=sys.stderr)
            return UNUSABLE
    print(f"different: {difference}" if difference is not None else "same")
    return SAME if difference is None else DIFFERENT


# The sub-commands: each takes the arguments behind its name, and returns the exit status.
COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "play": play,
    "import": replay_import.main,
    "show": show,
}


def main() -> int:
    """`qsi-replay`: see `qsi-replay --help`. Returns the exit status.

    A file without a sub-command is played.
    """
    name, rest = (sys.argv[1:2] or [""])[0], sys.argv[2:]
    return COMMANDS[name](rest) if name in COMMANDS else play(sys.argv[1:])
