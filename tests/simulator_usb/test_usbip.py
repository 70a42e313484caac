# SPDX-License-Identifier: LGPL-2.1-or-later
"""The USB/IP server on the wire: what a Linux kernel sends, and what a broken or hostile client sends."""

from __future__ import annotations

import errno
import logging
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.simulator_usb.bench import SERIALS, Bench, pattern, strip
from usbproto import models
from usbproto.simulator import usbip_address
from usbproto.simulator import usbip_protocol as usbip
from usbproto.simulator.chip import FtdiChip
from usbproto.simulator.fifo import Fifo
from usbproto.simulator.timeline import ManualTimeline
from usbproto.simulator.usbip_server import UsbIpServer

OUT, IN = usbip.DIRECTION_OUT, usbip.DIRECTION_IN
SYNC_FIFO = bytes.fromhex("400bff4001000000")


class Client:
    """Speaks USB/IP with nothing but struct, as another implementation would."""

    def __init__(self, address: str) -> None:
        where = usbip_address.parse_address(address)
        self.socket = usbip_address.connect(where, timeout=5)
        self.directions: dict[int, int] = {}

    def read(self, count: int) -> bytes:
        return usbip_address.receive_bytes(self.socket, count)

    def list(self) -> list[bytes]:
        self.socket.sendall(bytes.fromhex("0111800500000000"))
        version, code, status, count = struct.unpack(">HHII", self.read(12))
        assert (version, code, status) == (0x0111, 0x0005, 0)
        found = []
        for _ in range(count):
            found.append(self.read(312))
            self.read(4 * found[-1][-1])
        return found

    def attach(self, busid: str) -> int:
        """The status."""
        self.socket.sendall(bytes.fromhex("0111800300000000") + busid.encode().ljust(32, b"\0"))
        version, code, status = struct.unpack(">HHI", self.read(8))
        assert (version, code) == (0x0111, 0x0003)
        if not status:
            assert self.read(312)[256:288].rstrip(b"\0") == busid.encode()
        return int(status)

    def submit(
        self,
        sequence: int,
        direction: int,
        endpoint: int,
        length: int,
        setup: bytes = bytes(8),
        data: bytes = b"",
    ) -> None:
        self.directions[sequence] = direction
        head = struct.pack(">IIIII", 1, sequence, 0x10002, direction, endpoint)
        self.socket.sendall(head + struct.pack(">Iiiii8s", 0x200, length, 0, 0, 0, setup) + data)

    def unlink(self, sequence: int, victim: int) -> None:
        self.socket.sendall(struct.pack(">IIIIII24x", 2, sequence, 0x10002, 0, 0, victim))

    def reply(self) -> tuple[int, int, int, bytes]:
        """Code, sequence, status, data."""
        code, sequence, devid, direction, endpoint, status, actual, *rest = struct.unpack(
            ">IIIIIiiiii8x", self.read(48)
        )
        assert (devid, direction, endpoint, rest) == (0, 0, 0, [0, 0, 0])
        has_data = code == 3 and self.directions[sequence] == IN
        return code, sequence, status, self.read(actual) if has_data else b""

    def control(self, sequence: int, setup: str, length: int = 0) -> tuple[int, bytes]:
        raw = bytes.fromhex(setup)
        self.submit(sequence, raw[0] >> 7, 0, length, raw)
        code, answered, status, data = self.reply()
        assert (code, answered) == (3, sequence)
        return status, data

    def is_closed(self) -> bool:
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True


@contextmanager
def client(bench: Bench) -> Iterator[Client]:
    assert bench.server is not None
    one = Client(bench.server.addresses[0])
    with one.socket:
        yield one


@contextmanager
def attached(bench: Bench, number: int = 0) -> Iterator[Client]:
    """A client that has the device and has taken the first status packet."""
    with client(bench) as one:
        assert one.attach(f"1-{number + 1}") == 0
        one.control(1, SYNC_FIFO.hex())
        one.submit(2, IN, 1, 512)
        assert len(one.reply()[3]) == 2
        yield one


def test_list(served: Bench) -> None:
    with client(served) as one:
        first, second = one.list()
        assert one.is_closed()
    for busid, data, speed, product, release, interfaces in (
        (b"1-1", first, 2, 0xEB48, 0x0400, 1),
        (b"1-2", second, 3, 0xEB49, 0x0700, 2),
    ):
        assert data[256:288].rstrip(b"\0") == busid
        assert struct.unpack(">III", data[288:300])[::2] == (1, speed)
        assert struct.unpack(">HHH", data[300:306]) == (0x0403, product, release)
        assert tuple(data[306:312]) == (0, 0, 0, 1, 1, interfaces)


