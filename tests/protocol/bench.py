# SPDX-License-Identifier: LGPL-2.1-or-later
"""The host's side at work: on a simulated camera in time that costs nothing, or on one behind a USB.

`Bench` joins a `Camera` to the byte queue of a simulated camera whose time stands still: whoever waits lets it
go by, so a time-out of 15 s is over at once. `UsbBench` has the FTDI chip and pyusb in between, in real time.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import usb.core

from tests.faults.clock import Clock
from tests.support.timeline import OwnTimeline
from usbproto import discovery
from usbproto import packets as p
from usbproto.camera import Camera, Exposure, Image
from usbproto.capabilities import AGREED, NOTHING, CapabilityCache, Learnt
from usbproto.deadline import Deadline
from usbproto.errors import QsiError, TransferFailed
from usbproto.frames import Geometry
from usbproto.ftdi import FAILURE_PAUSE
from usbproto.models import SERIES_600, Series
from usbproto.session import Session
from usbproto.simulator.backend import SimulatorBackend, UsbHandle
from usbproto.simulator.camera import SimulatedCamera
from usbproto.simulator.timeline import ManualTimeline
from usbproto.timing import FAST, TIMINGS, Timing

STEP = 0.005  # simulated s by which a waiting host lets time go by
LATENCY = 0.001  # simulated s of a look
PATIENCE = 10.0  # s for what must happen in real time
SPEED = 50.0  # of a camera behind USB
# The timing of all tests that do not choose one: `tools/test vendor` runs them again with the vendor's. The variable is
# the driver's own, so that the tests of the whole chain follow it too.
TIMING = TIMINGS[os.environ.get("INDI_QSI_TIMING", "").strip().capitalize() or FAST.name]

Facts = dict[str, Any]


def eventually(condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """The condition's value as soon as it is true."""
    end = time.monotonic() + patience
    while not (value := condition()):
        assert time.monotonic() < end, f"never happened: {what}"
        time.sleep(0.002)
    return value


class _Known:
    """A memory of what cameras of the 500 Series can do: it saves three probes of a second each."""

    def get(self, serial: str, firmware: str) -> Learnt | None:
        missed = dict.fromkeys(("features", "temperature_ex", "exposure_ex"), AGREED)
        return Learnt(NOTHING, missed) if serial.startswith("005") else None

    def put(self, serial: str, firmware: str, learnt: Learnt) -> None:
        pass


KNOWN = _Known()


