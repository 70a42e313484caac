# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pictures as local files: how they are called, and how they are written.

A picture is written beside its place under a temporary name, brought to the disk, and only then given its
name; so under that name there is the whole picture or nothing. A file that exists is never touched: the name
is given by a link, which fails if there is one already, and then the next name is tried. That holds for two
programs that write into one directory as well.

INDI's marks in a prefix: XXX is a running number, ISO8601 the local time. A name without XXX that is taken
gets a number too, where the C++ drivers overwrite the file.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import time
import unicodedata
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import count, islice
from pathlib import Path

from usbproto.errors import BadArgument, QsiError

log = logging.getLogger(__name__)

HOME_MARK, INDEX_MARK, TIME_MARK = "_HOME_", "XXX", "ISO8601"
MAX_NAME = 255  # bytes of a file name: the limit of all usual file systems
MAX_DIRECTORY = 3500  # bytes; Linux ends a path at 4096, and the name has to fit too
INDEX_DIGITS = 9  # a longer number in a name is a date or a mistake, and not counted on from
# Who loses the race for a name so often in a row meets no other writer but a fault.
ATTEMPTS = 1000
SHOWN = 60  # characters of a path in a message; clients cut messages at 255
# The size that it is to have, and the suffix, make a whole one known that a crash left behind.
TEMPORARY = ".indi-qsi-{}-{}{}.part"
_LEFT_OVER = re.compile(r"\.indi-qsi-[0-9a-f]+-(\d+)(\.\w+)\.part", re.ASCII)
RESCUED = "RESCUED_XXX"
UNLOCKED_TIME = 5.0  # s; between making a file and locking it pass some microseconds
DIRECTORY_MODE = 0o755

_TIME = r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{3}"
_LONGEST_TIME = datetime(2000, 1, 1)
_UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})  # control characters, halves of characters, line ends

# A file system without hard links: FAT and exFAT sticks, some network shares.
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
# A file system that cannot bring a directory to the disk on its own does it with the file.
_NO_SYNC = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF})

_OR_CHOOSE = "or choose another directory (UPLOAD_DIR)"
_CHOOSE = "Choose another directory (UPLOAD_DIR)"
_PROBLEMS: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("the disk is full", f"Free some space there, {_OR_CHOOSE}"),
    errno.EDQUOT: ("your quota of the disk is used up", f"Delete something there, {_OR_CHOOSE}"),
    errno.EROFS: ("the file system is read-only", f"Mount it writable, {_OR_CHOOSE}"),
    errno.EACCES: ("the driver's user may not write there", f"Give it the right, {_OR_CHOOSE}"),
    errno.EPERM: ("the driver's user may not write there", f"Give it the right, {_OR_CHOOSE}"),
    errno.ENOTDIR: ("a part of the path is not a directory", _CHOOSE),
    errno.EEXIST: ("it is not a directory", _CHOOSE),
    errno.ELOOP: ("its symbolic links lead in a circle", _CHOOSE),
    errno.ENAMETOOLONG: ("the file system does not take so long a name", "Choose a shorter UPLOAD_PREFIX"),
    errno.EINVAL: ("the file system does not take the name", "Use plain letters and digits in UPLOAD_PREFIX"),
    errno.EFBIG: ("the file would be larger than this process may write", f"Raise the limit, {_OR_CHOOSE}"),
    errno.EIO: ("the disk failed", f"Look at the system's log (dmesg), {_OR_CHOOSE}"),
}


class SaveError(QsiError):
    """A picture cannot be saved. The remedy says what the user can do."""

    def __init__(self, directory: Path, error: OSError) -> None:
        number = error.errno or 0
        what, remedy = _PROBLEMS.get(number, (error.strerror or str(error), _CHOOSE))
        super().__init__(f"Pictures cannot be saved in {shortened(directory)}: {what}", remedy)


@dataclass(frozen=True, slots=True)
class Saved:
    """A file that was written. `taken` is the name it should have had, if that existed already."""

    path: Path
    taken: str | None = None


def shortened(path: Path) -> str:
    """A path as a message can hold it."""
    text = str(path)
    return text if len(text) <= SHOWN else f"…{text[1 - SHOWN :]}"


