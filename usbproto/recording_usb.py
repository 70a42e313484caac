# SPDX-License-Identifier: LGPL-2.1-or-later
"""Listens at PyUSB's backend, below everything that is ours: whatever the driver does with the USB is seen.

Empty packets, which an idle chip sends a thousand a second, are left out, and what was received in one go is
one line. The status bytes of packets are taken off.
"""

from __future__ import annotations

import base64
import hashlib
import threading
import time
import zlib
from array import array
from dataclasses import dataclass, field
from typing import Any

import usb.backend.libusb1
import usb.core

from usbproto.models import VENDOR_ID, series_of
from usbproto.packets import HEADER_BYTES, packet_length
from usbproto.recording import Recorder

STATUS_BYTES = 2
STRING_DESCRIPTOR = 3
GET_DESCRIPTOR = (0x80, 0x06)
VENDOR_REQUEST = 0x40
# Bytes. No answer is longer; what is longer are pixels.
ANSWER = 1024
# s without a byte; what comes afterwards came by itself, or late, and is a line of its own.
GAP = 0.2
# Bytes of one image that are kept whole. The largest has 17 MB.
MAX_PIXELS = 32 << 20


def recording_backend(backend: Any, recorder: Recorder) -> Any:
    """A backend that records; None (libusb) where there is none to record."""
    inner = backend if backend is not None else usb.backend.libusb1.get_backend()
    return None if inner is None else RecordingBackend(inner, recorder)


class _Received:
    """What came since the last line: an answer, and perhaps pixels behind it."""

    def __init__(self, keep: bool) -> None:
        self._keep = keep
        self.first = self.last = time.monotonic()
        self._answer = bytearray()
        self._length = 0  # of pixels
        self._pixels = bytearray()
        self._hash: Any = None  # of pixels, once there are some

    def add(self, payload: bytes) -> None:
        self.last = time.monotonic()
        if self._hash is None:
            self._answer += payload
            if len(self._answer) <= ANSWER:
                return
            head = packet_length(bytes(self._answer[:HEADER_BYTES]))
            payload = bytes(self._answer[head:])
            del self._answer[head:]
            self._hash = hashlib.sha256()
        self._hash.update(payload)
        self._length += len(payload)
        if self._keep and self._length <= MAX_PIXELS:
            self._pixels += payload

    def facts(self, recorder: Recorder) -> dict[str, Any]:
        answer = bytes(self._answer)
        facts: dict[str, Any] = {
            "data": (recorder.masks.bytes(answer) if recorder.masks is not None else answer).hex()
        }
        if self._length:
            facts |= {
                "length": self._length,
                "sha256": self._hash.hexdigest(),
                "took": round(self.last - self.first, 3),
            }
        if self._length and self._length == len(self._pixels):
            facts["pixels"] = base64.b64encode(zlib.compress(self._pixels, 1)).decode()
        return facts


