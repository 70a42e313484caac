# SPDX-License-Identifier: LGPL-2.1-or-later
"""A simulated camera in time that stands still until told, spoken to packet by packet."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from usbproto import packets as p
from usbproto.simulator.camera import SimulatedCamera
from usbproto.simulator.timeline import ManualTimeline

Facts = dict[str, Any]


class Bench:
    """`happened` has every event as (time, name, facts)."""

    def __init__(self, model: str = "683wsg", **options: Any) -> None:
        self.time = ManualTimeline()
        self.happened: list[tuple[float, str, Facts]] = []
        self.camera = SimulatedCamera(model, timeline=self.time, listener=self._note, **options)
        self.firmware = self.camera.firmware
        self.hardware = self.camera.hardware

    def _note(self, name: str, facts: Facts) -> None:
        self.happened.append((self.time.now(), name, facts))

    def events(self, name: str) -> list[Facts]:
        return [facts for _, happened, facts in self.happened if happened == name]

    def when(self, name: str) -> list[float]:
        return [time for time, happened, _ in self.happened if happened == name]

    def write(self, data: bytes) -> None:
        with self.time.lock:
            self.camera.fifo.host_wrote(data)

    def read(self, limit: int = 1 << 30) -> bytes:
        with self.time.lock:
            return b"".join(bytes(piece) for piece in self.camera.fifo.take(limit))

    def exchange(self, packet: bytes, patience: float = 20.0) -> bytes:
        """Everything that comes back, up to `patience` simulated seconds later."""
        self.write(packet)
        while patience > 0 and not len(self.camera.fifo):
            self.time.advance(0.05)
            patience -= 0.05
        return self.read()

    def ask(self, command: p.Command[Any, p.R], request: p.Payload | None = None) -> p.R:
        """The answer, checked. Raises as `decode_answer` does."""
        answer = self.exchange(p.encode_request(command, request or p.Empty()))
        return p.decode_answer(command, answer)

    def state(self) -> p.CameraState:
        return self.ask(p.GET_DEVICE_STATE).state

    def start(self, seconds: float = 1.0, size: tuple[int, int] | None = None, **more: Any) -> None:
        columns, rows = size or self.hardware.sensor.active
        request: dict[str, Any] = {
            "duration_10ms": round(seconds * 10_000) // 100,
            "column_offset": 0,
            "row_offset": 0,
            "columns": columns,
            "rows": rows,
            "bin_x": 1,
            "bin_y": 1,
            "open_shutter": True,
        }
        request.update(more)
        if self.camera.model.extended:
            ticks = round(seconds * 10_000) % 100
            self.ask(p.START_EXPOSURE_EX, p.StartExposureEx(remainder_100us=ticks, **request))
        else:
            self.ask(p.START_EXPOSURE, p.StartExposure(**request))

    def wait_idle(self, patience: float = 20_000.0) -> None:
        """Until the picture is in the camera's memory."""
        end = self.time.now() + patience
        while self.firmware.imager.state is not p.CameraState.IDLE:
            assert self.time.now() < end, f"still {self.firmware.imager.state.name}"
            self.time.advance(0.05)

    def transfer(self) -> np.ndarray:
        """The pixels over the wire, as a flat array."""
        data = self.exchange(p.encode_request(p.TRANSFER_IMAGE, p.Empty()))
        assert data[:3] == b"\x45\x01\x00", data[:8].hex()
        return np.frombuffer(data[3:], "<u2")

    def picture(self, seconds: float = 1.0, size: tuple[int, int] | None = None, **more: Any) -> np.ndarray:
        """Expose, read, transfer: rows x columns."""
        self.start(seconds, size, **more)
        self.wait_idle()
        pixels = self.transfer()
        frame = self.camera.last_frame
        assert frame is not None
        return pixels.reshape(frame.shape).astype(float)


@contextlib.contextmanager
def bench(model: str = "683wsg", **options: Any) -> Iterator[Bench]:
    made = Bench(model, **options)
    try:
        yield made
    finally:
        made.camera.close()
