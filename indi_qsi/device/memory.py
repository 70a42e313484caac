# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the host keeps for each camera: filter names, offsets and trims, and its settings by role.

One JSON file for all cameras of a user: {serial: {section: {key: value}}}. The config file of INDI belongs to
a device name and is loaded when a client says so; this belongs to a camera, and holds at every connect.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from usbproto.deadline import Deadline

log = logging.getLogger(__name__)

FILE = "qsi-cameras.json"
MAX_BYTES = 1 << 20  # a real file has some kB; a larger one is not ours
MAX_BROKEN = 9  # broken files that are kept aside; a fault that comes back must not fill the disk
LOCK_LIMIT = 2.0  # s; others have the file for some milliseconds
LOCK_POLL = 0.01  # s


class Memory:
    """The file, read and written as a whole. A file that cannot be used is set aside, never fatal."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE
        self._lock = threading.Lock()
        self._unsaved: dict[tuple[str, str], dict[str, Any]] = {}  # holds until the program ends

    def get(self, serial: str, section: str) -> dict[str, Any]:
        """What is kept of a camera under `section`; empty when there is nothing."""
        with self._lock:
            if (serial, section) in self._unsaved:
                return dict(self._unsaved[serial, section])
            kept = self._load().get(serial, {}).get(section, {})
            return dict(kept) if isinstance(kept, dict) else {}

    def put(self, serial: str, section: str, values: Mapping[str, Any]) -> None:
        """Keeps `values` in the place of what was there. Raises OSError; then they hold in this process."""
        with self._lock:
            self._unsaved[serial, section] = dict(values)
            with self._alone():
                everything = self._load(strict=True)
                camera = everything.setdefault(serial, {})
                if camera.get(section) != values:
                    camera[section] = dict(values)
                    self._save(everything)
            del self._unsaved[serial, section]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keeps the drivers of other cameras out, which have the same file. Raises OSError."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        limit = Deadline(LOCK_LIMIT)
        with self._path.with_name(f".{FILE}.lock").open("a") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if limit.passed:
                        raise
                    time.sleep(LOCK_POLL)
            yield

    def _load(self, *, strict: bool = False) -> dict[str, dict[str, Any]]:
        """`strict`: it is going to be written again, so what cannot be read must not be lost: `OSError`."""
        try:
            with self._path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return {}
        except OSError as error:
            if strict:
                raise
            log.warning("%s cannot be read: %s", self._path, error.strerror)
            return {}
        try:
            if len(data) > MAX_BYTES:
                raise ValueError(f"larger than {MAX_BYTES} bytes")
            everything = json.loads(data)
            if not isinstance(everything, dict) or not all(isinstance(v, dict) for v in everything.values()):
                raise ValueError("not a table of cameras")
        except (ValueError, RecursionError) as error:
            aside = self._aside()
            log.error("%s is broken (%s); it is now %s", self._path, error, aside.name)
            try:
                self._path.replace(aside)
            except OSError as failure:
                log.error("and it cannot be renamed: %s", failure.strerror)
            return {}
        return everything

    def _aside(self) -> Path:
        """Where a broken file goes; the first ones are kept, because they may hold the most."""
        for number in range(1, MAX_BROKEN + 1):
            aside = self._path.with_suffix(".broken.json" if number == 1 else f".broken-{number}.json")
            if not aside.exists():
                break
        return aside

    def _save(self, everything: dict[str, dict[str, Any]]) -> None:
        beside = self._path.with_name(f".{FILE}.{os.getpid()}.tmp")
        try:
            with beside.open("w", encoding="utf-8") as file:
                json.dump(everything, file, indent=1, ensure_ascii=False)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
