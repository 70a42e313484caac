# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the simulated FTDI chip does, seen through the in-process backend."""

from __future__ import annotations

import errno
import itertools
import time

import pytest
import usb.core
import usb.util
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.simulator_usb.bench import TIMEOUT, Bench, pattern, receive, strip

PACKETS = (64, 512)
STATUS = (b"\x31\x60", b"\x32\x60")


def _fresh(device: usb.core.Device) -> None:
    """Take the status packet that waits, so that the latency timer starts now."""
    assert len(device.read(0x81, 4096, TIMEOUT)) == 2


@pytest.mark.parametrize("number", [0, 1])
def test_without_data_a_status_packet_comes_at_each_latency_period(direct: Bench, number: int) -> None:
    device = direct.open(number)
    device.ctrl_transfer(0x40, 0x09, 20, 1)
    _fresh(device)
    begin = time.monotonic()
    for _ in range(3):
        assert bytes(device.read(0x81, 4096, TIMEOUT)) == STATUS[number]
    assert time.monotonic() - begin >= 0.055


def test_the_latency_of_a_new_chip_is_16_ms(direct: Bench) -> None:
    device = direct.find()
    assert bytes(device.ctrl_transfer(0xC0, 0x0A, 0, 1, 1)) == b"\x10"
    device.ctrl_transfer(0x40, 0x09, 3, 1)
    assert bytes(device.ctrl_transfer(0xC0, 0x0A, 0, 1, 1)) == b"\x03"


def test_a_short_packet_waits_for_the_latency_timer(direct: Bench) -> None:
    device = direct.open()
    device.ctrl_transfer(0x40, 0x09, 50, 1)
    _fresh(device)
    begin = time.monotonic()
    device.write(0x02, b"hello")
    assert bytes(device.read(0x81, 4096, TIMEOUT)) == STATUS[0] + b"hello"
    assert time.monotonic() - begin >= 0.045


def test_what_comes_after_the_timer_ran_out_is_in_the_next_packet(direct: Bench) -> None:
    device = direct.open()
    _fresh(device)
    time.sleep(0.01)
    device.write(0x02, b"hello")
    assert bytes(device.read(0x81, 4096, TIMEOUT)) == STATUS[0]
    assert bytes(device.read(0x81, 4096, TIMEOUT)) == STATUS[0] + b"hello"


@pytest.mark.parametrize("number", [0, 1])
def test_full_packets_run_on_across_writes_and_the_first_short_one_ends_the_transfer(
    direct: Bench, number: int
) -> None:
    device, packet = direct.open(number), PACKETS[number]
    device.ctrl_transfer(0x40, 0x09, 100, 1)
    _fresh(device)
    data = pattern(3 * (packet - 2) + 7)
    for begin in range(0, len(data), 50):
        direct.push(number, data[begin : begin + 50])
    answer = device.read(0x81, 64 * packet, TIMEOUT)
    assert len(answer) == 3 * packet + 2 + 7
    assert strip(answer, packet) == data


def test_a_full_buffer_ends_the_transfer_without_waiting(direct: Bench) -> None:
    device = direct.open()
    device.ctrl_transfer(0x40, 0x09, 255, 1)
    _fresh(device)
    direct.push(0, pattern(124))
    begin = time.monotonic()
    assert strip(device.read(0x81, 128, TIMEOUT), 64) == pattern(124)
    assert time.monotonic() - begin < 0.2


def test_no_room_for_a_whole_packet_is_an_overflow(direct: Bench) -> None:
    device = direct.open()
    _fresh(device)
    direct.push(0, pattern(200))
    with pytest.raises(usb.core.USBError) as caught:
        device.read(0x81, 100, TIMEOUT)
    assert caught.value.errno == errno.EOVERFLOW


@pytest.mark.parametrize(("value", "left"), [(1, b"old"), (2, b""), (0, b"")])
def test_purge(direct: Bench, value: int, left: bytes) -> None:
    device = direct.open()
    _fresh(device)
    direct.push(0, b"old")
    device.ctrl_transfer(0x40, 0x00, value, 1)
    direct.push(0, b"new")
    assert receive(device, len(left) + 3) == left + b"new"


