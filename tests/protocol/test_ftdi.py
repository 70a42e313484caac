# SPDX-License-Identifier: LGPL-2.1-or-later
"""The FTDI channel: any cutting of the stream gives the same bytes, and every failure of USB a typed error."""

from __future__ import annotations

import errno
import functools
import itertools
import threading
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import usb.core
import usb.util
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.faults.clock import Clock
from tests.protocol.bench import (
    KNOWN,
    PATIENCE,
    TIMING,
    UsbBench,
    clocked_bench,
    eventually,
    usb_bench,
    usb_failure,
)
from usbproto import discovery, ftdi, usbfs
from usbproto.camera import Exposure
from usbproto.deadline import Deadline, Stop
from usbproto.errors import (
    CameraInUse,
    Disconnected,
    Interrupted,
    LinkError,
    NoPermission,
    ProtocolError,
    QsiError,
    TimedOut,
    TransferFailed,
)
from usbproto.ftdi import Channel, Port
from usbproto.models import SERIES, SERIES_500, SERIES_600, Series
from usbproto.packets import CameraState
from usbproto.session import Session
from usbproto.timing import FAST, TIMINGS, VENDOR, Timing

STATUS = b"\x32\x60"


class CutDevice:
    """A pyusb device whose chip cuts a stream where it likes: `cuts` are sizes of payload, each ended by a short
    packet, as when the latency timer runs out. `burst`: packets that one transfer takes at most."""

    bus = address = backend = None

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
    channel = Channel(Port(series, "1", "001:001", device=device), TIMING)
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
    channel = Channel(Port(SERIES_600, "1", "001:001", device=device), TIMING)
    begun = bytearray(taken)
    count = channel.read_into(memoryview(begun), Deadline(1.0)) if taken else 0
    assert bytes(begun[:count]) + channel.look() == data
    assert channel.look() == b""


def test_cut_writes_are_continued() -> None:
    device = CutDevice(512, b"", [], 1)
    channel = Channel(Port(SERIES_600, "1", "001:001", device=device), TIMING)
    channel.write(bytes(range(40)))
    assert device.written == bytes(range(40))


# --- the time that things take ---


@pytest.mark.parametrize("model", ["683wsg", "583wsg"])
def test_a_silent_camera_is_waited_for_as_long_as_was_said(model: str) -> None:
    """An idle chip sends an empty packet each millisecond: that is no sign of life."""
    with usb_bench(model) as b:
        channel = Channel(ftdi.ports(b.backend)[0], TIMING)
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
            Channel(port, TIMING)
        b.simulated.device.delay = 0.0
        b.connect()
        b.check_picture()


# --- failures ---


@pytest.mark.parametrize(
    ("fault", "words"), [("stall-in", "Pipe error"), ("stall-out", "Pipe error"), ("babble", "Overflow")]
)
def test_a_stumbling_chip_goes_on(fault: str, words: str, caplog: pytest.LogCaptureFixture) -> None:
    """The endpoint is cleared, and a setting is simply sent again."""
    with clocked_bench() as b:
        b.connect()
        b.simulated.faults.arm(fault)
        b.camera.cool_to(-5.0)
        assert f"A USB transfer failed ({words})" in caplog.text
        assert b.simulated.hardware.cooler.set_point == -5.0
        assert not b.simulated.device._zero.halted
        b.check_picture()


def test_a_reset_of_the_bus_is_noticed_by_the_chip_that_forgot() -> None:
    """Its bit mode is gone, and without that it passes nothing on: it is set up again."""
    with clocked_bench() as b:
        b.connect()
        b.backend.requests.clear()
        b.simulated.faults.arm("silence-in@command:30")  # a read waits when it happens
        b.simulated.faults.arm("reset-bus@command+2")
        assert b.camera.state().state == CameraState.IDLE
        values = [value for _, request, value, _ in b.backend.requests if request == ftdi.SIO_SET_BIT_MODE]
        assert values == [ftdi.BIT_MODE_RESET, ftdi.BIT_MODE_SYNC_FIFO]
        b.check_picture()


@pytest.mark.parametrize("refused", [1, ftdi.CONTROL_ATTEMPTS - 1])
def test_a_refused_request_at_open_is_made_again(refused: int) -> None:
    with clocked_bench() as b:
        b.simulated.device.refuse_control(refused)
        b.connect()
        b.check_picture()


def test_requests_that_are_always_refused_at_open() -> None:
    with clocked_bench() as b:
        b.simulated.device.refuse_control(ftdi.CONTROL_ATTEMPTS)
        with pytest.raises(TransferFailed, match="Pipe error") as caught:
            b.connect()
        assert caught.value.number == errno.EPIPE
        b.connect()  # it was let go
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
        Channel(port, TIMING).close()


def test_closing_twice_and_after_unplugging() -> None:
    with usb_bench() as b:
        camera = b.connect()
        b.simulated.device.unplug()
        camera.close()
        camera.close()


# --- whether a device is there ---


