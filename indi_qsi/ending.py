# SPDX-License-Identifier: LGPL-2.1-or-later
"""SIGTERM and SIGINT, heard in a thread of their own.

The kernel may hand a signal to any thread. Python runs its handler in the main thread, but only when that one
next does something; as long as it waits for a lock or a descriptor it would not notice, and the process would
go on. So the bytes that Python writes for each signal are read by a thread that does nothing else.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

SIGNALS = {signal.SIGTERM: "terminated", signal.SIGINT: "interrupted"}


def on_signal(end: Callable[[str], object]) -> None:
    """From now on `end` is called, in another thread, with the reason.

    To be called once in a process, in its main thread.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in SIGNALS:
        signal.signal(number, _noted)
    threading.Thread(target=_listen, args=(reader, end), name="signals", daemon=True).start()


def _noted(number: int, frame: object) -> None:
    """Python has written the number into the pipe already."""


def _listen(reader: int, end: Callable[[str], object]) -> None:
    while numbers := os.read(reader, 64):
        for number in numbers:
            if number in SIGNALS:
                end(SIGNALS[signal.Signals(number)])
