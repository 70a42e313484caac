# SPDX-License-Identifier: LGPL-2.1-or-later
"""The config file of a device: libindi's format in libindi's place.

The file is a list of the requests that bring the saved values back; loading it means dispatching
them as if a client had sent them. It replaces the file of the C++ driver, and either can read what
the other wrote.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from indi_qsi.wire import writer
from indi_qsi.wire.messages import NewVector, Problem, Severity
from indi_qsi.wire.parser import Parser

_log = logging.getLogger(__name__)

# Bytes. Real files have a few kB; a larger one is not ours.
MAX_FILE = 1024 * 1024

# How many broken files are kept aside; a fault that comes back must not fill the disk.
MAX_BROKEN = 9

_ROOT = re.compile(rb"\s*(?:<\?xml[^<>]*>\s*)?<INDIDriver\s*>(.*)</INDIDriver\s*>\s*", re.DOTALL)
_EMPTY_ROOT = re.compile(rb"\s*(?:<\?xml[^<>]*>\s*)?<INDIDriver\s*/>\s*")


class ConfigError(Exception):
    """The config file cannot be used; the text says why, and what the user can do."""


class _BrokenFileError(Exception):
    """The file's contents make no sense."""


class Config:
    """The config file of one device.

    It is $INDICONFIG if that is set, else $HOME/.indi/<device>_config.xml. `environ` is for tests.
    """

    def __init__(self, device: str, environ: Mapping[str, str] = os.environ) -> None:
        self.device = device
        given = environ.get("INDICONFIG")
        home = environ.get("HOME") or str(Path("~").expanduser())
        # A device name with a slash must not lead out of the directory.
        file_name = f"{device.replace('/', '_')}_config.xml"
        self.path = Path(given) if given else Path(home) / ".indi" / file_name

    @property
    def default_path(self) -> Path:
        """A copy of the first config there was: what 'Default' brings back."""
        return self.path.with_name(self.path.name + ".default")

    def save(self, requests: Iterable[NewVector]) -> None:
        """Replaces the file by these (see `Vector.as_request`). Raises ConfigError.

        After a crash or a power cut there is the old file or the new one, never half of one.
        """
        lines = [b"<INDIDriver>\n"]
        lines += [writer.new_vector(r.kind, r.device, r.name, r.values) for r in requests]
        lines.append(b"</INDIDriver>\n")
        self._check_owner(self.path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o775)
            _write(self.path, b"".join(lines))
            self._keep_default()
        except OSError as error:
            raise ConfigError(f"cannot save {self.path}: {error.strerror or error}") from error

    def update(self, requests: Iterable[NewVector]) -> None:
        """Replaces or appends single vectors in the file. Raises ConfigError."""
        merged = {(r.device, r.name): r for r in (*self.load(), *requests)}
        self.save(merged.values())

    def load(self) -> list[NewVector]:
        """The saved requests; none if there is no file. Raises ConfigError.

        A file that cannot be understood is renamed to .broken-<n>, so that the next save starts a
        new one and the old one can be looked at; that is reported in the log, and nothing is loaded.
        """
        requests = self._read(self.path)
        if requests:
            try:
                self._keep_default()
            except OSError as error:
                _log.warning("cannot write %s: %s", self.default_path, error.strerror or error)
        return requests

    def load_default(self) -> list[NewVector]:
        """The requests of the default file; none if there is no such file. Raises ConfigError."""
        return self._read(self.default_path)

    def purge(self) -> None:
        """Deletes the file, but not the default. Raises ConfigError if there is none."""
        self._check_owner(self.path)
        try:
            self.path.unlink()
        except OSError as error:
            raise ConfigError(f"cannot delete {self.path}: {error.strerror or error}") from error

    def _keep_default(self) -> None:
        if not self.default_path.exists():
            _write(self.default_path, self.path.read_bytes())

    def _read(self, path: Path) -> list[NewVector]:
        self._check_owner(path)
        try:
            with path.open("rb") as file:
                data = file.read(MAX_FILE + 1)
            requests, unknown = _parse(data)
            if unknown:
                _keep_unknown(path, data, unknown)
            return requests
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
        except _BrokenFileError as error:
            _set_aside(path, str(error))
            return []

    def _check_owner(self, path: Path) -> None:
        try:
            owner = path.stat().st_uid
        except OSError:
            return  # No file, or none that can be looked at: opening it will tell.
        if owner == 0 and os.geteuid() != 0:
            raise ConfigError(
                f"{path} belongs to root, probably from a server that was started with sudo; "
                f"give it back with: sudo chown {os.geteuid()} '{path}'"
            )


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


def _keep_unknown(path: Path, data: bytes, reason: str) -> None:
    """A later version's file: the next save drops what is not known here, so all is kept. Raises OSError."""
    beside = path.with_name(f"{path.name}.later")
    if not beside.exists():
        _log.warning("%s is of a later version (%s); it is kept as %s", path, reason, beside.name)
        _write(beside, data)


def _set_aside(path: Path, reason: str) -> None:
    for number in range(1, MAX_BROKEN + 1):
        aside = path.with_name(f"{path.name}.broken-{number}")
        if not aside.exists() or number == MAX_BROKEN:
            break
    try:
        path.rename(aside)
    except OSError as error:
        _log.error("%s is broken (%s), and cannot be renamed: %s", path, reason, error.strerror)
    else:
        _log.error("%s is broken (%s); it is now %s", path, reason, aside.name)


def _write(path: Path, data: bytes) -> None:
    """Writes a file so that it is there as a whole or not at all. Raises OSError."""
    # Through a link to the file it points to, as people keep config files elsewhere.
    path = path.resolve()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
