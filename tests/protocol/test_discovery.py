# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which cameras are there: serial numbers, the one that is wanted, arrivals and departures."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import usb.core
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.bench import KNOWN, TIMING, UsbBench, eventually, usb_bench
from usbproto import discovery, ftdi, hotplug
from usbproto.discovery import Found
from usbproto.errors import CameraInUse, Disconnected, LinkError, NoCamera, NoPermission
from usbproto.ftdi import Port
from usbproto.hotplug import Changes, Watcher, compare
from usbproto.models import SERIES_500, SERIES_600, channel_serial
from usbproto.simulator.backend import SimulatorBackend
from usbproto.simulator.chip import FtdiChip
from usbproto.simulator.fifo import Fifo

# --- serial numbers ---


@pytest.mark.parametrize(
    ("usb", "serial"),
    [
        ("00502336", "00502336"),
        ("00502336A", "00502336"),
        ("00502336a\0\0", "00502336"),
        (" 05001234 ", "05001234"),
        ("00502336B", None),
        ("00502336b", None),
    ],
)
def test_a_trailing_a_is_stripped_and_a_b_dropped(usb: str, serial: str | None) -> None:
    assert channel_serial(usb) == serial


@given(st.text(max_size=20))
def test_any_string_is_a_serial_number_or_none(text: str) -> None:
    serial = channel_serial(text)
    assert serial is None or not serial.endswith("\0")


def test_two_channels_are_one_camera() -> None:
    with usb_bench("683wsg") as b:
        first = b.simulated
        timeline = first.timeline
        b.bus.append(FtdiChip(SERIES_600, "05001234", Fifo(), timeline, trailing_a=True))
        b.bus.append(FtdiChip(SERIES_600, "05001234B", Fifo(), timeline))
        found = discovery.cameras(b.backend)
        assert [camera.serial for camera in found] == ["00683001", "05001234"]
        assert {camera.series for camera in found} == {SERIES_600}


# --- the one that is wanted ---


def test_no_camera() -> None:
    with usb_bench() as b:
        b.bus.clear()
        assert discovery.cameras(b.backend) == []
        with pytest.raises(NoCamera, match="No QSI camera was found") as caught:
            b.connect()
        assert "12 V supply" in caught.value.explain()
        with pytest.raises(NoCamera, match=r"serial number 123 was found \(no QSI camera is attached\)"):
            b.connect("123")


def test_other_devices_of_the_same_maker_are_no_cameras() -> None:
    with usb_bench() as b:
        adapter = FtdiChip(replace(SERIES_500, product_id=0x6001), "A1", Fifo(), b.simulated.timeline)
        b.bus.insert(0, adapter)
        assert [camera.serial for camera in discovery.cameras(b.backend)] == ["00683001"]


def test_several_cameras_by_serial_number() -> None:
    with usb_bench("683wsg", "583wsg") as b:
        found = discovery.cameras(b.backend)
        assert [(camera.serial, camera.series) for camera in found] == [
            ("00583001", SERIES_500),
            ("00683001", SERIES_600),
        ]
        assert b.connect("00683001").identity.model == "683wsg"
        assert b.connect("00583001", cache=KNOWN).identity.model == "583wsg"
        with pytest.raises(NoCamera, match=r"00999999 .*attached: 00583001, 00683001"):
            b.connect("00999999")


def test_the_first_one_that_is_free() -> None:
    with usb_bench("583wsg", "683wsg") as b:
        assert b.connect(cache=KNOWN).identity.serial == "00583001"
        assert b.connect(cache=KNOWN).identity.serial == "00683001"
        with pytest.raises(CameraInUse):
            b.connect(cache=KNOWN)
        with pytest.raises(CameraInUse):
            b.connect("00583001")


