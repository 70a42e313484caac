# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a program sees through PyUSB, the same whether the camera is in its process or behind USB/IP."""

from __future__ import annotations

import errno
import json
import logging
import threading
import time
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest
import usb.core
import usb.util

from tests.simulator_usb.bench import SERIALS, TIMEOUT, Bench, pattern, receive, strip
from usbproto import models
from usbproto.simulator import descriptors
from usbproto.simulator.backend import SimulatorBackend
from usbproto.simulator.chip import FtdiChip
from usbproto.simulator.fifo import Fifo
from usbproto.simulator.timeline import ManualTimeline
from usbproto.simulator.usbip_client import UsbIpBackend
from usbproto.simulator.usbip_server import UsbIpServer

RECORDED = json.loads((Path(__file__).parent / "recorded_control.json").read_text())


def _fails(number: int, call: Callable[[], object]) -> None:
    with pytest.raises(usb.core.USBError) as caught:
        call()
    assert caught.value.errno == number


def _later(seconds: float, call: Callable[[], object]) -> threading.Timer:
    timer = threading.Timer(seconds, call)
    timer.start()
    return timer


# --- what it is ---


@pytest.mark.parametrize(
    ("number", "release", "packet", "interfaces", "speed"),
    [(0, 0x0400, 64, 1, descriptors.FULL_SPEED), (1, 0x0700, 512, 2, descriptors.HIGH_SPEED)],
)
def test_descriptors(
    bench: Bench, number: int, release: int, packet: int, interfaces: int, speed: int
) -> None:
    device = bench.find(number)
    assert device is not None
    assert (device.idVendor, device.idProduct) == (0x0403, models.SERIES[number].product_id)
    assert (device.bcdDevice, device.speed, device.bNumConfigurations) == (release, speed, 1)
    assert bytes(device.ctrl_transfer(0x80, 0x06, 0x0100, 0, 18))[12:14] == release.to_bytes(2, "little")
    configuration = device.get_active_configuration()
    assert configuration.bNumInterfaces == len(configuration.interfaces()) == interfaces
    endpoints = [e for interface in configuration for e in interface]
    assert [e.bEndpointAddress for e in endpoints] == [0x81, 0x02, 0x83, 0x04][: 2 * interfaces]
    assert {(e.wMaxPacketSize, e.bmAttributes) for e in endpoints} == {(packet, 2)}
    assert str(device)  # PyUSB can print all of it


@pytest.mark.parametrize("number", [0, 1])
def test_strings(bench: Bench, number: int) -> None:
    device = bench.find(number)
    assert (device.manufacturer, device.product) == ("QSI", models.SERIES[number].product)
    assert device.serial_number == SERIALS[number]


def test_a_chip_that_names_its_channel() -> None:
    chip = FtdiChip(models.SERIES_600, "06000001", Fifo(), ManualTimeline(), trailing_a=True)
    device = usb.core.find(backend=SimulatorBackend([chip]))
    assert (device.product, device.serial_number) == ("QSI 600 Series Camera A", "06000001A")
    usb.util.dispose_resources(device)


@pytest.mark.parametrize("number", [0, 1])
def test_the_requests_of_a_recorded_open(bench: Bench, number: int) -> None:
    device = bench.find(number)
    for kind, request, value, index, length in RECORDED[("583", "683")[number]]:
        answer = device.ctrl_transfer(kind, request, value, index, length if kind & 0x80 else None)
        if request == 6:
            assert len(answer) == min(length, answer[2] if value == 0x0200 and length > 9 else answer[0])
        elif request == 8:
            assert bytes(answer) == b"\1"
        else:
            assert answer == 0
    device.write(0x02, b"hello")
    assert receive(device, 5) == b"hello"


def test_configuration_can_be_set_and_the_device_reset(bench: Bench) -> None:
    device = bench.open()
    device.set_configuration()
    device.set_interface_altsetting(0, 0)
    device.ctrl_transfer(0x40, 0x09, 33, 1)
    device.reset()
    assert bytes(device.ctrl_transfer(0xC0, 0x0A, 0, 1, 1)) == b"\x10"


# --- data ---


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("size", [1 << 12, 1 << 16, 1 << 18, 1 << 20])
def test_a_frame(bench: Bench, number: int, size: int) -> None:
    device = bench.open(number)
    count = 3_000_000
    device.write(0x02, b"frame %d" % count)
    assert receive(device, count, size) == pattern(count)


def test_a_read_goes_into_the_callers_array(bench: Bench) -> None:
    device = bench.open()
    device.write(0x02, b"hello")
    buffer, got = array("B", bytes(512)), b""
    while not got:
        got = strip(buffer[: device.read(0x81, buffer, TIMEOUT)], 64)
    assert got == b"hello"


