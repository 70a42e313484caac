# SPDX-License-Identifier: LGPL-2.1-or-later
"""The queue of what is to be sent on one link, and the limits of what may wait in it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Condition

from indi_qsi.properties.ports import BlobItem

# Frames that may wait for one link, and bytes of them when there are more than one. Small ones may come
# faster than a client is awake. Of the large ones (17 MB) one waits, while one is sent and one is made: what
# a computer with 1 GB can spare. A client that takes a frame in the time between two needs no more.
MAX_FRAMES_WAITING = 2
MAX_FRAME_BYTES = 17_000_000

# Bytes of messages that may wait for one link: thousands of updates. A peer that far behind does
# not read any more.
MAX_CONTROL_BYTES = 4_000_000

# Messages are joined up to this many bytes: fewer system calls, and small beside a socket's buffer.
JOIN_BYTES = 64 * 1024


class Outbox:
    """Messages and frames in the order of posting. Posting never waits.

    A message that finds nothing before it need not wait until the writer's thread wakes up: who posts it may
    send at once what the peer takes.

    Of too many frames the oldest one is dropped: the newest picture is the one of interest.
    """

    def __init__(self) -> None:
        self._queue: deque[bytes | BlobItem] = deque()
        self._condition = Condition()
        self._control_bytes = 0
        self._closed = False
        self._idle = True

    def post(self, data: bytes, offer: Callable[[bytes], int] | None = None) -> bool:
        """Appends messages. False if too much is waiting: then the peer should be dropped.

        While nothing waits or is being sent, they go to `offer`, which must not wait; what is left behind the
        number of bytes that it returns is appended.
        """
        with self._condition:
            if self._closed:
                return True
            if offer is not None and self._idle and not self._queue:
                data = data[offer(data) :]
                if not data:
                    return True
            if self._control_bytes + len(data) > MAX_CONTROL_BYTES:
                return False
            self._queue.append(data)
            self._control_bytes += len(data)
            self._condition.notify_all()
            return True

    def make_room(self, size: int) -> list[tuple[str, str]]:
        """A frame of so many bytes is coming: drops the older ones that cannot wait beside it.

        Returns device and vector of each. Before the frame is made, so that their memory is free for it.
        """
        skipped = []
        with self._condition:
            waiting = [item for item in self._queue if isinstance(item, BlobItem)]
            while waiting and not self._fits([item.frame.size for item in waiting], size):
                oldest = waiting.pop(0)
                self._queue.remove(oldest)
                skipped.append((oldest.device, oldest.name))
                oldest.frame.release()
        return skipped

    @staticmethod
    def _fits(waiting: list[int], size: int) -> bool:
        return len(waiting) < MAX_FRAMES_WAITING and sum(waiting) + size <= MAX_FRAME_BYTES

    def post_blob(self, item: BlobItem) -> None:
        """Appends a frame, with its reference. Make room before."""
        with self._condition:
            if self._closed:
                item.frame.release()
                return
            self._queue.append(item)
            self._condition.notify_all()

    def take(self) -> bytes | BlobItem | None:
        """The next messages, or frame, whose reference then is the caller's; waits for one.

        None when the box has been closed. Asking for the next means that the last has been sent.
        """
        with self._condition:
            self._idle = True
            self._condition.notify_all()
            while not self._queue:
                if self._closed:
                    return None
                self._condition.wait()
            self._idle = False
            first = self._queue.popleft()
            if isinstance(first, BlobItem):
                return first
            joined = [first]
            length = len(first)
            while self._queue and length < JOIN_BYTES:
                following = self._queue[0]
                if isinstance(following, BlobItem):
                    break
                joined.append(following)
                length += len(following)
                self._queue.popleft()
            self._control_bytes -= length
            return b"".join(joined)

    def flush(self, timeout: float) -> bool:
        """Waits until everything has been sent, at most `timeout` seconds; True if it has."""
        with self._condition:
            return self._condition.wait_for(lambda: not self._queue and self._idle, timeout)

    @property
    def closed(self) -> bool:
        """Whether `close` has been called."""
        return self._closed

    def close(self) -> None:
        """Throws away what waits, and makes `take` return None. May be called again."""
        with self._condition:
            self._closed = True
            for item in self._queue:
                if isinstance(item, BlobItem):
                    item.frame.release()
            self._queue.clear()
            self._control_bytes = 0
            self._condition.notify_all()
