# SPDX-License-Identifier: LGPL-2.1-or-later
"""`qsi-firmware` in this process with a simulated camera: in time that stands still, or behind a real USB stack.

`Bench` lets the time go by while the tool waits, so a case costs milliseconds. Its channel can be cut at any
command of the loader. `UsbBench` has pyusb and the FTDI chip in between, in (fast) real time.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qsi_tools.firmware import backups, cli
from qsi_tools.firmware.access import RETURN_LIMIT, Access, Session
from qsi_tools.firmware.commands import Options
from qsi_tools.firmware.dialects.openloader import OpenLoader
from qsi_tools.firmware.facts import Facts
from qsi_tools.firmware.image import Target
from qsi_tools.firmware.journal import Entry, Journal, Standing
from qsi_tools.firmware.screen import Screen

from tests.protocol.bench import SimulatedChannel
from tests.tools.firmware_files import hex_file, image
from usbproto import packets as p
from usbproto.deadline import Deadline
from usbproto.discovery import Found
from usbproto.errors import Disconnected
from usbproto.ftdi import Port
from usbproto.link import ByteChannel
from usbproto.simulator import flash
from usbproto.simulator.backend import SimulatorBackend
from usbproto.simulator.camera import SimulatedCamera
from usbproto.simulator.timeline import ManualTimeline

LOADER_CODES = frozenset((0x21, *range(0xA0, 0xA6)))
STEP = 0.02  # simulated s by which a waiting host lets time go by
FAST = 400.0  # of a camera behind USB
NEW = {Target.FIRMWARE: "06.09.01", Target.CORE: "02.00.00"}


class Killed(BaseException):
    """The program is gone in the middle: nothing of it catches this."""


class CutChannel(SimulatedChannel):
    """Calls `cut` before a packet of the loader goes out, and again when it has."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.camera)
        self._bench = bench

    def write(self, data: bytes) -> None:
        self._bench.check_cable()
        loader = data[0] in LOADER_CODES
        self._bench.wrote(data)
        if loader:
            self._bench.cut("before")
        self._bench.check_cable()
        super().write(data)
        if loader:
            self._bench.cut("behind")

    def read_into(self, target: memoryview, deadline: Deadline) -> int:
        end = self._bench.time.now() + deadline.seconds
        while not len(self.camera.fifo):
            self._bench.check_cable()
            if self._bench.time.now() >= end:
                return 0
            self._bench.time.advance(STEP)
        return self._take(target)

    def look(self) -> bytes:
        self._bench.check_cable()
        return super().look()


class SimulatedDeadline(Deadline):
    def __init__(self, time: ManualTimeline) -> None:
        super().__init__(RETURN_LIMIT)
        self._time, self._end = time, time.now() + RETURN_LIMIT

    @property
    def passed(self) -> bool:
        return self._time.now() >= self._end


class TestAccess(Access):
    __test__ = False

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self._bench = bench

    def deadline(self) -> Deadline:
        return SimulatedDeadline(self._bench.time)

    def pause(self) -> None:
        self._bench.time.advance(1.0)

    def cameras(self) -> list[Found]:
        camera = self._bench.camera
        if not self._bench.attached:
            return []
        series = camera.model.series
        return [Found(series, camera.serial, Port(series, camera.serial, "001:002"))]

    def open_channel(self, found: Found) -> ByteChannel:
        return CutChannel(self._bench)