class FailingDevice(CutDevice):
    """Its reads fail."""

    bus, address = 1, 5  # type: ignore[assignment]

    def __init__(self, number: int | None) -> None:
        super().__init__(512, b"", [], 1)
        self.number = number
        self.cleared: list[int] = []

    def read(self, endpoint: int, block: array[int], timeout: int) -> int:
        raise usb_failure(self.number)

    def clear_halt(self, endpoint: int) -> None:
        self.cleared.append(endpoint)


@pytest.mark.parametrize("number", [errno.EIO, errno.EPROTO, errno.EOVERFLOW, errno.EPIPE, None])
def test_cut_off_is_only_a_device_whose_node_is_gone(
    number: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel may report anything of a cable that was just pulled."""
    monkeypatch.setattr(usbfs, "is_gone", functools.partial(usbfs.is_gone, nodes=tmp_path))
    monkeypatch.setattr(ftdi, "FAILURE_PAUSE", 0.0)
    node = usbfs.node(1, 5, tmp_path)
    node.parent.mkdir()
    node.touch()
    device = FailingDevice(number)
    channel = Channel(Port(SERIES_600, "1", "001:005", device=device), TIMING)
    with pytest.raises(TransferFailed) as caught:
        channel.look()
    assert caught.value.number == number
    assert device.cleared == [ftdi.ENDPOINT_IN, ftdi.ENDPOINT_OUT]
    node.unlink()
    with pytest.raises(Disconnected):
        channel.look()


# --- the size of packets and of reads ---


@pytest.mark.parametrize("model", ["683wsg", "583wsg"])
@pytest.mark.parametrize("given", [0, 1, 2, 63, 65, 511, 1024, 65535])
def test_an_endpoint_that_gives_an_absurd_packet_size_is_not_believed(
    given: int, model: str, caplog: pytest.LogCaptureFixture
) -> None:
    with usb_bench(model) as b:
        b.backend.packet_size = given
        channel = Channel(ftdi.ports(b.backend)[0], FAST)  # only its reads depend on the packet size
        usual = 512 if model == "683wsg" else 64
        assert channel.block_size == ftdi.LARGE_BLOCKS[usual]
        assert f"packet size is given as {given} bytes; {usual} are used" in caplog.text
        channel.close()


def test_behind_a_slow_hub_the_packets_are_small(caplog: pytest.LogCaptureFixture) -> None:
    """The chip's type is no proof of its packet size: the endpoint is."""
    with usb_bench(strange=("full-speed",)) as b:
        b.connect(session=Session(FAST))  # only its reads depend on the packet size
        assert "64 bytes instead of 512" in caplog.text and "slow hub or isolator" in caplog.text
        b.check_picture()
        assert set(b.backend.reads) == {ftdi.LARGE_BLOCKS[64]}


def test_an_endpoint_that_cannot_be_read_has_the_chips_size(monkeypatch: pytest.MonkeyPatch) -> None:
    with usb_bench() as b:

        def unknown(*_: Any) -> Any:
            raise usb_failure(errno.EIO)

        monkeypatch.setattr(b.backend, "get_endpoint_descriptor", unknown)
        channel = Channel(ftdi.ports(b.backend)[0], FAST)  # only its reads depend on the packet size
        assert channel.block_size == ftdi.LARGE_BLOCKS[512]
        channel.close()


@pytest.mark.parametrize("model", ["683wsg", "583wsg"])
@pytest.mark.parametrize("gathers", [True, False])
@pytest.mark.parametrize("timing", TIMINGS.values(), ids=lambda timing: timing.name)
def test_large_reads_only_where_they_are_one_transfer(gathers: bool, timing: Timing, model: str) -> None:
    with usb_bench(model, strange=() if gathers else ("no-scatter-gather",)) as b:
        large = ftdi.LARGE_BLOCKS[512 if model == "683wsg" else 64]
        expected = large if gathers and timing.large_reads else ftdi.SMALL_BLOCK
        channel = Channel(ftdi.ports(b.backend)[0], timing)
        assert channel.block_size == expected
        channel.look()
        assert set(b.backend.reads) == {expected}
        for other in (VENDOR, FAST, timing):
            channel.use_timing(other)
            assert channel.block_size == (large if gathers and other.large_reads else ftdi.SMALL_BLOCK)
            assert b.backend.requests[-1] == (0x40, ftdi.SIO_SET_LATENCY, other.latency_ms, 1)
        channel.close()


def test_a_real_backend_is_asked_by_its_device_node(monkeypatch: pytest.MonkeyPatch) -> None:
    for large in (True, False):
        asked: list[tuple[int, int]] = []

        def take(bus: int, address: int, large: bool = large, asked: list[Any] = asked) -> bool:
            asked.append((bus, address))
            return large

        monkeypatch.setattr(usbfs, "takes_large_reads", take)
        monkeypatch.setattr(usb.util, "claim_interface", lambda device, number: None)
        monkeypatch.setattr(usb.util, "dispose_resources", lambda device: None)
        # Only the fast timing asks for more than 16 KiB at a time.
        channel = Channel(Port(SERIES_600, "1", "001:005", device=FailingDevice(None)), FAST)
        assert asked == [(1, 5)]
        assert channel.block_size == (ftdi.LARGE_BLOCKS[512] if large else ftdi.SMALL_BLOCK)


def test_no_memory_for_large_reads_makes_them_small_and_is_explained_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with usb_bench(strange=("no-memory",)) as b:
        session = Session(FAST)  # only the fast timing makes large reads
        b.connect(session=session)
        b.check_picture()
        assert session.timing is FAST  # that is no error of the link
        lines = [record.message for record in caplog.records if "usbfs_memory_mb" in record.message]
        assert len(lines) == 1 and "Raise the kernel's limit" in lines[0]
        assert session.oddities == {"usbfs memory": 1}
        assert b.backend.reads[0] == ftdi.LARGE_BLOCKS[512]
        assert set(b.backend.reads[1:]) == {ftdi.SMALL_BLOCK}


def test_no_memory_even_for_small_reads_is_a_failed_transfer() -> None:
    with clocked_bench() as b:
        b.connect()
        b.simulated.device.longest_read = 0
        with pytest.raises(TransferFailed) as caught:
            b.camera.set_point()
        assert caught.value.number == errno.ENOMEM
        assert "usbfs_memory_mb" in caught.value.explain()
        b.simulated.device.longest_read = None
        b.check_picture()


def test_no_memory_at_open_names_the_kernels_limit() -> None:
    error = ftdi._open_error(usb_failure(errno.ENOMEM), "001:005")
    assert isinstance(error, LinkError) and "usbfs_memory_mb" in error.explain()


# --- a wish to stop ---


def ends_soon(wait: Callable[[], object], stop: Stop) -> None:
    """`wait`, which takes 15 s, ends when another thread asks it to. It stays in the thread that has the camera."""
    begun = threading.Event()
    asked: list[float] = []

    def ask() -> None:
        begun.wait()
        time.sleep(0.05)  # it may wait already, or not yet: both must end
        asked.append(time.monotonic())
        stop.request()

    thread = threading.Thread(target=ask)
    thread.start()
    begun.set()
    with pytest.raises(Interrupted):
        wait()
    ended = time.monotonic()
    thread.join(PATIENCE)
    assert ended - asked[0] < 10 * ftdi.READ_SLICE  # a busy machine may be late, and the answer takes 15 s


@pytest.mark.parametrize("fault", ["silence-in:60", "hang", "silence:times=0"])
def test_a_connect_ends_when_it_shall(fault: str) -> None:
    """Also a wait in the kernel, which cannot be interrupted: while a camera is opened, its slices are short."""
    with usb_bench() as b:
        session = Session(TIMING)
        b.simulated.faults.arm(fault)
        ends_soon(lambda: b.connect(session=session), session.stop)


@pytest.mark.parametrize("fault", ["hang", "silence:times=0"])
def test_a_wait_of_an_open_camera_ends_when_it_shall(fault: str) -> None:
    """As long as the chip sends its empty packets."""
    with usb_bench() as b:
        session = Session(TIMING)
        b.connect(session=session)
        b.simulated.faults.arm(fault)
        ends_soon(b.camera.set_point, session.stop)


@pytest.mark.parametrize("interruptible", [True, False])
def test_only_a_camera_that_is_being_opened_is_read_in_short_slices(interruptible: bool) -> None:
    limits: list[int] = []

    class Device(CutDevice):
        """It sends nothing, not even empty packets."""

        def read(self, endpoint: int, block: array[int], timeout: int) -> int:
            limits.append(timeout)
            time.sleep(timeout / 1000)
            raise usb.core.USBTimeoutError("Operation timed out", -7, errno.ETIMEDOUT)

    device = Device(512, b"", [], 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(usb.util, "claim_interface", lambda device, number: None)
        patch.setattr(usb.util, "dispose_resources", lambda device: None)
        channel = Channel(Port(SERIES_600, "1", "001:001", device=device), TIMING)
        channel.interruptible = interruptible
        with Clock():
            assert channel.read_into(memoryview(bytearray(1)), Deadline(15.0)) == 0
    if interruptible:
        assert max(limits) <= ftdi.READ_SLICE * 1000
    else:
        assert max(limits) > 10 * ftdi.READ_SLICE * 1000


def test_an_open_camera_is_read_in_one_piece() -> None:
    with usb_bench() as b:
        claimed = discovery.claim(backend=b.backend)
        camera = claimed.open(session=Session(TIMING))
        assert not claimed.channel.interruptible
        camera.close()


# --- unplugged at every transfer ---


def transfers_of(b: UsbBench, what: Any) -> int:
    before = b.backend.transfers
    what()
    return b.backend.transfers - before


@pytest.mark.parametrize("model", ["683wsg"])
def test_unplugged_at_every_transfer_of_connect(model: str) -> None:
    with clocked_bench(model) as b:
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
    with clocked_bench() as b:
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
