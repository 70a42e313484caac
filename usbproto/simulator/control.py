# SPDX-License-Identifier: LGPL-2.1-or-later
"""Steering running simulated cameras: one command a line, one line of answer (`ok ...` or `error ...`).

A socket for tests and for people with netcat. With several cameras a line may begin with `SERIAL:`; without
it the first camera is meant.
"""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from collections.abc import Callable, Sequence
from typing import Any

from usbproto.simulator import usbip_address
from usbproto.simulator.camera import SimulatedCamera
from usbproto.simulator.faults import FAULTS
from usbproto.simulator.sky import Scene

LONGEST_LINE = 4096

HELP = {
    "status": "everything about the camera, as JSON",
    "fault NAME[@EVENT[#N][+SECONDS]][:ARGS]": "arm a fault",
    "faults": "the names of all faults",
    "strange [NAME[:ARGS]]": "make the camera strange (none: as the notes say); alone: how it is strange",
    "trigger": "the external trigger fires",
    "unplug / replug": "the USB cable",
    "power on|off": "the supply",
    "voltage VOLTS": "of the supply",
    "ambient CELSIUS": "of the air",
    "scene sky|dark|flat [ELECTRONS]": "what the telescope sees; e-/s a pixel without filter",
    "defocus ARCSEC": "width added to the stars",
    "help": "this",
}


def execute(camera: SimulatedCamera, line: str) -> str:
    """The answer to one command. Raises ValueError for what cannot be understood."""
    word, _, rest = line.strip().partition(" ")
    action = _ACTIONS.get(word)
    if action is None:
        raise ValueError(f"no such command: {word!r}; try help")
    with camera.timeline.lock:
        return action(camera, rest.strip())


def status(camera: SimulatedCamera) -> dict[str, Any]:
    """What a test wants to know of a camera."""
    firmware, hardware = camera.firmware, camera.hardware
    cooler, imager = hardware.cooler, firmware.imager
    with camera.timeline.lock:
        now = camera.timeline.now()
        cooler.look(now)
        return {
            "model": camera.model.name,
            "serial": camera.serial,
            "time": now,
            "plugged": camera.device.plugged,
            "powered": firmware.powered,
            "ready": firmware.ready,
            "state": imager.state.name,
            "image_waits": imager.ready,
            "transferring": firmware.transferring,
            "shutter_open": hardware.shutter.open,
            "filter": hardware.wheel.position,
            "filter_moving": hardware.wheel.moving,
            "relay": list(hardware.relays.active) if hardware.relays.active else None,
            "cooler": {
                "state": cooler.state.name,
                "ccd": round(cooler.ccd, 3),
                "heat_sink": round(cooler.sink, 3),
                "power": round(cooler.power * 100, 2),
                "set_point": cooler.set_point,
                "fan": cooler.fan.name,
            },
            "settings": {name: int(getattr(firmware.settings.current, name)) for name in _SETTINGS},
            "alt_mode": int(firmware.settings.alt_mode),
            "trigger_mode": int(imager.trigger_mode),
            "versions": {
                target.name.lower(): region.version for target, region in hardware.flash.regions.items()
            },
            "loader": firmware.loader.active,
            "led": camera.indicator.led,
            "error": camera.indicator.error,
            "scene": hardware.optics.scene.value,
            "ambient": hardware.environment.ambient,
            "voltage": hardware.environment.voltage,
            "faults_armed": list(camera.faults.armed),
            "faults_fired": list(camera.faults.fired),
            "strange": camera.strange.active,
        }


_SETTINGS = (
    "led",
    "sound",
    "fan",
    "gain",
    "shutter_priority",
    "anti_blooming",
    "flush",
    "show_progress",
    "fast_readout",
)


def _fault(camera: SimulatedCamera, rest: str) -> str:
    for text in rest.split():
        camera.faults.arm(text)
    return "ok"


def _strange(camera: SimulatedCamera, rest: str) -> str:
    for text in rest.split():
        camera.strange.add(text)
    return " ".join(["ok", *([] if rest else camera.strange.active)])


def _trigger(camera: SimulatedCamera, rest: str) -> str:
    camera.trigger()
    return "ok"


def _unplug(camera: SimulatedCamera, rest: str) -> str:
    camera.device.unplug()
    return "ok"


def _replug(camera: SimulatedCamera, rest: str) -> str:
    camera.device.replug()
    return "ok"


def _power(camera: SimulatedCamera, rest: str) -> str:
    {"on": camera.power_on, "off": camera.power_off}[rest]()
    return "ok"


def _voltage(camera: SimulatedCamera, rest: str) -> str:
    camera.set_environment(voltage=float(rest))
    return "ok"


def _ambient(camera: SimulatedCamera, rest: str) -> str:
    camera.set_environment(ambient=float(rest))
    return "ok"


def _scene(camera: SimulatedCamera, rest: str) -> str:
    name, _, level = rest.partition(" ")
    camera.set_scene(Scene(name), float(level) if level else None)
    return "ok"


def _defocus(camera: SimulatedCamera, rest: str) -> str:
    camera.set_defocus(float(rest))
    return "ok"


_ACTIONS: dict[str, Callable[[SimulatedCamera, str], str]] = {
    "status": lambda camera, rest: "ok " + json.dumps(status(camera)),
    "fault": _fault,
    "faults": lambda camera, rest: "ok " + " ".join(FAULTS),
    "strange": _strange,
    "trigger": _trigger,
    "unplug": _unplug,
    "replug": _replug,
    "power": _power,
    "voltage": _voltage,
    "ambient": _ambient,
    "scene": _scene,
    "defocus": _defocus,
    "help": lambda camera, rest: "ok " + "; ".join(f"{name}: {text}" for name, text in HELP.items()),
}


class _Connection(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        server = self.server
        assert isinstance(server, _Server)
        while line := self.rfile.readline(LONGEST_LINE):
            text = line.decode("utf-8", "replace").strip()
            if text:
                self.wfile.write((server.answer(text) + "\n").encode())


class _Server(socketserver.ThreadingMixIn, socketserver.BaseServer):
    """A socket server on a listener that exists already."""

    daemon_threads = True

    def __init__(self, cameras: Sequence[SimulatedCamera], listener: socket.socket) -> None:
        super().__init__("", _Connection)
        self._cameras = cameras
        self.socket = listener

    def fileno(self) -> int:
        return self.socket.fileno()

    def get_request(self) -> tuple[socket.socket, Any]:
        return self.socket.accept()

    def answer(self, line: str) -> str:
        camera = self._cameras[0]
        head, colon, rest = line.partition(":")
        for candidate in self._cameras:
            if colon and head.strip() == candidate.serial:
                camera, line = candidate, rest
        try:
            return execute(camera, line)
        except (ValueError, KeyError) as error:
            return f"error {error}"


class Control:
    """Serves `address` (`unix:PATH` or `HOST:PORT`, loopback only) from construction to `close`."""

    def __init__(self, cameras: Sequence[SimulatedCamera], address: str) -> None:
        listener = usbip_address.listen(usbip_address.parse_address(address), allow_remote=False)
        self._bound = usbip_address.bound_address(listener)
        self.address = str(self._bound)
        self._server = _Server(cameras, listener)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="control", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.socket.close()
        usbip_address.remove(self._bound)
