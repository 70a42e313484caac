# SPDX-License-Identifier: LGPL-2.1-or-later
"""DEBUG, DEBUG_LEVEL, LOGGING_LEVEL, LOG_OUTPUT: the driver's own log, for clients and in a file."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from copy import copy
from logging.handlers import QueueHandler, QueueListener
from pathlib import Path
from queue import Full, Queue
from typing import Any, cast

from indi_qsi.device.subject import OPTIONS
from indi_qsi.device.worker import THREAD_NAME
from indi_qsi.properties import (
    Device,
    Level,
    Permission,
    Request,
    Rule,
    State,
    SwitchElement,
    SwitchVector,
    Vector,
)
from indi_qsi.storage import Storage

LOGGERS = ("indi_qsi", "usbproto")
# These tell what was told to clients already; passing it on would tell it again.
TOLD_ALREADY = "indi_qsi.properties.device"
# Element suffix, label, default, logging level, level in messages to clients.
LEVELS = (
    ("ERROR", "Errors", True, logging.ERROR, Level.ERROR),
    ("WARNING", "Warnings", True, logging.WARNING, Level.WARNING),
    ("SESSION", "Messages", True, logging.INFO, Level.INFO),
    ("DEBUG", "Driver Debug", False, logging.DEBUG, Level.DEBUG),
)
# Records that may wait for the disk: some seconds of everything that a download logs.
MAX_RECORDS = 10_000
MAX_TEXT = 200  # characters of a log line in a message; clients take 255


class Diagnostics(logging.Handler):
    """`thread` is the name of the device's camera thread: other cameras' records are not shown."""

    def __init__(self, executable: str, thread: str, device: Device, storage: Storage) -> None:
        super().__init__(logging.DEBUG)
        self._executable = executable
        self._thread = thread
        self._device = device
        self._storage = storage
        self._file: LogFile | None = None
        self.debug = SwitchVector(
            "DEBUG",
            "Debug",
            OPTIONS,
            (SwitchElement("ENABLE", "Enable"), SwitchElement("DISABLE", "Disable", True)),
            permission=Permission.RW,
            rule=Rule.ONE_OF_MANY,
            on_request=self._set_debug,
        )
        self._to_client = self._levels("DEBUG_LEVEL", "Debug Levels", "DBG_")
        self._to_file = self._levels("LOGGING_LEVEL", "Logging Levels", "LOG_")
        self._output = SwitchVector(
            "LOG_OUTPUT",
            "Log Output",
            OPTIONS,
            (
                SwitchElement("CLIENT_DEBUG", "To Client", True),
                SwitchElement("FILE_DEBUG", "To Log File"),
            ),
            permission=Permission.RW,
            rule=Rule.ANY_OF_MANY,
            on_request=self._set_output,
        )

    @staticmethod
    def _levels(name: str, label: str, prefix: str) -> SwitchVector:
        return SwitchVector(
            name,
            label,
            OPTIONS,
            [SwitchElement(prefix + level, text, on) for level, text, on, _, _ in LEVELS],
            permission=Permission.RW,
            rule=Rule.ANY_OF_MANY,
        )

    def saved(self) -> Sequence[Vector[Any]]:
        return (self.debug, self._to_client, self._to_file, self._output)

    def close(self) -> None:
        self._attach(False)
        self._storage.post(self, self._close_file)
        super().close()

    # --- requests ---

    def _set_debug(self, request: Request[bool]) -> None:
        on = request.values["ENABLE"]
        if on != self.debug["ENABLE"]:
            self._attach(on)
            change = self._device.add if on else self._device.remove
            change(self._to_client, self._to_file, self._output)
            if not on:
                self._storage.post(self, self._close_file)
        self.debug.set(request.values, state=State.OK)

    def _set_output(self, request: Request[bool]) -> None:
        wanted, before = request.values["FILE_DEBUG"], self._output["FILE_DEBUG"]
        answer = self._output.accept(request.values)

        def done(error: Exception | None) -> None:
            if error is None:
                answer.end(State.OK)
            else:
                answer.end(
                    State.ALERT, {"FILE_DEBUG": before}, message=f"The log file cannot be written: {error}"
                )

        self._storage.post(self, self._open_file if wanted else self._close_file, done)

    # --- the log ---

    def _attach(self, on: bool) -> None:
        for name in LOGGERS:
            logger = logging.getLogger(name)
            (logger.addHandler if on else logger.removeHandler)(self)
            # The stream that everybody sees has a level of its own (journal); this only lets the details
            # through, as long as any device of the process wants them.
            wanted = any(isinstance(handler, Diagnostics) for handler in logger.handlers)
            logger.setLevel(logging.DEBUG if wanted else logging.NOTSET)

    def _open_file(self) -> None:
        """In the storage thread. Raises OSError."""
        if self._file is not None:
            return
        now = time.gmtime()
        home = Path(os.environ.get("HOME") or "~").expanduser()
        folder = home / ".indi" / "logs" / time.strftime("%Y-%m-%d", now) / self._executable
        folder.mkdir(parents=True, exist_ok=True)
        self._file = LogFile(folder / f"{self._executable}_{time.strftime('%H:%M:%S', now)}.log")

    def _close_file(self) -> None:
        """Waits for the disk."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def handle(self, record: logging.LogRecord) -> bool:
        """Without the lock that handlers have: a message to clients takes the lock of the vectors, and who
        holds that may be logging. Files have a lock of their own."""
        thread = record.threadName or ""
        if thread.startswith(THREAD_NAME) and thread != self._thread:
            return False
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        file = self._file
        if file is not None and _chosen(self._to_file, record.levelno):
            file.write(record)
        if record.name == TOLD_ALREADY or not self._output["CLIENT_DEBUG"]:
            return
        if (level := _chosen(self._to_client, record.levelno)) is not None:
            self._device.tell(f"{record.name}: {record.getMessage()}"[:MAX_TEXT], level)


class _Listener(QueueListener):
    """Its end waits for a place in the queue, which a slow disk may have filled."""

    def enqueue_sentinel(self) -> None:
        cast("Queue[Any]", self.queue).put(None)


class LogFile:
    """A file that takes log records, with a thread that may wait for the disk. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self._file = logging.FileHandler(path)
        self._file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self._queue: Queue[logging.LogRecord] = Queue(MAX_RECORDS)
        self._sender = QueueHandler(self._queue)
        self._listener = _Listener(self._queue, self._file)
        self._listener.start()

    def write(self, record: logging.LogRecord) -> None:
        """Any thread; never waits. A record for which the disk is too slow is dropped."""
        with suppress(Full):
            self._queue.put_nowait(self._sender.prepare(copy(record)))

    def close(self) -> None:
        """Writes what waits; that takes as long as the disk takes."""
        self._listener.stop()
        self._file.close()


def _chosen(vector: SwitchVector, number: int) -> Level | None:
    """The level of a record for clients, None when it is not to be shown."""
    for element, (_, _, _, lowest, level) in zip(vector.elements, LEVELS, strict=True):
        if number >= lowest:
            return level if vector[element] else None
    return None
