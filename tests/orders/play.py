# SPDX-License-Identifier: LGPL-2.1-or-later
"""Plays a sequence of steps against a driver with a simulated camera, and records everything in its order.

A step is one line of text:

    c0 Gain.Low=On                    client 0 sends a request; consecutive requests come in one packet
    c1 CCD_FRAME.X=0 Y=0 WIDTH=9 HEIGHT=9
    wait 0.05                         seconds on the clock
    until transfer 0.1                a camera event (at most 4 s from now), and seconds after it
    trigger                           the external trigger fires
    unplug | replug | power_off | power_on | fail    `fail`: the next read from the camera fails
    disk 0.5                          seconds that bringing a file to the disk takes from now on

`@` at the beginning of a value stands for the folder of local files.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from indi_qsi.properties import Hub
from indi_qsi.properties.ports import BlobItem
from indi_qsi.properties.vectors import MODEL_LOCK
from tests.faults.rig import DEVICE, Client, Rig
from tests.orders.model import KEPT
from tests.orders.record import FAULTS, LASTING, SENSOR, Event, Record, parsed
from usbproto.packets import CameraState
from usbproto.simulator.bodies import CameraModel

CLIENTS = 3
RATE = 30_000  # bytes/s: a whole frame takes a third of a second
READOUT = 0.25  # s
UNTIL_LIMIT = 4.0  # s
NOTICED = 3.0  # s; a camera that was away for a moment is missed by the next poll
SETTLE_LIMIT = 200.0  # s; a lost camera powers up, and the longest pause between two attempts is 15 s
# s after which even a loss that nobody asked the camera about is noticed: two polls.
UNNOTICED = 4.0
STRAGGLERS = 0.6  # s in which a second final state would come
KINDS = {
    "CCD_EXPOSURE": "Number",
    "CCD_BINNING": "Number",
    "CCD_FRAME": "Number",
    "CCD_TEMPERATURE": "Number",
    "FILTER_SLOT": "Number",
    "TELESCOPE_TIMED_GUIDE_NS": "Number",
    "TELESCOPE_TIMED_GUIDE_WE": "Number",
    "FILTER_NAME": "Text",
    "PIXEL_MASK": "Text",
    "UPLOAD_SETTINGS": "Text",
}
CONNECT, DISCONNECT = "c0 CONNECTION.CONNECT=On", "c0 CONNECTION.DISCONNECT=On"


class Observer(Client):
    """Puts what the hub sends into the record. Only the first one does; the others compare."""

    def __init__(self, hub: Hub) -> None:
        self.player: Player | None = None
        self.first = False
        self.heard: list[bytes] = []
        self.count = 0
        super().__init__(hub)

    def post(self, data: bytes) -> None:
        self.heard.append(data)
        if self.first or self.player is None:
            super().post(data)

    def _take(self, element: ET.Element) -> None:
        super()._take(element)
        if self.player is not None:
            self.player.told(element)

    def post_blob(self, item: BlobItem) -> None:
        self.heard.append(b"frame")
        data = bytes(item.frame.buffer) if self.first else b""
        item.frame.release()
        if self.player is not None and self.first:
            with self._changed:
                self.player.frame(header(data))


def header(data: bytes) -> dict[str, str]:
    """The records of a FITS file, and DATA: the bytes behind them."""
    cards: dict[str, str] = {}
    for at in range(0, len(data), 80):
        card = data[at : at + 80].decode("ascii")
        if card.startswith("END "):
            cards["DATA"] = str(len(data) - -(-(at + 80) // 2880) * 2880)
            break
        name, mark, rest = card[:8].strip(), card[8:10], card[10:]
        if mark == "= ":
            rest = rest.strip()
            cards[name] = rest[1:].partition("'")[0].strip() if rest[0] == "'" else rest.split("/")[0].strip()
    return cards


class Player:
    """One driver and its camera, on the clock that is installed. `play` may be called many times."""

    def __init__(self, directory: Path, model: str = "683wsg") -> None:
        self.folder = directory  # local files are in it, or below
        parsed = CameraModel.parse(model)
        extra = parsed.sensor.overscan_columns
        sensor = replace(parsed.sensor, active=SENSOR, total=(SENSOR[0] + extra, SENSOR[1]))
        self.model = model
        self.record = Record(model, ())
        # By role; nothing is kept yet.
        self.disk = 0.0  # s that `os.fsync` takes
        self.kept = {role: dict[str, Any](KEPT) for role in ("ROLE_MAIN", "ROLE_GUIDER")}
        self._own: int | None = None  # the thread in which a request is dispatched
        directory.mkdir(exist_ok=True)
        self.rig = Rig(directory, replace(parsed, sensor=sensor), rate=RATE, readout=READOUT, client=Observer)
        for _ in range(1, CLIENTS):
            self.rig.attach(Observer)
        self.clients: list[Observer] = list(self.rig.clients)  # type: ignore[arg-type]
        self.clients[0].first = True
        for client in self.clients:
            client.player = self
        self._changed = threading.Condition()
        with self.rig.timeline.lock:
            self.rig.camera.events.listeners[:] = [self._happened]  # the first one stays

    def close(self) -> None:
        self.rig.close()

    # --- what is recorded ---

    def told(self, element: ET.Element) -> None:
        tag = element.tag
        kind = "message" if tag == "message" else "del" if tag == "delProperty" else tag[:3]
        if element.get("device") != DEVICE:
            return
        self._note(
            Event(
                time.monotonic(),
                kind,
                element.get("name", ""),
                {e.get("name", ""): (e.text or "").strip() for e in element}
                if kind in ("set", "def")
                else {},
                element.get("state", ""),
                element.get("message", ""),
                self._own == threading.get_ident(),
            )
        )

    def frame(self, cards: dict[str, str]) -> None:
        self._note(Event(time.monotonic(), "frame", data=cards))

    def _happened(self, name: str, facts: Mapping[str, Any]) -> None:
        self._note(Event(time.monotonic(), "camera", name, dict(facts)))
        with self._changed:
            self._changed.notify_all()

    def _note(self, event: Event) -> int:
        events = self.record.events
        events.append(event)
        return len(events) - 1

    # --- one sequence ---

    def play(self, steps: Sequence[str], probe: bool = False) -> Record:
        """Plays the steps, waits until nothing is due any more, and returns the record.

        `probe`: afterwards the camera is connected, if it is not, and takes one more frame.
        """
        self.disk = 0.0
        self.ready()
        record = Record(self.model, list(steps), kept=self.kept)
        with MODEL_LOCK:  # nothing is told meanwhile
            self.record = record
            for client in self.clients:
                client.heard.clear()
                client.updates.clear()
            self._look(record)
        self._steps(steps)
        self._settle()
        if probe:
            record.probed = True
            self._probe()
        self._finish(record)
        return record

    def ready(self) -> None:
        """Connected, at rest, waiting for no trigger, the shutter automatic, frames to the clients."""
        client = self.clients[0]
        if client.vectors["CONNECTION"].get("state") != "Ok":
            self.rig.cure()
            for _ in range(4):  # it may still be starting
                if self.rig.connect() == "Ok":
                    break
            client.wait(lambda: client.state("CONNECTION") == "Ok", "the camera is connected")
            client.wait(lambda: client.state("CCD_EXPOSURE"), "the vectors are defined")
        for vector, usual in (
            ("EXTERNAL_TRIGGER", "TRIGGER_OFF"),
            ("CCD_SHUTTER", "SHUTTER_AUTO"),
            ("UPLOAD_MODE", "UPLOAD_CLIENT"),
            ("CCD_FRAME_TYPE", "FRAME_LIGHT"),
        ):
            if client.value(vector, usual) != "On":
                self.rig.choose(vector, usual)

    def _look(self, record: Record) -> None:
        """What holds now."""
        record.before = self._shown()
        record.states_before = {
            name: element.get("state", "") for name, element in self.clients[0].vectors.items()
        }
        hardware, firmware = self.rig.camera.hardware, self.rig.camera.firmware
        cooler = hardware.cooler
        record.cooling = cooler.on, cooler.to_ambient, cooler.set_point
        record.wheel = hardware.wheel.position
        current = firmware.settings.current
        record.camera_settings = {
            name: int(getattr(current, name))
            for name in ("fan", "gain", "shutter_priority", "flush", "fast_readout")
        }
        record.alt_mode = int(firmware.settings.alt_mode)
        record.latency = self.rig.camera.device._channels[0].latency

    def _shown(self) -> dict[str, dict[str, str]]:
        return {
            name: {e.get("name", ""): (e.text or "").strip() for e in element}
            for name, element in list(self.clients[0].vectors.items())
        }

    def _steps(self, steps: Sequence[str]) -> None:
        at = 0
        while at < len(steps):
            words = steps[at].split()
            if words[0][0] == "c" and words[0][1:].isdigit():
                self._request(int(words[0][1:]), steps[at].partition(" ")[2])
            elif words[0] == "wait":
                time.sleep(float(words[1]))
            elif words[0] == "disk":
                self.disk = float(words[1])
            elif words[0] == "until":
                self._until(words[1], float(words[2]) if len(words) > 2 else 0.0)
            else:
                self._act(words[0])
            at += 1

    def _request(self, number: int, text: str) -> None:
        vector, values = parsed(text)
        values = {
            name: str(self.folder) + value[1:] if value[:1] == "@" else value
            for name, value in values.items()
        }
        client = self.clients[number % CLIENTS]
        event = Event(time.monotonic(), "request", vector, values, client=number)
        self._note(event)
        self._own = threading.get_ident()
        try:
            kind = KINDS.get(vector, "Switch")
            client.new(kind, vector, **{name: escape(value) for name, value in values.items()})
        finally:
            self._own = None
            event.end = self._note(Event(time.monotonic(), "answered", vector))

    def _until(self, name: str, seconds: float) -> None:
        count = self._count(name)
        with self._changed:
            self._changed.wait_for(lambda: self._count(name) > count, UNTIL_LIMIT)
        if seconds:
            time.sleep(seconds)

    def _count(self, name: str) -> int:
        return sum(event.kind == "camera" and event.name == name for event in self.record.events)

    def _act(self, word: str) -> None:
        camera = self.rig.camera
        self._note(Event(time.monotonic(), "step", word))
        with self.rig.timeline.lock:
            if word == "trigger":
                camera.trigger()
            elif word == "unplug":
                if camera.device.plugged:
                    camera.device.unplug()
            elif word == "replug":
                if not camera.device.plugged and camera.firmware.powered:
                    camera.device.replug()
            elif word == "power_off":
                camera.power_off()
            elif word == "power_on":
                camera.power_on()
            elif word == "fail":
                camera.device.babble()
            else:
                raise ValueError(f"not a step: {word!r}")

    # --- the end of a sequence ---

    def _heal(self) -> None:
        camera = self.rig.camera
        with self.rig.timeline.lock:
            camera.device._babble = False
            if not camera.firmware.powered:
                self._note(Event(time.monotonic(), "step", "power_on"))
                camera.power_on()
            if not camera.device.plugged:
                self._note(Event(time.monotonic(), "step", "replug"))
                camera.device.replug()

    def _settle(self) -> None:
        """Until nothing is due any more. A camera that waits for its trigger gets it."""
        self._heal()
        if any(event.kind == "step" and event.name in FAULTS for event in self.record.events):
            time.sleep(NOTICED)
        client, limit = self.clients[0], time.monotonic() + SETTLE_LIMIT
        while time.monotonic() < limit:
            with client._changed:
                client._changed.wait_for(lambda: not self._due(), 2.0)
            if self.rig.camera.firmware.imager.state is CameraState.WAITING_FOR_TRIGGER:
                self._act("trigger")
            elif not self._due():
                time.sleep(STRAGGLERS)
                if not self._due():
                    return

    def _due(self) -> list[str]:
        client = self.clients[0]
        busy = [name for name in client.busy() if name not in LASTING]
        return busy + (["the camera to come back"] if self._waiting() else [])

    def _waiting(self) -> bool:
        """Whether the driver waits for a lost camera: its vectors stay while CONNECTION is Alert."""
        client = self.clients[0]
        return client.state("CONNECTION") == "Alert" and bool(client.state("CCD_EXPOSURE"))

    def _probe(self) -> None:
        client = self.clients[0]
        time.sleep(UNNOTICED)
        self._settle()
        for _ in range(4):
            if client.state("CONNECTION") == "Ok":
                break
            self._steps([CONNECT])
            self._settle()
        extra = ["c0 EXTERNAL_TRIGGER.TRIGGER_OFF=On", "c0 CCD_FRAME_TYPE.FRAME_LIGHT=On"]
        self._steps([*extra, "c0 CCD_EXPOSURE.CCD_EXPOSURE_VALUE=0.2"])
        self._settle()

    def _finish(self, record: Record) -> None:
        client = self.clients[0]
        record.busy = self._due()
        record.waiting = self._waiting()
        record.after = self._shown()
        record.states = {name: element.get("state", "") for name, element in client.vectors.items()}
        if self.folder.is_dir():
            for path in sorted(self.folder.rglob("*.fits")):
                record.files.append(header(path.read_bytes()))
                with suppress(OSError):
                    path.unlink()
        with MODEL_LOCK:
            first, *others = (list(client.heard) for client in self.clients)
        for number, heard in enumerate(others, 1):
            if heard != first:
                differ = next((a for a, b in zip(first, heard, strict=False) if a != b), b"the last ones")
                record.unlike.append(f"client {number} was told something else than client 0: {differ!r}")

    @property
    def clean(self) -> bool:
        """Whether the next sequence may use this driver: nothing is due, and no fault has left its mark."""
        record = self.record
        faulty = any(event.kind == "step" and event.name in FAULTS for event in record.events)
        return not record.busy and not record.unlike and not faulty
