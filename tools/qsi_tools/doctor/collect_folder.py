# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where pictures go: room, and how fast it takes one. The only place where the doctor writes anything."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

from qsi_tools.doctor.facts import Folder
from usbproto.deadline import Deadline

# What a full frame of the common 8.3 megapixel sensor has; a dying SD card needs many seconds for it.
SAMPLE = 16 * 1024 * 1024  # bytes
PIECE = 1024 * 1024
TIME_LIMIT = 5.0  # s; what was written until then is measured


def collect(path: Path, *, write: bool) -> Folder:
    """Room in the folder, or where it would be made; and its speed, when it is there and `write` is set."""
    place = path
    try:
        while not place.exists() and place != place.parent:
            place = place.parent
    except PermissionError:
        # In a folder that is closed to this user, such as another user's home: nobody here can say more.
        return Folder(str(path), True, False)
    try:
        free = shutil.disk_usage(place).free
    except OSError as error:
        return Folder(str(path), path.is_dir(), False, problem=error.strerror or str(error))
    writable = os.access(place, os.W_OK | os.X_OK) and place.is_dir()
    if not (write and writable and path.is_dir() and free > 2 * SAMPLE):
        return Folder(str(path), path.is_dir(), writable, free)
    try:
        return Folder(str(path), True, True, free, _speed(path))
    except OSError as error:
        return Folder(str(path), True, False, free, problem=error.strerror or str(error))


def _speed(folder: Path) -> float:
    """Bytes/s into a file without a name, which is gone when it is closed, whatever happens to us."""
    piece = os.urandom(PIECE)  # nothing that a file system could pack
    started = time.monotonic()
    deadline = Deadline(TIME_LIMIT)
    written = 0
    with tempfile.TemporaryFile(dir=folder, prefix=".qsi-doctor-", buffering=0) as file:
        while written < SAMPLE and not deadline.passed:
            written += file.write(piece)
            os.fsync(file.fileno())
    return written / max(time.monotonic() - started, 1e-6)
