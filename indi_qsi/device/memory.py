# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the host keeps for each camera: filter names, offsets and trims, and its settings by role.

One JSON file for all cameras of a user: {serial: {section: {key: value}}}. The config file of INDI belongs to
a device name and is loaded when a client says so; this belongs to a camera, and holds at every connect.

The file is read once. After that all answers come from RAM, and a storage thread writes what has changed.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from indi_qsi.storage import (
    LOCK_LIMIT,
    Done,
    Storage,
    locked,
    read_regular,
    reason,
    write_atomically,
)

log = logging.getLogger(__name__)

FILE = "qsi-cameras.json"
MAX_BYTES = 1 << 20  # a real file has some kB; a larger one is not ours
MAX_DEPTH = 50  # levels; Python can read deeper ones than it can write
MAX_BROKEN = 9  # broken files that are kept aside; a fault that comes back must not fill the disk
# s for the lock when a broken file is set aside at the start, where a launcher waits for the definitions
LOAD_LIMIT = 2.0

_Everything = dict[str, dict[str, Any]]


class Memory:
    """What is kept in one folder. All objects for the same folder share it. Any thread.

    A file that cannot be used is set aside, never fatal. Other processes may use the same file for other
    cameras: only sections that were changed here are written.
    """

    def __init__(self, directory: Path, storage: Storage) -> None:
        self._storage = storage
        # Shared, because a camera may come to another device of this process, which must find its settings.
        path = Path(os.path.realpath(directory)) / FILE
        with _files_lock:
            self._file = _files.get(path) or _File(directory / FILE)
            _files[path] = self._file

    def load(self) -> None:
        """Reads the file, if that was not done yet. May wait for the disk."""
        self._file.load()

    def get(self, serial: str, section: str) -> dict[str, Any]:
        """What is kept of a camera under `section`; empty when there is nothing.

        Never waits after the first `load`, which it calls if nothing else did.
        """
        return self._file.get(serial, section)

    def put(
        self,
        serial: str,
        section: str,
        values: Mapping[str, Any],
        done: Done | None = None,
        *,
        unless_there: bool = False,
    ) -> None:
        """Keeps `values`, which JSON can hold, in the place of what was there. Never waits.

        `unless_there`: a section that the file has by then, maybe from another process, stays as it is.

        `get` has them at once. They are saved in the storage thread; see `Storage.post` for `done`. If that
        fails, they hold in this process, and the next `put` tries again to save them.
        """
        self._file.change(serial, section, values, unless_there)
        self._storage.post(self._file.path, self._file.save, done)


class _File:
    """The file in this process: what is known of it, and what it does not have yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()  # held for memory only
        self._reading = threading.Lock()
        self._kept: _Everything | None = None  # as it was read or written last
        self._unsaved: dict[tuple[str, str], dict[str, Any]] = {}  # holds until the program ends
        self._unless_there: set[tuple[str, str]] = set()

    def load(self) -> None:
        with self._reading:
            if self._kept is not None:
                return
            try:
                everything = self._read(LOAD_LIMIT)
            except OSError as error:
                log.warning("%s cannot be read: %s", self.path, reason(error))
                everything = {}
            with self._lock:
                if self._kept is None:  # else it was written meanwhile, and that is newer
                    self._kept = everything

    def get(self, serial: str, section: str) -> dict[str, Any]:
        with self._lock:
            kept = self._get(serial, section)
        if kept is None:
            self.load()
            with self._lock:
                kept = self._get(serial, section)
        return kept or {}

    def _get(self, serial: str, section: str) -> dict[str, Any] | None:
        """None if only the file can tell."""
        kept: Any = self._unsaved.get((serial, section))
        if kept is None:
            if self._kept is None:
                return None
            kept = self._kept.get(serial, {}).get(section)
        return copy.deepcopy(kept) if isinstance(kept, dict) else {}

    def change(
        self, serial: str, section: str, values: Mapping[str, Any], unless_there: bool = False
    ) -> None:
        # As they will be read again; and what JSON cannot hold fails here, not in each later save.
        ours = json.loads(json.dumps(dict(values)))
        with self._lock:
            self._unsaved[serial, section] = ours
            if unless_there:
                self._unless_there.add((serial, section))
            else:
                self._unless_there.discard((serial, section))

    def save(self) -> None:
        """Writes what has changed. Raises OSError. Storage thread; there may be several."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.path, LOCK_LIMIT):
            with self._lock:
                unsaved = dict(self._unsaved)
            if not unsaved:
                return  # another thread has saved it
            everything = self._read()
            changed = False
            for (serial, section), values in unsaved.items():
                camera = everything.setdefault(serial, {})
                if section in camera and (serial, section) in self._unless_there:
                    continue
                if camera.get(section) != values:
                    camera[section] = values
                    changed = True
            if changed:
                write_atomically(self.path, _bytes(everything))
        with self._lock:
            self._kept = everything
            for key, values in unsaved.items():
                if self._unsaved.get(key) is values:  # else it has changed again
                    del self._unsaved[key]

    def _read(self, limit: float | None = None) -> _Everything:
        """What is in the file; a broken one is set aside. Raises OSError.

        The caller has the lock, or else `limit` is given: then it is waited for, but only if it is needed.
        """
        try:
            return _parse(read_regular(self.path, MAX_BYTES + 1))
        except FileNotFoundError:
            return {}
        except (ValueError, RecursionError) as error:
            if limit is None:
                self._set_aside(error)
                return {}
            broken = error
        try:
            # Again with the lock: another program may have saved a good one meanwhile.
            with locked(self.path, limit):
                return self._read()
        except OSError as failure:
            log.error("%s is broken (%s), and it cannot be renamed: %s", self.path, broken, reason(failure))
            return {}

    def _set_aside(self, error: Exception) -> None:
        """Renames the file. Raises OSError; then it must not be written, because it may hold the most."""
        aside = self._aside()
        self.path.replace(aside)
        log.error("%s is broken (%s); it is now %s", self.path, error, aside.name)

    def _aside(self) -> Path:
        """Where a broken file goes; the first ones are kept, because they may hold the most."""
        for number in range(1, MAX_BROKEN + 1):
            aside = self.path.with_suffix(".broken.json" if number == 1 else f".broken-{number}.json")
            if not aside.exists():
                break
        return aside


_files: WeakValueDictionary[Path, _File] = WeakValueDictionary()
_files_lock = threading.Lock()


def _parse(data: bytes) -> _Everything:
    """Raises ValueError; RecursionError from the parser."""
    if len(data) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES} bytes")
    everything = json.loads(data)
    if not isinstance(everything, dict) or not all(isinstance(v, dict) for v in everything.values()):
        raise ValueError("not a table of cameras")
    level: list[Any] = [everything]
    for _ in range(MAX_DEPTH):
        level = [child for value in level for child in _children(value)]
    if level:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    return everything


def _children(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _bytes(everything: _Everything) -> bytes:
    text = json.dumps(everything, indent=1, ensure_ascii=False) + "\n"
    # A text may have half of a surrogate pair, as an escape. The parser takes it in this form too.
    return text.encode("utf-8", "surrogatepass")