def test_a_camera_that_may_not_be_asked_is_listed_with_its_problem() -> None:
    with usb_bench("583wsg", "683wsg") as b:
        b.simulated.faults.arm("deny-open:eacces")
        free, closed = discovery.cameras(b.backend)
        assert (free.serial, free.problem) == ("00683001", None)
        assert closed.serial is None
        assert isinstance(closed.problem, NoPermission)
        # It may be the one that was asked for; and the free one is taken otherwise.
        with pytest.raises(NoPermission):
            b.connect("00583001")
        assert b.connect().identity.serial == "00683001"


def test_only_a_camera_that_may_not_be_opened() -> None:
    with usb_bench() as b:
        b.simulated.faults.arm("deny-open:eacces")
        with pytest.raises(NoPermission):
            b.connect()


def test_a_serial_number_that_cannot_be_read() -> None:
    with usb_bench() as b:
        b.simulated.faults.arm("no-strings")
        (found,) = discovery.cameras(b.backend)
        assert found.serial is None
        assert isinstance(found.problem, LinkError)
        with pytest.raises(LinkError, match="could not be opened"):
            b.connect()


def test_a_camera_that_leaves_between_listing_and_opening() -> None:
    with usb_bench() as b:
        (found,) = discovery.cameras(b.backend)
        b.simulated.device.unplug()
        with pytest.raises(Disconnected, match="left the USB"):
            ftdi.Channel(found.port, TIMING)


