# SPDX-License-Identifier: LGPL-2.1-or-later
"""Flight recorders on the disk: few files, small ones, written by a thread that may wait for the disk.

docs/recording.md describes the files. The caller is the thread of a camera, which must never wait: `save`
copies what is in memory, and the disk is left to another thread. Whatever the disk does, the camera is not
affected.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import re
import stat
import threading
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from usbproto.flight import FORMAT, VERSION, FlightRecorder, Line
from usbproto.recording import RecordingError

log = logging.getLogger(__name__)

FOLDER = "qsi-flight"  # its usual name, in the driver's state folder
MAX_FILES = 20
MAX_BYTES = 2 << 20  # of all files together; a usual file has 50 to 150 kB
# Bytes of one file. The oldest entries are left out of a larger one. Four such files fill the folder.
MAX_FILE = MAX_BYTES // 4
# s in which another event of the same kind gets no file of its own: it is in the same trouble. The pause
# doubles with each file of the kind, so that a night with a bad cable does not wear out a memory card.
PAUSE = 10.0
LONGEST_PAUSE = 3600.0
QUIET = 2 * LONGEST_PAUSE  # s without a file of a kind, after which it begins with short pauses again
# Files of one kind that one process leaves: the first ones, which show how it began, and the newest ones.
FIRST_KEPT = 2
PER_KIND = 4
MAX_WAITING = 4  # files that wait for a slow disk; each has some 1,000 entries in memory
CLOSE_TIME = 3.0  # s
MAX_KIND = 24  # characters of a kind in a file name
READ_MORE = 1024  # bytes; a file that somebody edited may be this much larger

_STAMP = "%Y%m%dT%H%M%S"
_NAME = re.compile(r"flight-(\d{8}T\d{6})\.(\d{3})Z-([a-z0-9-]{1,24})\.jsonl", re.ASCII)
_PART = ".{}.part"
_PART_NAME = re.compile(r"\.(flight-.*)\.part")
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class NotAFlight(RecordingError):
    """The file's heading is not that of a flight recorder; it may be a recording."""


@dataclass(frozen=True, slots=True)
class FlightFile:
    """A file of a flight recorder, by its name. `size` in bytes; `at` is the wall clock's time."""

    path: Path
    at: datetime
    kind: str
    size: int


@dataclass(frozen=True, slots=True)
class _Newest:
    """The newest file of a camera and kind: its number, and when it was made on the monotonic clock."""

    path: Path
    at: float
    number: int

    @property
    def pause(self) -> float:
        return min(PAUSE * float(2 ** (self.number - 1)), LONGEST_PAUSE)


