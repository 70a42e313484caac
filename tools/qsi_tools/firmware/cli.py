# SPDX-License-Identifier: LGPL-2.1-or-later
"""`qsi-firmware`: the command line."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from indi_qsi.bus import VARIABLE, Bus
from indi_qsi.version import VERSION
from qsi_tools.firmware import commands
from qsi_tools.firmware.access import Access
from qsi_tools.firmware.commands import Options, Tool
from qsi_tools.firmware.errors import Exit, FileError, exit_status
from qsi_tools.firmware.image import Target
from qsi_tools.firmware.screen import Screen
from qsi_tools.output import let_go
from usbproto.errors import QsiError

INTERRUPTED = 130  # as shells say it: 128 and SIGINT

DESCRIPTION = """\
Shows and checks the firmware of QSI cameras, and writes it where the camera's loader speaks a known language.
The bootloader of real QSI cameras is unpublished: with those, everything up to the first written byte works,
and nothing is ever sent to them that their protocol does not describe.
"""
EPILOG = """\
Without a command, `qsi-firmware FILE` is `qsi-firmware plan FILE`: it tells what would be done.

Exit status:
  0  done
  1  refused by a rule, or the file is not sound or does not say for which camera it is; the camera was
     not touched
  2  the command line was not understood
  3  no camera, no permission, or another program has it
  4  the exchange with the camera failed; nothing had been erased
  5  the camera needs `qsi-firmware recover`
  6  what the camera holds is not what it should be
130  interrupted before anything was begun
"""

COMMANDS: dict[str, tuple[Callable[[Tool], int], str]] = {
    "list": (commands.list_cameras, "the cameras on the USB, and what holds them"),
    "info": (commands.info, "everything about one camera: versions, loader, backup, unfinished update"),
    "check": (commands.check, "is this file sound, and for this camera?"),
    "backup": (commands.backup, "copy the camera's EEPROM to disk, with a manifest"),
    "plan": (commands.show_plan, "what an update would do, or why it would not; nothing is done"),
    "update": (commands.update, "write firmware, or with --core the logic of a 600's FPGA"),
    "verify": (commands.verify, "compare what is in the camera with a file; restarts the camera"),
    "recover": (commands.recover, "make a camera whole that an interrupted update left in its loader"),
}
WITH_FILE = ("check", "plan", "update", "verify")


def main(arguments: Sequence[str] | None = None) -> int:
    """The program. Returns the exit status."""
    logging.basicConfig(format="qsi-firmware: %(message)s", level=logging.ERROR)
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and not given[0].startswith("-") and given[0] not in COMMANDS and _is_there(given[0]):
        given.insert(0, "plan")
    parsed = _parser().parse_args(given)
    try:
        bus = Bus(parsed.usb or os.environ.get(VARIABLE) or "libusb")
        try:
            return run(parsed.command, Access(bus.backend()), _options(parsed))
        finally:
            bus.close()
    except QsiError as error:
        print(f"qsi-firmware: {error.explain()}", file=sys.stderr)
        return Exit.USAGE
    finally:
        let_go()


def run(command: str, access: Access, options: Options, screen: Screen | None = None) -> int:
    """One command; errors become messages and an exit status."""
    screen = screen or Screen()
    tool = Tool(access, options, screen)
    try:
        return int(COMMANDS[command][0](tool))
    except FileError as error:
        screen.say(f"qsi-firmware: {options.file}: {error}")
        status, text = Exit.REFUSED, str(error)
    except QsiError as error:
        screen.say(f"qsi-firmware: {error.explain()}")
        status, text = exit_status(error), error.explain()
    except KeyboardInterrupt:
        screen.say("qsi-firmware: interrupted; the camera was not changed")
        return INTERRUPTED
    if options.json:
        tool.show([], {"error": text, "status": int(status)})
    return int(status)


def _is_there(name: str) -> bool:
    try:
        return Path(name).exists()
    except OSError:
        return True  # in a folder that is closed to this user: reading it will say so


def _options(parsed: argparse.Namespace) -> Options:
    def value(name: str, default: object = None) -> object:
        return getattr(parsed, name, default)

    file, to = value("file"), value("to")
    return Options(
        state=Path(parsed.state) if parsed.state else _state_folder(),
        serial=parsed.serial,
        json=parsed.json,
        file=Path(str(file)) if file else None,
        target=Target.CORE if value("core") else Target.FIRMWARE,
        allow_downgrade=bool(value("allow_downgrade")),
        enter_bootloader=bool(value("enter_bootloader")),
        confirm=str(value("confirm")) if value("confirm") is not None else None,
        to=Path(str(to)) if to else None,
    )


def _state_folder() -> Path:
    """Where XDG has what a program must not forget."""
    base = (
        os.environ.get("XDG_STATE_HOME") or Path(os.environ.get("HOME") or "~").expanduser() / ".local/state"
    )
    return Path(base) / "qsi-firmware"


def _parser() -> argparse.ArgumentParser:
    # Nothing may be abbreviated: --enter-bootloader is typed in full, or not meant.
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "qsi-firmware", description=DESCRIPTION, epilog=EPILOG, formatter_class=formatter, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"qsi-firmware {VERSION}")
    subs = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, text) in COMMANDS.items():
        sub = subs.add_parser(name, help=text, description=text.capitalize() + ".", allow_abbrev=False)
        _add_options(sub, name)
    return parser


def _add_options(sub: argparse.ArgumentParser, name: str) -> None:
    add = sub.add_argument
    if name in WITH_FILE:
        add("file", metavar="FILE", help="a hex file, or the zip it came in")
    elif name == "recover":
        add("file", metavar="FILE", nargs="?", help="what to write; without it, what was being written")
    if name != "list":
        add("--serial", metavar="SERIAL", help="which camera; needed when there are several")
    else:
        sub.set_defaults(serial=None)
    if name in (*WITH_FILE, "recover"):
        add("--core", action="store_true", help="the logic of the FPGA (600 Series) instead of the firmware")
    if name in ("plan", "update"):
        add("--allow-downgrade", action="store_true", help="write a lower version than the camera has")
    if name in ("plan", "update", "verify"):
        add(
            "--enter-bootloader",
            action="store_true",
            help="start the bootloader of a camera that is not a simulated one, if its language is known",
        )
    if name in ("update", "recover"):
        add("--confirm", metavar="SERIAL", help="the camera's serial number, instead of typing it when asked")
    if name == "backup":
        add("--to", metavar="FOLDER", help="where to; `update` looks in the default place only")
    add("--json", action="store_true", help="the result as JSON on standard output")
    add("--state", metavar="FOLDER", help="journals and backups (default ~/.local/state/qsi-firmware)")
    add("--usb", metavar="USB", help=f"which USB, as {VARIABLE}: libusb, usbip:HOST:PORT, usbip:unix:PATH")


if __name__ == "__main__":
    sys.exit(main())
