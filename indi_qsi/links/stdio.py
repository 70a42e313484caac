# SPDX-License-Identifier: LGPL-2.1-or-later
"""The link to the indiserver that started the driver, over standard input and output."""

from __future__ import annotations

import logging
import os
import select
import socket
import stat
from collections.abc import Callable, Mapping
from threading import RLock, Thread, current_thread

from indi_qsi.links.flow import Flow, PingFlow
from indi_qsi.links.link import READ_BYTES, Link
from indi_qsi.links.output import FileOutput, Output, SocketOutput
from indi_qsi.properties.hub import Hub

_log = logging.getLogger(__name__)

# Set to 'inline' for launchers that give a driver a socket without knowing attached frames.
BLOB_VARIABLE = "INDI_QSI_BLOB"

# Seconds for the writer thread to end once the peer has gone: it only has to notice.
_JOIN_TIMEOUT = 2.0


class StdioLink(Link):
    """Takes over fds 0 and 1; from then on whatever is printed goes to stderr.

    `run` reads until the server is gone or `close` is called; `start` does it in a thread. In the
    end `on_closed(reason)` is called once, in the thread that read.
    """

    def __init__(
        self,
        hub: Hub,
        on_closed: Callable[[str], None] | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._on_closed = on_closed
        self._input, self._output_fd = _take_over()
        self._socket: socket.socket | None = None
        output: Output
        flow: Flow | None = None
        if _is_stream_socket(self._output_fd):
            self._socket = socket.socket(fileno=self._output_fd)
            output = SocketOutput(self._socket, stall_timeout=None)
            if output.passes_descriptors and environ.get(BLOB_VARIABLE) != "inline":
                flow = PingFlow()
        else:
            output = FileOutput(self._output_fd)
        super().__init__("indiserver", hub, output, flow, can_snoop=True, everything=True)
        self._wake_lock = RLock()  # reentrant: a signal's handler may call `stop` within `stop`
        self._wake_writer: int | None  # None when the reader has ended
        self._wake_reader, self._wake_writer = os.pipe()
        self._reader: Thread | None = None

    @property
    def attaches(self) -> bool:
        """Whether frames go as shared memory."""
        return self._flow is not None

    @property
    def alive(self) -> bool:
        """Whether it listens to the server; it does until it has come to its end."""
        return True

    def start(self) -> None:
        """Runs the link in a thread of its own."""
        self._reader = Thread(target=self.run, name="reader of indiserver", daemon=True)
        self._reader.start()

    def run(self) -> None:
        """Reads, and acts on what comes, until the link ends. Can be run once."""
        self._reader = current_thread()
        self._writer.start()
        self.hub.attach(self)
        try:
            while data := self._read():
                self._receive(data)
            self.stop("the server has closed the link")
        except OSError as error:
            self.stop(str(error))
        finally:
            self._finish()

    def stop(self, reason: str) -> None:
        """Makes both threads of the link end. Does not wait; may be called again."""
        super().stop(reason)
        with self._wake_lock:
            if self._wake_writer is not None:
                os.write(self._wake_writer, b"x")

    def close(self, timeout: float = 2.0) -> None:
        """Sends what is waiting and ends the link, in about `timeout` seconds at most."""
        self.flush(timeout / 2)
        self.stop("closed by us")
        if self._reader not in (None, current_thread()):
            assert self._reader is not None
            self._reader.join(timeout / 2)

    def _read(self) -> bytes:
        poll = select.poll()
        poll.register(self._input, select.POLLIN)
        poll.register(self._wake_reader, select.POLLIN)
        # Without a deadline: there is nothing else to do until something comes.
        if self._wake_reader in dict(poll.poll()):
            return b""
        return os.read(self._input, READ_BYTES)

    def _finish(self) -> None:
        self.hub.detach(self)
        self._join_writer(_JOIN_TIMEOUT)
        if not self._writer.is_alive():
            # A writer that hangs keeps its descriptor, else it would write to whoever gets the number.
            self._close_output()
        with self._wake_lock:
            wake_writer, self._wake_writer = self._wake_writer, None
        for fd in (self._input, self._wake_reader, wake_writer):
            if fd is not None:
                os.close(fd)
        _log.info("link to indiserver ended: %s", self.reason)
        if self._on_closed is not None:
            self._on_closed(self.reason)

    def _close_output(self) -> None:
        if self._socket is None:
            os.close(self._output_fd)
        else:
            self._socket.close()


def _take_over() -> tuple[int, int]:
    """Moves fds 0 and 1 out of the way. A stray print then cannot break the XML, and a child
    process cannot read our messages."""
    moved = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    try:
        os.dup2(nothing, 0)
        try:
            os.dup2(2, 1)
        except OSError:
            os.dup2(nothing, 1)  # There is no stderr.
    finally:
        os.close(nothing)
    return moved


def _is_stream_socket(fd: int) -> bool:
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        return False
    # A second descriptor, because closing the probe must not close the output.
    with socket.socket(fileno=os.dup(fd)) as probe:
        return probe.type == socket.SOCK_STREAM
