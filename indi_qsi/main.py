# SPDX-License-Identifier: LGPL-2.1-or-later
"""The programs: `indi_qsi_ccd` under an INDI server, and `indi-qsi` on its own.

Everything heavy (USB, numpy) is imported when a camera is opened, because a launcher wants to see
the first definitions at once.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from indi_qsi.bus import DEFAULT_MODEL, VARIABLE, Bus
from indi_qsi.device.device import FACTORY_NAME, QsiDevice
from indi_qsi.ending import on_signal
from indi_qsi.fleet import Fleet
from indi_qsi.journal import log_as_service, log_to_stderr
from indi_qsi.properties import Hub
from indi_qsi.version import VERSION
from usbproto.errors import QsiError

if TYPE_CHECKING:
    from indi_qsi.recording import Witness

SERIAL_VARIABLE = "INDI_QSI_SERIAL"
RECORD_VARIABLE = "INDI_QSI_RECORD"
DEBUG_VARIABLE = "INDI_QSI_DEBUG"
DEFAULT_LISTEN = "127.0.0.1:7624"


def driver() -> int:
    """`indi_qsi_ccd`: speaks INDI on its standard input and output, until the server is gone."""
    if sys.argv[1:]:
        print(
            "indi_qsi_ccd is started by indiserver, without arguments:\n"
            "    indiserver indi_qsi_ccd\n"
            "To run without indiserver: indi-qsi serve",
            file=sys.stderr,
        )
        return 0 if sys.argv[1:] in (["--help"], ["-h"]) else 2
    from indi_qsi.links.stdio import StdioLink
    from indi_qsi.service import Notifier, Watch

    log_to_stderr(_log_level())
    hub = Hub()
    link = StdioLink(hub)
    on_signal(link.stop)
    bus = Bus(os.environ.get(VARIABLE) or "libusb")
    witness = _recorded(hub, bus)
    fleet = _fleet(hub, bus)
    watch = Watch(lambda: fleet.devices, link, Notifier({}), "No camera is connected", give_up=_give_up)
    link.run()
    watch.close()
    if witness is not None:
        witness.stopping()
    fleet.close()
    bus.close()
    return 0


def _give_up(trouble: str) -> None:
    """A thread hangs, and only the end of the process ends it: indiserver starts the driver anew."""
    print(f"indi_qsi_ccd ends, because {trouble}", file=sys.stderr)
    faulthandler.dump_traceback()
    os._exit(os.EX_SOFTWARE)


def tool() -> int:
    """`indi-qsi`: see `indi-qsi --help`."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="indi-qsi", description="INDI driver for QSI 500 and 600 Series cameras."
    )
    parser.add_argument("--version", action="version", version=f"indi-qsi {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="be an INDI server for the camera, without indiserver",
        description="Serves the attached camera to INDI clients, or a simulated one when none is there.",
    )
    serve.add_argument(
        "--listen",
        action="append",
        metavar="ADDRESS",
        help=f"HOST:PORT, or the path of a unix socket; may be given again (default {DEFAULT_LISTEN})",
    )
    serve.add_argument(
        "--model", metavar="NAME", help=f"serve a simulated camera of this model, such as {DEFAULT_MODEL}"
    )
    serve.add_argument(
        "--connect", action="store_true", help="connect each camera as it is plugged in, before clients ask"
    )
    setup = commands.add_parser(
        "setup-udev",
        help="let users open the camera (as root; only for an installation by pip or pipx)",
        description="Writes the udev rules to /etc/udev/rules.d, makes the group plugdev if there is none, "
        "and has udev use the rules. Debian's package needs no such step.",
    )
    setup.add_argument(
        "--print", action="store_true", dest="print_only", help="print the rules and change nothing"
    )
    arguments = parser.parse_args()
    try:
        if arguments.command == "setup-udev":
            return _setup_udev(arguments.print_only)
        return _serve(arguments.listen or [DEFAULT_LISTEN], arguments.model, arguments.connect)
    except QsiError as error:
        print(f"indi-qsi: {error.explain()}", file=sys.stderr)
        return 1


def _setup_udev(print_only: bool) -> int:
    from indi_qsi.install import InstallError, setup_udev

    try:
        return setup_udev(print_only=print_only)
    except InstallError as error:
        print(f"indi-qsi: {error}", file=sys.stderr)
        return 1


def _serve(listen: list[str], model: str | None, connect: bool) -> int:
    from indi_qsi.autoconnect import AutoConnect
    from indi_qsi.links.server import ListenError, Server
    from indi_qsi.service import Notifier, Watch

    ended = threading.Event()
    on_signal(lambda reason: ended.set())
    fields = log_as_service(_log_level())
    bus = _choose_bus(model)
    hub = Hub()
    witness = _recorded(hub, bus)
    bus.backend()  # an unknown model is told now, not at the first connect
    try:
        server = Server(hub, listen)
    except ListenError as error:
        print(f"indi-qsi: {error}", file=sys.stderr)
        return 1
    name = _device_name()
    auto = AutoConnect() if connect else None
    fleet = _fleet(hub, bus, auto.arrived if auto is not None else None)
    fields.devices = lambda: fleet.devices
    what = "a simulated camera" if bus.simulated else "the camera"
    print(
        f"Serving {what} as INDI device '{name}' on {', '.join(server.addresses)}.\n"
        f"KStars/Ekos: a profile with mode Remote, host localhost, this port; then connect.\n"
        f"Shell: indi_setprop '{name}.CONNECTION.CONNECT=On' && indi_getprop '{name}.*.*'   (Ctrl-C ends)",
        flush=True,
    )
    if server.open_to_others:
        print(
            "Whoever reaches this computer by the network controls the camera: INDI knows no passwords.",
            flush=True,
        )
    waits = f"Waiting for {_serial() or 'a camera'}" if connect else "No camera is connected"
    watch = Watch(lambda: fleet.devices, server, Notifier(), waits)
    ended.wait()
    watch.close()
    if auto is not None:
        auto.close()
    if witness is not None:
        witness.stopping()
    fleet.close()
    server.close()
    bus.close()
    return 0


def _choose_bus(model: str | None) -> Bus:
    """What the user said, or the real USB if a camera is there, or else a simulated camera."""
    if model is not None:
        return Bus(f"sim:{model}")
    if choice := os.environ.get(VARIABLE):
        return Bus(choice)
    from usbproto import discovery

    try:
        if discovery.cameras():
            return Bus()
    except QsiError as error:
        logging.getLogger(__name__).info("%s", error.explain())
    print("No QSI camera is attached: serving a simulated one.", flush=True)
    return Bus("sim")


def _device_name() -> str:
    """What launchers want the device to be called."""
    return os.environ.get("INDIDEV") or FACTORY_NAME


def _serial() -> str | None:
    return os.environ.get(SERIAL_VARIABLE) or None


def _fleet(hub: Hub, bus: Bus, arrived: Callable[[QsiDevice], None] | None = None) -> Fleet:
    return Fleet(hub, bus, _device_name(), _home() / ".indi", _serial(), arrived)


def _recorded(hub: Hub, bus: Bus) -> Witness | None:
    """Has everything recorded, if the user has said so."""
    if not os.environ.get(RECORD_VARIABLE):
        return None
    from indi_qsi.recording import Witness, recorder

    bus.recorder = recorder()
    return Witness(hub, bus.recorder, _home() / ".indi") if bus.recorder is not None else None


def _home() -> Path:
    return Path(os.environ.get("HOME") or "~").expanduser()


def _log_level() -> int:
    return logging.DEBUG if os.environ.get(DEBUG_VARIABLE) else logging.INFO
