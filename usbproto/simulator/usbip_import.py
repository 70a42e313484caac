# SPDX-License-Identifier: LGPL-2.1-or-later
"""The client's side of an imported device: a handle whose transfers go over a USB/IP connection.

There is no reader thread: whoever waits for a reply reads the connection, and hands to the others what is
theirs. So the data of a read go from the socket into the caller's buffer, in the caller's thread.
"""

from __future__ import annotations

import contextlib
import errno
import math
import select
import socket
import threading
import time

from usbproto.simulator import usbip_protocol as usbip
from usbproto.simulator.usbip_address import receive
from usbproto.simulator.usbtransfer import IN, Setup, UsbFailure

# Once a reply has begun, the rest follows at once; and a server answers an UNLINK at once. Longer than this
# and it has hung itself up, which for the host is as good as unplugged.
REPLY_TIMEOUT = 5.0  # s
# At the end the server hangs up as soon as the device is free. If it does not, that is its own affair.
HANG_UP_TIMEOUT = 1.0  # s


class _Pending:
    """A command that waits for its reply; `room` takes the data of an IN transfer."""

    __slots__ = ("reply", "room")

    def __init__(self, room: memoryview | None = None) -> None:
        self.room = room
        self.reply: usbip.Submitted | usbip.Unlinked | None = None


