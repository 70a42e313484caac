# SPDX-License-Identifier: LGPL-2.1-or-later
"""`qsi-sim`: simulated cameras on a USB/IP server, until SIGINT or SIGTERM."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import signal
import sys
import threading
from collections.abc import Sequence
from typing import TextIO

from usbproto.simulator.bodies import CameraModel, list_models
from usbproto.simulator.camera import SimulatedCamera
from usbproto.simulator.control import Control
from usbproto.simulator.faults import FAULTS
from usbproto.simulator.strange import STRANGENESSES
from usbproto.simulator.usbip_server import DEFAULT_LISTEN, UsbIpServer

DEFAULT_MODEL = "683wsg"


def main(arguments: Sequence[str] | None = None) -> int:
    """The program. Returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.list_models:
        print("\n".join(list_models()))
        return 0
    if options.list_faults:
        print("\n".join(f"{fault.name:18}{fault.description}" for fault in FAULTS.values()))
        return 0
    if options.list_strange:
        print("\n".join(f"{strange.name:24}{strange.description}" for strange in STRANGENESSES.values()))
        return 0
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        with contextlib.ExitStack() as stack:
            print(_start(options, stack), flush=True)
            stop.wait()
    except (ValueError, OSError) as error:
        print(f"qsi-sim: {error}", file=sys.stderr)
        return 1
    return 0


def _start(options: argparse.Namespace, stack: contextlib.ExitStack) -> str:
    """Make everything; what to say when it runs."""
    models = [CameraModel.parse(name) for name in options.model or [DEFAULT_MODEL]]
    events: TextIO | None = None
    if options.events:
        events = stack.enter_context(open(options.events, "a", encoding="utf-8"))  # noqa: SIM115
    cameras = []
    for model, serial in zip(models, _serials(models, options.serial), strict=True):
        camera = SimulatedCamera(
            model,
            serial,
            options.seed,
            readout=options.readout,
            rate=options.rate,
            events=events,
            speed=options.speed,
            firmware=options.firmware,
            starting=options.starting,
            strange=options.strange,
        )
        stack.callback(camera.close)
        cameras.append(camera)
        for fault in options.fault:
            camera.faults.arm(fault)
    server = UsbIpServer(
        [camera.device for camera in cameras],
        options.listen or DEFAULT_LISTEN,
        allow_remote=options.allow_remote,
    )
    stack.callback(server.close)
    text = "listening on " + ", ".join(server.addresses)
    if options.control:
        control = Control(cameras, options.control)
        stack.callback(control.close)
        text += f"; control on {control.address}"
    return text


def _serials(models: Sequence[CameraModel], given: Sequence[str]) -> list[str]:
    """Those that were given, then one for each camera: 00683001, 00683002, ..."""
    if len(given) > len(models):
        raise ValueError("more serial numbers than models")
    serials = list(given)
    for model in models[len(given) :]:
        numbers = (f"00{model.base}{number:03}" for number in itertools.count(1))
        serials.append(next(serial for serial in numbers if serial not in serials))
    if len(set(serials)) < len(serials):
        raise ValueError("two cameras have the same serial number")
    return serials


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="qsi-sim", description=__doc__)
    add = parser.add_argument
    add("--model", action="append", metavar="NAME", help=f"may be repeated (default {DEFAULT_MODEL})")
    add("--serial", action="append", default=[], help="of the first, second, ... camera")
    add(
        "--listen",
        action="append",
        metavar="ADDR",
        help=f"USB/IP: HOST:PORT or unix:PATH, may be repeated (default {DEFAULT_LISTEN[0]})",
    )
    add("--allow-remote", action="store_true", help="listen on other than loopback addresses")
    add("--events", metavar="FILE", help="append what happens, one JSON line each")
    add("--control", metavar="ADDR", help="take commands there: HOST:PORT or unix:PATH")
    add("--rate", type=float, metavar="BYTES", help="limit of the USB in bytes/s (default none)")
    add("--readout", type=float, metavar="SECONDS", help="time of a readout (default: as the camera)")
    add("--speed", type=float, default=1.0, metavar="N", help="the camera's time runs N times as fast")
    add("--seed", type=int, default=0, help="of stars, defects and noise (default 0)")
    add("--firmware", metavar="VERSION", help="the firmware version to report, like 06.01.07")
    add("--starting", action="store_true", help="power up now: silent for 6 s")
    add("--fault", action="append", default=[], metavar="NAME[@EVENT][:ARGS]", help="arm a fault")
    add(
        "--strange",
        action="append",
        default=[],
        metavar="NAME[:ARGS]",
        help="differ from the notes in this way",
    )
    add("--list-models", action="store_true", help="print the names of all models")
    add("--list-faults", action="store_true", help="print all faults")
    add("--list-strange", action="store_true", help="print all ways to be strange")
    return parser


if __name__ == "__main__":
    sys.exit(main())
