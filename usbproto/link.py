# SPDX-License-Identifier: LGPL-2.1-or-later
"""One exchange at a time with the camera: deadlines, a drained queue, retries.

A question that got lost is asked again; an order is not repeated, because nobody knows whether it was
carried out. After anything odd the queue is drained until the camera is silent, so that the next exchange
starts clean.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from usbproto.deadline import Deadline
from usbproto.errors import Disconnected, LinkError, ProtocolError, QsiError, TimedOut
from usbproto.exchanges import ExchangeLog
from usbproto.packets import (
    HEADER_BYTES,
    MAX_PACKET,
    Command,
    Kind,
    Payload,
    ReplyTime,
    decode_answer,
    encode_request,
    packet_length,
)

log = logging.getLogger(__name__)

ATTEMPTS = 3  # as often as the vendor asks for state and temperature
QUIET_TIME = 0.1  # s of silence after which a queue counts as drained (section 2)
DRAIN_LIMIT = 10.0  # s; the rest of the largest image at 2 MB/s, then we give up
# s without a byte in the middle of a transfer. The image lies in the camera's memory and flows by itself; a
# guiding program that waits for it gives up 15 s after the exposure.
STALL_LIMIT = 5.0

Q = TypeVar("Q", bound=Payload)
R = TypeVar("R", bound=Payload)


class ByteChannel(Protocol):
    """What the link needs of an FTDI channel."""

    def write(self, data: bytes) -> None: ...

    def read_into(self, target: memoryview, deadline: Deadline) -> int: ...

    def look(self) -> bytes: ...

    def restart(self) -> None: ...

    def close(self) -> None: ...


class Link:
    """Commands out, typed answers in. One thread at a time."""

    def __init__(self, channel: ByteChannel) -> None:
        self._channel = channel
        self._exchanges = ExchangeLog()
        self._buffer = memoryview(bytearray(MAX_PACKET))
        self._suspect = False  # left-overs of a failed exchange may still be on their way
        self._unanswered = 0  # exchanges in a row that timed out
        self.dirty_count = 0  # times that bytes were found where none should be
        self.doubtful = False  # the camera was silent for so long that it may have started anew

    def close(self) -> None:
        self._channel.close()

    @property
    def silent(self) -> bool:
        """Whether the camera has left so many exchanges in a row unanswered that more would be in vain."""
        return self._unanswered >= ATTEMPTS

    def exchange(
        self,
        command: Command[Q, R],
        request: Q,
        *,
        seconds: float | None = None,
        phase: str = "",
        quiet: float = 0.0,
        after: str = "",
    ) -> R:
        """Sends one command and returns its answer.

        `seconds` replaces the command's own time limit; `phase` names the exchange in error messages. In the
        first `quiet` seconds no answer is looked for. `after` names something that must have come to its end:
        bytes that are still found are too many of it, and not just dropped.
        Raises `TimedOut`, `ProtocolError`, `Disconnected`, or `Refused`.
        """
        if after:
            self.expect_silence(after)
        limit = command.reply_time.value if seconds is None else seconds
        packet = encode_request(command, request)
        attempts = ATTEMPTS if command.kind is Kind.QUESTION and seconds is None else 1
        for attempt in range(1, attempts + 1):
            try:
                if attempt > 1 or not after:
                    self._empty_queue()
                answer = self._exchange_once(command, packet, limit, phase or command.name, quiet)
                # The answer to the first try may only have been late: then the second one's is still to come.
                self._suspect = attempt > 1
                self._unanswered = 0
                return answer
            except Disconnected:
                raise
            except LinkError as error:
                # After a time-out the queue has been silent for longer than a drain would listen.
                self._suspect = not isinstance(error, TimedOut)
                if isinstance(error, TimedOut):
                    self._timed_out(limit)
                if attempt == attempts:
                    raise
                log.warning("%s, asking again (%d of %d)", error, attempt + 1, attempts)
        raise AssertionError("unreachable")

    def _timed_out(self, limit: float) -> None:
        """Nothing came within `limit` s. The chip may have lost its settings; if it left: `Disconnected`.

        A probe is different: no answer within a second is the answer.
        """
        if limit <= ReplyTime.SHORT.value:
            return
        self._unanswered += 1
        self.doubtful = True
        try:
            self._channel.restart()
        except Disconnected:
            raise
        except LinkError as error:
            log.warning("the USB chip could not be set up again: %s", error)

    def _exchange_once(
        self, command: Command[Q, R], packet: bytes, limit: float, phase: str, quiet: float
    ) -> R:
        if not self._exchanges.wanted:
            return self._converse(command, packet, limit, phase, quiet)
        began = time.monotonic()
        try:
            answer = self._converse(command, packet, limit, phase, quiet)
        except QsiError as error:
            self._exchanges.failed(command, packet, error, time.monotonic() - began)
            raise
        seconds = time.monotonic() - began
        length = packet_length(bytes(self._buffer[:HEADER_BYTES]))
        self._exchanges.answered(command, packet, bytes(self._buffer[:length]), seconds)
        return answer

    def _converse(self, command: Command[Q, R], packet: bytes, limit: float, phase: str, quiet: float) -> R:
        self._channel.write(packet)
        deadline = Deadline(limit)
        if quiet:
            time.sleep(min(quiet, limit))
        self._fill(self._buffer[:HEADER_BYTES], deadline, phase)
        if self._buffer[0] != command.code:
            head = bytes(self._buffer[:HEADER_BYTES])
            raise ProtocolError(f"{phase}: the camera answered {head.hex()} to {packet[:2].hex()}")
        length = packet_length(bytes(self._buffer[:HEADER_BYTES]))
        self._fill(self._buffer[HEADER_BYTES:length], deadline, phase)
        return decode_answer(command, bytes(self._buffer[:length]))

    def _fill(self, target: memoryview, deadline: Deadline, phase: str) -> None:
        while target:
            count = self._channel.read_into(target, deadline)
            if count == 0:
                raise TimedOut(phase, deadline.seconds)
            target = target[count:]

    def read_data(
        self, target: memoryview, phase: str, progress: Callable[[int], None] | None = None
    ) -> None:
        """Fills `target` with raw data that follow an answer. `progress` is told the bytes so far.

        Raises `TimedOut` when nothing comes for `STALL_LIMIT` seconds, however much came before.
        """
        done = 0
        began = time.monotonic()
        try:
            while done < len(target):
                count = self._channel.read_into(target[done:], Deadline(STALL_LIMIT))
                if count == 0:
                    raise TimedOut(f"{phase} ({done} of {len(target)} bytes)", STALL_LIMIT)
                done += count
                if progress is not None:
                    progress(done)
        except LinkError as error:
            self._suspect = True
            self.doubtful = self.doubtful or isinstance(error, TimedOut)
            raise
        if self._exchanges.wanted:
            self._exchanges.received(phase, done, time.monotonic() - began)

    def left_over(self) -> bytes:
        """Takes what waits in the queue although nothing should."""
        return self._channel.look()

    def expect_silence(self, phase: str) -> None:
        """Raises `ProtocolError` when the camera sent more than it should have."""
        extra = self.left_over()
        if extra:
            self._suspect = True
            raise ProtocolError(f"{phase}: the camera sent at least {len(extra)} bytes too many")

    def drain(self) -> int:
        """Reads and forgets until the camera is silent for `QUIET_TIME`; returns the number of bytes."""
        scratch = memoryview(bytearray(64 * 1024))
        limit = Deadline(DRAIN_LIMIT)
        dropped = 0
        while count := self._channel.read_into(scratch, Deadline(QUIET_TIME)):
            dropped += count
            if limit.passed:
                raise ProtocolError(f"the camera does not stop sending ({dropped} bytes)")
        self._suspect = False
        return dropped

    def _empty_queue(self) -> None:
        dropped = self.drain() if self._suspect else 0
        if waiting := self._channel.look():
            dropped += len(waiting) + self.drain()
        if dropped:
            self.dirty_count += 1
            log.warning("dropped %d stray bytes from the camera", dropped)
