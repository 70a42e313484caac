# SPDX-License-Identifier: LGPL-2.1-or-later
"""The FTDI chip of a simulated camera: vendor requests, the latency timer, packets with two status bytes.

What the host reads: packets of 64 (FT245) or 512 bytes (FT2232H), each led by modem and line status. Full
packets are sent as soon as they are full. What does not fill a packet, or nothing at all, is sent when the
latency timer, which starts anew with every packet, runs out; that short packet ends the host's transfer. If
it runs out while nobody reads, the packet waits as it was then: what the camera says later is in the next.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from usbproto import models
from usbproto.simulator import descriptors
from usbproto.simulator.endpoint_zero import EndpointZero
from usbproto.simulator.fifo import Fifo
from usbproto.simulator.timeline import Timeline
from usbproto.simulator.usbdevice import UsbDevice
from usbproto.simulator.usbtransfer import Setup, Transfer, UsbFailure

STATUS_BYTES = 2
# Modem status: CTS and DSR on, and in the low bits 1 for 64-byte packets, 2 for 512. Line status: all sent.
FULL_SPEED_STATUS, HIGH_SPEED_STATUS = b"\x31\x60", b"\x32\x60"

DEFAULT_LATENCY = 0.016  # s, of a chip that was just powered
LATENCY_UNIT = 0.001  # s
SYNC_FIFO = 0x40  # bit mode
MANUFACTURER = "QSI"

# The reader of a throttled chip is woken this often for more: seldom enough to cost nothing, often enough to
# look steady.
THROTTLE_STEP = 0.004  # s
# The lock is let go between pieces of this size, so that a huge read does not shut out everybody else.
PIECE = 1 << 20  # bytes

CORRUPTION = 0xFF  # bits that `corrupt` turns over


@dataclass
class Channel:
    """Settings of one channel as the host made them, and its latency timer (`last`: monotonic, s)."""

    latency: float = DEFAULT_LATENCY
    bit_mode: int = 0
    divisor: int = 0
    flow_control: int = 0
    last: float = 0.0
    armed: int | None = None  # payload bytes of the packet that was made when the timer ran out

    @property
    def due(self) -> float:
        return self.last + self.latency


class FtdiChip(UsbDevice):
    """`rate` is the limit of the payload to the host in bytes/s, None for as fast as it goes.

    While the host does not read, a chip with a `rate` takes from the camera no more than its buffer holds.

    `trailing_a` adds the channel letter to serial number and product, as some dual-channel chips do.
    """

    def __init__(
        self,
        series: models.Series,
        serial: str,
        fifo: Fifo,
        timeline: Timeline,
        *,
        rate: float | None = None,
        trailing_a: bool = False,
    ) -> None:
        chip, layout = series.chip, descriptors.LAYOUTS[series.chip.name]
        product = series.product + (" A" if trailing_a else "")
        strings = {
            descriptors.MANUFACTURER: MANUFACTURER,
            descriptors.PRODUCT: product,
            descriptors.SERIAL: serial + ("A" if trailing_a else ""),
        }
        device = descriptors.device_descriptor(
            models.VENDOR_ID, series.product_id, layout.bcd_device, layout.control_packet
        )
        configuration = descriptors.configuration_descriptor(chip)
        zero = EndpointZero(device, configuration, strings, layout.speed)
        super().__init__(timeline, zero, layout.speed)
        self.series = series
        self.serial = serial
        self.rate = rate
        self._in, self._out = layout.interfaces[0]
        self._take_speed(layout.speed)
        self._needs_sync_fifo = chip.sync_fifo
        self._fifo = fifo
        self._endpoints = layout.interfaces
        self._stray = b""
        self._to_drop = 0
        self._to_corrupt = 0
        self._babble = False
        self._buffer = layout.buffer
        self._came, self._came_at = 0.0, 0.0  # bytes from the camera at `rate` that are still here, and when
        self._throttled: Transfer | None = None  # the transfer that was served last at `rate`
        self._power_on()
        fifo.on_output = self._output_arrived

    def _take_speed(self, speed: int) -> None:
        fast = speed == descriptors.HIGH_SPEED
        self._packet = self.series.chip.packet if fast else descriptors.FULL_SPEED_PACKET
        self._payload = self._packet - STATUS_BYTES
        self._status = HIGH_SPEED_STATUS if fast else FULL_SPEED_STATUS

    def limit_speed(self, limit: int) -> None:
        """The hub before the chip is no faster than `limit` (a speed of `descriptors`).

        The chip is enumerated again if that changes its speed.
        """
        with self._changed:
            own = descriptors.LAYOUTS[self.series.chip.name].speed
            speed = min(own, limit)
            if speed == self.speed:
                return
            self.speed = speed
            self._take_speed(speed)
            self._zero.configuration = descriptors.configuration_descriptor(self.series.chip, self._packet)
            self.enumerate_again()

    # --- faults ---

    def stall_in(self) -> None:
        """The host's reads fail with EPIPE until it clears the halt."""
        self.halt(self._in)

    def stall_out(self) -> None:
        """The host's writes fail with EPIPE until it clears the halt."""
        self.halt(self._out)

    def silence_in(self, seconds: float) -> None:
        """Not even status packets come for so long (real time): reads time out."""
        self.silence(self._in, seconds)

    def silence_out(self, seconds: float) -> None:
        """Nothing is taken for so long (real time): writes time out."""
        self.silence(self._out, seconds)

    def drop(self, count: int) -> None:
        """The next `count` bytes to the host are lost."""
        with self._changed:
            self._to_drop += count

    def insert(self, data: bytes) -> None:
        """Stray bytes, ahead of what waits for the host."""
        with self._changed:
            self._stray += data
            self._output_arrived()

    def corrupt(self, count: int) -> None:
        """The next `count` bytes to the host arrive with all their bits turned over."""
        with self._changed:
            self._to_corrupt += count

    def babble(self) -> None:
        """The next read fails with EOVERFLOW, as if more had come than was asked for."""
        with self._changed:
            self._babble = True
            self._changed.notify_all()

    # --- vendor requests ---

    def _power_on(self) -> None:
        self._channels = [Channel() for _ in self._endpoints]
        self._purge_in()

    def _purge_in(self) -> None:
        self._fifo.clear()
        self._stray = b""
        self._seen = 0
        self._channels[0].armed = None

    def _vendor_request(self, setup: Setup, data: bytes) -> bytes:
        handler = _REQUESTS.get((setup.request_type, setup.request))
        # The low byte names the channel, from 1; 0 is the first one. One channel answers to both.
        channel = max(0, (setup.index & 0xFF) - 1)
        if handler is None or channel >= len(self._channels):
            raise UsbFailure(errno.EPIPE)
        answer = handler(self, self._channels[channel], setup)
        self._changed.notify_all()
        return answer

    def _reset(self, channel: Channel, setup: Setup) -> bytes:
        """0 empties both directions, 1 host to device, where nothing ever waits, 2 device to host."""
        if setup.value > 2:
            raise UsbFailure(errno.EPIPE)
        if setup.value != 1 and channel is self._channels[0]:
            self._purge_in()
        return b""

    def _set_baud(self, channel: Channel, setup: Setup) -> bytes:
        channel.divisor = setup.value
        return b""

    def _set_flow_control(self, channel: Channel, setup: Setup) -> bytes:
        channel.flow_control = setup.index >> 8
        return b""

    def _set_latency(self, channel: Channel, setup: Setup) -> bytes:
        channel.latency = max(1, setup.value & 0xFF) * LATENCY_UNIT
        return b""

    def _get_latency(self, channel: Channel, setup: Setup) -> bytes:
        return bytes((round(channel.latency / LATENCY_UNIT),))

    def _set_bit_mode(self, channel: Channel, setup: Setup) -> bytes:
        channel.bit_mode = setup.value >> 8
        return b""

    def _modem_status(self, channel: Channel, setup: Setup) -> bytes:
        return self._status

    def _nothing(self, channel: Channel, setup: Setup) -> bytes:
        """A setting of a serial port, without meaning for a FIFO."""
        return b""

    # --- data ---

    @property
    def _flows(self) -> bool:
        """Whether chip and camera hear each other."""
        return not self._needs_sync_fifo or self._channels[0].bit_mode == SYNC_FIFO

    def _output_arrived(self) -> None:
        """The camera has something to say."""
        channel = self._channels[0]
        seen = self._seen if self._flows else 0
        if channel.armed is None and seen < self._payload and time.monotonic() >= channel.due:
            channel.armed = seen
        self._note_waiting()
        self._changed.notify_all()

    def _note_waiting(self) -> None:
        self._seen = len(self._stray) + len(self._fifo)

    def _waiting(self) -> int:
        """Payload bytes that can be sent now."""
        if not self._flows:
            return 0
        if self._to_drop:
            self._to_drop -= sum(len(piece) for piece in self._fifo.take(self._to_drop))
        return len(self._stray) + len(self._fifo)

    def _take(self, count: int) -> npt.NDArray[np.uint8]:
        stray, self._stray = self._stray[:count], self._stray[count:]
        pieces = self._fifo.take(count - len(stray))
        if stray:
            pieces.insert(0, memoryview(stray))
        data = np.frombuffer(pieces[0] if len(pieces) == 1 else b"".join(pieces), np.uint8)
        if self._to_corrupt and len(data):
            data = data.copy()
            data[: self._to_corrupt] ^= CORRUPTION
            self._to_corrupt = max(0, self._to_corrupt - len(data))
        self._note_waiting()
        return data

    def _serve_out(self, endpoint: int, data: bytes) -> None:
        if endpoint == self._out and self._flows:
            self._fifo.host_wrote(data)

    def _serve_in(self, transfer: Transfer, now: float) -> float:
        first = transfer.endpoint == self._in
        channel = self._channels[0 if first else 1]
        if first and self._babble:
            self._babble = False
            raise UsbFailure(errno.EOVERFLOW)
        waiting = self._waiting() if first else 0
        room = len(transfer.buffer) - transfer.actual
        if not room:
            transfer.complete = True
            return now
        if channel.armed is not None:
            return self._send_short(channel, transfer, min(channel.armed, waiting), now)
        if waiting < self._payload:
            if now < channel.due:
                return channel.due
            return self._send_short(channel, transfer, waiting, now)
        if room < self._packet:  # the host left no room for a whole packet, and one comes
            self._take(self._payload)
            raise UsbFailure(errno.EOVERFLOW)
        packets = min(waiting // self._payload, room // self._packet, PIECE // self._packet)
        if self.rate is not None:
            here = self._here(transfer, now, self.rate)
            if not here:
                missing = packets * self._payload - self._came
                return now + max(
                    min(missing / self.rate, THROTTLE_STEP), (self._payload - self._came) / self.rate
                )
            packets = min(packets, here)
            self._came -= packets * self._payload
        self._send_full(transfer, packets)
        channel.last = now
        transfer.complete = transfer.actual == len(transfer.buffer)
        return now

    def _send_full(self, transfer: Transfer, packets: int) -> None:
        end = transfer.actual + packets * self._packet
        into = np.frombuffer(transfer.buffer[transfer.actual : end], np.uint8).reshape(packets, self._packet)
        into[:, 0], into[:, 1] = self._status
        into[:, STATUS_BYTES:] = self._take(packets * self._payload).reshape(packets, self._payload)
        transfer.actual = end

    def _send_short(self, channel: Channel, transfer: Transfer, count: int, now: float) -> float:
        channel.armed, channel.last = None, now
        count = min(count, self._payload)
        packet = self._status + (self._take(count).tobytes() if count else b"")
        end = transfer.actual + len(packet)
        if end > len(transfer.buffer):
            raise UsbFailure(errno.EOVERFLOW)
        transfer.buffer[transfer.actual : end] = packet
        transfer.actual = end
        transfer.complete = len(packet) < self._packet or end == len(transfer.buffer)
        return now

    def _here(self, transfer: Transfer, now: float, rate: float) -> int:
        """How many full packets have come from the camera."""
        self._came += (now - self._came_at) * rate
        self._came_at = now
        if transfer is not self._throttled:  # nobody has read since the last one
            self._throttled = transfer
            self._came = min(self._came, self._buffer)
        return int(self._came) // self._payload


_Handler = Callable[[FtdiChip, Channel, Setup], bytes]
_OUT, _IN = 0x40, 0xC0
_REQUESTS: dict[tuple[int, int], _Handler] = {
    (_OUT, 0x00): FtdiChip._reset,
    (_OUT, 0x01): FtdiChip._nothing,  # modem control
    (_OUT, 0x02): FtdiChip._set_flow_control,
    (_OUT, 0x03): FtdiChip._set_baud,
    (_OUT, 0x04): FtdiChip._nothing,  # data format
    (_IN, 0x05): FtdiChip._modem_status,
    (_OUT, 0x06): FtdiChip._nothing,  # event character
    (_OUT, 0x07): FtdiChip._nothing,  # error character
    (_OUT, 0x09): FtdiChip._set_latency,
    (_IN, 0x0A): FtdiChip._get_latency,
    (_OUT, 0x0B): FtdiChip._set_bit_mode,
}
