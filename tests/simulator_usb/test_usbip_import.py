# SPDX-License-Identifier: LGPL-2.1-or-later
"""The client's side of a USB/IP connection, against a server that answers at the worst moment."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from usbproto.models import SERIES_600, VENDOR_ID
from usbproto.simulator import usbip_protocol as usbip
from usbproto.simulator.descriptors import HIGH_SPEED
from usbproto.simulator.usbip_import import ImportedDevice
from usbproto.simulator.usbtransfer import Setup

INFO = usbip.DeviceInfo(
    path="/1-1",
    busid="1-1",
    bus=1,
    address=1,
    speed=HIGH_SPEED,
    vendor=VENDOR_ID,
    product=SERIES_600.product_id,
    bcd_device=0x0700,
    device_class=(0, 0, 0),
    configuration=1,
    configurations=1,
    interface_count=2,
)
TIMEOUT = 5.0  # s
# How long a transfer may take to reach the server, in which the test hopes for it and need not get it.
HOPE = 0.2  # s


class Server:
    """The other end. It answers a transfer when it is told to."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        connection.settimeout(TIMEOUT)

    def next(self, seconds: float = TIMEOUT) -> usbip.Submit | None:
        if not select.select([self._connection], [], [], seconds)[0]:
            return None
        command = usbip.parse_command(self._connection.recv(usbip.HEADER_SIZE, socket.MSG_WAITALL))
        assert isinstance(command, usbip.Submit)
        return command

    def answer(self, command: usbip.Submit | None, data: bytes) -> None:
        assert command is not None
        self._connection.sendall(usbip.pack(usbip.Submitted(command.sequence, 0, len(data))) + data)


class Eventful(socket.socket):
    """Something happens just before the first bytes of each reply are read."""

    event: Callable[[], None]

    def recv_into(self, *args: Any) -> int:
        self.event()
        return super().recv_into(*args)

    def recvmsg_into(self, *args: Any) -> tuple[int, list[Any], int, Any]:
        self.event()
        return super().recvmsg_into(*args)


def test_a_transfer_that_begins_while_a_reply_is_about_to_be_read() -> None:
    ours, theirs = socket.socketpair()
    connection = Eventful(fileno=ours.detach())
    server = Server(theirs)
    device = ImportedDevice(connection, INFO)
    packet, latency = bytearray(512), bytearray(1)
    second: list[Future[int]] = []
    early: list[usbip.Submit | None] = []  # the second command, if it came while the reply was still unread

    def begin_another() -> None:
        connection.event = lambda: None
        setup = Setup(0xC0, 0x0A, length=len(latency))
        second.append(pool.submit(device.control, setup, memoryview(latency), TIMEOUT))
        early.append(server.next(HOPE))
        if early[0] is not None:
            server.answer(early[0], b"\x10")

    connection.event = begin_another
    with theirs, ThreadPoolExecutor() as pool:
        first = pool.submit(device.bulk, 0x81, memoryview(packet), TIMEOUT)
        server.answer(server.next(), b"\x01\x60")  # fewer bytes than there is room for
        assert first.result(TIMEOUT) == 2
        assert packet[:2] == b"\x01\x60"
        if early[0] is None:
            server.answer(server.next(), b"\x10")
        assert second[0].result(TIMEOUT) == 1
        assert latency == b"\x10"
        theirs.shutdown(socket.SHUT_RDWR)
        device.close()
