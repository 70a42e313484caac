# SPDX-License-Identifier: LGPL-2.1-or-later
"""The transfers of one camera become exchanges, and lines of a recording as the recorder writes them.

A capture does not show when a program opens or closes a device. A connection begins here with the first
transfer, with a new address, and with a reset of the whole chip unless a command is unanswered or a transfer
has failed: a program resets the chip when it opens it, and when something went wrong.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from usbproto.captures.devices import Choice, Device
from usbproto.captures.events import Kind
from usbproto.captures.requests import LASTING_REQUESTS, RESET, RESET_WHOLE, masked_request
from usbproto.captures.urbs import Transfer
from usbproto.packets import COMMANDS, HEADER_BYTES, Command, packet_length
from usbproto.recording import Masks, masked_answer
from usbproto.stream import (
    ANSWER,
    ENDPOINT_IN,
    ENDPOINT_OUT,
    GAP,
    VENDOR_OUT,
    Received,
    payload,
    payload_length,
)

# Bytes that are kept of what no command is. The beginning tells what it is; firmware is its maker's.
SHOWN = 32

_VENDOR, _TYPE_BITS = 0x40, 0x60
# errno of the kernel -> errno that libusb, and so the driver's recorder, reports.
_LIBUSB = {
    errno.ENOENT: errno.ETIMEDOUT,
    errno.ECONNRESET: errno.ETIMEDOUT,
    errno.EPIPE: errno.EPIPE,
    errno.EOVERFLOW: errno.EOVERFLOW,
    errno.ENODEV: errno.ENODEV,
    errno.ESHUTDOWN: errno.ENODEV,
}


@dataclass(slots=True)
class Exchange:
    """What was sent, and what came until something else was sent. Times in s of the capture's clock.

    `request` has the first bytes of `size`, `answer` the first ones of `came`, of which the capture does not
    have `lost`.
    """

    request: bytes
    size: int
    at: float
    error: int = 0
    answer: bytearray = field(default_factory=bytearray)
    came: int = 0
    lost: int = 0
    first: float | None = None
    failures: int = 0

    @property
    def command(self) -> Command[Any, Any] | None:
        """The command of the table that was sent; None for anything else."""
        if self.size < HEADER_BYTES or len(self.request) < HEADER_BYTES:
            return None
        command = COMMANDS.get(self.request[0])
        if command is None or self.size != packet_length(self.request):
            return None
        return command if self.size == HEADER_BYTES + command.request.size() else None

    @property
    def failed(self) -> bool:
        return bool(self.error or self.failures)


class Listener(Protocol):
    """What learns from a session, besides the recording."""

    def exchange(self, exchange: Exchange) -> None: ...

    def control(self, transfer: Transfer) -> None: ...

    def failed(self, transfer: Transfer) -> None: ...


# Takes an event, its time in s since the first transfer, and its facts.
Note = Callable[..., None]


class CaptureSession:
    """Takes the transfers of a capture in their order; those of other devices are passed over."""

    def __init__(
        self,
        choice: Choice,
        listener: Listener,
        note: Note,
        *,
        serial: str,
        masks: Masks | None,
    ) -> None:
        """`serial` stands in the lines; `masks` replaces serial numbers in them, None leaves them."""
        self._devices: Mapping[tuple[int, int], Device] = {(d.bus, d.address): d for d in choice.devices}
        self._listener = listener
        self._note_line = note
        self._serial = serial
        self._masks = masks
        self._origin: float | None = None
        self._number = 0
        self._device: Device | None = None  # of the connection that is open
        self._exchange: Exchange | None = None
        self._received: Received | None = None
        self._failed_at: float | None = None
        self._last = 0.0
        self.cut = 0  # transfers from the camera of which the capture does not have all bytes
        self.other_endpoints = 0  # transfers of endpoints that a camera does not use

    @property
    def seconds(self) -> float:
        """From the camera's first transfer to its last."""
        return max(0.0, self._last - self._origin) if self._origin is not None else 0.0

    def take(self, transfer: Transfer) -> None:
        device = self._devices.get((transfer.bus, transfer.device))
        if device is None:
            return
        if transfer.kind is Kind.CONTROL:
            if transfer.setup and transfer.setup[0] & _TYPE_BITS == _VENDOR:
                self._control(device, transfer)
        elif transfer.endpoint == ENDPOINT_OUT:
            self._write(device, transfer)
        elif transfer.endpoint == ENDPOINT_IN:
            self._read(device, transfer)
        else:
            self.other_endpoints += 1

    def finish(self) -> None:
        """The capture is over."""
        self._release()

    # --- what is sent ---

    def _control(self, device: Device, transfer: Transfer) -> None:
        self._listener.control(transfer)
        if transfer.error:
            self._listener.failed(transfer)
        setup = transfer.setup
        type_, request, value, index = struct.unpack_from("<BBHH", setup)
        if type_ != VENDOR_OUT:
            return
        if setup[:2] == RESET and value == RESET_WHOLE and not self._in_trouble:
            self._release()
        self._connect(device, transfer.at)
        self._flush()
        self._end_exchange()
        if (type_, request) in LASTING_REQUESTS:
            return
        failed = {"error": _LIBUSB.get(transfer.error, errno.EIO)} if transfer.error else {}
        self._note("control", transfer.at, setup=[type_, request, value, index], **failed)

    def _write(self, device: Device, transfer: Transfer) -> None:
        if transfer.error:
            self._listener.failed(transfer)
        # What was cancelled may have been sent in part, and the program was told how much.
        sent = not transfer.error or (transfer.cancelled and transfer.length > 0)
        size = transfer.length if sent else len(transfer.data)
        request = transfer.data[: min(size, ANSWER)]
        if not request:
            return
        self._connect(device, transfer.at)
        self._flush()
        self._end_exchange()
        error = 0 if sent else _LIBUSB.get(transfer.error, errno.EIO)
        exchange = self._exchange = Exchange(request, size, transfer.at, error)
        if exchange.command is not None:
            failed = {"error": error} if error else {}
            self._note("write", transfer.at, data=exchange.request.hex(), **failed)

    # --- what comes ---

    def _read(self, device: Device, transfer: Transfer) -> None:
        self._connect(device, transfer.at)
        if transfer.error and not transfer.cancelled:
            self._fail(transfer)
            return
        received, exchange = self._received, self._exchange
        if received is not None and transfer.at - received.last > GAP:
            self._flush()
            received = None
        count = payload_length(transfer.length, device.packet_size)
        if not count:
            return
        data = payload(transfer.data, device.packet_size)
        lost = max(0, count - len(data))
        self.cut += bool(lost)
        if exchange is not None:
            exchange.first = transfer.at if exchange.first is None else exchange.first
            exchange.came += count
            exchange.lost += lost
            exchange.answer += data[: max(0, ANSWER - len(exchange.answer))]
        if received is None:
            received = self._received = Received(False, transfer.at)
        received.add(data, transfer.at, lost)

    def _fail(self, transfer: Transfer) -> None:
        self._listener.failed(transfer)
        before = self._failed_at
        # A program reads ahead by several transfers, and one fault ends all of them: one line.
        if before is not None and transfer.began is not None and transfer.began <= before:
            return
        self._failed_at = transfer.at
        if self._exchange is not None:
            self._exchange.failures += 1
        self._flush()
        if self._unknown is None:
            self._note("fail", transfer.at, error=_LIBUSB.get(transfer.error, errno.EIO))

    # --- connections, exchanges, lines ---

    @property
    def _in_trouble(self) -> bool:
        exchange = self._exchange
        return exchange is not None and (exchange.failed or exchange.came == 0)

    @property
    def _unknown(self) -> Exchange | None:
        exchange = self._exchange
        return exchange if exchange is not None and exchange.command is None else None

    def _connect(self, device: Device, at: float) -> None:
        self._last = at
        if self._origin is None:
            self._origin = at
        if self._device is not None and self._device is not device:
            self._release()
        if self._device is None:
            self._device = device
            self._number += 1
            product = f"{device.series.product_id:04x}"
            self._note("claim", at, product=product, serial=self._serial)

    def _release(self) -> None:
        if self._device is None:
            return
        self._flush()
        self._end_exchange()
        self._note("release", self._last)
        self._device = self._failed_at = None

    def _end_exchange(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        self._listener.exchange(exchange)
        if exchange.command is None:
            answer = masked_answer(self._masks, exchange.request, bytes(exchange.answer[:SHOWN]))
            request = masked_request(self._masks, exchange.request[:SHOWN])
            facts = {"data": request.hex(), "size": exchange.size}
            self._note("unknown", exchange.at, **facts, answer=answer.hex(), answer_size=exchange.came)

    def _flush(self) -> None:
        received, self._received = self._received, None
        if received is None or self._unknown is not None:
            return  # what answers something unknown stands in its line
        request = self._exchange.request if self._exchange is not None else b""
        facts = received.facts(lambda answer: masked_answer(self._masks, request, answer))
        self._note("read", received.first, **facts)

    def _note(self, event: str, at: float, **facts: Any) -> None:
        origin = self._origin if self._origin is not None else at
        self._note_line(event, at - origin, n=self._number, **facts)
