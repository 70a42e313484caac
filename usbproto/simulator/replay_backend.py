# SPDX-License-Identifier: LGPL-2.1-or-later
"""The cameras of a recording on a USB of their own, for programs that use PyUSB."""

from __future__ import annotations

import errno
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from usbproto import recording
from usbproto.models import VENDOR_ID, Series, series_of
from usbproto.recording import RecordingError
from usbproto.simulator import descriptors
from usbproto.simulator.backend import PyUsbBackend, UsbHandle
from usbproto.simulator.endpoint_zero import EndpointZero
from usbproto.simulator.replay import Played, Replay, connections
from usbproto.simulator.usbtransfer import IN, Setup, UsbFailure

STATUS = b"\x32\x60"
LATENCY = 0.001  # s; an idle chip sends an empty packet as often


@dataclass(frozen=True)
class _Listed:
    serial: str
    series: Series
    address: int


class ReplayBackend(PyUsbBackend[_Listed]):
    """`replay` knows how far the driver has come, and where it left the recording."""

    BUS = 1

    def __init__(self, path: Path) -> None:
        """Raises `RecordingError`, OSError."""
        super().__init__()
        self.replay = Replay(connections(recording.read(path)))
        self._addresses: dict[str, int] = {}
        if not self.replay.waiting:
            raise RecordingError(f"{path}: no camera was opened in it")

    def enumerate_devices(self) -> list[_Listed]:
        found = []
        for serial, product in sorted(self.replay.serials.items()):
            series = series_of(product)
            if series is not None:
                address = self._addresses.setdefault(serial, len(self._addresses) + 1)
                found.append(_Listed(serial, series, address))
        return found

    def get_device_descriptor(self, dev: _Listed) -> SimpleNamespace:
        layout = descriptors.LAYOUTS[dev.series.chip.name]
        fields = descriptors.parse_device(_device(dev.series))
        fields.bus, fields.address, fields.speed = self.BUS, dev.address, layout.speed
        fields.port_number, fields.port_numbers = dev.address, (dev.address,)
        return fields

    def _configuration(self, dev: _Listed) -> bytes:
        return descriptors.configuration_descriptor(dev.series.chip)

    def _open(self, dev: _Listed) -> UsbHandle:
        return _Handle(self.replay, dev)


class _Handle:
    """An opened camera of a recording. What it was asked before it is claimed is no part of the recording."""

    def __init__(self, replay: Replay, dev: _Listed) -> None:
        self._replay = replay
        self._dev = dev
        self._packet = dev.series.chip.packet
        self._played: Played | None = None
        self._dead: int | None = None
        self._rest = memoryview(b"")
        strings = {
            descriptors.MANUFACTURER: "FTDI",
            descriptors.PRODUCT: dev.series.product,
            descriptors.SERIAL: dev.serial,
        }
        self._zero = EndpointZero(
            _device(dev.series),
            descriptors.configuration_descriptor(dev.series.chip),
            strings,
            descriptors.LAYOUTS[dev.series.chip.name].speed,
        )

    def control(self, setup: Setup, data: memoryview, timeout: float | None) -> int:
        if not setup.is_vendor:
            answer = self._zero.answer(setup)[: len(data)]
            data[: len(answer)] = answer
            return len(answer)
        facts = (setup.request_type, setup.request, setup.value, setup.index)
        self._tell("control", " ".join(str(fact) for fact in facts))
        return len(data)

    def bulk(self, endpoint: int, data: memoryview, timeout: float | None) -> int:
        if not endpoint & IN:
            self._tell("write", data.hex())
            return len(data)
        if self._dead is not None:
            raise UsbFailure(self._dead)
        if self._played is None:
            raise UsbFailure(errno.EIO)
        if not self._rest:
            item = self._played.due()
            if item is None:
                time.sleep(LATENCY)
                item = self._played.due()
            if isinstance(item, int):
                self._fail(item)
            elif item is not None:
                self._rest = memoryview(item)
        return self._deliver(data)

    def _deliver(self, data: memoryview) -> int:
        """As many whole packets as there is room for."""
        payload = self._packet - len(STATUS)
        count = 0
        while self._rest and count + self._packet <= len(data):
            piece, self._rest = self._rest[:payload], self._rest[payload:]
            data[count : count + len(STATUS)] = STATUS
            data[count + len(STATUS) : count + len(STATUS) + len(piece)] = piece
            count += len(STATUS) + len(piece)
            if len(piece) < payload:
                break
        if not count:
            data[: len(STATUS)] = STATUS
            count = len(STATUS)
        return count

    def _tell(self, kind: str, text: str) -> None:
        if self._dead is not None:
            raise UsbFailure(self._dead)
        if self._played is None:
            raise UsbFailure(errno.EIO)
        error = self._played.did(kind, text)
        if error is not None:
            self._fail(error)

    def _fail(self, number: int) -> None:
        if number in (errno.ENODEV, errno.EIO, errno.EPROTO):
            self._dead = number
        raise UsbFailure(number)

    def reset(self) -> None:
        """Nothing is forgotten: what a reset did is in the recording."""

    def claim(self, interface: int) -> None:
        played = self._replay.claim(self._dev.serial)
        if isinstance(played, int):
            raise UsbFailure(played)
        self._played = played

    def release(self, interface: int) -> None:
        self.close()

    def kernel_driver_active(self, interface: int) -> bool:
        return False

    def attach_kernel_driver(self, interface: int, attach: bool) -> None:
        """There is no kernel."""

    def close(self) -> None:
        if self._played is not None:
            self._replay.release(self._dev.serial)
            self._played = None


def _device(series: Series) -> bytes:
    layout = descriptors.LAYOUTS[series.chip.name]
    return descriptors.device_descriptor(
        VENDOR_ID, series.product_id, layout.bcd_device, layout.control_packet
    )
