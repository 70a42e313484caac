# SPDX-License-Identifier: LGPL-2.1-or-later
"""One exchange at a time with the camera: deadlines, a drained queue, retries.

A question that got lost is asked again. After a transfer that failed, a setting is sent again too, because it
does no more if it is sent twice; what became of an order is found out by asking. After anything odd the queue
is drained until the camera is silent, so that the next exchange starts clean.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Protocol, TypeVar

from usbproto.deadline import Deadline
from usbproto.errors import (
    Disconnected,
    Interrupted,
    LinkError,
    ProtocolError,
    QsiError,
    Refused,
    TimedOut,
    TransferFailed,
)
from usbproto.exchanges import ExchangeLog
from usbproto.packets import (
    HEADER_BYTES,
    MAX_PACKET,
    Command,
    Kind,
    Payload,
    ReplyTime,
    encode_request,
    packet_length,
    read_parts,
    split_answer,
)
from usbproto.session import Session
from usbproto.timing import Timing

log = logging.getLogger(__name__)

ATTEMPTS = 3  # as often as the vendor asks for state and temperature
# For what is lost on the USB, and not in the camera: it costs no waiting, and a bad cable loses one in some
# dozens.
TRANSFER_ATTEMPTS = 5
QUIET_TIME = 0.1  # s of silence after which a queue counts as drained (section 2)
DRAIN_LIMIT = 30.0  # s; the rest of the largest image at 0.7 MB/s, then we give up
# s without a byte in the middle of a transfer: after the first the user hears of it, after the other (the
# vendor's) the transfer has failed.
STALL_NOTICE = 5.0
STALL_LIMIT = 15.0
# s within which an answer comes that a failed transfer has not lost: a camera answers most commands at once.
GRACE = 0.25
SLOW_NOTICE = 3.0  # s after which the user hears that an answer takes long, where that is to be expected

Q = TypeVar("Q", bound=Payload)
R = TypeVar("R", bound=Payload)
T = TypeVar("T")


class ByteChannel(Protocol):
    """What the link needs of an FTDI channel."""

    def write(self, data: bytes) -> None: ...

    def read_into(self, target: memoryview, deadline: Deadline) -> int: ...

    def look(self) -> bytes: ...

    def restart(self) -> None: ...

    def use_timing(self, timing: Timing) -> None: ...

    def close(self) -> None: ...


class _Wait:
    """The wait for one answer. In its first `quiet` seconds nothing is looked for.

    With a `notice` the user hears of one that takes long. After a failed transfer an answer was lost if it is
    not there soon, unless the wait is `patient`: for an answer that takes long by its nature.
    """

    def __init__(self, phase: str, limit: float, quiet: float, patient: bool, notice: str) -> None:
        self.phase = phase
        self.limit = limit
        self.quiet = quiet
        self.sent = False
        self.failure: TransferFailed | None = None  # the first one
        self._patient = patient
        self._notice = notice
        self.deadline = Deadline(limit)

    def begin(self) -> None:
        """The command was sent."""
        self.sent = True
        self.deadline = Deadline(min(SLOW_NOTICE, self.limit) if self._notice else self.limit)

    def go_on(self) -> str:
        """Nothing came until the deadline: what the user hears of it, with a new deadline, or nothing."""
        if not self._notice:
            return ""
        notice, self._notice = self._notice, ""
        self.deadline = Deadline(max(0.0, self.limit - SLOW_NOTICE))
        return f"The camera has not answered yet: waiting up to {self.limit:g} s ({notice})"

    def failed(self, error: TransferFailed) -> None:
        """A transfer failed."""
        self.failure = self.failure or error
        if not self._patient and self.deadline.remaining > GRACE:
            self.deadline = Deadline(GRACE)

    def over(self) -> LinkError:
        """Why there is no answer."""
        return self.failure or TimedOut(self.phase, self.limit)


class WrongThread(RuntimeError):
    """A link was used in a thread that it does not belong to: a fault of the program, not of a camera."""


class Link:
    """Commands out, typed answers in.

    A link belongs to the thread that made it. In any other thread every method that uses the channel raises
    `WrongThread`: two exchanges at the same time would mix up their answers, and a thread that must not wait
    would wait for the USB.
    """

    def __init__(self, channel: ByteChannel, session: Session | None = None) -> None:
        self._owner = threading.current_thread()
        self.session = session or Session()
        self._channel = channel
        self._exchanges = ExchangeLog()
        self._buffer = memoryview(bytearray(MAX_PACKET))
        self._suspect = False  # left-overs of a failed exchange may still be on their way
        self._unanswered = 0  # exchanges in a row that timed out
        self._counted: LinkError | None = None  # the last one that was
        self._late: Counter[int] = Counter()  # by command code: answers that may still come
        self._left_over = 0  # bytes that were dropped behind the last answer
        self.doubtful = False  # the camera was silent for so long that it may have started anew

    def close(self) -> None:
        """Releases the camera."""
        self._check_thread()
        self._channel.close()

    def _check_thread(self) -> None:
        thread = threading.current_thread()
        # The thread and not its number: the number of a thread that has ended is used again.
        if thread is not self._owner:
            raise WrongThread(
                f"The thread '{thread.name}' used a camera link of the thread '{self._owner.name}'"
            )

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
        slow: str = "",
        patient: bool = False,
        harmless: bool = False,
    ) -> R:
        """Sends one command and returns its answer.

        `seconds` replaces the command's own time limit; `phase` names the exchange in error messages. In the
        first `quiet` seconds no answer is looked for. `after` names something that must have come to its end:
        bytes that are still found are too many of it, and not just dropped. `slow`: what the user
        hears when it takes long. `patient`: the answer may come late although a transfer failed. `harmless`:
        this order may be sent again when a transfer failed.

        Raises `TimedOut`, `ProtocolError`, `TransferFailed`, `Disconnected`, `Interrupted`, or `Refused`.
        """
        self._check_thread()
        if after:
            self.expect_silence(after)
        limit = command.reply_time.value if seconds is None else seconds
        packet = encode_request(command, request)
        attempts = ATTEMPTS if command.kind is Kind.QUESTION and seconds is None else 1
        transfers = TRANSFER_ATTEMPTS if harmless or command.kind is not Kind.ORDER else 1
        failures = lost = 0  # of the camera, and of the USB
        while True:
            again = failures + lost > 0
            wait = _Wait(
                phase or command.name,
                limit,
                quiet,
                # The last one, too: earlier ones may keep the camera busy.
                bool(slow) or patient or lost == transfers - 1 > 0,
                f"{slow}, attempt {failures + 1} of {attempts}" if slow and attempts > 1 else slow,
            )
            try:
                if again or not after:
                    self._empty_queue()
                answer = self._exchange_once(command, request, packet, wait)
                self._answered(again)
                return answer
            except Refused:
                self._answered(again)
                raise
            except Interrupted:
                self._suspect = True
                raise
            except Disconnected:
                raise
            except LinkError as error:
                if wait.sent:
                    self._late[command.code] += 1
                # After a time-out the queue has been silent for longer than a drain would listen.
                self._suspect = not isinstance(error, TimedOut)
                self._failed(error, limit)
                if isinstance(error, TransferFailed):
                    lost += 1
                    count, most = lost, transfers
                else:
                    failures += 1
                    count, most = failures, attempts
                if count >= most:
                    raise
                log.warning("%s, sending %s again (%d of %d)", error, command.name, count + 1, most)

    def _answered(self, again: bool) -> None:
        """The camera has said something."""
        # The answer to the first try may only have been late: then the second one's is still to come.
        self._suspect = again
        self._unanswered = 0

    def order(
        self,
        command: Command[Q, R],
        request: Q,
        carried_out: Callable[[], bool | None],
        *,
        phase: str = "",
        quiet: float = 0.0,
        patient: bool = False,
    ) -> bool:
        """Sends an order; when a transfer fails, finds out by `carried_out` what became of it.

        Whether it was answered: False when only that showed that it was carried out, some time ago.

        That asks the camera: True, it was carried out; False, it was not, and is sent once more; None, nobody
        can say, and the error stands. Raises what `exchange` raises.
        """
        try:
            self.exchange(command, request, phase=phase, quiet=quiet, patient=patient)
            return True
        except TransferFailed as error:
            outcome = carried_out()
            if outcome is None:
                raise
            log.warning("%s; %s was %s", error, command.name, "carried out" if outcome else "lost")
            if outcome:
                return False
            self.exchange(command, request, phase=phase, patient=patient)
            return True

    def optional(self, what: str, ask: Callable[[], T], otherwise: T) -> T:
        """What `ask` returns; if that fails, `otherwise`, and one line in the log with `what` is missing."""
        try:
            return ask()
        except (Disconnected, Interrupted):
            raise
        except QsiError as error:
            self.session.odd(what, f"{error}: continuing without {what}")
            return otherwise

    def use_timing(self, timing: Timing) -> None:
        """From now on. Raises `LinkError`."""
        self._check_thread()
        self.session.timing = timing
        self._channel.use_timing(timing)

    def _failed(self, error: LinkError, limit: float) -> None:
        """After an exchange that failed. A probe is different: no answer within a second is the answer."""
        if isinstance(error, TimedOut):
            if limit <= ReplyTime.SHORT.value:
                return
            self._timed_out()
        self._count_error(error)

    def _count_error(self, error: LinkError) -> None:
        """Counts it, once."""
        counted, self._counted = self._counted, error
        if error is counted:
            return
        if not self.session.link_error(str(error)):
            return
        try:
            self._channel.use_timing(self.session.timing)
        except Disconnected:
            raise
        except LinkError as failure:
            log.warning("%s", failure)
        self.session.slowed(
            "There are many errors on the USB link: using the slower vendor timing until the next connect. "
            "Try another cable, port or hub"
        )

    def _timed_out(self) -> None:
        """The chip may have lost its settings; if it left: `Disconnected`."""
        self._unanswered += 1
        self.doubtful = True
        try:
            self._channel.restart()
        except Disconnected:
            raise
        except LinkError as error:
            log.warning("the USB chip could not be set up again: %s", error)

    def _exchange_once(self, command: Command[Q, R], request: Q, packet: bytes, wait: _Wait) -> R:
        self.session.alive()
        began = time.monotonic()
        answer = b""
        self._left_over = 0
        try:
            answer = self._converse(command, packet, wait)
            parts = split_answer(command, answer, request)
        except (LinkError, Interrupted) as error:
            seconds = time.monotonic() - began
            self.session.flight.failed(packet, answer, str(error), began, seconds)
            if self._exchanges.wanted:
                self._exchanges.failed(command, packet, error, seconds)
            raise
        seconds = time.monotonic() - began
        self.session.flight.answered(packet, answer, began, seconds)
        if parts.extra:
            self.session.odd(
                f"longer answer to {command.name}",
                f"The answer to {command.name} has {parts.extra} bytes more than is known ({answer.hex()}); "
                "they are ignored",
            )
        if not (self.session.timing.merged_looks or command.data_follows):
            self._drop_left_over(command.name)
        try:
            found = read_parts(command, parts)
        except Refused as error:
            if self._exchanges.wanted:
                self._exchanges.failed(command, packet, error, seconds)
            raise
        if self._exchanges.wanted:
            self._exchanges.answered(command, packet, answer, seconds)
        return found

    def _converse(self, command: Command[Q, R], packet: bytes, wait: _Wait) -> bytes:
        """The bytes of the answer."""
        self._channel.write(packet)
        wait.begin()
        if wait.quiet:
            self.session.stop.pause(min(wait.quiet, wait.limit))
        head = self._buffer[:HEADER_BYTES]
        self._fill(head, wait)
        while head[0] != command.code and self._late[head[0]]:
            # The answer to a question that was asked again, or given up, before this one.
            self._late[head[0]] -= 1
            self.session.odd("late answer", f"A late answer {bytes(head).hex()} from the camera was dropped")
            self._fill(self._buffer[HEADER_BYTES : packet_length(bytes(head))], wait)
            self._fill(head, wait)
        if head[0] != command.code:
            # What a failed transfer has lost makes nonsense of the rest.
            raise wait.failure or ProtocolError(
                f"{wait.phase}: the camera answered {bytes(head).hex()} to {packet[:2].hex()}"
            )
        length = packet_length(bytes(head))
        self._fill(self._buffer[HEADER_BYTES:length], wait)
        return bytes(self._buffer[:length])

    def _fill(self, target: memoryview, wait: _Wait) -> None:
        """Waits for bytes of an answer. A failed transfer does not end that: the chip has what is to come."""
        while target:
            try:
                count = self._channel.read_into(target, wait.deadline)
            except TransferFailed as error:
                if wait.failure is None:  # one bad moment of the link is one error, however long it lasts
                    self._count_error(error)
                wait.failed(error)
                if not wait.deadline.passed:
                    continue
                count = 0
            if count == 0 and (notice := wait.go_on()):
                self.session.progress(notice)
            elif count == 0:
                raise wait.over()
            target = target[count:]

    def read_data(
        self, target: memoryview, phase: str, progress: Callable[[int], None] | None = None
    ) -> None:
        """Fills `target` with raw data that follow an answer. `progress` gets the number of bytes so far.

        Raises `TimedOut` when nothing comes for `STALL_LIMIT` seconds, however much came before.
        """
        self._check_thread()
        done = 0
        began = time.monotonic()
        try:
            while done < len(target):
                count = self._next_data(target[done:], phase, done, len(target))
                done += count
                if progress is not None:
                    progress(done)
        except (LinkError, Interrupted) as error:
            self._suspect = True
            self.doubtful = self.doubtful or isinstance(error, TimedOut)
            self.session.flight.note("data", f"{phase}: {error} ({done} of {len(target)} bytes)")
            if isinstance(error, LinkError) and not isinstance(error, Disconnected):
                self._count_error(error)
            raise
        seconds = time.monotonic() - began
        self.session.flight.received(phase, done, began, seconds)
        if self._exchanges.wanted:
            self._exchanges.received(phase, done, seconds)

    def _next_data(self, target: memoryview, phase: str, done: int, total: int) -> int:
        count = self._channel.read_into(target, Deadline(STALL_NOTICE))
        if count:
            return count
        self.session.progress(
            f"No data for {STALL_NOTICE:g} s during {phase} ({done} of {total} bytes): "
            f"waiting up to {STALL_LIMIT:g} s"
        )
        count = self._channel.read_into(target, Deadline(STALL_LIMIT - STALL_NOTICE))
        if not count:
            raise TimedOut(f"{phase} ({done} of {total} bytes)", STALL_LIMIT)
        return count

    def left_over(self) -> int:
        """Takes what waits in the queue although nothing should; how many bytes that are, at least."""
        self._check_thread()
        return self._left_over or len(self._repeated(self._channel.look))

    def expect_silence(self, phase: str) -> None:
        """Raises `ProtocolError` when the camera sent more than it should have."""
        self._check_thread()
        extra = len(self._repeated(self._channel.look))
        if extra:
            self._suspect = True
            raise ProtocolError(f"{phase}: the camera sent at least {extra} bytes too many")

    def drop_rest(self) -> None:
        """Forgets what may still come, until the camera is silent. That is not counted as strange."""
        self._check_thread()
        self._repeated(self.drain)

    def drain(self) -> int:
        """Reads and forgets until the camera is silent for `QUIET_TIME`; returns the number of bytes."""
        self._check_thread()
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
        """Before a command."""
        dropped = self._repeated(self.drain) if self._suspect else 0
        if waiting := self._repeated(self._channel.look):
            dropped += len(waiting) + self._repeated(self.drain)
        self._count_dropped(dropped, "a command")

    def _repeated(self, look: Callable[[], T]) -> T:
        """For looks at what nothing waits for: one whose transfer failed is made again."""
        for _ in range(1, TRANSFER_ATTEMPTS):
            try:
                return look()
            except TransferFailed as error:
                self._suspect = True
                self._count_error(error)
                log.warning("%s, looking for stray bytes again", error)
        return look()

    def _drop_left_over(self, name: str) -> None:
        """After an answer, as the vendor does. The answer is there, so a failure is for the next exchange."""
        try:
            if waiting := self._repeated(self._channel.look):
                self._left_over = len(waiting) + self._repeated(self.drain)
                self._count_dropped(self._left_over, name)
        except TransferFailed as error:
            self._suspect = True
            self._count_error(error)

    def _count_dropped(self, dropped: int, where: str) -> None:
        if dropped:
            self.session.odd("stray bytes", f"Dropped {dropped} stray bytes from the camera at {where}")
