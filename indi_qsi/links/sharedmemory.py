# SPDX-License-Identifier: LGPL-2.1-or-later
"""Shared memory for frames, and the little of it that is kept for the next ones.

Fresh memory costs the kernel more than everything else that is done with a picture: 10 ms for 17 MB, of which
a copy takes a tenth. But readers may look at what they were given for as long as they like. So they are given
a descriptor that only reads, of an opening of its own; and memory is used again only when the kernel says
that no such opening is left, be it a descriptor or a mapping, in whatever process: only then does it grant
a lease for writing.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
from contextlib import suppress
from threading import Lock

_SHARED_MEMORY = "/dev/shm"

PIECES_KEPT = 2

# Not F_SEAL_WRITE: before Linux 6.7 nobody could map the memory any more, not even to read.
_SEALS = fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class SharedMemory:
    """`size` bytes, zero at first. Not guarded against threads."""

    def __init__(self, size: int, name: str) -> None:
        """Raises OSError when there is no memory."""
        self.size = size
        self._reader: int | None = None
        self.in_sight = True  # whether it can be known who reads it
        self.fd = _open(name)
        try:
            os.ftruncate(self.fd, size)
            self._map = mmap.mmap(self.fd, size)
            # Should a stranger open it during a lease, the kernel says so by a signal: one that ends nobody.
            fcntl.fcntl(self.fd, fcntl.F_SETSIG, signal.SIGURG)
        except BaseException:
            os.close(self.fd)
            raise
        self.buffer = memoryview(self._map)

    def reader(self) -> int:
        """A descriptor to give away, which only reads. It stays ours to close."""
        if self._reader is None:
            try:
                self._reader = _opened_again(self.fd, os.O_RDONLY)
            except OSError:
                self._reader = os.dup(self.fd)
                self.in_sight = False
        return self._reader

    def seal(self) -> None:
        """From now on nobody can change the size, so no reader can fall off its end."""
        with suppress(OSError):  # A temporary file has no seals; it works without them.
            fcntl.fcntl(self.fd, *_SEALS)

    def withdraw(self) -> bool:
        """Nobody else shall read it any more: whether nobody does, so that it may be written again.

        Only for what is `in_sight`.
        """
        if self._reader is not None:
            os.close(self._reader)
            self._reader = None
        try:
            self.buffer.release()
            # To the size that it has: this fails when somebody in this process still looks at it, and does
            # nothing else. The pages stay mapped.
            self._map.resize(self.size)
            fcntl.fcntl(self.fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            fcntl.fcntl(self.fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except (OSError, BufferError):
            return False
        finally:
            self.buffer = memoryview(self._map)
        return True

    def close(self) -> None:
        for fd in (self.fd, self._reader):
            if fd is not None:
                os.close(fd)
        try:
            self.buffer.release()
            self._map.close()
        except BufferError:
            # Somebody still looks at it, a numpy array perhaps. The map goes when they do.
            del self._map


class Spare:
    """Keeps memory of past frames for the next ones, of the same size and without readers.

    Two pieces, because many clients look at a picture until the next one is there.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: list[SharedMemory] = []

    def take(self, size: int) -> SharedMemory | None:
        """Memory of this size, full of what was in it; None when there is none to be had."""
        with self._lock:
            for memory in self._kept:
                if memory.size == size and memory.withdraw():
                    self._kept.remove(memory)
                    return memory
            self._keep_only([memory for memory in self._kept if memory.size == size])
        return None

    def keep(self, memory: SharedMemory) -> None:
        """Takes over memory that its owner has no more use for."""
        if not memory.in_sight:
            memory.close()
            return
        with self._lock:
            self._keep_only([*self._kept, memory][-PIECES_KEPT:])

    def drop(self) -> None:
        """Keeps nothing any more."""
        with self._lock:
            self._keep_only([])

    def _keep_only(self, memories: list[SharedMemory]) -> None:
        dropped = [memory for memory in self._kept if memory not in memories]
        self._kept = memories
        for memory in dropped:
            memory.close()


def _open(name: str) -> int:
    if hasattr(os, "memfd_create"):
        with suppress(OSError):  # A kernel without it, or a sandbox that forbids it.
            fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            try:
                # The kernel does not count the first opening among those that a lease looks at.
                again = _opened_again(fd, os.O_RDWR)
            except OSError:
                return fd  # There is no /proc; no lease will be granted.
            os.close(fd)
            return again
    return os.open(_SHARED_MEMORY, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)


def _opened_again(fd: int, flags: int) -> int:
    """An opening of its own."""
    return os.open(f"/proc/self/fd/{fd}", flags | os.O_CLOEXEC)
