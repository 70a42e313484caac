# SPDX-License-Identifier: LGPL-2.1-or-later
"""A frame: a picture file in shared memory, handed around by reference."""

from __future__ import annotations

import fcntl
import mmap
import os
from contextlib import suppress
from threading import Lock
from types import TracebackType

_SHARED_MEMORY = "/dev/shm"

# Not F_SEAL_WRITE: before Linux 6.7 nobody could map the memory any more, not even to read.
_SEALS = fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Frame:
    """`size` bytes of shared memory, in `buffer`, to be filled once and then sent.

    Whoever makes a frame holds one reference and gives it back by `release` (or by leaving a `with`
    block); each link takes its own. The last release frees the memory. A frame that has been sent
    must not be written to: its readers look at the same memory.
    """

    def __init__(self, size: int, format: str, name: str = "frame") -> None:
        """Raises ValueError for a size below 1, OSError when there is no memory."""
        if size < 1:
            # An empty memory cannot be mapped, and makes indiserver give up.
            raise ValueError("a frame needs at least one byte")
        self.size = size
        self.format = format
        self._holders = 1
        self._lock = Lock()
        self._fd = _shared_memory(name)
        try:
            os.ftruncate(self._fd, size)
            self._map = mmap.mmap(self._fd, size)
        except BaseException:
            os.close(self._fd)
            raise
        self._buffer = memoryview(self._map)

    @property
    def buffer(self) -> memoryview:
        """The memory: `size` bytes, writable. Raises ValueError after the last release."""
        if not self._holders:
            raise ValueError("the frame has been released")
        return self._buffer

    def write(self, at: int, data: memoryview) -> None:
        """Fills a part, from byte `at` on. Raises OSError when there is no memory, ValueError for bytes that
        do not fit and after the last release.

        Half as costly as by way of `buffer`, where each page of fresh memory is a page fault.
        """
        if at < 0 or at + len(data) > self.size:
            raise ValueError(f"{len(data)} bytes at {at} do not fit into {self.size}")
        while data:
            written = os.pwrite(self.fileno(), data, at)
            data, at = data[written:], at + written

    def fileno(self) -> int:
        """The descriptor of the memory. Raises ValueError after the last release."""
        if not self._holders:
            raise ValueError("the frame has been released")
        return self._fd

    def seal(self) -> None:
        """From now on nobody can change the size, so no reader can fall off its end."""
        with suppress(OSError):  # A temporary file has no seals; it works without them.
            fcntl.fcntl(self.fileno(), *_SEALS)

    def hold(self) -> Frame:
        """Takes one more reference. Raises ValueError after the last release."""
        with self._lock:
            if not self._holders:
                raise ValueError("the frame has been released")
            self._holders += 1
        return self

    def release(self) -> None:
        """Gives a reference back. Raises ValueError when there is none left."""
        with self._lock:
            if not self._holders:
                raise ValueError("the frame has been released too often")
            self._holders -= 1
            if self._holders:
                return
        os.close(self._fd)
        try:
            self._buffer.release()
            self._map.close()
        except BufferError:
            # Somebody still looks at it, a numpy array perhaps. The map goes when they do.
            del self._map

    def __enter__(self) -> Frame:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


def _shared_memory(name: str) -> int:
    if hasattr(os, "memfd_create"):
        try:
            return os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError:
            pass  # A kernel without it, or a sandbox that forbids it.
    return os.open(_SHARED_MEMORY, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