def test_a_late_answer_is_not_lost(bench: Bench) -> None:
    device = bench.open()
    bench.chips[0].silence_in(0.3)
    device.write(0x02, b"late")
    with pytest.raises(usb.core.USBTimeoutError) as caught:
        device.read(0x81, 4096, 20)
    assert (caught.value.errno, caught.value.backend_error_code) == (errno.ETIMEDOUT, -7)
    assert receive(device, 4) == b"late"


def test_reads_that_time_out_in_the_middle_of_a_frame_lose_nothing(bench: Bench) -> None:
    device = bench.open(1)
    bench.chips[1].rate = 2e6
    device.write(0x02, b"frame 200000")
    got, timeouts = b"", 0
    while len(got) < 200000:
        try:
            data = device.read(0x81, 1 << 16, 3)
        except usb.core.USBTimeoutError:
            timeouts += 1
        else:
            timeouts += len(data) % 512 == 0 and len(data) < 1 << 16
            got += strip(data, 512)
    assert got == pattern(200000)
    assert timeouts


def test_a_chip_keeps_for_a_host_that_does_not_read_what_its_buffer_holds(bench: Bench) -> None:
    device = bench.open(1)
    rate, packets, buffer = 100_000, 16, 4096
    payload = packets * 510
    bench.chips[1].rate = rate
    bench.push(1, pattern(2 * payload))
    time.sleep(2 * payload / rate)  # the camera could have sent all of it
    start = time.monotonic()
    got = receive(device, payload, packets * 512)
    took = time.monotonic() - start
    assert got == pattern(2 * payload)[:payload]
    assert took > (payload - buffer - 510) / rate, "this part of it was still in the camera"


def test_control_requests_are_served_while_a_read_waits(bench: Bench) -> None:
    device = bench.open()
    bench.chips[0].silence_in(10)
    answers: list[object] = []
    reader = threading.Thread(target=lambda: answers.append(device.read(0x81, 4096, 10000)))
    reader.start()
    time.sleep(0.05)
    for _ in range(3):
        assert bytes(device.ctrl_transfer(0xC0, 0x05, 0, 1, 2)) == b"\x31\x60"
    device.write(0x02, b"x")
    assert not answers
    bench.chips[0].silence_in(0)
    reader.join(5)
    assert answers


def test_two_readers_share_the_stream(bench: Bench) -> None:
    device = bench.open(1)
    parts: list[bytes] = []

    def read() -> None:
        for _ in range(50):
            parts.append(strip(device.read(0x81, 512, TIMEOUT), 512))

    readers = [threading.Thread(target=read) for _ in range(2)]
    device.read(0x81, 512)
    device.write(0x02, b"frame %d" % (100 * 510))
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    rest = b""
    while sum(map(len, parts)) + len(rest) < 100 * 510:
        rest += strip(device.read(0x81, 512, TIMEOUT), 512)
    whole = pattern(100 * 510)
    assert all(part in whole for part in parts)


# --- who may have it ---


def test_a_second_opener_is_told_that_it_is_busy(bench: Bench) -> None:
    device = bench.open()
    other = bench.find(backend=bench.another_backend())
    assert other is not None  # it is still listed
    _fails(errno.EBUSY, lambda: usb.util.claim_interface(other, 0))
    if bench.over != "direct":
        _fails(errno.EBUSY, lambda: usb.util.get_string(other, 3, 0x0409))
    usb.util.dispose_resources(device)
    usb.util.claim_interface(other, 0)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EBUSY])
def test_opening_can_be_denied(bench: Bench, number: int) -> None:
    bench.chips[0].deny_open(number)
    device = bench.find()
    _fails(number, lambda: usb.util.claim_interface(device, 0))
    bench.chips[0].deny_open(None)
    usb.util.claim_interface(device, 0)


def test_a_kernel_driver_must_be_detached(direct: Bench) -> None:
    direct.chips[0].kernel_driver = True
    device = direct.find()
    assert device.is_kernel_driver_active(0)
    _fails(errno.EBUSY, lambda: usb.util.claim_interface(device, 0))
    device.detach_kernel_driver(0)
    assert not device.is_kernel_driver_active(0)
    usb.util.claim_interface(device, 0)
    _fails(errno.ENOENT, lambda: device.detach_kernel_driver(0))


def test_usually_there_is_no_kernel_driver(bench: Bench) -> None:
    device = bench.find()
    assert not device.is_kernel_driver_active(0)
    _fails(errno.ENOENT, lambda: device.detach_kernel_driver(0))


# --- faults ---


def test_unplugged_in_the_middle_of_a_read(bench: Bench) -> None:
    device, chip = bench.open(), bench.chips[0]
    chip.silence_in(10)
    timer = _later(0.05, chip.unplug)
    _fails(errno.ENODEV, lambda: device.read(0x81, 4096, TIMEOUT))
    timer.join()
    _fails(errno.ENODEV, lambda: device.write(0x02, b"x", TIMEOUT))
    _fails(errno.ENODEV, lambda: device.ctrl_transfer(0xC0, 0x05, 0, 1, 2))
    assert bench.find() is None
    assert bench.find(1) is not None
    usb.util.dispose_resources(device)