def test_a_kernel_attaches_and_reads(served: Bench) -> None:
    """The requests of vhci_hcd: descriptors, configuration, then several reads queued at once."""
    with client(served) as one:
        assert one.attach("1-2") == 0
        assert len(one.control(1, "8006000100004000", 64)[1]) == 18
        assert one.control(2, "8006000200000900", 9)[1][2:4] == b"\x37\0"
        assert len(one.control(3, "8006000200003700", 55)[1]) == 55
        assert one.control(4, "80060003 0000ff00", 255)[1] == b"\4\3\x09\4"
        assert one.control(5, "80060303 0904ff00", 255)[1][2:].decode("utf-16-le") == SERIALS[1]
        assert one.control(6, "80060f00 00000500", 5) == (-errno.EPIPE, b"")
        assert one.control(7, "0009010000000000") == (0, b"")
        assert one.control(8, "010b000000000000") == (0, b"")
        assert one.control(9, SYNC_FIFO.hex()) == (0, b"")
        for sequence in range(10, 20):
            one.submit(sequence, IN, 1, 16384)
        command = b"frame 100000"
        one.submit(20, OUT, 2, len(command), data=command)
        got, expected = b"", 10
        while len(got) < 100000:
            code, sequence, status, data = one.reply()
            assert (code, status) == (3, 0)
            if sequence != 20:
                assert sequence == expected
                expected += 1
                got += strip(data, 512)
        assert got == pattern(100000)


def test_a_second_import_is_refused(served: Bench) -> None:
    with attached(served), client(served) as other:
        assert other.attach("1-1") == usbip.OpStatus.BUSY
        assert other.is_closed()
        with client(served) as third:
            assert third.attach("1-2") == 0
    with client(served) as other:
        assert other.attach("1-9") == usbip.OpStatus.NO_DEVICE


def test_unlink_of_a_pending_transfer(served: Bench) -> None:
    with attached(served) as one:
        served.chips[0].silence_in(10)
        one.submit(10, IN, 1, 512)
        time.sleep(0.05)
        one.unlink(11, 10)
        assert one.reply() == (4, 11, -errno.ECONNRESET, b"")
        served.chips[0].silence_in(0)
        served.push(0, b"still there")
        got = b""
        for sequence in range(12, 16):
            one.submit(sequence, IN, 1, 512)
            got += one.reply()[3][2:]
        assert got == b"still there"


def test_unlink_of_a_transfer_that_is_done(served: Bench) -> None:
    with attached(served) as one:
        one.submit(10, IN, 1, 512)
        assert one.reply()[:3] == (3, 10, 0)
        one.unlink(11, 10)
        assert one.reply() == (4, 11, 0, b"")


def test_unlink_of_a_transfer_that_waits_behind_another(served: Bench) -> None:
    with attached(served) as one:
        served.chips[0].silence_in(10)
        for sequence in (10, 11):
            one.submit(sequence, IN, 1, 512)
        time.sleep(0.05)
        one.unlink(12, 11)
        assert one.reply() == (4, 12, -errno.ECONNRESET, b"")
        assert one.control(13, "c005000001000200", 2) == (0, b"\x31\x60")
        served.chips[0].silence_in(0)
        assert one.reply()[:3] == (3, 10, 0)


