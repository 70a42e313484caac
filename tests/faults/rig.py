# SPDX-License-Identifier: LGPL-2.1-or-later
"""A driver with a simulated camera at the USB level and a client, all in this process and on the test's clock.

Everything between the client's XML and the camera's bytes is the driver's own. Only the sockets and their two
threads are left out: the client's text goes into the parser that every link has, and gets the bytes that every
link sends.
"""

from __future__ import annotations

import os
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from indi_qsi.bus import Bus
from indi_qsi.device.device import QsiDevice
from indi_qsi.device.source import CameraSource
from indi_qsi.properties import Hub
from indi_qsi.properties.ports import BlobItem
from indi_qsi.storage import Storage
from indi_qsi.wire.messages import BlobPolicy, Problem
from indi_qsi.wire.parser import Parser
from tests.support.rig import opened
from tests.support.timeline import OwnTimeline
from usbproto.frames import adjust_zero, zero_adjustment
from usbproto.packets import CameraState
from usbproto.simulator.backend import SimulatorBackend
from usbproto.simulator.bodies import CameraModel
from usbproto.simulator.camera import SimulatedCamera

DEVICE = "QSI CCD"
FRAME = (160, 100)  # pixels: enough for a transfer with a beginning, a middle and an end
RATE = 40_000  # bytes/s: the frame takes a second
READOUT = 1.0  # s
# s on the clock, which costs nothing to wait for: what the longest chain of repeated questions may take.
PATIENCE = 300.0

T = TypeVar("T")


class Client:
    """Keeps the state of every vector, every message and every frame."""

    name = "test"
    can_snoop = False

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._changed = threading.Condition()
        self.vectors: dict[str, ET.Element] = {}  # the last definition or update of each that is defined
        self.updates: list[ET.Element] = []  # since `forget`
        self.frames: list[tuple[Any, np.ndarray]] = []
        hub.attach(self)
        self.send("<getProperties version='1.7'/>")

    # What the hub needs of a link.

    def watch(self, device: str | None, name: str | None) -> None: ...

    def wants(self, device: str, name: str | None) -> bool:
        return True

    def wants_blob(self, device: str, name: str) -> bool:
        return True

    def set_policy(self, device: str, name: str | None, policy: BlobPolicy) -> None: ...

    def make_room(self, size: int) -> None: ...

    def pong(self, uid: str) -> None: ...

    def post(self, data: bytes) -> None:
        with self._changed:
            for element in ET.fromstring(b"<all>" + data + b"</all>"):
                self._take(element)
            self._changed.notify_all()

    def post_blob(self, item: BlobItem) -> None:
        frame = opened(bytes(item.frame.buffer))
        item.frame.release()
        with self._changed:
            self.frames.append(frame)
            self._changed.notify_all()

    def _take(self, element: ET.Element) -> None:
        name = element.get("name", "")
        if element.tag == "delProperty":
            self.vectors.pop(name, None)
        elif element.tag.startswith("def") or (element.tag.startswith("set") and name in self.vectors):
            self.vectors[name] = element
        self.updates.append(element)

    # What a client does.

    def send(self, text: str) -> None:
        for event in Parser().feed(text.encode()):
            assert not isinstance(event, Problem), event
            self._hub.dispatch(self, event)

    def new(self, kind: str, vector: str, **values: object) -> None:
        elements = "".join(f"<one{kind} name='{name}'>{value}</one{kind}>" for name, value in values.items())
        self.send(f"<new{kind}Vector device='{DEVICE}' name='{vector}'>{elements}</new{kind}Vector>")

    def state(self, vector: str) -> str:
        """Empty for a vector that is not defined."""
        element = self.vectors.get(vector)
        return "" if element is None else element.attrib["state"]

    def value(self, vector: str, element: str) -> str:
        return next((e.text or "").strip() for e in self.vectors[vector] if e.get("name") == element)

    def busy(self) -> list[str]:
        return [name for name, element in self.vectors.items() if element.get("state") == "Busy"]

    def wait(self, condition: Callable[[], T], what: str, seconds: float = PATIENCE) -> T:
        """Until the condition is true after a message of the driver's; returns its value."""
        with self._changed:
            value = self._changed.wait_for(condition, seconds)
        assert value, f"did not happen within {seconds:g} s: {what}; last: {self.last_words()}"
        return value

    def settled(self, vector: str, what: str = "") -> str:
        """Its state, as soon as it is final."""
        self.wait(lambda: self.state(vector) != "Busy", what or f"{vector} is in a final state")
        return self.state(vector)

    def forget(self) -> None:
        with self._changed:
            self.updates.clear()

    def said(self, vector: str | None = None) -> list[str]:
        """Messages since `forget`, of one vector or of all."""
        return [
            message
            for element in list(self.updates)
            if (message := element.get("message", "")) and vector in (None, element.get("name"))
        ]

    def last_words(self) -> str:
        return "; ".join(
            f"{e.get('name')} {e.get('state')} {e.get('message', '')}" for e in self.updates[-6:]
        )


