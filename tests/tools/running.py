# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs the tools as programs, with or without a terminal."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.indi import PATIENCE
from tests.support.rig import PROGRAMS

# Seconds for a program that imports astropy, measures a picture and ends, on a machine that is busy.
LONG = 5 * PATIENCE


@dataclass(frozen=True)
class Ended:
    """What a program left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Running:
    """A program that runs, without a terminal."""

    def __init__(self, folder: Path, name: str, *arguments: str, environ: Mapping[str, str] = {}) -> None:
        folder.mkdir(exist_ok=True)
        self.process = subprocess.Popen(
            # A test run in the background of a shell ignores Ctrl-C, and its children would as well.
            ["env", "--default-signal=INT", PROGRAMS / name, *arguments],
            cwd=folder,
            env={**os.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ended(self) -> Ended:
        try:
            out, err = self.process.communicate(timeout=LONG)
        finally:
            self.process.kill()
        return Ended(self.process.returncode, out, err)


def run(folder: Path, name: str, *arguments: str, environ: Mapping[str, str] = {}) -> Ended:
    return Running(folder, name, *arguments, environ=environ).ended()


def run_unread(folder: Path, name: str, *arguments: str, environ: Mapping[str, str] = {}) -> Ended:
    """A program whose standard output is a pipe that nobody reads any more."""
    folder.mkdir(exist_ok=True)
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = subprocess.run(
            [PROGRAMS / name, *arguments],
            cwd=folder,
            env={**os.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=LONG,
        )
    finally:
        os.close(writer)
    return Ended(result.returncode, "", result.stderr)


class Terminal:
    """A program on a terminal of 100 columns and 30 lines; `text` is what it wrote there."""

    def __init__(self, folder: Path, command: Sequence[str | Path]) -> None:
        master, slave = pty.openpty()
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self._master = master
        self._data = b""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with suppress(OSError):  # the terminal's other end is closed
            while data := os.read(self._master, 65536):
                self._data += data

    @property
    def text(self) -> str:
        return self._data.decode(errors="replace")

    def wait(self) -> int:
        try:
            code = self.process.wait(LONG)
        finally:
            self.process.kill()
        self._thread.join(PATIENCE)
        os.close(self._master)
        return code
