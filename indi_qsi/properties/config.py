# SPDX-License-Identifier: LGPL-2.1-or-later
"""The config file of a device: libindi's format in libindi's place.

The file is a list of the requests that bring the saved values back; loading it means dispatching
them as if a client had sent them. It replaces the file of the C++ driver, and either can read what
the other wrote.

All functions may wait for the disk, so they are for the storage thread, and for the start.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from indi_qsi.storage import LOCK_LIMIT, NotRegularError, locked, read_regular, reason, write_atomically
from indi_qsi.wire import writer
from indi_qsi.wire.messages import NewVector, Problem, Severity
from indi_qsi.wire.parser import Parser

_log = logging.getLogger(__name__)

# Bytes. Real files have a few kB; a larger one is not ours.
MAX_FILE = 1024 * 1024

# How many broken files are kept aside; a fault that comes back must not fill the disk.
MAX_BROKEN = 9

# s for the lock when loading has to write something beside the file: a launcher waits for the definitions.
LOAD_LIMIT = 2.0

_ROOT = re.compile(rb"\s*(?:<\?xml[^<>]*>\s*)?<INDIDriver\s*>(.*)</INDIDriver\s*>\s*", re.DOTALL)
_EMPTY_ROOT = re.compile(rb"\s*(?:<\?xml[^<>]*>\s*)?<INDIDriver\s*/>\s*")


class ConfigError(Exception):
    """The config file cannot be used; the text says why, and what the user can do."""


class _BrokenFileError(Exception):
    """The file's contents make no sense."""


@dataclass(frozen=True, slots=True)
class _Contents:
    """A file as it was read. `broken` is why it cannot be used, `unknown` what only a later version knows."""

    data: bytes
    requests: list[NewVector]
    unknown: str = ""
    broken: str = ""


class Config:
    """The config file of one device.

    It is $INDICONFIG if that is set, else $HOME/.indi/<device>_config.xml. `environ` is for tests.

    Several devices and processes may have the same file. Each change is made under a lock, so that no
    program overwrites what another one has just saved.
    """

    def __init__(self, device: str, environ: Mapping[str, str] = os.environ) -> None:
        self.device = device
        given = environ.get("INDICONFIG")
        home = environ.get("HOME") or str(Path("~").expanduser())
        # A device name with a slash must not lead out of the directory.
        file_name = f"{device.replace('/', '_')}_config.xml"
        self.path = Path(given) if given else Path(home) / ".indi" / file_name
        self._chosen = bool(given)

    @property
    def default_path(self) -> Path:
        """A copy of the first config there was: what 'Default' brings back."""
        return self.path.with_name(self.path.name + ".default")

    def save(self, requests: Iterable[NewVector]) -> None:
        """Replaces the file by these (see `Vector.as_request`). Raises ConfigError.

        After a crash or a power cut there is the old file or the new one, never half of one.
        """
        data = _data(requests)
        with self._alone("save"):
            self._write(data)

    def update(self, requests: Iterable[NewVector]) -> None:
        """Replaces or appends single vectors in the file. Raises ConfigError.

        What else is in the file stays, also what another program saves at the same time.
        """
        changed = list(requests)
        with self._alone("save"):
            contents = self._read(self.path)
            self._keep(self.path, contents)
            merged = {(r.device, r.name): r for r in (*contents.requests, *changed)}
            self._write(_data(merged.values()))

    def load(self) -> list[NewVector]:
        """The saved requests; none if there is no file. Raises ConfigError.

        A file that cannot be understood is renamed to .broken-<n>, so that the next save starts a
        new one and the old one can be looked at; that is reported in the log, and nothing is loaded.
        """
        return self._load(self.path)

    def load_default(self) -> list[NewVector]:
        """The requests of the default file; none if there is no such file. Raises ConfigError."""
        return self._load(self.default_path)

    def purge(self) -> None:
        """Deletes the file, but not the default. Raises ConfigError if there is none."""
        try:
            self.path.lstat()  # before a lock file is made for nothing
        except OSError as error:
            raise ConfigError(f"cannot delete {self.path}: {reason(error)}") from error
        with self._alone("delete"):
            self.path.unlink()

    @contextmanager
    def _alone(self, action: str) -> Iterator[None]:
        """For a change of the file: with the lock, and if it may be changed at all. Raises ConfigError."""
        self._check_owner(self.path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o775)
            with locked(self.path, LOCK_LIMIT):
                yield
        except NotRegularError as error:
            raise self._irregular(self.path, error) from error
        except OSError as error:
            raise ConfigError(f"cannot {action} {self.path}: {reason(error)}") from error

    def _write(self, data: bytes) -> None:
        """Raises OSError."""
        write_atomically(self.path, data)
        self._keep_default(data)

    def _load(self, path: Path) -> list[NewVector]:
        contents = self._read(path)
        try:
            if not self._to_keep(path, contents):
                return contents.requests
            with locked(self.path, LOAD_LIMIT):
                contents = self._read(path)  # another program may have saved it meanwhile
                self._keep(path, contents)
        except OSError as error:
            if contents.broken:
                _log.error(
                    "%s is broken (%s), and cannot be renamed: %s", path, contents.broken, reason(error)
                )
            else:
                _log.warning("cannot keep a copy of %s beside it: %s", path, reason(error))
        return contents.requests

    def _read(self, path: Path) -> _Contents:
        """Raises ConfigError."""
        self._check_owner(path)
        try:
            data = read_regular(path, MAX_FILE + 1)
        except FileNotFoundError:
            return _Contents(b"", [])
        except NotRegularError as error:
            raise self._irregular(path, error) from error
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {reason(error)}") from error
        try:
            requests, unknown = _parse(data)
        except _BrokenFileError as error:
            return _Contents(data, [], broken=str(error))
        return _Contents(data, requests, unknown)

    def _to_keep(self, path: Path, contents: _Contents) -> bool:
        """Whether `_keep` has something to do."""
        return bool(
            contents.broken
            or (contents.unknown and not _later(path).exists())
            or (contents.requests and path == self.path and not self.default_path.exists())
        )

    def _keep(self, path: Path, contents: _Contents) -> None:
        """Keeps what the next save would lose. The caller has the lock. Raises OSError."""
        if contents.broken:
            _set_aside(path, contents.broken)
        if contents.unknown:
            _keep_unknown(path, contents.data, contents.unknown)
        if contents.requests and path == self.path:
            self._keep_default(contents.data)

    def _keep_default(self, data: bytes) -> None:
        """Raises OSError."""
        if not self.default_path.exists():
            write_atomically(self.default_path, data)

    def _check_owner(self, path: Path) -> None:
        try:
            status = path.stat()
        except OSError:
            return  # No file, or none that can be looked at: opening it will tell.
        if status.st_uid == 0 and os.geteuid() != 0 and stat.S_ISREG(status.st_mode):
            raise ConfigError(
                f"{path} belongs to root, probably from a server that was started with sudo; "
                f"give it back with: sudo chown {os.geteuid()} '{path}'"
            )

    def _irregular(self, path: Path, error: NotRegularError) -> ConfigError:
        remedy = "move it away"
        if self._chosen and path == self.path:
            remedy = "set INDICONFIG to the path of a file, or unset it"
        return ConfigError(f"{path} is {error.kind}, not a regular file; {remedy}")


