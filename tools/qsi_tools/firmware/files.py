# SPDX-License-Identifier: LGPL-2.1-or-later
"""Files that are whole or not there, also after a power cut."""

from __future__ import annotations

import os
import re
from pathlib import Path


def safe_name(serial: str) -> str:
    """A serial number as part of a file name."""
    return re.sub(r"[^0-9A-Za-z]", "_", serial) or "unknown"


def write_new(path: Path, data: bytes) -> None:
    """Raises `FileExistsError` rather than overwriting."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(path.parent)


def replace(path: Path, data: bytes) -> None:
    """The old content or the new, never something in between."""
    temporary = path.with_name(path.name + ".new")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
