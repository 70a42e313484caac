# SPDX-License-Identifier: LGPL-2.1-or-later
"""The driver with stamps at the stations of a frame: `indi_qsi_ccd`, measured from inside.

Each line of the file BENCH_TRACE is [station, begin, end], in Unix time.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from typing import Any

import indi_qsi.device.plate
import indi_qsi.fits
import indi_qsi.links.output
import usbproto.link
from indi_qsi import main

_FILE = open(os.environ["BENCH_TRACE"], "a", buffering=1)  # noqa: SIM115


def _stamp(owner: Any, name: str, station: Any) -> None:
    """`station` is a name, or makes one of the arguments (None: not of interest)."""
    inner = getattr(owner, name)

    @functools.wraps(inner)
    def outer(*args: Any, **kwargs: Any) -> Any:
        where = station(*args, **kwargs) if callable(station) else station
        begin = time.time()
        result = inner(*args, **kwargs)
        if where is not None:
            _FILE.write(json.dumps([where, begin, time.time()]) + "\n")
        return result

    setattr(owner, name, outer)


_stamp(usbproto.link.Link, "read_data", lambda link, target, phase, *more: phase)
_stamp(usbproto.link.Link, "exchange", lambda link, command, *more, **options: command.name)
_stamp(indi_qsi.fits, "render_header", "header")
_stamp(indi_qsi.device.plate.Plate, "fits", "file")
_stamp(
    indi_qsi.links.output.SocketOutput,
    "write",
    lambda output, data, descriptor=None: None if descriptor is None else "handed over",
)

if __name__ == "__main__":
    sys.argv[1:] = []
    sys.exit(main.driver())