class _Clock:
    """Tells a deadline's time in a time of its own."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._deadline: Deadline | None = None
        self._end = 0.0

    def end_of(self, deadline: Deadline) -> float:
        if deadline is not self._deadline:
            self._deadline, self._end = deadline, self._now() + deadline.seconds
        return self._end


@dataclass
class Trip:
    """The n-th `call` from now on fails, and those behind it, `times` in all.

    A write that fails has `reached` the camera or not; of a read that fails, the answer is still to be read
    or not. `only`: the code of the command that was sent last, None for any.
    """

    call: str
    error: Callable[[], QsiError]
    nth: int = 1
    times: int = 1
    reached: bool = False
    only: int | None = None

    def due(self, call: str, code: int | None) -> bool:
        if call != self.call or not self.times or (self.only is not None and code != self.only):
            return False
        self.nth -= 1
        if self.nth > 0:
            return False
        self.times -= 1
        return True


def failed_transfer() -> TransferFailed:
    """What a real channel raises when it is fit for the next transfer."""
    return TransferFailed("A USB transfer failed (test)", errno.EIO)


class SimulatedChannel:
    """A `ByteChannel` on a simulated camera. `sent` has every packet, `trips` what shall fail."""

    def __init__(self, camera: SimulatedCamera) -> None:
        assert isinstance(camera.timeline, ManualTimeline)
        self.time = camera.timeline
        self.camera = camera
        self.sent: list[bytes] = []
        self.closed = 0
        self.restarts = 0
        self.timings: list[Timing] = []
        self.trips: list[Trip] = []
        self._clock = _Clock(self.time.now)

    def write(self, data: bytes) -> None:
        self.sent.append(data)
        trip = self._trip("write")
        if trip is None or trip.reached:
            with self.time.lock:
                self.camera.fifo.host_wrote(data)
        if trip is not None:
            self._fail(trip)

    def _fail(self, trip: Trip) -> NoReturn:
        """Raises the trip's error. As in the real channel, a failed transfer takes the time of a pause."""
        error = trip.error()
        if isinstance(error, TransferFailed):
            time.sleep(FAILURE_PAUSE)  # on the driver's clock, and then on the camera's
            self.time.advance(FAILURE_PAUSE)
        raise error

    def _trip(self, call: str) -> Trip | None:
        code = self.sent[-1][0] if self.sent else None
        return next((trip for trip in self.trips if trip.due(call, code)), None)

    def _stumble(self, call: str, end: float = 0.0) -> None:
        if (trip := self._trip(call)) is None:
            return
        if not trip.reached:  # the transfer fails that carries the answer, whenever that comes
            self._wait(end)
            self.camera.fifo.clear()
        self._fail(trip)

    def _wait(self, end: float) -> bool:
        """Whether there is something to read before this moment."""
        while not len(self.camera.fifo):
            if self.time.now() >= end:
                return False
            self.time.advance(STEP)
        return True

    def read_into(self, target: memoryview, deadline: Deadline) -> int:
        end = self._clock.end_of(deadline)
        self._stumble("read", end)
        return self._take(target) if self._wait(end) else 0

    def _take(self, target: memoryview) -> int:
        done = 0
        for piece in self.camera.fifo.take(len(target)):
            target[done : done + len(piece)] = piece
            done += len(piece)
        return done

    def look(self) -> bytes:
        self._stumble("look")
        self.time.advance(LATENCY)
        return b"".join(bytes(piece) for piece in self.camera.fifo.take(1 << 30))

    def restart(self) -> None:
        self._stumble("control")
        self.restarts += 1

    def use_timing(self, timing: Timing) -> None:
        self._stumble("control")
        self.timings.append(timing)

    def close(self) -> None:
        self.closed += 1


class ScriptedChannel:
    """A `ByteChannel` whose camera is a function: packet -> bytes that come back. `time` goes by as they wait.

    `babble`: it never stops sending.
    """

    def __init__(self, answer: Callable[[bytes], bytes], babble: bool = False) -> None:
        self.answer = answer
        self.babble = babble
        self.sent: list[bytes] = []
        self.time = 0.0
        self.closed = 0
        self.restarts = 0
        self._waiting = b""
        self._clock = _Clock(lambda: self.time)

    def write(self, data: bytes) -> None:
        self.sent.append(data)
        self._waiting += self.answer(data)

    def read_into(self, target: memoryview, deadline: Deadline) -> int:
        end = self._clock.end_of(deadline)
        if self.babble:
            self._waiting += bytes(len(target))
        if not self._waiting:
            self.time = max(self.time, end)
            return 0
        self.time += LATENCY
        count = min(len(target), len(self._waiting))
        target[:count] = self._waiting[:count]
        self._waiting = self._waiting[count:]
        return count

    def look(self) -> bytes:
        self.time += LATENCY
        waiting, self._waiting = self._waiting, b""
        return waiting

    def restart(self) -> None:
        self.restarts += 1

    def use_timing(self, timing: Timing) -> None:
        self.timing = timing

    def close(self) -> None:
        self.closed += 1