class ImportedDevice:
    """A `UsbHandle`. When the connection breaks, every call fails with ENODEV."""

    def __init__(self, connection: socket.socket, info: usbip.DeviceInfo) -> None:
        connection.settimeout(REPLY_TIMEOUT)
        self.info = info
        self._devid = info.devid
        self._head = bytearray(usbip.HEADER_SIZE)  # of the reply that is read
        self._connection = connection
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self._sending = threading.Lock()
        self._sequence = 0
        self._pending: dict[int, _Pending] = {}
        self._turn = threading.Condition()
        self._somebody_reads = False
        self._dead = False
        self._claimed: set[int] = set()

    # --- UsbHandle ---

    def control(self, setup: Setup, data: memoryview, timeout: float | None) -> int:
        return self._transfer(0, setup.is_in, data, timeout, setup.pack())

    def bulk(self, endpoint: int, data: memoryview, timeout: float | None) -> int:
        return self._transfer(endpoint & ~IN, bool(endpoint & IN), data, timeout)

    def reset(self) -> None:
        self.control(Setup(*usbip.PORT_RESET), memoryview(b""), REPLY_TIMEOUT)

    def claim(self, interface: int) -> None:
        """Importing has claimed all of it; this only keeps count."""
        if self._dead:
            raise UsbFailure(errno.ENODEV)
        if not 0 <= interface < self.info.interface_count:
            raise UsbFailure(errno.ENOENT)
        self._claimed.add(interface)

    def release(self, interface: int) -> None:
        if interface not in self._claimed:
            raise UsbFailure(errno.ENOENT)
        self._claimed.remove(interface)

    def kernel_driver_active(self, interface: int) -> bool:
        return False

    def attach_kernel_driver(self, interface: int, attach: bool) -> None:
        raise UsbFailure(errno.ENOENT)

    def close(self) -> None:
        """Give the device back; it can be imported again afterwards. What is pending fails.

        May be called twice.
        """
        with self._turn:
            self._dead = True
            self._turn.notify_all()
        with self._sending, contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)
            self._connection.settimeout(HANG_UP_TIMEOUT)
            with self._turn:
                self._turn.wait_for(lambda: not self._somebody_reads, HANG_UP_TIMEOUT)
            while self._connection.recv(usbip.HEADER_SIZE):
                pass  # what was on its way when it was cancelled
        self._die()
        with self._turn:
            self._turn.wait_for(lambda: not self._somebody_reads, HANG_UP_TIMEOUT)
        self._connection.close()

    # --- transfers ---

    def _transfer(
        self, endpoint: int, is_in: bool, data: memoryview, timeout: float | None, setup: bytes = bytes(8)
    ) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        pending = _Pending(data if is_in else None)
        sequence = self._send(
            pending,
            usbip.DIRECTION_IN if is_in else usbip.DIRECTION_OUT,
            endpoint,
            setup,
            data,
        )
        if not self._wait(deadline, pending):
            self._cancel(sequence, pending)
        reply = pending.reply
        if not isinstance(reply, usbip.Submitted):
            raise UsbFailure(errno.ETIMEDOUT)
        if reply.status:
            raise UsbFailure(-reply.status)
        return reply.actual

    def _cancel(self, sequence: int, pending: _Pending) -> None:
        """After this the transfer is over: it was cancelled, or it was done just in time."""
        unlink = _Pending()
        with self._sending:
            self._post(usbip.pack(usbip.Unlink(self._register(unlink), self.info.devid, sequence)))
        if not self._wait(time.monotonic() + REPLY_TIMEOUT, pending, unlink):
            self._die()
            raise UsbFailure(errno.ENODEV)
        with self._turn:
            self._pending.pop(sequence, None)

    def _send(self, pending: _Pending, direction: int, endpoint: int, setup: bytes, data: memoryview) -> int:
        """Asks for a transfer; its sequence number."""
        with self._sending:
            sequence = self._register(pending)
            header = usbip.pack_submit(sequence, self._devid, direction, endpoint, len(data), setup)
            self._post(header + data if direction == usbip.DIRECTION_OUT else header)
        return sequence

    def _register(self, pending: _Pending) -> int:
        """A new sequence number, under which a reply is waited for. Within `_sending`."""
        self._sequence = self._sequence % 0xFFFFFFFF + 1
        with self._turn:
            if self._dead:
                raise UsbFailure(errno.ENODEV)
            self._pending[self._sequence] = pending
        return self._sequence

    def _post(self, message: bytes) -> None:
        try:
            self._connection.sendall(message)
        except OSError:
            self._die()
            raise UsbFailure(errno.ENODEV) from None

    # --- replies ---

    def _wait(self, deadline: float | None, *wanted: _Pending) -> bool:
        """Until one of them has its reply; False when it is too late. UsbFailure when the server has gone."""
        while True:
            with self._turn:
                while True:
                    for pending in wanted:
                        if pending.reply is not None:
                            return True
                    if self._dead:
                        raise UsbFailure(errno.ENODEV)
                    remaining = None if deadline is None else deadline - time.monotonic()
                    if remaining is not None and remaining <= 0:
                        return False
                    if not self._somebody_reads:
                        break
                    self._turn.wait(remaining)
                self._somebody_reads = True
            try:
                self._read(remaining)
            finally:
                with self._turn:
                    self._somebody_reads = False
                    self._turn.notify_all()

    def _read(self, seconds: float | None) -> None:
        """One reply, if one comes in time, to the one that waits for it."""
        if not self._poll.poll(None if seconds is None else math.ceil(seconds * 1000)):
            return
        try:
            count = self._begin()
            if count < usbip.HEADER_SIZE:
                if not count:
                    raise EOFError("connection closed")
                receive(self._connection, memoryview(self._head)[count:])
            have = max(0, count - usbip.HEADER_SIZE)
            reply = usbip.parse_reply(self._head)
            with self._turn:
                pending = self._pending.pop(reply.sequence, None)
            if pending is None:
                raise usbip.ProtocolError(f"reply to {reply.sequence}, which nobody sent")
            size = reply.actual if isinstance(reply, usbip.Submitted) and pending.room is not None else 0
            if have > size:
                raise usbip.ProtocolError(f"{have} bytes follow where {size} were announced")
            if size > have:
                assert pending.room is not None
                if size > len(pending.room):
                    raise usbip.ProtocolError(f"{size} bytes; {len(pending.room)} asked for")
                receive(self._connection, pending.room[have:size])
            pending.reply = reply
        except (OSError, EOFError, usbip.ProtocolError):
            self._die()

    def _begin(self) -> int:
        """The first bytes of a reply, which must be there: the head and, if it is certain whose, its data."""
        # While one transfer is waited for and none can be sent, only its data can follow the head. Who sends
        # may be waiting until the server has got rid of this reply, so it is not waited for.
        if not self._sending.acquire(blocking=False):
            return self._connection.recv_into(self._head)
        try:
            room = self._only_room()
            return self._connection.recvmsg_into((self._head, room) if room else (self._head,))[0]
        finally:
            self._sending.release()

    def _only_room(self) -> memoryview | None:
        """Where the data of the next reply go, if one transfer is waited for. Within `_sending`."""
        with self._turn:
            if len(self._pending) != 1:
                return None
            (pending,) = self._pending.values()
            return pending.room

    def _die(self) -> None:
        with self._turn:
            self._dead = True
            self._turn.notify_all()
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
