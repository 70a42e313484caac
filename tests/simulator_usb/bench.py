# SPDX-License-Identifier: LGPL-2.1-or-later
"""A bench for simulated cameras: chips with a small firmware, reached directly or through a USB/IP server."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import usb.core
import usb.util

from usbproto import models
from usbproto.simulator.backend import PyUsbBackend, SimulatorBackend
from usbproto.simulator.chip import STATUS_BYTES, FtdiChip
from usbproto.simulator.fifo import Fifo
from usbproto.simulator.timeline import RealTimeline
from usbproto.simulator.usbip_client import UsbIpBackend
from usbproto.simulator.usbip_server import UsbIpServer

TIMEOUT = 5000  # ms; long enough for a busy machine
SERIALS = ("05001234", "06005678")


def pattern(count: int) -> bytes:
    return np.random.default_rng(count).bytes(count)


class Firmware:
    """Echoes what it hears; `frame N` is answered with N bytes of `pattern`."""

    def __init__(self) -> None:
        self.fifo = Fifo()
        self.fifo.on_bytes = self._hear
        self.heard: list[bytes] = []

    def _hear(self, data: bytes) -> None:
        self.heard.append(data)
        if data.startswith(b"frame "):
            self.fifo.push(memoryview(pattern(int(data[6:]))))
        else:
            self.fifo.push(data)


class Bench:
    """Two cameras, a 500 and a 600 Series one. `over` is "direct", "tcp" or "unix"."""

    def __init__(self, over: str, folder: Path, series: Sequence[models.Series] = models.SERIES) -> None:
        self.timeline = RealTimeline()
        self.firmwares = [Firmware() for _ in series]
        self.chips = [
            FtdiChip(s, serial, firmware.fifo, self.timeline)
            for s, serial, firmware in zip(series, SERIALS, self.firmwares, strict=True)
        ]
        self.server: UsbIpServer | None = None
        self.over = over
        self._folder = folder
        self._backends: list[PyUsbBackend] = []
        if over != "direct":
            listen = "127.0.0.1:0" if over == "tcp" else f"unix:{folder}/usbip"
            self.server = UsbIpServer(self.chips, [listen])
        self.backend = self.another_backend()

    def another_backend(self) -> PyUsbBackend:
        """As another program would have it."""
        backend = UsbIpBackend(self.server.addresses[0]) if self.server else SimulatorBackend(self.chips)
        self._backends.append(backend)
        return backend

    def find(self, number: int = 0, backend: PyUsbBackend | None = None) -> usb.core.Device | None:
        product = self.chips[number].series.product_id
        return usb.core.find(backend=backend or self.backend, idVendor=0x0403, idProduct=product)

    def open(self, number: int = 0) -> usb.core.Device:
        """Ready to talk: synchronous FIFO where it is needed, and the shortest latency."""
        device = self.find(number)
        assert device is not None
        usb.util.claim_interface(device, 0)
        device.ctrl_transfer(0x40, 0x0B, 0x40FF, 1)
        device.ctrl_transfer(0x40, 0x09, 1, 1)
        return device

    def push(self, number: int, data: bytes) -> None:
        with self.timeline.lock:
            self.firmwares[number].fifo.push(data)

    def close(self) -> None:
        for backend in self._backends:
            backend.close()
        if self.server is not None:
            self.server.close()
        self.timeline.close()


def strip(data: bytes | array, packet: int) -> bytes:
    """The payload of packets."""
    raw = bytes(data)
    return b"".join(raw[i + STATUS_BYTES : i + packet] for i in range(0, len(raw), packet))


def receive(device: usb.core.Device, count: int, size: int = 4096, timeout: int = TIMEOUT) -> bytes:
    """Read until there are `count` bytes of payload; more is an error."""
    packet = device[0][0, 0][0].wMaxPacketSize
    got = b""
    while len(got) < count:
        got += strip(device.read(0x81, size, timeout), packet)
    assert len(got) == count
    return got
