# SPDX-License-Identifier: LGPL-2.1-or-later
"""What came over an FTDI channel: status bytes are taken off, answers kept, pixels hashed. Pure.

Whoever listens uses it: the recorder below the driver, and the reader of captures of other programs.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable
from typing import Any

from usbproto.packets import HEADER_BYTES, packet_length

ENDPOINT_IN, ENDPOINT_OUT = 0x81, 0x02  # of channel A (wire protocol, section 1)
VENDOR_OUT = 0x40  # type of the requests that set a chip up
STATUS_BYTES = 2  # at the head of every IN packet (section 1.1)
# Bytes. No answer is longer; what is longer are pixels.
ANSWER = 1024
# s without a byte; what comes afterwards came by itself, or late, and is a line of its own.
GAP = 0.2
# Bytes of one image that are kept whole. The largest has 17 MB.
MAX_PIXELS = 32 << 20


def payload(block: bytes | memoryview, packet: int) -> bytes:
    """What the packets of `packet` bytes carry, without the status bytes of each."""
    return b"".join(block[at + STATUS_BYTES : at + packet] for at in range(0, len(block), packet))


def payload_length(length: int, packet: int) -> int:
    """Bytes that a block of `length` bytes carries."""
    whole, rest = divmod(length, packet)
    return whole * (packet - STATUS_BYTES) + max(0, rest - STATUS_BYTES)


class Received:
    """What came since the last line: an answer, and perhaps pixels behind it. `at` is in s.

    `keep`: pixels are kept, and not only hashed.
    """

    def __init__(self, keep: bool, at: float) -> None:
        self._keep = keep
        self.first = self.last = at
        self._answer = bytearray()
        self._length = 0  # of pixels
        self._lost = 0  # bytes that came and that the listener does not have
        self._pixels = bytearray()
        self._hash: Any = None  # of pixels, once there are some

    def add(self, payload: bytes, at: float, lost: int = 0) -> None:
        """`lost` is the number of bytes that came behind `payload` without being captured."""
        self.last = at
        self._lost += lost
        self._length += lost
        if self._hash is None:
            self._answer += payload
            if len(self._answer) + self._lost <= ANSWER:
                return
            head = packet_length(bytes(self._answer[:HEADER_BYTES])) if len(self._answer) > 1 else 0
            payload = bytes(self._answer[head:])
            del self._answer[head:]
            self._hash = hashlib.sha256()
        self._hash.update(payload)
        self._length += len(payload)
        if self._keep and self._length <= MAX_PIXELS:
            self._pixels += payload

    def facts(self, masked: Callable[[bytes], bytes]) -> dict[str, Any]:
        """The facts of a line "read"; `masked` replaces serial numbers in the answer."""
        facts: dict[str, Any] = {"data": masked(bytes(self._answer)).hex()}
        if self._hash is not None:
            facts["length"] = self._length
            if not self._lost:
                facts["sha256"] = self._hash.hexdigest()
            facts["took"] = round(self.last - self.first, 3)
        if self._lost:
            facts["lost"] = self._lost
        if self._length and self._length == len(self._pixels):
            facts["pixels"] = base64.b64encode(zlib.compress(self._pixels, 1)).decode()
        return facts