@dataclass
class _Open:
    """An open device; `number` is that of the connection, 0 before its interface is claimed."""

    product: int
    place: tuple[int, int]
    packet: int
    number: int = 0
    received: _Received | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class RecordingBackend:
    """What is not noted here passes by as it is."""

    def __init__(self, inner: Any, recorder: Recorder) -> None:
        self._inner = inner
        self._recorder = recorder
        self._lock = threading.Lock()
        self._opened: dict[int, _Open] = {}  # by the identity of the handle, which lives as long
        self._serials: dict[tuple[int, int], str] = {}  # by place on the USB
        self._claims = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def open_device(self, dev: Any) -> Any:
        handle = self._inner.open_device(dev)
        fields = self._inner.get_device_descriptor(dev)
        series = series_of(fields.idProduct) if fields.idVendor == VENDOR_ID else None
        if series is not None:
            opened = _Open(fields.idProduct, (fields.bus or 0, fields.address or 0), series.chip.packet)
            with self._lock:
                self._opened[id(handle)] = opened
        return handle

    def close_device(self, dev_handle: Any) -> None:
        with self._lock:
            opened = self._opened.pop(id(dev_handle), None)
        if opened is not None and opened.number:
            self._flush(opened)
            self._note(opened, "release")
        self._inner.close_device(dev_handle)

    def claim_interface(self, dev_handle: Any, intf: int) -> None:
        opened = self._opened.get(id(dev_handle))
        if opened is None:
            self._inner.claim_interface(dev_handle, intf)
            return
        with self._lock:
            self._claims += 1
            number = self._claims
            serial = self._serials.get(opened.place, "")
        told = self._recorder.serial(serial)
        facts: dict[str, Any] = {"n": number, "product": f"{opened.product:04x}", "serial": told}
        self._recorder.met(serial)
        try:
            self._inner.claim_interface(dev_handle, intf)
        except usb.core.USBError as error:
            self._recorder.note("claim", **facts, error=error.errno)
            raise
        self._recorder.note("claim", **facts)
        opened.number = number

    def ctrl_transfer(
        self,
        dev_handle: Any,
        bmRequestType: int,  # noqa: N803  # PyUSB's names
        bRequest: int,  # noqa: N803
        wValue: int,  # noqa: N803
        wIndex: int,  # noqa: N803
        data: Any,
        timeout: int,
    ) -> Any:
        opened = self._opened.get(id(dev_handle))
        vendor = opened is not None and opened.number and bmRequestType == VENDOR_REQUEST
        setup = [bmRequestType, bRequest, wValue, wIndex]
        try:
            result = self._inner.ctrl_transfer(dev_handle, *setup, data, timeout)
        except usb.core.USBError as error:
            if opened is not None and vendor:
                self._flush(opened)
                self._note(opened, "control", setup=setup, error=error.errno)
            raise
        if opened is not None and vendor:
            self._flush(opened)
            self._note(opened, "control", setup=setup)
        elif opened is not None and (bmRequestType, bRequest) == GET_DESCRIPTOR:
            self._learn_serial(opened, wValue, bytes(data[:result]))
        return result

    def _learn_serial(self, opened: _Open, value: int, data: bytes) -> None:
        from usbproto.discovery import channel_serial

        number = value & 0xFF
        if value >> 8 != STRING_DESCRIPTOR or number == 0 or len(data) <= STATUS_BYTES:
            return
        # PyUSB asks for the serial number only.
        serial = channel_serial(data[STATUS_BYTES:].decode("utf-16-le", "replace"))
        if serial:
            self._recorder.serial(serial)
            with self._lock:
                self._serials[opened.place] = serial

    def bulk_write(self, dev_handle: Any, ep: int, intf: int, data: array[int], timeout: int) -> Any:
        opened = self._opened.get(id(dev_handle))
        if opened is None:
            return self._inner.bulk_write(dev_handle, ep, intf, data, timeout)
        self._flush(opened)
        try:
            sent = self._inner.bulk_write(dev_handle, ep, intf, data, timeout)
        except usb.core.USBError as error:
            self._note(opened, "write", data=bytes(data).hex(), error=error.errno)
            raise
        self._note(opened, "write", data=bytes(data[:sent]).hex())
        return sent

    def bulk_read(self, dev_handle: Any, ep: int, intf: int, buff: array[int], timeout: int) -> Any:
        opened = self._opened.get(id(dev_handle))
        if opened is None:
            return self._inner.bulk_read(dev_handle, ep, intf, buff, timeout)
        try:
            count = self._inner.bulk_read(dev_handle, ep, intf, buff, timeout)
        except usb.core.USBTimeoutError:
            raise
        except usb.core.USBError as error:
            self._flush(opened)
            self._note(opened, "fail", error=error.errno)
            raise
        self._received(opened, memoryview(buff)[:count])
        return count

    def _received(self, opened: _Open, block: memoryview) -> None:
        with opened.lock:
            waiting = opened.received
            if waiting is not None and time.monotonic() - waiting.last > GAP:
                self._tell(opened, waiting)
                waiting = opened.received = None
            if len(block) <= STATUS_BYTES or not self._recorder.recording:
                return
            payload = b"".join(
                block[at + STATUS_BYTES : at + opened.packet] for at in range(0, len(block), opened.packet)
            )
            if waiting is None:
                waiting = opened.received = _Received(self._recorder.pixels)
            waiting.add(payload)

    def _flush(self, opened: _Open) -> None:
        with opened.lock:
            if opened.received is not None:
                self._tell(opened, opened.received)
                opened.received = None

    def _tell(self, opened: _Open, received: _Received) -> None:
        self._recorder.note("read", received.first, n=opened.number, **received.facts(self._recorder))

    def _note(self, opened: _Open, event: str, **facts: Any) -> None:
        self._recorder.note(event, n=opened.number, **facts)

    def close(self) -> None:
        """Ends what the inner backend keeps running."""
        close = getattr(self._inner, "close", None)
        if close is not None:
            close()