def test_no_libusb(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(**_: Any) -> Any:
        raise usb.core.NoBackendError("No backend available")

    monkeypatch.setattr(usb.core, "find", find)
    with pytest.raises(NoCamera, match="libusb was not found") as caught:
        ftdi.ports()
    assert "libusb-1.0-0" in caught.value.explain()


class Unlistable(SimulatorBackend):
    """A bus that cannot be listed while `broken`."""

    broken = False
    looks = 0

    def enumerate_devices(self) -> Any:
        self.looks += 1
        if self.broken:
            raise usb.core.USBError("Input/Output Error", -1, 5)
        return super().enumerate_devices()


def test_a_bus_that_cannot_be_listed_is_an_error_of_ours() -> None:
    with usb_bench() as b:
        backend = Unlistable(b.bus)
        backend.broken = True
        with pytest.raises(NoCamera, match="could not be listed"):
            discovery.cameras(backend)
        backend.close()


# --- arrivals and departures ---


def found(serial: str | None, location: str = "001:001") -> Found:
    return Found(SERIES_600, serial, Port(SERIES_600, serial, location))


def test_what_is_different_between_two_looks() -> None:
    a, b, closed = found("1"), found("2", "001:002"), found(None)
    assert compare({}, {"x": a}) == Changes((a,), ())
    assert compare({"x": a}, {"x": a}) == Changes((), ())
    assert compare({"x": a}, {"y": b}) == Changes((b,), (a,))
    # It may be asked at last: it arrives as what it is. Another camera at an old address is another one.
    assert compare({"x": closed}, {"x": a}) == Changes((a,), (closed,))
    assert compare({"x": a}, {"x": b}) == Changes((b,), (a,))


class Diary:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.fails = False

    def __call__(self, changes: Changes) -> None:
        self.lines += [f"-{camera.serial}" for camera in changes.left]
        self.lines += [f"+{camera.serial}" for camera in changes.arrived]
        if self.fails:
            raise RuntimeError("the listener failed")


@contextlib.contextmanager
def watched(b: UsbBench, backend: Any = None, interval: float = 0.01) -> Iterator[tuple[Diary, Watcher]]:
    diary = Diary()
    watcher = Watcher(diary, backend or b.backend, interval)
    try:
        yield diary, watcher
    finally:
        watcher.close()
        assert not any(thread.name == "cameras come and go" for thread in threading.enumerate())


def test_cameras_come_and_go() -> None:
    with usb_bench("683wsg", "583wsg") as b, watched(b) as (diary, _):
        eventually(lambda: diary.lines == ["+00583001", "+00683001"], "both are there")
        b.simulated.device.unplug()
        eventually(lambda: diary.lines[2:] == ["-00683001"], "one leaves")
        b.simulated.device.replug()
        eventually(lambda: diary.lines[3:] == ["+00683001"], "it is back")
        b.connect("00683001")  # one that is open is still there
        looks = b.backend.transfers
        b.check_picture()
        assert b.backend.transfers > looks
        assert len(diary.lines) == 4


def test_a_replug_between_two_looks_is_noticed() -> None:
    with usb_bench() as b, watched(b, interval=60.0) as (diary, watcher):
        eventually(lambda: diary.lines == ["+00683001"], "it is there")
        b.simulated.device.unplug()
        b.simulated.device.replug()
        watcher.look()
        eventually(lambda: diary.lines[1:] == ["-00683001", "+00683001"], "it left and came")


def test_a_look_that_fails_proves_nothing() -> None:
    with usb_bench() as b:
        backend = Unlistable(b.bus)
        with watched(b, backend) as (diary, _):
            eventually(lambda: diary.lines == ["+00683001"], "it is there")
            backend.broken, before = True, backend.looks
            eventually(lambda: backend.looks > before + 3, "it looks on")
            backend.broken, before = False, backend.looks
            eventually(lambda: backend.looks > before + 3, "it sees again")
            assert diary.lines == ["+00683001"]
        backend.close()


def test_a_camera_whose_udev_rule_comes_late() -> None:
    with usb_bench() as b:
        b.simulated.faults.arm("deny-open:eacces")
        with watched(b) as (diary, _):
            eventually(lambda: diary.lines == ["+None"], "something is there")
            b.simulated.faults.arm("deny-open:none")
            eventually(lambda: diary.lines[1:] == ["-None", "+00683001"], "it can be asked")


def test_a_listener_that_fails_is_called_again() -> None:
    with usb_bench() as b, watched(b) as (diary, _):
        diary.fails = True
        eventually(lambda: diary.lines == ["+00683001"], "it is there")
        b.simulated.device.unplug()
        eventually(lambda: diary.lines[1:] == ["-00683001"], "it leaves")


def test_closing_ends_the_thread_at_once_however_seldom_it_looks() -> None:
    """Also when it is closed before its first look."""
    with usb_bench() as b:
        for _ in range(30):
            with watched(b, interval=60.0):
                pass


def test_the_time_between_looks_depends_on_udev(monkeypatch: pytest.MonkeyPatch) -> None:
    """pyudev is optional: a fake one, as far as it is used."""
    polled = threading.Event()

    class Monitor:
        @classmethod
        def from_netlink(cls, context: object) -> Monitor:
            return cls()

        def filter_by(self, **what: str) -> None:
            assert what == {"subsystem": "usb", "device_type": "usb_device"}

        def start(self) -> None: ...

        def poll(self, seconds: float) -> object | None:
            polled.wait(0.001)
            if polled.is_set():
                return None
            polled.set()
            return object()

    seen: list[object] = []
    looks = threading.Semaphore(0)

    def no_cameras(backend: Any, known: Any) -> list[Found]:
        looks.release()
        return []

    monkeypatch.setattr(discovery, "cameras", no_cameras)
    monkeypatch.setitem(sys.modules, "pyudev", SimpleNamespace(Monitor=Monitor, Context=object))
    watcher = Watcher(seen.append)
    try:
        assert watcher._interval == hotplug.INTERVAL_WITH_UDEV
        for _ in range(2):  # at the start, and when udev speaks
            assert looks.acquire(timeout=5)
    finally:
        watcher.close()
    monkeypatch.setattr(Monitor, "from_netlink", lambda context: (_ for _ in ()).throw(OSError("no netlink")))
    watcher = Watcher(seen.append)
    assert watcher._interval == hotplug.INTERVAL
    watcher.close()
    monkeypatch.setitem(sys.modules, "pyudev", None)
    assert hotplug._udev_monitor() is None
    assert seen == []
