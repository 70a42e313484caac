# SPDX-License-Identifier: LGPL-2.1-or-later
"""The strangenesses of the USB, through PyUSB: in the same process and behind USB/IP."""

from __future__ import annotations

import contextlib
import errno
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import usb.core
import usb.util

from tests.simulator_usb.bench import TIMEOUT, strip
from usbproto import packets as p
from usbproto.simulator.backend import PyUsbBackend, SimulatorBackend
from usbproto.simulator.camera import SimulatedCamera
from usbproto.simulator.descriptors import FULL_SPEED, HIGH_SPEED
from usbproto.simulator.usbip_client import UsbIpBackend
from usbproto.simulator.usbip_server import UsbIpServer
from usbproto.simulator.usbtransfer import URB_BYTES

IN, OUT = 0x81, 0x02
SET_POINT, ANSWER = b"\x51\x00", bytes.fromhex("5103fc1800")
SIZE = (300, 200)
IMAGE_BYTES = 2 * SIZE[0] * SIZE[1]
PATIENCE = 30.0  # s; long enough for a busy machine
MODELS = ("583wsg", "683wsg")


class Host:
    """A program that has claimed the camera. `happened` has the events as (name, facts)."""

    def __init__(self, camera: SimulatedCamera, backend: PyUsbBackend) -> None:
        self.camera, self.backend = camera, backend
        self.happened: list[tuple[str, dict[str, Any]]] = []
        camera.events.listeners.append(lambda name, facts: self.happened.append((name, facts)))
        self.device = self.find()

    def find(self) -> usb.core.Device:
        device = usb.core.find(backend=self.backend, idVendor=0x0403)
        assert device is not None
        usb.util.claim_interface(device, 0)
        device.ctrl_transfer(0x40, 0x0B, 0x40FF, 1)
        device.ctrl_transfer(0x40, 0x09, 1, 1)
        return device

    @property
    def packet(self) -> int:
        return int(self.device[0][0, 0][0].wMaxPacketSize)

    def errors(self) -> list[dict[str, Any]]:
        return [facts for name, facts in self.happened if name == "transfer_error"]

    def write(self, data: bytes) -> None:
        self.device.write(OUT, data, TIMEOUT)

    def read(self, size: int = 4096) -> bytes:
        """The payload of one read."""
        return strip(self.device.read(IN, size, TIMEOUT), self.packet)

    def receive(self, count: int, size: int = 4096, read: Callable[[int], bytes] | None = None) -> bytes:
        """Read until there are `count` bytes."""
        got, end = b"", time.monotonic() + PATIENCE
        while len(got) < count:
            assert time.monotonic() < end, f"{len(got)} of {count} bytes"
            got += (read or self.read)(size)
        assert len(got) == count
        return got

    def stubborn(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Call again after each failed transfer."""
        while True:
            try:
                return call(*arguments)
            except usb.core.USBError as error:
                assert error.errno == errno.EIO

    def expose(self) -> None:
        """Until the image waits for its transfer."""
        request: dict[str, Any] = {"column_offset": 0, "row_offset": 0, "columns": SIZE[0], "rows": SIZE[1]}
        request |= {"bin_x": 1, "bin_y": 1, "open_shutter": True}
        extended = self.camera.model.extended
        packet = (
            p.encode_request(p.START_EXPOSURE_EX, p.StartExposureEx(5, **request))
            if extended
            else p.encode_request(p.START_EXPOSURE, p.StartExposure(5, **request))
        )
        with self.camera.timeline.lock:
            self.camera.fifo.host_wrote(packet)
        end = time.monotonic() + PATIENCE
        while not self.camera.firmware.imager.ready:
            assert time.monotonic() < end
            time.sleep(0.005)
        self.device.ctrl_transfer(0x40, 0x00, 2, 1)  # empties the queue: the answer is not needed

    @property
    def image(self) -> bytes:
        frame = self.camera.last_frame
        assert frame is not None
        return frame.tobytes()


@contextlib.contextmanager
def host(model: str, over: str, *strange: str, seed: int = 0) -> Iterator[Host]:
    """`over` is "direct" or "tcp"."""
    with contextlib.ExitStack() as stack:
        camera = stack.enter_context(
            SimulatedCamera(model, seed=seed, readout=0.0, speed=20.0, strange=strange)
        )
        backend: PyUsbBackend
        if over == "direct":
            backend = SimulatorBackend([camera.device])
        else:
            server = UsbIpServer([camera.device], ["127.0.0.1:0"])
            stack.callback(server.close)
            backend = UsbIpBackend(server.addresses[0])
        stack.callback(backend.close)
        yield Host(camera, backend)


@pytest.fixture(params=["direct", "tcp"])
def over(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def fails(number: int, call: Callable[[], object]) -> None:
    with pytest.raises(usb.core.USBError) as caught:
        call()
    assert caught.value.errno == number


# --- transfers that fail ---


@pytest.mark.parametrize("model", MODELS)
def test_single_transfers_fail_and_nothing_is_lost(over: str, model: str) -> None:
    with host(model, over, "transfer-errors:5") as h:
        for _ in range(40):
            h.stubborn(h.write, SET_POINT)
            assert h.receive(len(ANSWER), read=lambda size: h.stubborn(h.read, size)) == ANSWER
        assert {facts["direction"] for facts in h.errors()} == {"in", "out"}
        assert {(facts["pixels"], facts["errno"]) for facts in h.errors()} == {(False, "EPROTO")}
        heard = [facts for name, facts in h.happened if name == "command"]
        assert len(heard) == 40  # a write that failed was not heard


def failing(h: Host, count: int) -> list[bool]:
    """Which of the next reads fail."""
    before, failed = len(h.errors()), []
    for _ in range(count):
        with contextlib.suppress(usb.core.USBError):
            h.device.read(IN, 512, TIMEOUT)
        failed.append(len(h.errors()) > before)
        before = len(h.errors())
    return failed


def test_the_seed_says_which_transfers_fail() -> None:
    def of(seed: int) -> list[bool]:
        with host("583wsg", "direct", "transfer-errors:7", seed=seed) as h:
            return failing(h, 70)

    first = of(1)
    assert first == of(1) != of(2)
    places = [place for place, failed in enumerate(first) if failed]
    gaps = [later - earlier for earlier, later in itertools.pairwise(places)]
    assert min(gaps) >= 4 and max(gaps) <= 10


def test_every_transfer_fails_or_none() -> None:
    with host("583wsg", "direct", "transfer-errors:1") as h:
        assert failing(h, 10) == [True] * 10
        h.camera.strange.add("transfer-errors:0")
        assert failing(h, 10) == [False] * 10


@pytest.mark.parametrize("lose", [False, True])
def test_what_a_failed_read_would_have_brought(over: str, lose: bool) -> None:
    with host("683wsg", over) as h:
        h.write(SET_POINT)
        h.camera.strange.add("transfer-errors:1,0,EIO" + (",lose=1" if lose else ""))
        for _ in range(4):  # the first ones may bring status bytes only
            fails(errno.EIO, h.read)
        h.camera.strange.add("none")
        assert len(h.camera.fifo) == (0 if lose else len(ANSWER))


@pytest.mark.parametrize("taken", [False, True])
def test_whether_the_camera_gets_what_a_failed_write_sent(over: str, taken: bool) -> None:
    with host("683wsg", over, "transfer-errors:1" + (",taken=1" if taken else "")) as h:
        fails(errno.EIO, lambda: h.write(SET_POINT))
        assert len(h.camera.fifo) == (len(ANSWER) if taken else 0)


@pytest.mark.parametrize(
    ("word", "number"), [("EOVERFLOW", errno.EOVERFLOW), ("84", errno.EIO), ("enomem", errno.ENOMEM)]
)
def test_the_error_can_be_chosen(over: str, word: str, number: int) -> None:
    with host("583wsg", over, f"transfer-errors:1,0,{word}") as h:
        fails(number, h.read)


def test_a_stall_lasts_until_it_is_cleared(over: str) -> None:
    with host("583wsg", over, "transfer-errors:1,0,EPIPE") as h:
        fails(errno.EPIPE, h.read)
        h.camera.strange.add("none")
        fails(errno.EPIPE, h.read)
        h.device.clear_halt(IN)
        h.read()


@pytest.mark.parametrize("model", MODELS)
def test_transfers_fail_while_pixels_are_on_their_way(over: str, model: str) -> None:
    with host(model, over, "transfer-errors:0,4") as h:
        h.expose()
        h.write(b"\x45\x00")
        data = h.receive(3 + IMAGE_BYTES, 2048, lambda size: h.stubborn(h.read, size))
        assert data[3:] == h.image
        assert len(h.errors()) > 3
        assert {(facts["direction"], facts["pixels"]) for facts in h.errors()} == {("in", True)}


# --- speed ---


@pytest.mark.parametrize("model", MODELS)
def test_full_speed(over: str, model: str) -> None:
    with host(model, over, "full-speed") as h:
        assert (h.device.speed, h.packet) == (FULL_SPEED, 64)
        assert not any(name == "usb" for name, _ in h.happened)
        assert bytes(h.device.read(IN, 512, TIMEOUT)) == b"\x31\x60"
        h.expose()
        h.write(b"\x45\x00")
        assert h.receive(3 + IMAGE_BYTES)[3:] == h.image


def test_full_speed_in_a_running_camera(over: str) -> None:
    with host("683wsg", over) as h:
        assert (h.device.speed, h.packet) == (HIGH_SPEED, 512)
        with pytest.raises(ValueError):
            h.camera.strange.add("full-speed:12")
        h.read()  # the bad argument has changed nothing
        h.camera.strange.add("full-speed")
        fails(errno.ENODEV, h.read)
        h.backend.close_device(h.device._ctx.handle)
        h.device = h.find()
        assert (h.device.speed, h.packet) == (FULL_SPEED, 64)
        h.camera.strange.add("none")
        h.device = h.find()
        assert (h.device.speed, h.packet) == (HIGH_SPEED, 512)


# --- limits of hosts ---


def waiting_image(h: Host) -> None:
    """An image waits behind a status packet that the chip made before there was anything."""
    h.expose()
    h.device.read(IN, 512, TIMEOUT)
    time.sleep(0.01)  # the latency timer runs out
    h.write(b"\x45\x00")


@pytest.mark.parametrize("model", MODELS)
def test_large_reads_without_scatter_gather_have_bytes_out_of_place(model: str) -> None:
    with host(model, "direct", "no-scatter-gather") as h:
        assert not h.backend.scatter_gather(h.device.bus, h.device.address)
        waiting_image(h)
        received = bytes(h.device.read(IN, 4 * URB_BYTES, TIMEOUT))
        # The status packet ended the first transfer, and the others were there for what followed.
        assert len(received) > URB_BYTES
        status = received[:2]
        assert received[2:4] == status and received[4:7] == b"\x45\x01\x00"
        assert strip(received, h.packet)[:3] != b"\x45\x01\x00"


@pytest.mark.parametrize("model", MODELS)
def test_reads_of_16_kib_are_always_right(over: str, model: str) -> None:
    with host(model, over, "no-scatter-gather", "no-memory") as h:
        waiting_image(h)
        assert h.receive(3 + IMAGE_BYTES, URB_BYTES)[3:] == h.image


def test_large_reads_over_usbip_are_the_hosts_business() -> None:
    with host("683wsg", "tcp", "no-scatter-gather") as h:
        assert h.backend.scatter_gather(h.device.bus, h.device.address)
        waiting_image(h)
        assert h.receive(3 + IMAGE_BYTES, 4 * URB_BYTES)[3:] == h.image


def test_scatter_gather_is_the_rule(over: str) -> None:
    with host("683wsg", over) as h:
        assert h.backend.scatter_gather(h.device.bus, h.device.address)


def test_no_memory_for_large_reads(over: str) -> None:
    with host("683wsg", over, "no-memory") as h:
        fails(errno.ENOMEM, lambda: h.device.read(IN, URB_BYTES + 512, TIMEOUT))
        h.device.read(IN, URB_BYTES, TIMEOUT)


def test_a_row_of_transfers_times_out_like_one() -> None:
    with host("583wsg", "direct", "no-scatter-gather") as h:
        h.camera.device.silence_in(5.0)
        with pytest.raises(usb.core.USBTimeoutError):
            h.device.read(IN, 4 * URB_BYTES, 50)


# --- combined ---


def test_all_of_the_usb_at_once(over: str) -> None:
    texts = ("full-speed", "no-scatter-gather", "no-memory", "transfer-errors:6,6", "longer-answers")
    with host("690wsg", over, *texts) as h:
        h.expose()
        h.stubborn(h.write, b"\x45\x00")
        data = h.receive(4 + IMAGE_BYTES, 4096, lambda size: h.stubborn(h.read, size))
        assert data[:4].hex() == "450200a5" and data[4:] == h.image
        assert True in {facts["pixels"] for facts in h.errors()}