class FlightFiles:
    """Writes the files of one process; any thread. Several cameras may share one.

    A camera keeps its recorder as long as the process runs, because pauses are counted for each recorder.
    """

    def __init__(self, directory: Path) -> None:
        """The directory is made with the first file."""
        self._directory = directory
        self._lock = threading.Lock()  # held for memory only, never while a disk is waited for
        self._newest: dict[tuple[int, str], _Newest] = {}  # by camera and kind
        self._names: deque[str] = deque(maxlen=MAX_FILES)  # the newest ones
        self._kept: dict[str, list[Path]] = {}  # by kind, oldest first; the writing thread's
        self._failing = False
        self._thread: threading.Thread | None = None
        self._jobs: queue.Queue[tuple[Path, str, list[Line]]] = queue.Queue(MAX_WAITING)
        self._open = True

    def save(self, recorder: FlightRecorder, kind: str, reason: str) -> Path | None:
        """Has the recorder's entries written, and returns the file's path at once. Never waits or raises.

        `kind` is a word or two for the file's name, from a small set of constants of the caller; `reason` is
        a sentence for the heading. Within `PAUSE` s after a file, the same kind gets the path of that file.
        None when no file can be expected: later in a pause, when the disk fails or does not answer, or when
        this is closed.
        """
        kind = _word(kind)
        now = time.monotonic()
        with self._lock:
            if not self._open:
                return None
            failing = self._failing
            newest = self._newest.get((id(recorder), kind))
            if newest is not None and now - newest.at < newest.pause:
                return newest.path if now - newest.at < PAUSE and not failing else None
            if not self._writing():
                return None
            path = self._free_path(kind)
            try:
                self._jobs.put_nowait((path, kind, recorder.lines(reason, kind)))
            except queue.Full:
                return None
            number = 1 if newest is None or now - newest.at > QUIET else newest.number + 1
            self._newest[id(recorder), kind] = _Newest(path, now, min(number, MAX_FILES))
            return None if failing else path

    def close(self) -> None:
        """Writes what waits, for `CLOSE_TIME` at most."""
        with self._lock:
            self._open = False
            thread = self._thread
        if thread is not None:
            thread.join(CLOSE_TIME)

    def _writing(self) -> bool:
        """Whether a writing thread runs. It ends when nothing waits, and the next file starts another one."""
        if self._thread is None:
            thread = threading.Thread(target=self._write_out, name="flight", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system has no more threads, or Python is ending
                return False
            self._thread = thread
        return True

    def _free_path(self, kind: str) -> Path:
        """Two cameras may lose the same hub within a millisecond."""
        at = datetime.now(UTC)
        while (name := _name(at, kind)) in self._names:
            at += timedelta(milliseconds=1)
        self._names.append(name)
        return self._directory / name

    # --- the writing thread ---

    def _write_out(self) -> None:
        while True:
            with self._lock:  # `save` holds it from starting this thread until its job waits
                try:
                    path, kind, lines = self._jobs.get_nowait()
                except queue.Empty:
                    self._thread = None
                    return
            try:
                self._write(path, kind, lines)
            except Exception as error:
                if not self._failing:
                    log.warning(
                        "the flight recorder cannot write %s: %s. The camera is not affected",
                        path,
                        (error.strerror if isinstance(error, OSError) else None) or error,
                    )
                self._failing = True
            else:
                self._failing = False
                log.info("the flight recorder has written %s", path)

    def _write(self, path: Path, kind: str, lines: list[Line]) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        text = _text(lines)
        kept = self._kept.setdefault(kind, [])
        if len(kept) >= PER_KIND:
            _remove(kept.pop(FIRST_KEPT))
        make_room(self._directory, len(text))
        part = path.with_name(_PART.format(path.name))
        # Only for its owner.
        with os.fdopen(os.open(part, _CREATE, 0o600), "wb") as file:
            try:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
                if os.path.lexists(path):
                    raise FileExistsError(f"{path.name} exists")
                part.rename(path)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        kept.append(path)


# --- the folder ---


def files(directory: Path) -> list[FlightFile]:
    """The flight recorder's files, oldest first; regular files only. Raises OSError.

    A directory that does not exist has none.
    """
    return [file for file in _ours(directory) if _NAME.fullmatch(file.path.name)]


def make_room(directory: Path, size: int) -> None:
    """Removes the oldest files, until one more of `size` bytes keeps the limits. Raises OSError."""
    found = _ours(directory)
    while found and (len(found) >= MAX_FILES or sum(file.size for file in found) + size > MAX_BYTES):
        _remove(found.pop(0).path)


def _ours(directory: Path) -> list[FlightFile]:
    """Our files, and those that a crash left half written, oldest first."""
    found = []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                part = _PART_NAME.fullmatch(entry.name)
                name = _NAME.fullmatch(part[1] if part else entry.name)
                with suppress(FileNotFoundError, ValueError):  # removed meanwhile; a name with no such date
                    if name is not None and entry.is_file(follow_symlinks=False):
                        at = datetime.strptime(name[1], _STAMP).replace(
                            tzinfo=UTC, microsecond=int(name[2]) * 1000
                        )
                        size = entry.stat(follow_symlinks=False).st_size
                        found.append(FlightFile(directory / entry.name, at, name[3], size))
    except FileNotFoundError:
        return []
    return sorted(found, key=lambda file: (file.at, file.path.name))


def _remove(path: Path) -> None:
    """Removes a regular file; what else may have taken its name stays."""
    with suppress(FileNotFoundError):
        if stat.S_ISREG(path.lstat().st_mode):
            path.unlink()


def _word(kind: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", kind.lower())[:MAX_KIND].strip("-") or "other"


def _name(at: datetime, kind: str) -> str:
    return f"flight-{at.strftime(_STAMP)}.{at.microsecond // 1000:03}Z-{kind}.jsonl"


# --- the text ---


def _text(lines: Iterable[Line]) -> bytes:
    """JSON lines of at most `MAX_FILE` bytes: the heading, and as many of the newest entries as fit."""
    # Without escapes, because their digits could complete a serial number.
    heading, *entries = (
        json.dumps(line, separators=(",", ":"), ensure_ascii=False).encode() + b"\n" for line in lines
    )
    room = MAX_FILE - len(heading)
    kept: list[bytes] = []
    for entry in reversed(entries):
        room -= len(entry)
        if room < 0:
            break
        kept.append(entry)
    return b"".join([heading, *reversed(kept)])


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a file, the heading first. Raises `NotAFlight`, `RecordingError`, OSError.

    At most `MAX_FILE` bytes and a few are read. A FIFO is an error and is not waited for.
    """
    limit = MAX_FILE + READ_MORE
    with open(path, "rb", opener=_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise RecordingError(f"{path} is not a regular file")
        data = file.read(limit + 1)
    first, *rest = data.splitlines() or [b""]
    try:
        heading = _object(first)
    except ValueError as error:
        raise NotAFlight(f"{path} is not a flight recorder's file: {error}") from error
    if heading.get(FORMAT) != VERSION:
        raise NotAFlight(f"{path} is not a flight recorder's file of version {VERSION}")
    if len(data) > limit:
        raise RecordingError(f"{path} has more than {limit} bytes")
    lines = [heading]
    for number, text in enumerate(rest, 2):
        try:
            lines.append(_object(text))
        except ValueError as error:
            raise RecordingError(f"{path}, line {number}: {error}") from error
    return lines


def _at_once(path: str, flags: int) -> int:
    """Opens without waiting for the other end of a FIFO."""
    return os.open(path, flags | os.O_NONBLOCK)


def _object(text: bytes) -> dict[str, Any]:
    """Raises ValueError."""
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value
