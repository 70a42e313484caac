# SPDX-License-Identifier: LGPL-2.1-or-later
"""A frame: a picture file in shared memory, handed around by reference."""

from __future__ import annotations

from threading import Lock
from types import TracebackType

from indi_qsi.links.sharedmemory import SharedMemory, Spare

spare = Spare()


class Frame:
    """`size` bytes of shared memory, in `buffer`, to be filled once and then sent.

    Whoever makes a frame holds one reference and gives it back by `release` (or by leaving a `with`
    block); each link takes its own. The last release frees the memory. A frame that has been sent
    must not be written to: its readers look at the same memory.
    """

    def __init__(self, size: int, format: str, name: str = "frame", *, used: bool = False) -> None:
        """The memory is zero, or, if `used`, maybe full of an older frame that nobody reads any more: then
        every byte has to be written. Raises ValueError for a size below 1, OSError when there is no memory.
        """
        if size < 1:
            # An empty memory cannot be mapped, and makes indiserver give up.
            raise ValueError("a frame needs at least one byte")
        self.size = size
        self.format = format
        self._holders = 1
        self._lock = Lock()
        self._used = used
        self._memory = (spare.take(size) if used else None) or SharedMemory(size, name)

    @property
    def buffer(self) -> memoryview:
        """The memory: `size` bytes, writable. Raises ValueError after the last release."""
        if not self._holders:
            raise ValueError("the frame has been released")
        return self._memory.buffer

    def fileno(self) -> int:
        """The descriptor of the memory. Raises ValueError after the last release."""
        if not self._holders:
            raise ValueError("the frame has been released")
        return self._memory.fd

    def share(self) -> int:
        """The descriptor to give to readers in other processes. Raises ValueError after the last release."""
        with self._lock:
            if not self._holders:
                raise ValueError("the frame has been released")
            return self._memory.reader()

    def seal(self) -> None:
        """From now on nobody can change the size, so no reader can fall off its end."""
        self.fileno()
        self._memory.seal()

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
        if self._used:
            spare.keep(self._memory)
        else:
            self._memory.close()

    def __enter__(self) -> Frame:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()