# --- names ---


def resolve(directory: str, home: str) -> Path:
    """The directory that UPLOAD_DIR means. Raises `BadArgument`.

    `_HOME_` at its beginning stands for `home`.
    """
    _check_printable("UPLOAD_DIR", directory)
    first, slash, rest = directory.partition("/")
    expanded = home + slash + rest if first == HOME_MARK else directory
    if not (expanded.startswith("/") and home.startswith("/" if first == HOME_MARK else "")):
        raise BadArgument(
            f"UPLOAD_DIR must begin with / or with {HOME_MARK}, the home directory of the driver's user"
        )
    if ".." in expanded.split("/"):
        raise BadArgument("UPLOAD_DIR must not go up by '..'; give the whole path")
    if _length("UPLOAD_DIR", expanded) > MAX_DIRECTORY:
        raise BadArgument(f"UPLOAD_DIR is too long; valid are up to {MAX_DIRECTORY} bytes")
    return Path(expanded)


def check_prefix(prefix: str, suffix: str = ".fits") -> None:
    """Raises `BadArgument` unless UPLOAD_PREFIX makes file names."""
    _check_printable("UPLOAD_PREFIX", prefix)
    if not prefix.strip():
        raise BadArgument("UPLOAD_PREFIX must not be empty; the usual one is IMAGE_XXX")
    if "/" in prefix:
        raise BadArgument("UPLOAD_PREFIX must not contain '/'; directories belong into UPLOAD_DIR")
    if prefix.startswith("."):
        raise BadArgument("UPLOAD_PREFIX must not begin with '.': nobody would see the files")
    numbered = prefix if INDEX_MARK in prefix else f"{prefix}_{INDEX_MARK}"
    longest = _filled(numbered, _LONGEST_TIME, 10**INDEX_DIGITS) + suffix
    if (excess := _length("UPLOAD_PREFIX", longest) - MAX_NAME) > 0:
        raise BadArgument(f"UPLOAD_PREFIX is {excess} bytes too long for a file name")


def names(prefix: str, when: datetime, suffix: str, present: Collection[str]) -> Iterator[str]:
    """The names to try for a picture of the local time `when`, best first, without end.

    `present` are the names in the directory. Numbers go on from the highest one there; files of another
    suffix count too, so that a number means one picture.
    """
    numbered = prefix
    if INDEX_MARK not in prefix:
        plain = _filled(prefix, when, 0)
        yield plain + suffix
        numbered = f"{plain}_{INDEX_MARK}"
    for number in count(highest(numbered, present) + 1):
        yield _filled(numbered, when, number) + suffix


def highest(prefix: str, present: Collection[str]) -> int:
    """The highest running number among names made from this prefix; 0 if there is none."""
    # All marks of one name hold the same number.
    mark = re.escape(INDEX_MARK)
    pattern = re.escape(prefix).replace(re.escape(TIME_MARK), _TIME)
    pattern = pattern.replace(mark, rf"(?P<number>\d{{1,{INDEX_DIGITS}}})", 1).replace(mark, "(?P=number)")
    matcher = re.compile(rf"{pattern}\.[^.].*", re.ASCII | re.DOTALL)
    found = (matcher.fullmatch(name) for name in present)
    return max((int(match["number"]) for match in found if match), default=0)


def _filled(prefix: str, when: datetime, number: int) -> str:
    time = when.strftime("%Y-%m-%dT%H-%M-%S.") + f"{when.microsecond // 1000:03d}"
    return prefix.replace(INDEX_MARK, f"{number:03d}").replace(TIME_MARK, time)


def _length(name: str, text: str) -> int:
    """Bytes of a path or a part of one. Raises `BadArgument` if the system's encoding has no such letters."""
    try:
        return len(os.fsencode(text))
    except UnicodeEncodeError as error:
        raise BadArgument(f"{name} has letters that file names cannot have here ({error.encoding})") from None


def _check_printable(name: str, text: str) -> None:
    if any(unicodedata.category(character) in _UNPRINTABLE for character in text):
        raise BadArgument(f"{name} must not contain control characters")


# --- files ---