class Rig:
    """`close` ends everything that was started. `client` is the first of the `clients`."""

    def __init__(
        self,
        directory: Path,
        model: str | CameraModel = "683wsg",
        strange: Sequence[str] = (),
        rate: float | None = RATE,
        readout: float = READOUT,
        client: Callable[[Hub], Client] = Client,
    ) -> None:
        self.happened: list[tuple[str, Mapping[str, Any]]] = []
        self.timeline = OwnTimeline()
        self.camera = SimulatedCamera(
            model,
            timeline=self.timeline,
            readout=readout,
            rate=rate,
            strange=strange,
            listener=lambda name, facts: self.happened.append((name, dict(facts))),
        )
        self.serial_string = self.camera.device._zero.strings.copy()
        bus = Bus("sim")
        bus._backend = self.backend = SimulatorBackend([self.camera.device])
        self.hub = Hub()
        home = os.environ["HOME"]
        os.environ["HOME"] = str(directory)  # the config file's place
        try:
            source = CameraSource(bus, directory / ".indi")
            self.storage = Storage()
            self.device = QsiDevice(self.hub, DEVICE, source, self._opened, self.storage)
        finally:
            os.environ["HOME"] = home
        self.client = client(self.hub)
        self.clients = [self.client]

    def attach(self, client: Callable[[Hub], Client] = Client) -> Client:
        """One more client."""
        self.clients.append(client(self.hub))
        return self.clients[-1]

    def close(self) -> None:
        self.device.close()
        self.storage.close()
        for client in self.clients:
            self.hub.detach(client)
        self.backend.close()
        self.camera.close()
        self.timeline.close()

    @staticmethod
    def _opened(device: QsiDevice, serial: str) -> None:
        """As the fleet: the device is bound to the camera that it has opened."""
        device.source.bind(serial)

    def count(self, event: str) -> int:
        return sum(name == event for name, _ in self.happened)

    # --- the camera's health ---

    def cure(self) -> None:
        """Makes the camera well again, as its user would: plugged in, supplied, and switched off and on where
        only that helps."""
        camera = self.camera
        with self.timeline.lock:
            device, firmware, hardware = camera.device, camera.firmware, camera.hardware
            camera.events.listeners[1:] = []  # faults that are armed
            camera.faults.armed.clear()
            firmware.tampering.clear()
            device._silent_until.clear()
            device.deny_open(None)
            device.refuse_control(0)
            device.read_strings(True)
            device._zero.strings.update(self.serial_string)
            device._to_drop = device._to_corrupt = 0
            device._babble = False
            camera.set_environment(voltage=12.0)
            broken = firmware.hung or hardware.cooler.no_control or hardware.cooler.fan_failed
            broken |= hardware.wheel.failed or hardware.shutter.failed or hardware.relays.stuck
            broken |= hardware.wheel.jams or hardware.shutter.jams or bool(firmware.imager.stuck)
            broken |= hardware.wheel.moving
            if broken and firmware.powered:
                camera.power_off()
            hardware.wheel.jams = hardware.shutter.jams = False
            if not firmware.powered:
                camera.power_on()
            if not device.plugged:
                device.replug()

    def error_state(self) -> bool:
        return self.camera.firmware.imager.state is CameraState.ERROR

    def timeline_pause(self, seconds: float) -> None:
        """Lets so much time pass."""
        time.sleep(seconds)

    def relay(self) -> bool:
        """Whether the camera closes a relay of the guide port."""
        with self.timeline.lock:
            return self.camera.hardware.relays.active is not None

    def picture(self) -> np.ndarray:
        """The camera's last frame as a client must get it: after auto-zero."""
        frame = self.camera.firmware.imager.frame
        assert frame is not None
        return adjust_zero(frame.pixels.copy(), zero_adjustment(frame.overscan, frame.zero_level))

    # --- what a user does ---

    def connect(self) -> str:
        self.client.new("Switch", "CONNECTION", CONNECT="On")
        state = self.client.settled("CONNECTION")
        if state == "Ok":
            self.client.wait(lambda: self.client.state("CCD1"), "the vectors are defined")
        return state

    def disconnect(self) -> str:
        self.client.new("Switch", "CONNECTION", DISCONNECT="On")
        return self.client.settled("CONNECTION")

    def choose(self, vector: str, element: str) -> None:
        self.client.new("Switch", vector, **{element: "On"})
        assert self.client.settled(vector) == "Ok", self.client.last_words()

    def expose(self, seconds: float = 0.5) -> str:
        """The final state of CCD_EXPOSURE."""
        self.client.new("Number", "CCD_EXPOSURE", CCD_EXPOSURE_VALUE=seconds)
        return self.client.settled("CCD_EXPOSURE")


def descriptors() -> tuple[int, int]:
    """How many are open: of memory for frames, some of which is kept for the next one, and of all else."""
    targets = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the one by which the folder is read
            targets.append(str(link.readlink()))
    frames = sum(target.startswith("/memfd:") for target in targets)
    return frames, len(targets) - frames


def ended(before: set[threading.Thread]) -> list[str]:
    """Threads that are still there and were not before; some may need a moment to end."""
    for _ in range(100):
        left = [thread for thread in threading.enumerate() if thread not in before]
        if not left:
            return []
        time.sleep(0.01)
    return [thread.name for thread in left]
