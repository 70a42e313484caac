# SPDX-License-Identifier: LGPL-2.1-or-later
"""`indi-qsi setup-udev`: gives users the right to open the camera, where no package has done so.

An installation by pip or pipx cannot write outside its own folder; this is the rest. Every step is told.
"""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from indi_qsi.udevrules import FILE_NAME, GROUP, rules
from usbproto.models import VENDOR_ID

RULES_FOLDER = Path("/etc/udev/rules.d")
PACKAGED = Path("/usr/lib/udev/rules.d") / FILE_NAME
# udev waits for nobody here; a machine that is booting may be busy for a while.
COMMAND_TIME = 30.0  # s

RELOAD = ("udevadm", "control", "--reload")
# For a camera that is plugged in already. Only devices of this vendor; the rules pick the cameras.
TRIGGER = (
    *("udevadm", "trigger", "--action=change", "--subsystem-match=usb"),
    f"--attr-match=idVendor={VENDOR_ID:04x}",
)


class InstallError(Exception):
    """It cannot be set up; the text says why, and what the user can do."""


def setup_udev(
    *,
    print_only: bool = False,
    folder: Path = RULES_FOLDER,
    packaged: Path = PACKAGED,
    run: Callable[[tuple[str, ...]], None] | None = None,
    tell: Callable[[str], None] = print,
) -> int:
    """Writes the rules and has udev use them. Returns the exit status; raises `InstallError`."""
    if print_only:
        sys.stdout.write(rules())
        return 0
    run = run or _run
    if packaged.exists():
        tell(f"{packaged} is there already, from the Debian package: nothing to do.")
        return 0
    if os.geteuid() != 0:
        raise InstallError(
            f"only root can write {folder}. Run:\n    sudo {shlex.quote(_program())} setup-udev\n"
            "or see what it would write:  indi-qsi setup-udev --print"
        )
    _make_group(run, tell)
    _write(folder / FILE_NAME, tell)
    for command in (RELOAD, TRIGGER):
        _try(command, run, tell)
    _tell_of_membership(tell)
    return 0


def _program() -> str:
    """This program's whole path: sudo does not look where pip and pipx put it."""
    path = Path(sys.argv[0])
    return str(path.absolute()) if path.name == "indi-qsi" else "indi-qsi"


def _make_group(run: Callable[[tuple[str, ...]], None], tell: Callable[[str], None]) -> None:
    try:
        grp.getgrnam(GROUP)
    except KeyError:
        tell(f"Making the group {GROUP}.")
        try:
            run(("groupadd", "--system", GROUP))
        except (OSError, subprocess.SubprocessError) as error:
            raise InstallError(f"the group {GROUP} could not be made: {error}") from error


def _write(path: Path, tell: Callable[[str], None]) -> None:
    text = rules()
    try:
        if path.exists() and path.read_text() == text:
            tell(f"{path} is up to date.")
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.new")
        beside.write_text(text)
        beside.chmod(0o644)
        beside.replace(path)
    except OSError as error:
        raise InstallError(f"{path} could not be written: {error.strerror}") from error
    tell(f"Wrote {path}.")


def _try(
    command: tuple[str, ...], run: Callable[[tuple[str, ...]], None], tell: Callable[[str], None]
) -> None:
    """Without a running udev (a container, an image being made) the rules wait for the next start."""
    tell(f"Running: {shlex.join(command)}")
    try:
        run(command)
    except (OSError, subprocess.SubprocessError) as error:
        tell(f"That failed ({error}). The rules hold from the next start; or plug the camera in again then.")


def _run(command: tuple[str, ...]) -> None:
    subprocess.run(command, check=True, timeout=COMMAND_TIME)


def _tell_of_membership(tell: Callable[[str], None]) -> None:
    user = os.environ.get("SUDO_USER", "")
    try:
        account = pwd.getpwnam(user)
        group = grp.getgrnam(GROUP)
    except KeyError:
        tell(f"Users of the camera must be in the group {GROUP}:  usermod -aG {GROUP} NAME")
        return
    if user in group.gr_mem or account.pw_gid == group.gr_gid:
        tell(f"{user} is in the group {GROUP} and may use the camera.")
    else:
        tell(
            f"Whoever sits at this machine may use the camera. To let {user} use it from afar too:\n"
            f"    sudo usermod -aG {GROUP} {user}\nand log in again."
        )
