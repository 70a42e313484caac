# SPDX-License-Identifier: LGPL-2.1-or-later
"""The wire between the simulated FTDI chip and the simulated firmware: a byte queue each way.

The chip calls `host_wrote` with what the host sent; the firmware calls `push` with what it answers and takes
what the host sent by `on_bytes`. Everything happens under the timeline's lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

# What a queue takes: bytes or flat memory of bytes (the pixels of a frame are not copied to be queued).
Chunk = bytes | memoryview


class Fifo:
    """`on_bytes` is the firmware's ear, `on_output` the chip's: called when there is something to send."""

    def __init__(self) -> None:
        self.on_bytes: Callable[[bytes], None] = lambda data: None
        self.on_output: Callable[[], None] = lambda: None
        self._output: deque[memoryview] = deque()
        self._waiting = 0

    def __len__(self) -> int:
        """Bytes that wait for the host."""
        return self._waiting

    def host_wrote(self, data: bytes) -> None:
        self.on_bytes(data)

    def push(self, data: Chunk) -> None:
        """Firmware to host."""
        view = memoryview(data).cast("B") if not isinstance(data, bytes) else memoryview(data)
        if len(view):
            self._output.append(view)
            self._waiting += len(view)
            self.on_output()

    def take(self, limit: int) -> list[memoryview]:
        """At most `limit` bytes for the host, in pieces, oldest first."""
        pieces: list[memoryview] = []
        while limit and self._output:
            piece = self._output[0]
            if len(piece) <= limit:
                self._output.popleft()
            else:
                self._output[0] = piece[limit:]
                piece = piece[:limit]
            pieces.append(piece)
            limit -= len(piece)
            self._waiting -= len(piece)
        return pieces

    def clear(self) -> None:
        """Forget what waits for the host (purge, power loss)."""
        self._output.clear()
        self._waiting = 0
