# SPDX-License-Identifier: LGPL-2.1-or-later
"""The limit: one frame read from the simulator by pyusb alone, and one packet there and back.

    python -m tests.bench.bare ADDRESS FRAMES ROUND_TRIPS       prints JSON

A program of its own, so that its processor time is its own. It counts the bytes and throws them away.
"""

from __future__ import annotations

import json
import sys
import time
from array import array
from typing import Any

import usb.core
import usb.util

from usbproto import ftdi
from usbproto import packets as p
from usbproto.models import FT2232H, VENDOR_ID
from usbproto.simulator.usbip_client import UsbIpBackend
from usbproto.timing import FAST

# bytes. A yardstick must not change when the driver does: all its figures were taken with this size.
BLOCK = 256 * 1024
LARGE_BLOCK = ftdi.LARGE_BLOCKS[512]  # and beside it, what the driver asks for today
PACKET = FT2232H.packet
TIMEOUT = 5000  # ms
EXPOSURE = p.StartExposureEx(duration_10ms=10, columns=3326, rows=2504, bin_x=1, bin_y=1, open_shutter=True)


class Bare:
    """The chip set up as the driver does it, and nothing more."""

    def __init__(self, address: str) -> None:
        self._device: Any = usb.core.find(backend=UsbIpBackend(address), idVendor=VENDOR_ID)
        self.block = array("B", bytes(BLOCK))
        self._device.set_configuration(1)
        usb.util.claim_interface(self._device, 0)
        for request, value, index in (
            (ftdi.SIO_RESET, 0, 1),
            (ftdi.SIO_SET_BIT_MODE, ftdi.BIT_MODE_RESET, 1),
            (ftdi.SIO_SET_BIT_MODE, ftdi.BIT_MODE_SYNC_FIFO, 1),
            (ftdi.SIO_SET_FLOW_CONTROL, 0, ftdi.FLOW_RTS_CTS | 1),
            (ftdi.SIO_SET_LATENCY, FAST.latency_ms, 1),
        ):
            self._device.ctrl_transfer(ftdi.REQUEST_OUT, request, value, index, None, timeout=TIMEOUT)

    def close(self) -> None:
        usb.util.dispose_resources(self._device)

    def _send(self, command: p.Command[Any, Any], request: p.Payload) -> None:
        self._device.write(ftdi.ENDPOINT_OUT, p.encode_request(command, request), TIMEOUT)

    def ask(self, command: p.Command[Any, Any], request: p.Payload) -> bytes:
        """One packet out, one in."""
        self._send(command, request)
        answer = b""
        while len(answer) < 2 or len(answer) < 2 + answer[1]:
            count = self._device.read(ftdi.ENDPOINT_IN, self.block, TIMEOUT)
            answer += self.block[2:count].tobytes()
        if answer[-1]:
            raise RuntimeError(f"the camera answered {answer.hex()}")
        return answer

    def pull(self, command: p.Command[Any, Any], size: int) -> None:
        """A command whose answer is followed by data: `size` bytes in all."""
        self._send(command, p.Empty())
        while size > 0:
            count = self._device.read(ftdi.ENDPOINT_IN, self.block, TIMEOUT)
            size -= count - 2 * -(-count // PACKET)

    def frame(self) -> tuple[float, float]:
        """Takes a frame; the seconds and the processor time, s, of its download."""
        self.ask(p.START_EXPOSURE_EX, EXPOSURE)
        while self.ask(p.GET_DEVICE_STATE, p.Empty())[2] != p.CameraState.IDLE:
            time.sleep(0.01)
        start, cpu = time.perf_counter(), time.process_time()
        self.pull(p.TRANSFER_IMAGE, 3 + EXPOSURE.columns * EXPOSURE.rows * 2)
        return time.perf_counter() - start, time.process_time() - cpu


def main() -> None:
    address, frames, trips = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    bare = Bare(address)
    bare.ask(p.INIT, p.Empty())
    taken = [bare.frame() for _ in range(frames)]
    bare.block = array("B", bytes(LARGE_BLOCK))
    large = [bare.frame() for _ in range(frames)]
    bare.ask(p.INIT, p.Empty())
    round_trips = []
    for _ in range(trips):
        start = time.perf_counter()
        bare.ask(p.GET_DEVICE_STATE, p.Empty())
        round_trips.append(time.perf_counter() - start)
    bare.close()
    figures = {
        "read": [t[0] for t in taken],
        "cpu": [t[1] for t in taken],
        "large_cpu": [t[1] for t in large],
        "trip": round_trips,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