def _data(requests: Iterable[NewVector]) -> bytes:
    lines = [b"<INDIDriver>\n"]
    lines += [writer.new_vector(r.kind, r.device, r.name, r.values) for r in requests]
    lines.append(b"</INDIDriver>\n")
    return b"".join(lines)


def _parse(data: bytes) -> tuple[list[NewVector], str]:
    """The requests, and what else there is that only a later version may know. Raises `_BrokenFileError`."""
    if len(data) > MAX_FILE:
        raise _BrokenFileError(f"larger than {MAX_FILE} bytes")
    if _EMPTY_ROOT.fullmatch(data):
        return [], ""
    match = _ROOT.fullmatch(data)
    if match is None:
        raise _BrokenFileError("not one INDIDriver element")
    requests = []
    unknown = ""
    # The closing reply flushes nothing, but an unfinished element before it becomes a problem.
    for event in Parser().feed(match[1] + b"<pingReply uid=''/>"):
        if isinstance(event, Problem) and event.severity is Severity.NOTE:
            unknown = event.reason
        elif isinstance(event, Problem):
            raise _BrokenFileError(event.reason)
        elif isinstance(event, NewVector):
            requests.append(event)
    return requests, unknown


def _later(path: Path) -> Path:
    return path.with_name(f"{path.name}.later")


def _keep_unknown(path: Path, data: bytes, why: str) -> None:
    """A later version's file: the next save drops what is not known here, so all is kept. Raises OSError."""
    beside = _later(path)
    if not beside.exists():
        _log.warning("%s is of a later version (%s); it is kept as %s", path, why, beside.name)
        write_atomically(beside, data)


def _set_aside(path: Path, why: str) -> None:
    """Raises OSError; then the file must not be replaced, because it may hold the most."""
    for number in range(1, MAX_BROKEN + 1):
        aside = path.with_name(f"{path.name}.broken-{number}")
        if not aside.exists() or number == MAX_BROKEN:
            break
    path.rename(aside)
    _log.error("%s is broken (%s); it is now %s", path, why, aside.name)