class Taking:
    """Pictures, on either bench."""

    camera: Camera
    simulated: SimulatedCamera

    def pass_time(self, seconds: float) -> None:
        raise NotImplementedError

    def window(self, width: int = 16, height: int = 12, x: int = 0, y: int = 0, binning: int = 1) -> Geometry:
        return self.camera.array.fit(x, y, width, height, binning, binning)

    def finish(self, geometry: Geometry, progress: Callable[[int], None] | None = None) -> Image:
        """Waits for the image of the exposure that was started, and reads it."""
        eventually(self._ready, "the image is ready")
        return self.camera.read_image(memoryview(bytearray(geometry.bytes)), progress)

    def _ready(self) -> bool:
        self.pass_time(0.05)
        return self.camera.image_ready()

    def take(self, geometry: Geometry | None = None, seconds: float = 0.05, light: bool = True) -> Image:
        geometry = geometry or self.window()
        self.camera.start_exposure(Exposure(seconds, geometry, light))
        return self.finish(geometry)

    def sensor_held(self) -> np.ndarray:
        """The last picture as the simulated sensor holds it."""
        frame = self.simulated.last_frame
        assert frame is not None
        return frame

    def check_picture(self, geometry: Geometry | None = None) -> Image:
        """A picture is taken and is the sensor's."""
        image = self.take(geometry)
        np.testing.assert_array_equal(image.pixels, self.sensor_held())
        return image


class Bench(Taking):
    """`happened` has every event of the camera as (name, facts)."""

    def __init__(self, model: str = "683wsg", *, connect: bool = True, **options: Any) -> None:
        self.happened: list[tuple[str, Facts]] = []
        options.setdefault("readout", 0.01)
        self.time = ManualTimeline()
        self.simulated = SimulatedCamera(model, timeline=self.time, listener=self._note, **options)
        if connect:
            self.connect()

    def _note(self, name: str, facts: Facts) -> None:
        self.happened.append((name, facts))

    def events(self, name: str) -> list[Facts]:
        return [facts for happened, facts in self.happened if happened == name]

    def connect(self, cache: CapabilityCache | None = None, *trips: Trip, timing: Timing = TIMING) -> Camera:
        self.channel = SimulatedChannel(self.simulated)
        self.channel.trips.extend(trips)
        self.said: list[str] = []  # what the user is shown while something takes long
        session = Session(timing)
        session.progress = self.said.append
        series, serial = self.simulated.model.series, self.simulated.serial
        self.camera = Camera(self.channel, series, serial, cache, session)
        return self.camera

    def fault(self, text: str) -> None:
        self.simulated.faults.arm(text)

    def answers(self, command: p.Command[Any, Any], packet: bytes, times: int = 1) -> None:
        """The next answers to this command are this packet, whatever the camera would say."""

        def tamper(reply: Any) -> None:
            nonlocal times
            if reply.command is command and times:
                times -= 1
                reply.packet, reply.data = packet, []

        self.simulated.firmware.tampering.append(tamper)

    def pass_time(self, seconds: float) -> None:
        self.time.advance(seconds)

    def sent(self, command: p.Command[Any, Any]) -> list[bytes]:
        """The packets of this command that left since `forget`."""
        return [packet for packet in self.channel.sent if packet[0] == command.code]

    def forget(self) -> None:
        self.channel.sent.clear()

    def close(self) -> None:
        self.simulated.close()


@contextlib.contextmanager
def bench(model: str = "683wsg", **options: Any) -> Iterator[Bench]:
    made = Bench(model, **options)
    try:
        yield made
    finally:
        made.close()


def usb_failure(number: int | None) -> usb.core.USBError:
    """What PyUSB raises for this errno; some of its errors have none."""
    return usb.core.USBError("Other error" if number is None else os.strerror(number), None, number)


