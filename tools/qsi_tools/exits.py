# SPDX-License-Identifier: LGPL-2.1-or-later
"""How the programs that talk to an INDI server end: their exit codes, and signals."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from qsi_tools.indi.client import Alert, ClientError, Interrupted, Missing, ServerGone, TimedOut

DONE, FAILED, USAGE, NO_SERVER, NOT_THERE, ALERT, TIMED_OUT, INTERRUPTED = 0, 1, 2, 3, 4, 5, 6, 130

EPILOG = (
    "exit status: 0 done, 1 a file could not be written or read, 2 wrong arguments, 3 no INDI server or it "
    "is gone, 4 no such device, property or filter, 5 the camera refused or failed, 6 a time limit was "
    "over, 130 interrupted"
)

# The end of an ssh session is a reason to stop, unless nohup has said otherwise.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def code(error: ClientError) -> int:
    """The exit code that tells a script what went wrong."""
    codes = {ServerGone: NO_SERVER, Missing: NOT_THERE, Alert: ALERT, TimedOut: TIMED_OUT}
    return INTERRUPTED if isinstance(error, Interrupted) else codes.get(type(error), FAILED)


@contextmanager
def stop_on_signals(stop: threading.Event) -> Iterator[None]:
    """The first signal sets `stop`, so that things end in order; the next one ends at once."""
    seen = False

    def stopping(number: int, frame: FrameType | None) -> None:
        nonlocal seen
        if seen:
            raise KeyboardInterrupt
        seen = True
        stop.set()

    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, stopping)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
