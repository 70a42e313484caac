# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where the log goes: to systemd's journal with levels and fields, or as plain lines to standard error.

Fields of the journal beside its usual ones, for records of a camera's own thread:

    CAMERA_SERIAL   the camera's serial number:  journalctl -u indi-qsi CAMERA_SERIAL=00602123
    INDI_DEVICE     the name of its INDI device
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from indi_qsi.device.device import QsiDevice

IDENTIFIER = "indi-qsi"
# syslog's numbers, which the journal takes in front of a line as <N>.
PRIORITIES = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
)
DEBUG_PRIORITY = 7

Devices = Callable[[], Iterable["QsiDevice"]]


class CameraFields(logging.Filter):
    """Adds the fields to records of camera threads; lets everything pass."""

    def __init__(self) -> None:
        super().__init__()
        self.devices: Devices = tuple

    def filter(self, record: logging.LogRecord) -> bool:
        for device in self.devices():
            if device.thread.ident == record.thread:
                record.INDI_DEVICE = device.name
                if device.serial is not None:
                    record.CAMERA_SERIAL = device.serial
        return True


class PriorityFormatter(logging.Formatter):
    """Lines with the level as the journal understands it: <4>message."""

    def format(self, record: logging.LogRecord) -> str:
        number = next((n for lowest, n in PRIORITIES if record.levelno >= lowest), DEBUG_PRIORITY)
        # Every line of a traceback is an entry of its own.
        return "\n".join(f"<{number}>{line}" for line in super().format(record).splitlines())


def is_journal(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether what is written to `stream` goes to the journal (systemd.exec(5), JOURNAL_STREAM)."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def log_to_stderr(level: int) -> None:
    """indiserver adds the time; so no stamp of our own."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    _log_by(handler, level)


def _log_by(handler: logging.Handler, level: int) -> None:
    """The handler has the level too: more is let through for a client that wants it (device.diagnostics)."""
    handler.setLevel(level)
    logging.basicConfig(handlers=[handler], level=level)


def log_as_service(level: int) -> CameraFields:
    """To the journal, if standard error leads there. The devices are told to what is returned."""
    fields = CameraFields()
    if not is_journal(sys.stderr):
        log_to_stderr(level)
        return fields
    handler = _journal_handler()
    if handler is None:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(PriorityFormatter("%(name)s: %(message)s"))
    handler.addFilter(fields)
    _log_by(handler, level)
    return fields


def _journal_handler() -> logging.Handler | None:
    """systemd's own, None where systemd-python is not installed."""
    try:
        from systemd.journal import JournalHandler
    except ImportError:
        return None
    handler: logging.Handler = JournalHandler(SYSLOG_IDENTIFIER=IDENTIFIER)
    handler.setFormatter(logging.Formatter("%(message)s"))  # the logger's name is a field of its own
    return handler
