# SPDX-License-Identifier: LGPL-2.1-or-later
"""What `qsi-firmware` says no to, and the exit status that tells which kind of no it was."""

from __future__ import annotations

from enum import IntEnum

from usbproto.errors import AccessError, BadArgument, QsiError


class Exit(IntEnum):
    """What a script may rely on. They are in the manual page."""

    DONE = 0
    REFUSED = 1  # by a rule, before the camera was touched
    USAGE = 2  # argparse's own
    NO_ACCESS = 3  # no camera, no permission, or another program has it
    FAILED = 4  # the exchange failed, and nothing had been erased
    INCOMPLETE = 5  # the camera needs `recover`
    DIFFERENT = 6  # what the camera holds is not what it should


class FileError(QsiError):
    """A file that is not a whole, sound firmware file. `line` counts from 1; 0 where there are no lines."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(f"line {line}: {message}" if line else message)
        self.line = line


class NoIdentity(FileError):
    """A sound hex file without our header, such as the vendor's: nobody can say which camera it is for."""

    def __init__(self, subject: str = "the file") -> None:
        super().__init__(
            f"{subject} says neither for which model nor which version it is, so this program cannot use it "
            "for an update"
        )


class PlanRefused(QsiError):
    """A rule forbids it, or the user did. Nothing was done."""


class BackupError(QsiError):
    """A backup could not be made or kept, or is not what was written."""


class JournalError(QsiError):
    """The journal cannot be written, so nothing is begun."""


class Differs(QsiError):
    """What was read back, or the version that runs, is not what was written."""


class LoaderError(QsiError):
    """The loader answered with an error, or something that its language does not allow."""


def exit_status(error: Exception) -> Exit:
    """Where nothing had been begun that the journal would know of."""
    if isinstance(error, AccessError):
        return Exit.NO_ACCESS
    if isinstance(error, Differs):
        return Exit.DIFFERENT
    rules = (FileError, PlanRefused, BackupError, JournalError, BadArgument)
    return Exit.REFUSED if isinstance(error, rules) else Exit.FAILED