def test_an_unlink_that_finds_a_part_gives_the_part(served: Bench) -> None:
    with attached(served) as one:
        served.chips[0].rate = 62 * 100
        one.submit(9, OUT, 2, 10, data=b"frame 6200")
        one.reply()
        one.submit(10, IN, 1, 6400)
        time.sleep(0.1)
        one.unlink(11, 10)
        code, sequence, status, data = one.reply()
        if code == 3:  # the usual case; on a very slow machine nothing has come yet
            assert (sequence, status) == (10, 0)
            assert strip(data, 64) == pattern(6200)[: len(data) // 64 * 62]
            assert one.reply() == (4, 11, 0, b"")


def test_unplugged_and_plugged_in_again(served: Bench) -> None:
    with attached(served) as one:
        one.submit(10, IN, 1, 512)
        one.reply()
        served.chips[0].unplug()
        assert one.is_closed()
    with client(served) as one:
        assert [data[256:259] for data in one.list()] == [b"1-2"]
    served.chips[0].replug()
    with attached(served):
        pass


def test_a_client_that_goes_away_gives_the_device_back(served: Bench) -> None:
    with attached(served) as one:
        served.chips[0].silence_in(10)
        one.submit(10, IN, 1, 512)
    deadline = time.monotonic() + 5
    status = None
    while status != 0:
        assert time.monotonic() < deadline
        with client(served) as other:
            status = other.attach("1-1")


def _submit(length: int, packets: int = 0, direction: int = IN, endpoint: int = 1, code: int = 1) -> bytes:
    head = struct.pack(">IIIII", code, 99, 0x10002, direction, endpoint)
    return head + struct.pack(">Iiiii8x", 0, length, 0, packets, 0)


GARBAGE = {
    "negative length": _submit(-1),
    "huge read": _submit(usbip.MAX_TRANSFER + 1),
    "huge write": _submit(usbip.MAX_TRANSFER, direction=OUT),
    "isochronous": _submit(512, packets=8),
    "direction": _submit(512, direction=2),
    "endpoint": _submit(512, endpoint=16),
    "command": _submit(512, code=7),
    "one number twice": _submit(512) * 2,
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_a_client_that_breaks_the_rules_is_hung_up_on(
    served: Bench, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with attached(served, 1), attached(served) as one, caplog.at_level(logging.WARNING):
        served.chips[0].silence_in(10)
        one.socket.sendall(garbage)
        assert one.is_closed()
        served.chips[0].silence_in(0)
        with attached(served):
            pass
        deadline = time.monotonic() + 5
        while "hung up" not in caplog.text:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", bytes(8), bytes.fromhex("0111000500000000")])
def test_who_does_not_speak_usbip_is_hung_up_on(served: Bench, garbage: bytes) -> None:
    with attached(served) as good, client(served) as bad:
        bad.socket.sendall(garbage)
        assert bad.is_closed()
        assert good.control(50, "c005000001000200", 2) == (0, b"\x31\x60")


def test_an_endpoint_that_is_not_there(served: Bench) -> None:
    with attached(served) as one:
        one.submit(10, IN, 9, 512)
        assert one.reply()[:3] == (3, 10, -errno.ENOENT)


# --- where it listens ---


def _chip() -> FtdiChip:
    return FtdiChip(models.SERIES_500, SERIALS[0], Fifo(), ManualTimeline())


def test_it_does_not_listen_to_the_network_unless_told_to() -> None:
    with pytest.raises(ValueError, match="network"):
        UsbIpServer([_chip()], ["0.0.0.0:0"])
    with UsbIpServer([_chip()], ["0.0.0.0:0"], allow_remote=True) as server:
        assert not server.addresses[0].endswith(":0")


def test_several_addresses_at_once_and_a_socket_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "usbip"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with UsbIpServer([_chip()], [f"unix:{path}", "127.0.0.1:0"]) as server:
        for address in server.addresses:
            with Client(address).socket as connection:
                connection.sendall(bytes.fromhex("0111800500000000"))
                assert connection.recv(12)
        with pytest.raises(OSError, match="in use"):
            UsbIpServer([_chip()], [f"unix:{path}"])
    assert not path.exists()
    path.write_text("a file of somebody else")
    with pytest.raises(OSError, match="not a socket"):
        UsbIpServer([_chip()], [f"unix:{path}"])
    server.close()  # again


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("localhost:3240", "localhost:3240"),
        ("camera", "camera:3240"),
        ("[::1]:99", "[::1]:99"),
        ("::1", "[::1]:3240"),
        ("unix:/run/x", "unix:/run/x"),
    ],
)
def test_addresses(text: str, shown: str) -> None:
    assert str(usbip_address.parse_address(text)) == shown


@pytest.mark.parametrize("text", ["", "unix:", ":1", "host:", "host:x", "host:70000", "host:-1"])
def test_bad_addresses(text: str) -> None:
    with pytest.raises(ValueError, match=r"path|neither"):
        usbip_address.parse_address(text)


# --- messages ---

_u32 = st.integers(0, 0xFFFFFFFF)


@given(
    st.builds(
        usbip.Submit,
        sequence=_u32,
        devid=_u32,
        direction=st.sampled_from([OUT, IN]),
        endpoint=st.integers(0, 15),
        length=st.integers(0, usbip.MAX_TRANSFER),
        setup=st.binary(min_size=8, max_size=8),
        flags=_u32,
        interval=st.integers(0, 1 << 30),
    )
    | st.builds(usbip.Unlink, sequence=_u32, devid=_u32, victim=_u32)
)
def test_commands_round_trip(command: usbip.Submit | usbip.Unlink) -> None:
    assert usbip.parse_command(usbip.pack(command)) == command


@given(
    st.builds(usbip.Submitted, _u32, st.integers(-200, 0), st.integers(0, usbip.MAX_TRANSFER))
    | st.builds(usbip.Unlinked, _u32, st.integers(-200, 0))
)
def test_replies_round_trip(reply: usbip.Submitted | usbip.Unlinked) -> None:
    assert usbip.parse_reply(usbip.pack(reply)) == reply


@given(st.binary(min_size=48, max_size=48))
def test_any_48_bytes_are_a_command_or_an_error(data: bytes) -> None:
    with suppress(usbip.ProtocolError):
        usbip.parse_command(data)
