# SPDX-License-Identifier: LGPL-2.1-or-later
"""The FTDI channel: any cutting of the stream gives the same bytes, and every failure of USB a typed error."""

from __future__ import annotations

import errno
import itertools
from array import array
from typing import Any

import pytest
import usb.core
import usb.util
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.protocol.bench import KNOWN, UsbBench, eventually, usb_bench
from usbproto import ftdi
from usbproto.camera import Exposure
from usbproto.deadline import Deadline
from usbproto.errors import (
    CameraInUse,
    Disconnected,
    LinkError,
    NoPermission,
    ProtocolError,
    QsiError,
    TimedOut,
)
from usbproto.ftdi import Channel, Port
from usbproto.models import SERIES, SERIES_500, SERIES_600, Series

STATUS = b"\x32\x60"


class CutDevice:
    """A pyusb device whose chip cuts a stream where it likes: `cuts` are sizes of payload, each ended by a short
    packet, as when the latency timer runs out. `burst`: packets that one transfer takes at most."""

    def __init__(self, packet: int, data: bytes, cuts: list[int], burst: int) -> None:
        self.packet = packet
        self.written = b""
        self._transfers: list[bytes] = []
        payload = packet - len(STATUS)
        at = 0
        for size in [*cuts, len(data)]:
            piece, at = data[at : at + size], at + size
            packets = [
                STATUS + piece[i : i + payload] for i in range(0, max(1, len(piece) + 1), payload)
            ]  # the last one is short, or empty
            for i in range(0, len(packets), burst):
                self._transfers.append(b"".join(packets[i : i + burst]))

    def read(self, endpoint: int, block: array[int], timeout: int) -> int:
        assert endpoint == 0x81
        assert timeout > 0
        data = self._transfers.pop(0) if self._transfers else STATUS
        block[: len(data)] = array("B", data)
        return len(data)

    def write(self, endpoint: int, data: bytes, timeout: int) -> int:
        self.written += data[:7]
        return len(data[:7])

    def ctrl_transfer(self, *_: Any, **__: Any) -> int:
        return 0

    def is_kernel_driver_active(self, interface: int) -> bool:
        raise NotImplementedError

    def get_active_configuration(self) -> Any:
        raise usb.core.USBError("not configured", -2, errno.EINVAL)

    def set_configuration(self, number: int) -> None:
        assert number == 1


