# SPDX-License-Identifier: LGPL-2.1-or-later
"""The program `qsi-doctor`: looks, judges, reports."""

from __future__ import annotations

import argparse
import logging
import os
import pwd
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from indi_qsi.bus import LIBUSB, VARIABLE, Bus
from indi_qsi.version import VERSION
from qsi_tools.doctor import (
    checks,
    collect_camera,
    collect_flights,
    collect_folder,
    collect_server,
    collect_system,
    collect_usb,
    report,
)
from qsi_tools.doctor.facts import Facts, Server, Usb
from qsi_tools.doctor.findings import COULD_NOT_LOOK, STATUS, worst
from qsi_tools.output import let_go, tell
from usbproto.errors import BadArgument

HOME_MARK = "_HOME_"  # in UPLOAD_DIR: the home directory of the driver's user
MAX_WIDTH = 110
INTERRUPTED = 130  # as shells say it: 128 and SIGINT

DESCRIPTION = """\
Looks at everything between the camera and its pictures, and says what is wrong and what to do.

It changes nothing. A camera that nobody has is opened and asked for its state; of one that a driver has, the
INDI server is asked. In the folder of the pictures, 16 MB are written to measure it, and are gone at once."""

EPILOG = """\
exit status:
  0  everything is fine
  1  a warning: it works now, and may spoil a night
  2  a problem: no picture is possible, or something is in danger
  3  nothing bad was found, but not everything could be looked at; or the arguments make no sense
130  interrupted

The environment variable INDI_QSI_USB chooses another USB, as for the driver:
  INDI_QSI_USB=usbip:127.0.0.1:3240 qsi-doctor"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Not 2, which means that the camera has a problem."""
        self.print_usage(sys.stderr)
        self.exit(COULD_NOT_LOOK, f"{self.prog}: {message}\n")


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog="qsi-doctor",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"qsi-doctor {VERSION}")
    parser.add_argument("--json", action="store_true", help="print findings and facts as JSON")
    parser.add_argument("--quiet", action="store_true", help="leave out what is fine")
    parser.add_argument("--no-camera", action="store_true", help="open no camera, even a free one")
    parser.add_argument(
        "--server",
        metavar="HOST:PORT",
        help=f"the INDI server to ask, or the path of its unix socket (default {collect_server.DEFAULT})",
    )
    parser.add_argument("--no-server", action="store_true", help="ask no INDI server")
    parser.add_argument(
        "--pictures",
        metavar="DIR",
        type=Path,
        help="the folder of the pictures (default: UPLOAD_DIR as a server on this machine tells it, or home)",
    )
    parser.add_argument("--no-write", action="store_true", help="do not measure the folder of the pictures")
    # Where the files of the system are: for tests, and for the disk of another machine.
    parser.add_argument("--root", metavar="DIR", type=Path, default=Path("/"), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status; see EPILOG."""
    options = _arguments(arguments)
    # What usbproto would log is said by the findings.
    logging.getLogger("usbproto").addHandler(logging.NullHandler())
    try:
        bus = Bus(os.environ.get(VARIABLE) or LIBUSB)
        bus.backend()
        facts = collect(options, bus)
    except (BadArgument, ValueError) as error:
        told = error.explain() if isinstance(error, BadArgument) else str(error)
        print(f"qsi-doctor: {told}", file=sys.stderr)
        return COULD_NOT_LOOK
    except KeyboardInterrupt:
        print("qsi-doctor: interrupted", file=sys.stderr)
        return INTERRUPTED
    bus.close()
    results = checks.run(facts)
    if options.json:
        tell(report.as_json(results, facts), end="")
    else:
        terminal = sys.stdout.isatty()
        width = min(shutil.get_terminal_size().columns, MAX_WIDTH) if terminal else MAX_WIDTH
        colour = terminal and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        tell(report.text(results, width, colour=colour, quiet=options.quiet), end="")
    let_go()
    return STATUS[worst(result.finding for result in results)]


def collect(options: argparse.Namespace, bus: Bus) -> Facts:
    """Looks at everything, in an order in which nothing disturbs what comes after it."""
    server = None if options.no_server else collect_server.collect(options.server)
    usb = collect_usb.collect(bus, options.root)
    examined = () if options.no_camera else collect_camera.collect(bus, usb)
    folder = collect_folder.collect(options.pictures or _pictures(server, usb), write=not options.no_write)
    flights = collect_flights.collect(options.root, (_own_home(), _home(usb)))
    return Facts(usb, collect_system.collect(options.root, folder, flights), server, examined)


def _pictures(server: Server | None, usb: Usb) -> Path:
    """UPLOAD_DIR of the first camera that a server on this machine has, or the driver's home directory."""
    home = _home(usb)
    for device in server.devices if server is not None and server.local else ():
        told = device.values.get("UPLOAD_SETTINGS", {}).get("UPLOAD_DIR", "")
        if told.startswith("/"):
            return Path(told)
        if told == HOME_MARK or told.startswith(f"{HOME_MARK}/"):
            return home / told.removeprefix(HOME_MARK).lstrip("/")
    return home


def _home(usb: Usb) -> Path:
    """Of the user whose driver runs here, such as the service's; without one, of this user."""
    own = _own_home()
    for process in usb.drivers:
        try:
            account = pwd.getpwnam(process.user)
        except KeyError:
            continue
        return own if account.pw_uid == os.geteuid() else Path(account.pw_dir)
    return own


def _own_home() -> Path:
    return Path(os.environ.get("HOME") or "~").expanduser()


if __name__ == "__main__":
    sys.exit(main())
