# SPDX-License-Identifier: LGPL-2.1-or-later
"""Names of pictures, and files that never take the place of others, whoever else writes there."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

DEFAULT_PATTERN = "{device}_{type}_{index}"
FIELDS = ("device", "type", "filter", "seconds", "binning", "temperature", "date", "time", "index")
EXTENSIONS = (".fits.fz", ".fits", ".fit", ".fts")
# Tried one after the other; a folder with more pictures of one name wants another name.
MAX_INDEX = 99_999

_FIELD = re.compile(r"\{([^{}]*)\}")
_UNFIT = re.compile(r"[^\w.+-]+")


def check_pattern(pattern: str) -> None:
    """Raises ValueError for a pattern with fields that there are not."""
    for name in _FIELD.findall(pattern):
        if name not in FIELDS:
            raise ValueError(f"{{{name}}} in {pattern!r} is none of {', '.join(FIELDS)}")
    if pattern.endswith("/") or not Path(pattern).name:
        raise ValueError(f"{pattern!r} names a folder, not a picture")


def fill(pattern: str, facts: Mapping[str, str], index: int) -> str:
    """The pattern's name for an index. Without `{index}` in it, it gets one from the second on."""
    values = {**facts, "index": f"{index:03}"}
    name = _FIELD.sub(lambda field: _UNFIT.sub("_", values.get(field[1], "")).strip("_") or "none", pattern)
    return name if "{index}" in pattern or index == 1 else f"{name}_{index:03}"


def without_extension(pattern: str) -> str:
    """The pattern without a picture's extension; each file gets its own."""
    extension = next((end for end in EXTENSIONS if pattern.lower().endswith(end)), "")
    return pattern[: len(pattern) - len(extension)]


def save(data: bytes, pattern: str, facts: Mapping[str, str], extension: str) -> Path:
    """Writes a file under the first free name, and returns it: whole and on the disk, or not at all.

    Raises OSError.
    """
    extension = _UNFIT.sub("_", extension)  # a server names it, and is not to choose a folder
    folder = Path(fill(pattern, facts, 1)).parent
    folder.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=folder, prefix=".qsi-snap-", suffix=".part", delete=False) as file:
        temporary = Path(file.name)
        try:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), 0o666 & ~_umask())
            os.fsync(file.fileno())
            return _publish(temporary, pattern, facts, extension)
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()


def _publish(temporary: Path, pattern: str, facts: Mapping[str, str], extension: str) -> Path:
    for index in range(1, MAX_INDEX + 1):
        path = Path(fill(pattern, facts, index) + extension)
        if path.exists():
            continue
        try:
            _link(temporary, path)
        except FileExistsError:
            continue
        _sync_folder(path.parent)
        return path
    raise OSError(f"{MAX_INDEX} files of this name are there already: choose another name or folder")


def _link(temporary: Path, path: Path) -> None:
    """The file's final name, unless somebody has taken it. Raises FileExistsError."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:
        # Memory sticks have file systems without links: take the name first, then fill it.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        temporary.replace(path)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # not all file systems can
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
