# SPDX-License-Identifier: LGPL-2.1-or-later
"""`qsi-replay show FILE`: a flight recorder's file, or a recording, as a table."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from usbproto import flightfiles, recording
from usbproto.flightfiles import NotAFlight
from usbproto.recording import RecordingError
from usbproto.showing import table

SHOWN, UNUSABLE = 0, 2


def show(arguments: Sequence[str]) -> int:
    """Prints the table. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="qsi-replay show",
        description="Shows a flight recorder's file, or a recording, as a table.",
        epilog="Exit status: 0 the file was shown, 2 it cannot be used.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the file")
    options = parser.parse_args(arguments)
    try:
        _print(table(lines(options.file)))
    except (RecordingError, OSError) as error:
        print(f"qsi-replay: {error}", file=sys.stderr)
        return UNUSABLE
    return SHOWN


def lines(path: Path) -> Iterable[Mapping[str, Any]]:
    """The lines of a file of either kind, the heading first. Raises `RecordingError`, OSError."""
    try:
        return flightfiles.read(path)
    except NotAFlight:
        source = recording.read(path)
        # The heading is read here, so that a file of neither kind fails before anything is printed.
        return chain([next(source)], source)


def _print(rows: Iterable[str]) -> None:
    """A reader that has seen enough, such as `| head`, is no error."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal that has no degree sign
    try:
        for row in rows:
            print(row)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more as it ends, and would complain.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