class CountingBackend(SimulatorBackend):
    """Counts transfers, keeps the vendor requests, and can pull the cable at the n-th transfer.

    `failing` are transfers that are to fail, in their order: the kind (read, write, control) and the errno.
    `packet_size`: what the endpoint gives as its own, whatever the chip sends.
    """

    def __init__(self, bus: Any) -> None:
        super().__init__(bus)
        self.requests: list[tuple[int, int, int, int]] = []
        self.reads: list[int] = []  # how many bytes were asked for
        self.transfers = 0
        self.unplug_at: int | None = None
        self.unplug: Callable[[], None] = lambda: None
        self.failing: list[tuple[str, int | None]] = []
        self.packet_size: int | None = None

    def get_endpoint_descriptor(self, *where: Any) -> Any:
        found = super().get_endpoint_descriptor(*where)
        if self.packet_size is not None:
            found.wMaxPacketSize = self.packet_size
        return found

    def _count(self, kind: str) -> None:
        self.transfers += 1
        if self.transfers == self.unplug_at:
            self.unplug()
        if self.failing and self.failing[0][0] == kind:
            raise usb_failure(self.failing.pop(0)[1])

    def bulk_read(self, dev_handle: Any, ep: int, intf: int, buff: Any, timeout: int) -> int:
        self._count("read")
        self.reads.append(len(buff))
        return super().bulk_read(dev_handle, ep, intf, buff, timeout)

    def bulk_write(self, dev_handle: Any, ep: int, intf: int, data: Any, timeout: int) -> int:
        self._count("write")
        return super().bulk_write(dev_handle, ep, intf, data, timeout)

    def ctrl_transfer(
        self,
        dev_handle: UsbHandle,
        bmRequestType: int,  # noqa: N803  # PyUSB's names
        bRequest: int,  # noqa: N803
        wValue: int,  # noqa: N803
        wIndex: int,  # noqa: N803
        data: Any,
        timeout: int,
    ) -> int:
        self._count("control")
        if bmRequestType & 0x60 == 0x40:
            self.requests.append((bmRequestType, bRequest, wValue, wIndex))
        return super().ctrl_transfer(dev_handle, bmRequestType, bRequest, wValue, wIndex, data, timeout)


class UsbBench(Taking):
    """A simulated camera on a USB in this process. Nothing is connected yet."""

    def __init__(self, *models: str, speed: float = SPEED, **options: Any) -> None:
        options.setdefault("readout", 0.01)
        self.cameras = [SimulatedCamera(model, speed=speed, **options) for model in models or ("683wsg",)]
        self.simulated = self.cameras[0]
        self.bus: list[Any] = [camera.device for camera in self.cameras]
        self.backend = CountingBackend(self.bus)
        self.backend.unplug = self.simulated.device.unplug
        self._opened: list[Camera] = []

    def connect(
        self,
        serial: str | None = None,
        cache: CapabilityCache | None = None,
        session: Session | None = None,
    ) -> Camera:
        session = session or Session(TIMING)
        self.camera = discovery.open_camera(serial, backend=self.backend, cache=cache, session=session)
        self._opened.append(self.camera)
        return self.camera

    def pass_time(self, seconds: float) -> None:
        time.sleep(min(seconds, 0.002))

    def close(self) -> None:
        for camera in self._opened:
            camera.close()
        for simulated in self.cameras:
            simulated.close()
        self.backend.close()


@contextlib.contextmanager
def usb_bench(*models: str, **options: Any) -> Iterator[UsbBench]:
    made = UsbBench(*models, **options)
    try:
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def clocked_bench(model: str = "683wsg", **options: Any) -> Iterator[UsbBench]:
    """A `UsbBench` on a clock that skips waiting: what takes a minute costs nothing."""
    with Clock():
        timeline = OwnTimeline()
        with usb_bench(model, timeline=timeline, **options) as made:
            yield made
        timeline.close()


def scripted(answer: Callable[[bytes], bytes], series: Series = SERIES_600) -> tuple[ScriptedChannel, Camera]:
    channel = ScriptedChannel(answer)
    return channel, Camera(channel, series, "00683001", session=Session(TIMING))


@functools.cache
def script(model: str = "683wsg") -> tuple[list[bytes], Callable[[bytes], bytes]]:
    """The packets of connect, one image and one reading of the temperatures, and a healthy camera's answers."""
    said: dict[bytes, bytes] = {}
    with bench(model, connect=False) as b:

        def note(reply: Any) -> None:
            said[b.channel.sent[-1]] = reply.packet + b"".join(bytes(part) for part in reply.data)

        b.simulated.firmware.tampering.append(note)
        b.connect()
        b.take()
        b.camera.temperatures()
        return list(b.channel.sent), lambda packet: said.get(packet, b"")


# An ordinary camera's answer to GetDeviceDetails, to be changed.
DETAILS = p.DeviceDetails(
    *(True, True, True, True, True, 768, 512, 9.0, 9.0, 8, 8, False, False, 1, False, 5),
    model_number="504ws",
    model_name="QSI 500 Series Camera",
    serial="00504001",
)