class Tool:
    """Runs commands as the program would. `out` and `err` have what they said."""

    camera: SimulatedCamera
    access: Access

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = self.err = ""

    def run(self, command: str, file: bytes | None = None, **options: Any) -> int:
        path = None
        if file is not None:
            path = self.folder / "file.hex"
            path.write_bytes(file)
        out, err = io.StringIO(), io.StringIO()
        try:
            return cli.run(
                command,
                self.access,
                Options(state=self.folder / "state", file=path, **options),
                Screen(out, err),
            )
        finally:
            self.out, self.err = out.getvalue(), err.getvalue()

    def update(self, target: Target = Target.FIRMWARE, **options: Any) -> int:
        return self.run(
            "update", self.new_file(target), target=target, **{"confirm": self.camera.serial, **options}
        )

    def recover(self, **options: Any) -> int:
        return self.run("recover", confirm=self.camera.serial, **options)

    def new_file(self, target: Target) -> bytes:
        return hex_file(target.name[0], self.camera.model.base, NEW[target])

    def new_image(self, target: Target) -> bytes:
        return image(target.name[0], self.camera.model.base, NEW[target])

    def facts(self) -> Facts:
        with self.access.session(self.access.find(None)) as session:
            return session.facts

    def back_up(self) -> None:
        """As `backup` does, without reading every byte through the link."""
        backups.save(
            self.folder / "state" / "backups",
            self.facts(),
            bytes(self.camera.hardware.eeprom[: backups.SIZE]),
        )

    def entry(self) -> Entry | None:
        return Journal(self.folder / "state", self.camera.serial).entry

    def region(self, target: Target) -> flash.Region:
        return self.camera.hardware.flash.regions[flash.Target[target.name]]

    def works(self) -> bool:
        """The firmware runs and serves."""
        with self.access.session(self.access.find(None)) as session:
            return _works(session)


def _works(session: Session) -> bool:
    state = session.link.exchange(p.GET_DEVICE_STATE, p.Empty()).state
    details = session.link.exchange(p.GET_DEVICE_DETAILS, p.Empty())
    return state is p.CameraState.IDLE and details.has_camera


class Bench(Tool):
    """`cut(where)` is called around every packet of the loader; `sent` has all packets, in their order."""

    def __init__(self, folder: Path, model: str = "683wsg", **options: Any) -> None:
        super().__init__(folder)
        self.time = ManualTimeline()
        self.happened: list[tuple[str, dict[str, Any]]] = []
        self.camera = SimulatedCamera(
            model,
            timeline=self.time,
            listener=lambda name, facts: self.happened.append((name, facts)),
            **options,
        )
        self.access = TestAccess(self)
        self.attached = True
        self.sent: list[bytes] = []
        self.cut: Callable[[str], None] = lambda where: None

    def wrote(self, data: bytes) -> None:
        self.sent.append(data)

    def check_cable(self) -> None:
        if not self.attached:
            raise Disconnected("The camera left the USB")

    def codes(self) -> set[int]:
        return {packet[0] for packet in self.sent}

    def power_off(self) -> None:
        self.camera.power_off()
        self.attached = False

    def mend(self) -> None:
        """Cable and supply are back, and no fault is left."""
        self.cut = lambda where: None
        self.camera.firmware.tampering.clear()
        self.camera.power_on()
        self.attached = True
        self.time.advance(10.0)

    def close(self) -> None:
        self.camera.close()


class UsbBench(Tool):
    def __init__(self, folder: Path, *models: str, **options: Any) -> None:
        super().__init__(folder)
        self.cameras = [SimulatedCamera(model, speed=FAST, **options) for model in models]
        self.camera = self.cameras[0]
        self.backend = SimulatorBackend([camera.device for camera in self.cameras])
        self.access = Access(self.backend, (OpenLoader(short=0.3, long=0.5),), patience=5.0, answer_time=0.1)

    def close(self) -> None:
        self.backend.close()
        for camera in self.cameras:
            camera.close()


def claim_is_true(tool: Tool, target: Target, old: bytes) -> bool:
    """Whether what the journal says of the camera is so."""
    entry, region = tool.entry(), tool.region(target)
    assert entry is not None
    new = tool.new_image(target)
    held = bytes(region.data)
    return {
        Standing.OLD: region.version == entry.old_version and held.startswith(old),
        Standing.UNKNOWN: True,
        Standing.NONE: region.version is None,
        Standing.UNCHECKED: held.startswith(new),
        Standing.NEW: region.version == entry.new_version and held.startswith(new),
    }[entry.standing]