def prepare(directory: Path) -> None:
    """Makes the directory if it is missing, and sees that files can be made there. Raises `SaveError`."""
    try:
        directory.mkdir(DIRECTORY_MODE, parents=True, exist_ok=True)
        if not os.access(directory, os.W_OK | os.X_OK):
            read_only = os.statvfs(directory).f_flag & os.ST_RDONLY
            raise OSError(errno.EROFS if read_only else errno.EACCES, "no right to write")
    except OSError as error:
        raise SaveError(directory, error) from error


def save(directory: Path, prefix: str, when: datetime, suffix: str, data: memoryview) -> Saved:
    """Writes a picture under the next free name. Raises `SaveError`; then there is no file."""
    prepare(directory)
    try:
        # All that follows is relative to this directory, whatever is done to its path meanwhile.
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            rescue(folder, directory)
            name, taken = _save(folder, prefix, when, suffix, data)
        finally:
            os.close(folder)
    except OSError as error:
        raise SaveError(directory, error) from error
    return Saved(directory / name, taken)


def discard(saved: Saved) -> None:
    """Deletes a file of which nobody was told."""
    with suppress(OSError):
        saved.path.unlink()


def rescue(folder: int, directory: Path) -> None:
    """Looks after what a program that was killed has left: a whole picture gets a name, a part of one goes.

    Whoever still writes holds a lock, and is left alone.
    """
    for name in os.listdir(folder):
        if (match := _LEFT_OVER.fullmatch(name)) is None:
            continue
        # A fault here is no reason not to save the picture that is to be saved now.
        with suppress(OSError):
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            try:
                if abs(time.time() - os.fstat(fd).st_mtime) < UNLOCKED_TIME:
                    continue
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                whole = os.fstat(fd).st_size == int(match[1])
                if whole:
                    os.fsync(fd)
                    _name_rescued(folder, directory, name, match[2])
                _remove(folder, name)
                if not whole:
                    log.warning("%s: a part of a picture was deleted that a crash had left", directory)
            finally:
                os.close(fd)


def _name_rescued(folder: int, directory: Path, temporary: str, suffix: str) -> None:
    """Raises OSError when there is no name left."""
    for name in islice(names(RESCUED, datetime.now(), suffix, os.listdir(folder)), ATTEMPTS):
        if _place(folder, temporary, name):
            log.warning("%s: a picture that a crash had left unnamed is now %s", directory, name)
            return
    raise FileExistsError


def _save(folder: int, prefix: str, when: datetime, suffix: str, data: memoryview) -> tuple[str, str | None]:
    """The name, and the one that it should have been if that was taken."""
    temporary = TEMPORARY.format(os.urandom(8).hex(), len(data), suffix)
    fd = -1
    try:
        fd = _write(folder, temporary, data)
        first = None
        for name in islice(names(prefix, when, suffix, os.listdir(folder)), ATTEMPTS):
            if _place(folder, temporary, name):
                break
            first = first or name
        else:
            raise OSError(errno.EBUSY, f"{first} and {ATTEMPTS - 1} names after it are taken")
    finally:
        _remove(folder, temporary)
        if fd >= 0:
            os.close(fd)
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            _remove(folder, name)
            raise
    return name, None if INDEX_MARK in prefix else first


def _remove(folder: int, name: str) -> None:
    with suppress(OSError):
        os.unlink(name, dir_fd=folder)


def _write(folder: int, name: str, data: memoryview) -> int:
    """Writes the file and brings it to the disk. The descriptor holds a lock that says that we are alive."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, 0o666, dir_fd=folder)
    try:
        with suppress(OSError):  # a file system without locks: nobody will take it from us there
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        while data:
            data = data[os.write(fd, data) :]
        os.fsync(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _place(folder: int, temporary: str, name: str) -> bool:
    """Gives the file its name. False if that is taken."""
    try:
        os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _reserve_and_replace(folder, temporary, name)
    return True


def _reserve_and_replace(folder: int, temporary: str, name: str) -> bool:
    """For file systems without links: an empty file keeps the name, and is replaced by the picture."""
    try:
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=folder))
    except FileExistsError:
        return False
    try:
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        _remove(folder, name)
        raise
    return True