def test_a_dual_channel_chip_is_deaf_and_dumb_without_synchronous_fifo(direct: Bench) -> None:
    device = direct.find(1)
    device.write(0x02, b"lost")
    direct.push(1, b"kept in the camera")
    for _ in range(3):
        assert bytes(device.read(0x81, 4096, TIMEOUT)) == STATUS[1]
    assert direct.firmwares[1].heard == []
    device.ctrl_transfer(0x40, 0x0B, 0x40FF, 1)
    assert receive(device, 18) == b"kept in the camera"


def test_the_second_channel_has_nothing_to_say(direct: Bench) -> None:
    device = direct.open(1)
    device.write(0x04, b"nobody hears this")
    assert bytes(device.read(0x83, 4096, TIMEOUT)) == STATUS[1]
    assert direct.firmwares[1].heard == []


@pytest.mark.parametrize(
    ("number", "setup"),
    [
        (0, (0x40, 0x09, 16, 2)),  # there is no second channel
        (1, (0x40, 0x09, 16, 3)),
        (0, (0x40, 0x00, 7, 1)),
        (0, (0x40, 0x77, 0, 1)),
        (0, (0xC0, 0x77, 0, 1, 2)),
        (0, (0x80, 0x06, 0x0304, 0x0409, 255)),
        (0, (0x80, 0x06, 0x0600, 0, 10)),  # no other speed
        (0, (0x00, 0x09, 2, 0)),
    ],
)
def test_unknown_requests_are_refused(direct: Bench, number: int, setup: tuple[int, ...]) -> None:
    device = direct.find(number)
    with pytest.raises(usb.core.USBError) as caught:
        device.ctrl_transfer(*setup)
    assert caught.value.errno == errno.EPIPE


def test_status_requests(direct: Bench) -> None:
    device = direct.open(1)
    assert bytes(device.ctrl_transfer(0xC0, 0x05, 0, 1, 2)) == STATUS[1]
    assert bytes(device.ctrl_transfer(0x80, 0x00, 0, 0, 2)) == b"\0\0"
    assert bytes(device.ctrl_transfer(0x80, 0x06, 0x0600, 0, 10))[:2] == b"\x0a\x06"
    device.ctrl_transfer(0x02, 0x03, 0, 0x81)
    assert bytes(device.ctrl_transfer(0x82, 0x00, 0, 0x81, 2)) == b"\1\0"
    device.clear_halt(0x81)
    assert bytes(device.ctrl_transfer(0x82, 0x00, 0, 0x81, 2)) == b"\0\0"


def test_faults_in_the_stream(direct: Bench) -> None:
    device, chip = direct.open(), direct.chips[0]
    chip.drop(3)
    chip.corrupt(2)
    chip.insert(b"stray")
    direct.push(0, b"0123456789")
    expected = bytes(b ^ 0xFF for b in b"st") + b"ray" + b"3456789"
    assert receive(device, len(expected)) == expected
    device.write(0x02, b"clean again")
    assert receive(device, 11) == b"clean again"


def test_the_rate_limits_the_data(direct: Bench) -> None:
    device = direct.open(1)
    direct.chips[1].rate = 1e6
    begin = time.monotonic()
    device.write(0x02, b"frame 200000")
    assert receive(device, 200000, size=1 << 16) == pattern(200000)
    assert time.monotonic() - begin > 0.15


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    number=st.sampled_from([0, 1]),
    pieces=st.lists(st.integers(1, 3000), min_size=1, max_size=8),
    reads=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    idle=st.booleans(),
)
def test_any_pieces_and_any_read_sizes_give_the_same_bytes(
    direct: Bench, number: int, pieces: list[int], reads: list[int], idle: bool
) -> None:
    device = direct.open(number)
    data = pattern(sum(pieces))
    if idle:
        time.sleep(0.002)
    for piece, end in zip(pieces, itertools.accumulate(pieces), strict=True):
        direct.push(number, data[end - piece : end])
    got, sizes = b"", itertools.cycle(reads)
    while len(got) < len(data):
        got += strip(device.read(0x81, next(sizes) * PACKETS[number], TIMEOUT), PACKETS[number])
    usb.util.dispose_resources(device)
    assert got == data
