# SPDX-License-Identifier: LGPL-2.1-or-later
"""A small INDI server of our own, for clients that come by TCP or by a unix socket.

INDI knows no passwords: whoever reaches the port controls the camera. Listen on this computer only,
or on a network that is trusted.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import time
from collections.abc import Sequence
from threading import Event, Lock, Thread, current_thread

from indi_qsi.links.addresses import ListenError, is_open, listen_on, remove_path, show_address
from indi_qsi.links.flow import DrainFlow
from indi_qsi.links.link import Link
from indi_qsi.links.output import SocketOutput
from indi_qsi.links.pace import Pace, Paces
from indi_qsi.properties.hub import Hub

__all__ = ["ListenError", "Server"]

_log = logging.getLogger(__name__)

# Bytes taken from a client at a time: hundreds of requests in one go would outrun its pace.
_READ_BYTES = 4096

# Links at a time. A program such as KStars opens up to four; each link costs two threads.
MAX_LINKS = 16

# Seconds between two clients that are let in. One that is thrown out and comes again at once must not keep
# the driver busy with its coming.
_ACCEPT_PAUSE = 0.02

# Seconds for the writer of a link to end after its socket was shut down.
_JOIN_TIMEOUT = 2.0

# Seconds of silence before TCP asks whether the client is still there, between two questions, and
# how many go unanswered: a client that lost its power is noticed within about a minute.
_KEEPALIVE = (
    (socket.TCP_KEEPIDLE, 30),
    (socket.TCP_KEEPINTVL, 10),
    (socket.TCP_KEEPCNT, 3),
)


class ClientLink(Link):
    """One client. Broken XML ends the link: a client's program does not heal by reading on."""

    def __init__(self, server: Server, sock: socket.socket, name: str) -> None:
        local = sock.family == socket.AF_UNIX
        flow = DrainFlow(sock) if local else None
        super().__init__(name, server.hub, SocketOutput(sock), flow)
        self._server = server
        self._socket = sock
        self._pace = Pace(server.paces)
        self._stopped = Event()  # nobody pauses any more
        self.reader = Thread(target=self._run, name=f"reader of {name}", daemon=True)

    def stop(self, reason: str) -> None:
        """Makes both threads of the link end. Does not wait; may be called again."""
        self._stopped.set()
        super().stop(reason)

    def _run(self) -> None:
        self._writer.start()
        self.hub.attach(self)
        try:
            while data := self._socket.recv(_READ_BYTES):
                start = time.thread_time()
                if self._receive(data):
                    self.stop("broken XML")
                    break
                if pause := self._pace.pause(time.thread_time() - start):
                    self._stopped.wait(pause)
            self.stop("the client has gone")
        except OSError as error:
            self.stop(str(error))
        finally:
            self._pace.close()
            self.hub.detach(self)
            self._join_writer(_JOIN_TIMEOUT)
            if not self._writer.is_alive():
                self._socket.close()
            self._server.forget(self)
            _log.info("%s left: %s", self.name, self.reason)


class Server:
    """Listens from the start; `close` ends it and all its links."""

    def __init__(self, hub: Hub, listen: Sequence[str]) -> None:
        """`listen`: 'host:port', '[v6 address]:port', '/path/of/a/socket' or '@abstract name'.

        Port 0 takes a free one, see `addresses`. Raises ListenError.
        """
        self.hub = hub
        self.paces = Paces()
        self._lock = Lock()
        self._links: list[ClientLink] = []
        self._closed = False
        self._count = 0
        self._listeners: list[socket.socket] = []
        try:
            for address in listen:
                self._listeners.append(listen_on(address))
        except ListenError:
            self._close_listeners()
            raise
        self._wake_reader, self._wake_writer = os.pipe()
        self._acceptor = Thread(target=self._accept, name="acceptor", daemon=True)
        self._acceptor.start()

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it listens, in the order of `listen`, with the real port numbers."""
        return tuple(show_address(listener) for listener in self._listeners)

    @property
    def open_to_others(self) -> bool:
        """Whether other computers are listened to."""
        return any(is_open(listener) for listener in self._listeners)

    @property
    def links(self) -> tuple[ClientLink, ...]:
        """The links there are."""
        with self._lock:
            return tuple(self._links)

    @property
    def alive(self) -> bool:
        """Whether clients are let in."""
        return self._acceptor.is_alive()

    def close(self, timeout: float = 3.0) -> None:
        """Lets no client in any more, sends what is waiting for a part of the time, ends all links."""
        deadline = time.monotonic() + timeout
        with self._lock:
            if self._closed:
                return
            self._closed = True
        os.write(self._wake_writer, b"x")
        self._acceptor.join(timeout)
        self._close_listeners()
        os.close(self._wake_reader)
        os.close(self._wake_writer)
        links = self.links
        flush_deadline = time.monotonic() + timeout / 3
        for link in links:
            link.flush(max(0.0, flush_deadline - time.monotonic()))
        for link in links:
            link.stop("closed by us")
        for link in links:
            if link.reader is not current_thread():
                link.reader.join(max(0.0, deadline - time.monotonic()))

    def forget(self, link: ClientLink) -> None:
        """For links: this one has ended."""
        with self._lock:
            if link in self._links:
                self._links.remove(link)

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            remove_path(listener)
            listener.close()

    def _accept(self) -> None:
        poll = select.poll()
        poll.register(self._wake_reader, select.POLLIN)
        by_fd = {listener.fileno(): listener for listener in self._listeners}
        for fd in by_fd:
            poll.register(fd, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == self._wake_reader:
                    return
                try:
                    sock, peer = by_fd[fd].accept()
                except OSError as error:
                    # The client has gone again, or there are no descriptors left: then better wait.
                    _log.warning("cannot accept a client: %s", error)
                    time.sleep(0.1)
                else:
                    self._welcome(sock, peer)
                    time.sleep(_ACCEPT_PAUSE)

    def _welcome(self, sock: socket.socket, peer: object) -> None:
        sock.setblocking(True)
        self._count += 1
        if sock.family == socket.AF_UNIX:
            name = f"unix client {self._count}"
        else:
            name = f"client {peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "client"
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEPALIVE:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
        with self._lock:
            if self._closed or len(self._links) >= MAX_LINKS:
                _log.warning("%s refused: there are %d links already", name, len(self._links))
                sock.close()
                return
            link = ClientLink(self, sock, name)
            self._links.append(link)
        _log.info("%s came", name)
        link.reader.start()