def test_plugged_in_again_it_is_another_device(bench: Bench) -> None:
    device, chip = bench.open(), bench.chips[0]
    chip.unplug()
    chip.replug()
    _fails(errno.ENODEV, lambda: device.read(0x81, 4096, TIMEOUT))
    again = bench.open()
    assert again.address != device.address
    again.write(0x02, b"hello")
    assert receive(again, 5) == b"hello"


def test_a_device_that_was_listed_before_it_was_replugged_cannot_be_opened(bench: Bench) -> None:
    device = bench.find()
    bench.chips[0].unplug()
    bench.chips[0].replug()
    _fails(errno.ENODEV, lambda: usb.util.claim_interface(device, 0))


def test_a_bus_reset_fails_what_is_pending_and_forgets_the_settings(bench: Bench) -> None:
    device, chip = bench.open(1), bench.chips[1]
    chip.silence_in(10)
    timer = _later(0.05, chip.reset_bus)
    _fails(errno.EIO, lambda: device.read(0x81, 4096, TIMEOUT))
    timer.join()
    assert bytes(device.ctrl_transfer(0xC0, 0x0A, 0, 1, 1)) == b"\x10"
    device.write(0x02, b"lost: no synchronous FIFO")
    assert len(device.read(0x81, 4096, TIMEOUT)) == 2
    assert bench.firmwares[1].heard == []


def test_halted_pipes(bench: Bench) -> None:
    device, chip = bench.open(), bench.chips[0]
    chip.stall_in()
    _fails(errno.EPIPE, lambda: device.read(0x81, 4096, TIMEOUT))
    _fails(errno.EPIPE, lambda: device.read(0x81, 4096, TIMEOUT))
    device.clear_halt(0x81)
    chip.stall_out()
    _fails(errno.EPIPE, lambda: device.write(0x02, b"x", TIMEOUT))
    device.clear_halt(0x02)
    device.write(0x02, b"hello")
    assert receive(device, 5) == b"hello"


def test_refused_control_babble_silence_and_delay(bench: Bench) -> None:
    device, chip = bench.open(), bench.chips[0]
    chip.refuse_control(2)
    _fails(errno.EPIPE, lambda: device.ctrl_transfer(0x40, 0x09, 16, 1))
    _fails(errno.EPIPE, lambda: device.ctrl_transfer(0x40, 0x09, 16, 1))
    device.ctrl_transfer(0x40, 0x09, 1, 1)
    chip.babble()
    _fails(errno.EOVERFLOW, lambda: device.read(0x81, 4096, TIMEOUT))
    chip.silence_out(0.2)
    _fails(errno.ETIMEDOUT, lambda: device.write(0x02, b"x", 20))
    chip.delay = 0.1
    begin = time.monotonic()
    device.ctrl_transfer(0xC0, 0x05, 0, 1, 2)
    assert time.monotonic() - begin >= 0.09


def test_strings_that_cannot_be_read(bench: Bench) -> None:
    chip = bench.chips[0]
    chip.truncate_serial(3)
    device = bench.find()
    assert device.serial_number == SERIALS[0][:3]
    chip.read_strings(False)
    _fails(errno.EPIPE, lambda: usb.util.get_string(device, 3, 0x0409))


def test_closing_ends_a_read_in_another_thread(bench: Bench) -> None:
    device = bench.open()
    bench.chips[0].silence_in(10)
    errors: list[usb.core.USBError] = []

    def read() -> None:
        try:
            device.read(0x81, 4096, 10000)
        except usb.core.USBError as error:
            errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(0.05)
    bench.backend.close()
    reader.join(5)
    assert [error.errno for error in errors] == [errno.ENODEV]


# --- the server comes and goes ---


def test_no_server_means_no_cameras_and_one_warning(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/usbip"
    backend = UsbIpBackend(address)
    with caplog.at_level(logging.WARNING):
        assert usb.core.find(backend=backend) is None
        assert usb.core.find(backend=backend) is None
    (record,) = caplog.records
    assert "Start the simulator" in record.getMessage()
    assert address in record.getMessage()
    chip = FtdiChip(models.SERIES_500, "05000001", Fifo(), ManualTimeline())
    with UsbIpServer([chip], [address]):
        device = usb.core.find(backend=backend)
        assert device.serial_number == "05000001"
    _fails(errno.ENODEV, lambda: device.ctrl_transfer(0xC0, 0x05, 0, 1, 2))
    backend.close()


def test_descriptors_of_a_device_that_nobody_opened(served: Bench) -> None:
    device = served.find(1)
    assert len(device[0].interfaces()) == 2
    usb.util.claim_interface(device, 0)  # the look at the descriptors has not kept it
    other = served.find(1, served.another_backend())
    _fails(errno.EBUSY, lambda: other[0])