@pytest.fixture(autouse=True)
def no_claims(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A `CutDevice` has no backend in which it could be claimed."""
    if "cut" in request.node.name:
        monkeypatch.setattr(usb.util, "claim_interface", lambda device, number: None)
        monkeypatch.setattr(usb.util, "dispose_resources", lambda device: None)
        monkeypatch.setattr(ftdi, "BIT_MODE_PAUSE", 0.0)


@settings(max_examples=120, deadline=None)
@example(SERIES_600, bytes(510), [510], [510], 1)
@example(SERIES_600, bytes(range(256)) * 4, [1020], [2000], 8)
@example(SERIES_500, bytes(range(124)), [], [62, 62], 4)
@given(
    series=st.sampled_from(SERIES),
    data=st.binary(max_size=2200),
    cuts=st.lists(st.integers(0, 600), max_size=8),
    wants=st.lists(st.integers(1, 1500), min_size=1, max_size=8),
    burst=st.integers(1, 8),
)
def test_cut_anyhow_the_stream_is_the_same(
    series: Series, data: bytes, cuts: list[int], wants: list[int], burst: int
) -> None:
    device = CutDevice(series.chip.packet, data, cuts, burst)
    channel = Channel(Port(series, "1", "001:001", device=device))
    got = b""
    for want in itertools.cycle(wants):
        if len(got) == len(data):
            break
        target = memoryview(bytearray(want))
        count = channel.read_into(target, Deadline(5.0))
        assert 1 <= count <= want
        got += bytes(target[:count])
    assert got == data
    assert channel.read_into(memoryview(bytearray(1)), Deadline(0.0)) == 0
    channel.close()


@settings(max_examples=40, deadline=None)
@given(st.binary(min_size=1, max_size=500), st.integers(0, 20))
def test_cut_or_not_a_look_takes_what_there_is(data: bytes, taken: int) -> None:
    device = CutDevice(512, data, [], 4)
    channel = Channel(Port(SERIES_600, "1", "001:001", device=device))
    begun = bytearray(taken)
    count = channel.read_into(memoryview(begun), Deadline(1.0)) if taken else 0
    assert bytes(begun[:count]) + channel.look() == data
    assert channel.look() == b""


def test_cut_writes_are_continued() -> None:
    device = CutDevice(512, b"", [], 1)
    channel = Channel(Port(SERIES_600, "1", "001:001", device=device))
    channel.write(bytes(range(40)))
    assert device.written == bytes(range(40))


# --- the time that things take ---


@pytest.mark.parametrize("model", ["683wsg", "583wsg"])
def test_a_silent_camera_is_waited_for_as_long_as_was_said(model: str) -> None:
    """An idle chip sends an empty packet each millisecond: that is no sign of life."""
    with usb_bench(model) as b:
        channel = Channel(ftdi.ports(b.backend)[0])
        deadline = Deadline(0.05)
        assert channel.read_into(memoryview(bytearray(10)), deadline) == 0
        assert deadline.passed
        b.simulated.device.silence_in(0.1)
        assert channel.read_into(memoryview(bytearray(10)), Deadline(0.02)) == 0
        assert channel.look() == b""
        channel.close()


def test_a_chip_that_takes_no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ftdi, "WRITE_TIME", 0.05)
    with usb_bench() as b:
        b.connect()
        b.simulated.device.silence_out(0.2)
        with pytest.raises(ProtocolError, match="took no data"):
            b.camera.cool_to(-5.0)
        eventually(lambda: answers(b), "it takes data again")
        b.check_picture()


def answers(b: UsbBench) -> bool:
    try:
        b.camera.set_point()
    except LinkError:
        return False
    return True


def test_a_chip_that_does_not_answer_at_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ftdi, "CONTROL_TIME", 0.02)
    with usb_bench() as b:
        (port,) = ftdi.ports(b.backend)
        b.simulated.device.delay = 0.1
        with pytest.raises(TimedOut, match="setting up the USB chip"):
            Channel(port)
        b.simulated.device.delay = 0.0
        b.connect()
        b.check_picture()


# --- failures ---


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ("stall-in", ProtocolError, "stalled"),
        ("stall-out", ProtocolError, "stalled"),
        ("babble", ProtocolError, "more than was asked for"),
    ],
)
def test_a_stumbling_chip_goes_on(fault: str, error: type[LinkError], words: str) -> None:
    with usb_bench() as b:
        b.connect()
        b.simulated.faults.arm(fault)
        with pytest.raises(error, match=words):
            b.camera.cool_to(-5.0)
        b.check_picture()


def test_a_reset_of_the_bus_is_a_camera_that_left() -> None:
    """The chip has forgotten its settings: it must be opened anew."""
    with usb_bench() as b:
        b.connect()
        b.simulated.faults.arm("silence-in@command:30")  # a read waits when it happens
        b.simulated.faults.arm("reset-bus@command+2")
        with pytest.raises(Disconnected, match="The USB failed"):
            b.camera.state()
        b.camera.close()
        b.connect()
        b.check_picture()


def test_refused_requests_at_open() -> None:
    with usb_bench() as b:
        b.simulated.device.refuse_control(1)
        with pytest.raises(ProtocolError, match="stalled"):
            b.connect()
        b.connect()
        b.check_picture()


def test_no_permission_tells_the_udev_remedy() -> None:
    with usb_bench() as b:
        b.simulated.faults.arm("deny-open:eacces")
        with pytest.raises(NoPermission) as caught:
            b.connect()
        assert "may not be opened by this user" in str(caught.value)
        assert "setup-udev" in caught.value.explain()
        assert "plugdev" in caught.value.explain()
        b.simulated.faults.arm("deny-open:none")
        b.connect()


def test_a_camera_in_use_is_told_apart() -> None:
    with usb_bench() as b:
        b.connect()
        with pytest.raises(CameraInUse, match="in use by another program") as caught:
            b.connect()
        assert "End the other program" in caught.value.explain()
        b.check_picture()  # the first one did not notice


def test_a_kernel_driver_is_detached() -> None:
    with usb_bench() as b:
        b.simulated.device.kernel_driver = True
        b.connect()
        b.check_picture()


def test_an_unconfigured_device_is_configured() -> None:
    with usb_bench() as b:
        (port,) = ftdi.ports(b.backend)
        port.device.set_configuration(0)
        Channel(port).close()


def test_closing_twice_and_after_unplugging() -> None:
    with usb_bench() as b:
        camera = b.connect()
        b.simulated.device.unplug()
        camera.close()
        camera.close()


# --- unplugged at every transfer ---


def transfers_of(b: UsbBench, what: Any) -> int:
    before = b.backend.transfers
    what()
    return b.backend.transfers - before


@pytest.mark.parametrize("model", ["683wsg"])
def test_unplugged_at_every_transfer_of_connect(model: str) -> None:
    with usb_bench(model) as b:
        count = transfers_of(b, lambda: b.connect(cache=KNOWN))
        b.camera.close()
        assert count > 100
        # The first ones are all different, behind them come the same three an exchange.
        for index in [*range(1, 40), *range(40, count - 20, 5)]:
            b.backend.transfers, b.backend.unplug_at = 0, index
            with pytest.raises(QsiError) as caught:
                b.connect(cache=KNOWN)
            assert isinstance(caught.value, Disconnected), (index, caught.value)
            b.backend.unplug_at = None
            b.simulated.device.replug()
        b.connect(cache=KNOWN)
        b.check_picture()


def test_unplugged_at_every_transfer_of_an_exposure() -> None:
    with usb_bench() as b:
        b.connect()
        geometry = b.window()

        def expose() -> None:
            b.camera.start_exposure(Exposure(0.05, geometry))
            for _ in range(2):  # on a busy machine it might be asked once only
                b.camera.image_ready()
            b.finish(geometry)

        # How many transfers there are depends on how often the camera had to be asked.
        for index in itertools.count(1):
            b.backend.transfers, b.backend.unplug_at = 0, index
            try:
                expose()
            except Disconnected as error:
                assert "left the USB" in str(error) and "power and its USB cable" in error.explain()
            else:
                assert b.simulated.device.plugged, f"transfer {index} was not missed"
                break
            b.camera.close()
            b.backend.unplug_at = None
            b.simulated.device.replug()
            b.connect()
        assert index > 20
        b.backend.unplug_at = None
        b.check_picture()
