# SPDX-License-Identifier: LGPL-2.1-or-later
"""Listens at PyUSB's backend, below everything that is ours: whatever the driver does with the USB is seen.

Empty packets, which an idle chip sends a thousand a second, are left out, and what was received in one go is
one line. The status bytes of packets are taken off.
"""

from __future__ import annotations

import threading
import time
from array import array
from dataclasses import dataclass, field
from typing import Any

import usb.backend.libusb1
import usb.core

from usbproto.models import VENDOR_ID, channel_serial, series_of
from usbproto.recording import Recorder, masked_answer
from usbproto.stream import ENDPOINT_IN, GAP, STATUS_BYTES, VENDOR_OUT, Received, payload

STRING_DESCRIPTOR = 3
GET_DESCRIPTOR = (0x80, 0x06)
STRING_HEAD = 2  # bytes of a string descriptor before its text


def recording_backend(backend: Any, recorder: Recorder) -> Any:
    """A backend that records; None (libusb) where there is none to record."""
    inner = backend if backend is not None else usb.backend.libusb1.get_backend()
    return None if inner is None else RecordingBackend(inner, recorder)


@dataclass
class _Open:
    """An open device; `number` is that of the connection, 0 before its interface is claimed.

    `packet` is the size of its bulk packets in bytes, `request` what was written last.
    """

    product: int
    place: tuple[int, int]
    packet: int
    number: int = 0
    request: bytes = b""
    received: Received | None = None
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
            packet = self._packet_size(dev) or series.chip.packet
            opened = _Open(fields.idProduct, (fields.bus or 0, fields.address or 0), packet)
            with self._lock:
                self._opened[id(handle)] = opened
        return handle

    def _packet_size(self, dev: Any) -> int | None:
        """By the endpoint's descriptor: an FT2232H behind a full-speed hub has packets of 64 bytes."""
        try:
            count = self._inner.get_interface_descriptor(dev, 0, 0, 0).bNumEndpoints
            endpoints = [self._inner.get_endpoint_descriptor(dev, n, 0, 0, 0) for n in range(count)]
        except (usb.core.USBError, IndexError):
            return None
        sizes = (int(end.wMaxPacketSize) for end in endpoints if end.bEndpointAddress == ENDPOINT_IN)
        return next(sizes, 0) or None

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
        vendor = opened is not None and opened.number and bmRequestType == VENDOR_OUT
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
        number = value & 0xFF
        if value >> 8 != STRING_DESCRIPTOR or number == 0 or len(data) <= STRING_HEAD:
            return
        # PyUSB asks for the serial number only.
        serial = channel_serial(data[STRING_HEAD:].decode("utf-16-le", "replace"))
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
        opened.request = bytes(data[:sent])
        self._note(opened, "write", data=opened.request.hex())
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
            if waiting is None:
                waiting = opened.received = Received(self._recorder.pixels, time.monotonic())
            waiting.add(payload(block, opened.packet), time.monotonic())

    def _flush(self, opened: _Open) -> None:
        with opened.lock:
            if opened.received is not None:
                self._tell(opened, opened.received)
                opened.received = None

    def _tell(self, opened: _Open, received: Received) -> None:
        masks, request = self._recorder.masks, opened.request
        facts = received.facts(lambda answer: masked_answer(masks, request, answer))
        self._recorder.note("read", received.first, n=opened.number, **facts)

    def _note(self, opened: _Open, event: str, **facts: Any) -> None:
        self._recorder.note(event, n=opened.number, **facts)

    def close(self) -> None:
        """Ends what the inner backend keeps running."""
        close = getattr(self._inner, "close", None)
        if close is not None:
            close()
