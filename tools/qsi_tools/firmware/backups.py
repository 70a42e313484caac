# SPDX-License-Identifier: LGPL-2.1-or-later
"""Copies of a camera's EEPROM on disk: the bytes, and beside them a manifest that says whose they are.

A backup is never overwritten. One that is damaged, or of another camera or state, does not count.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from qsi_tools.firmware.access import read_eeprom
from qsi_tools.firmware.errors import BackupError
from qsi_tools.firmware.facts import Facts
from qsi_tools.firmware.files import safe_name, write_new
from usbproto.link import Link
from usbproto.models import Address

# Up to the last address that the notes name; whether there is memory behind it, nobody knows.
SIZE = Address.FAMILY + 1
FORMAT = 1
# What must be as it was when the backup was made.
_SAME = ("serial", "model", "firmware", "hardware", "manufactured")


def read_twice(link: Link) -> bytes:
    """The EEPROM. Raises `BackupError` when it does not say the same twice."""
    first, second = (read_eeprom(link, 0, SIZE) for _ in range(2))
    if first != second:
        raise BackupError("The EEPROM read differently the second time", "Check the USB cable and try again")
    return first


def save(folder: Path, facts: Facts, data: bytes) -> Path:
    """Returns the manifest's path. Raises `BackupError`."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    manifest = {
        "format": FORMAT,
        "what": "EEPROM of a QSI camera",
        "made": stamp,
        "address": 0,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        **{name: getattr(facts, name) for name in _SAME},
    }
    base = f"{safe_name(facts.serial)}-{stamp}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(100):
            name = base + (f"-{number}" if number else "")
            try:
                write_new(folder / f"{name}.bin", data)
            except FileExistsError:
                continue
            path = folder / f"{name}.json"
            write_new(path, (json.dumps({**manifest, "image": f"{name}.bin"}, indent=2) + "\n").encode())
            break
        else:
            raise BackupError(f"{folder} has a hundred backups of this second already")
    except OSError as error:
        raise BackupError(
            f"The backup could not be written to {folder}: {error.strerror or error}"
        ) from error
    if read(path) != manifest | {"image": f"{name}.bin"}:
        raise BackupError(f"The backup {path} is not what was written", "Check the disk")
    return path


def read(path: Path) -> dict[str, Any] | None:
    """The manifest, None when it or its image is not whole."""
    try:
        manifest = json.loads(path.read_text())
        image = (path.parent / os.path.basename(manifest["image"])).read_bytes()  # noqa: PTH119  # text
        whole = manifest["format"] == FORMAT and manifest["sha256"] == hashlib.sha256(image).hexdigest()
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return manifest if whole else None


def find(folder: Path, facts: Facts) -> Path | None:
    """The newest backup of this camera as it is now; in its loader, it has no firmware to compare."""
    same = [name for name in _SAME if not (facts.in_loader and name in ("firmware", "model"))]
    for path in sorted(folder.glob(f"{safe_name(facts.serial)}-*.json"), reverse=True):
        manifest = read(path)
        if manifest is not None and all(manifest.get(name) == getattr(facts, name) for name in same):
            return path
    return None
