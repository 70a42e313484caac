# SPDX-License-Identifier: LGPL-2.1-or-later
"""What all links have in common: a queue, the thread that writes it out, and the way of a frame."""

from __future__ import annotations

import logging
import time
from binascii import b2a_base64
from collections.abc import Callable
from threading import Thread, current_thread

from indi_qsi.links.flow import Flow
from indi_qsi.links.interest import Interest
from indi_qsi.links.outbox import Outbox
from indi_qsi.links.output import Output, Stalled
from indi_qsi.properties.hub import Hub
from indi_qsi.properties.ports import BlobItem
from indi_qsi.wire import writer
from indi_qsi.wire.messages import BlobPolicy, GetProperties, Problem, Severity
from indi_qsi.wire.parser import Parser

_log = logging.getLogger(__name__)

# Bytes of a frame that are encoded at a time. A multiple of 3, so that there is no padding inside;
# small, because the standard library's encoder keeps all other threads waiting meanwhile.
BASE64_PIECE = 48 * 1024

# Bytes taken from a peer at a time; more than indiserver writes at a time.
READ_BYTES = 64 * 1024

# Problems of a link that are logged in each period of so many seconds. indiserver keeps the log of
# a driver; a client that sends garbage must not fill it.
MAX_PROBLEMS = 10
PROBLEM_PERIOD = 60.0


class Link:
    """Base of the links. A subclass owns the file descriptors and reads from the peer.

    The thread that reads owns the life of the link: `stop` wakes it, and it cleans up.
    """

    def __init__(
        self,
        name: str,
        hub: Hub,
        output: Output,
        flow: Flow | None,
        *,
        can_snoop: bool = False,
        everything: bool = False,
    ) -> None:
        """With `flow`, frames are attached as shared memory; without, they go as base64."""
        self.name = name
        self.hub = hub
        self.can_snoop = can_snoop
        self.reason = "closed by us"  # why the link ended
        self._output = output
        self._flow = flow
        self._interest = Interest(everything)
        self._outbox = Outbox()
        self._parser = Parser()
        self._problems = 0
        self._period_start = 0.0
        self._writer = Thread(target=self._write_out, name=f"writer of {name}", daemon=True)

    # For the hub; see `LinkPort`.

    def watch(self, device: str | None, name: str | None) -> None:
        """The peer asked for definitions."""
        self._interest.watch(device, name)

    def set_policy(self, device: str, name: str | None, policy: BlobPolicy) -> None:
        """The peer said which frames it wants."""
        self._interest.set_policy(device, name, policy)

    def wants(self, device: str, name: str | None) -> bool:
        """Whether the peer is to be told about a vector, or (None) about a device."""
        return self._interest.wants(device, name)

    def wants_blob(self, device: str, name: str) -> bool:
        """Whether the peer is to be sent frames of a vector."""
        return self._interest.wants_blob(device, name)

    def post(self, data: bytes) -> None:
        """Queues messages; a peer that has stopped reading is dropped."""
        if not self._outbox.post(data, self._output.offer):
            self.stop("too many unread messages")

    def make_room(self, size: int) -> None:
        """A frame of so many bytes is coming; if too many wait, the oldest is skipped."""
        for device, name in self._outbox.make_room(size):
            text = f"{name}: a frame was skipped, because {self.name} is too slow"
            _log.warning("%s", text)
            if self.wants(device, None):
                self.post(writer.message(device, f"[WARNING] {text}"))

    def post_blob(self, item: BlobItem) -> None:
        """Queues a frame; if too many wait, the oldest is skipped."""
        self.make_room(item.frame.size)
        self._outbox.post_blob(item)

    def pong(self, uid: str) -> None:
        """The peer answered a ping."""
        if self._flow is not None:
            self._flow.pong(uid)

    # Ending.

    def stop(self, reason: str) -> None:
        """Makes both threads of the link end. Does not wait; may be called again."""
        if not self._outbox.closed:
            self.reason = reason
        self._outbox.close()
        if self._flow is not None:
            self._flow.stop()
        self._output.stop()

    def flush(self, timeout: float) -> bool:
        """Waits until everything queued has been sent, at most `timeout` seconds."""
        return self._outbox.flush(timeout)

    def _join_writer(self, timeout: float) -> None:
        if self._writer.ident is not None and self._writer is not current_thread():
            self._writer.join(timeout)

    # Reading; for subclasses.

    def _receive(self, data: bytes) -> bool:
        """Acts on what the peer sent. True if it contained broken XML."""
        broken = False
        for event in self._parser.feed(data):
            if isinstance(event, GetProperties) and self._outbox.closed:
                continue  # nobody reads the answer; what a program sets before it leaves is set all the same
            if isinstance(event, Problem):
                self._report(event)
                if event.severity is Severity.REFUSED:
                    self.hub.refuse(event)
                broken = broken or event.severity is Severity.BROKEN
                continue
            try:
                self.hub.dispatch(self, event)
            except Exception:
                # A fault of ours in one message must not cost the peer its link.
                _log.exception("%s: a message failed", self.name)
        return broken

    def _report(self, problem: Problem) -> None:
        now = time.monotonic()
        if now - self._period_start > PROBLEM_PERIOD:
            self._period_start, self._problems = now, 0
        self._problems += 1
        if self._problems <= MAX_PROBLEMS:
            level = logging.DEBUG if problem.severity is Severity.NOTE else logging.WARNING
            _log.log(level, "%s: input dropped: %s", self.name, problem.reason)
        if self._problems == MAX_PROBLEMS:
            _log.warning("%s: further problems are not logged for a while", self.name)

    # Writing, in the writer thread.

    def _write_out(self) -> None:
        try:
            while (item := self._outbox.take()) is not None:
                if isinstance(item, bytes):
                    self._output.write(item)
                else:
                    try:
                        self._write_frame(item)
                    finally:
                        item.frame.release()
        except (OSError, Stalled) as error:
            self.stop(str(error) or type(error).__name__)
        except Exception:
            _log.exception("%s: writing failed", self.name)
            self.stop("internal error")

    def _write_frame(self, item: BlobItem) -> None:
        flow = self._flow
        header = writer.blob_header(
            item.device,
            item.name,
            item.element,
            item.frame.size,
            item.frame.format,
            attached=flow is not None,
            state=item.state,
            timeout=item.timeout,
            message=item.message,
        )
        if flow is not None:
            flow.before_frame()
            self._output.write(header + writer.BLOB_TRAILER, item.frame.share())
            self._output.write(flow.after_frame())
            return
        self._output.write(header)
        encode = base64_encoder()
        pixels = item.frame.buffer
        for start in range(0, item.frame.size, BASE64_PIECE):
            self._output.write(encode(pixels[start : start + BASE64_PIECE]))
        self._output.write(writer.BLOB_TRAILER)


def _standard_encode(data: memoryview) -> bytes:
    return b2a_base64(data, newline=False)


def base64_encoder() -> Callable[[memoryview], bytes]:
    """The fastest encoder there is. Imported late: with indiserver there is no need for one."""
    try:
        from pybase64 import b64encode
    except ImportError:
        return _standard_encode
    encode: Callable[[memoryview], bytes] = b64encode
    return encode
