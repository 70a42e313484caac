# SPDX-License-Identifier: LGPL-2.1-or-later
"""A connection to an INDI server, for programs that do one thing after the other.

There are no threads: whoever waits reads meanwhile. So every wait is `Client.wait`, has a limit, and can be
interrupted at one place.
"""

from __future__ import annotations

import ipaddress
import os
import select
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from threading import Event
from typing import TypeVar

from indi_qsi.wire import writer
from indi_qsi.wire.messages import BlobPolicy, Kind, State
from qsi_tools.indi.model import Model, Vector
from qsi_tools.indi.reader import BadStream, Reader
from usbproto.deadline import Deadline

DEFAULT_SERVER = "localhost:7624"
DEFAULT_PORT = 7624
# A server on the local network answers within a second; through a VPN over a mobile phone, in a few.
CONNECT_LIMIT = 10.0  # s
SEND_LIMIT = 10.0  # s; requests are a few hundred bytes, so a server that takes none hangs
ANSWER_LIMIT = 20.0  # s for a setting; a camera that is reading a picture out answers after it
READ_BYTES = 256 * 1024
SLICE = 0.2  # s between looks at the interruption
MAX_DESCRIPTORS = 16  # that may come with one portion of bytes

T = TypeVar("T")


class ClientError(Exception):
    """Something that the user has to know; the text says what, and what to do."""


class ServerGone(ClientError):
    """There is no server, or not any more. `reason` is why, in a few words that the text has too."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(text)
        self.reason = reason


class TimedOut(ClientError):
    """What was waited for has not happened."""


class Missing(ClientError):
    """The server has no such device, or the device has no such property."""


class Alert(ClientError):
    """The device refused, or failed."""


class Interrupted(ClientError):
    """The user has had enough."""


def parse_address(text: str) -> tuple[str, int] | str:
    """'host', 'host:port', '[v6]:port' as a pair, the path of a unix socket as it is. Raises ValueError."""
    if "/" in text:
        return text
    if text.startswith("[") and "]" in text:
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    else:
        host, _, port = text.partition(":")
    number = int(port) if port.isascii() and port.isdigit() else (DEFAULT_PORT if not port else 0)
    if not host or not 0 < number < 65536:
        raise ValueError(f"{text!r} is no address; write HOST:PORT, such as raspberrypi.local:7624")
    return host, number


class Client:
    """Connects at once; raises `ServerGone`, ValueError for what is no address.

    `stop` set ends every wait with `Interrupted`; `connect_limit` is in s. `local`: it is on this machine.
    """

    def __init__(
        self,
        server: str = DEFAULT_SERVER,
        stop: Event | None = None,
        connect_limit: float = CONNECT_LIMIT,
    ) -> None:
        self.server = server
        self.stop = stop or Event()
        self.model = Model(self._attached)
        self._reader = Reader()
        self._descriptors: list[int] = []
        self._socket = _connect(server, connect_limit)
        self.local = _is_local(self._socket)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets the server go."""
        self._socket.close()
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()

    # --- reading ---

    @property
    def picture(self) -> tuple[int, int] | None:
        """How many bytes of a picture have come of how many, while one is on its way."""
        return self._reader.picture

    def poll(self, seconds: float) -> None:
        """Takes what comes, for at most so long; returns as soon as something has. Raises `ServerGone`."""
        ready, _, _ = select.select([self._socket], [], [], seconds)
        if not ready:
            return
        try:
            data = self._receive()
        except OSError as error:
            raise self._gone(error.strerror or str(error)) from error
        if not data:
            raise self._gone("it closed the connection")
        try:
            messages = self._reader.feed(data)
        except BadStream as error:
            raise self._gone(str(error)) from error
        for message in messages:
            if message.tag == "pingRequest":
                self.send(writer.ping_reply(message.attributes.get("uid", "")))
            self.model.take(message)

    def wait(
        self,
        condition: Callable[[], T | None],
        limit: float,
        what: str,
        meanwhile: Callable[[], None] | None = None,
    ) -> T:
        """The condition's value as soon as it is true. Raises `TimedOut` after `limit` s, with `what`."""
        deadline = Deadline(limit)
        while True:
            if self.stop.is_set():
                raise Interrupted("interrupted")
            if value := condition():
                return value
            if deadline.passed:
                raise TimedOut(f"{what}: not within {limit:.0f} s")
            if meanwhile is not None:
                meanwhile()
            self.poll(min(SLICE, deadline.remaining))

    def wait_quietly(self, condition: Callable[[], bool], limit: float) -> None:
        """Waits like `wait`; whoever asks looks afterwards."""
        with suppress(TimedOut):
            self.wait(condition, limit, "")

    def settle(self, quiet: float, limit: float) -> None:
        """Waits until the server has said nothing for `quiet` s: it has no way to say that this was all."""
        deadline, silence = Deadline(limit), Deadline(quiet)
        before = self._said
        while not silence.passed and not deadline.passed:
            if self.stop.is_set():
                raise Interrupted("interrupted")
            self.poll(min(SLICE, silence.remaining))
            if self._said != before:
                before, silence = self._said, Deadline(quiet)

    @property
    def _said(self) -> int:
        return sum(len(vectors) for vectors in self.model.devices.values())

    def _receive(self) -> bytes:
        if self._socket.family != socket.AF_UNIX:
            return self._socket.recv(READ_BYTES)
        data, descriptors, _, _ = socket.recv_fds(self._socket, READ_BYTES, MAX_DESCRIPTORS)
        self._descriptors += descriptors
        return data

    def _attached(self, size: int) -> bytes:
        if not self._descriptors:
            raise ValueError("the memory that it is in did not come")
        descriptor = self._descriptors.pop(0)
        try:
            if os.fstat(descriptor).st_size < size:
                raise ValueError("its memory is too short")
            # By position: the server's other clients have the same open file, and would go on where we end.
            data = os.pread(descriptor, size, 0)
        finally:
            os.close(descriptor)
        if len(data) != size:
            raise ValueError("its memory is too short")
        return data

    def _gone(self, reason: str) -> ServerGone:
        return ServerGone(f"The INDI server at {self.server} is gone: {reason}", reason)

    # --- asking ---

    def send(self, data: bytes) -> None:
        """Sends a message. Raises `ServerGone`."""
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise self._gone(error.strerror or str(error)) from error

    def get_properties(self, device: str | None = None) -> None:
        """Asks for the definitions of one device or of all; they come later."""
        self.send(writer.get_properties(device))

    def enable_blobs(self, device: str, policy: BlobPolicy = BlobPolicy.ALSO) -> None:
        """Says whether pictures of a device are wanted."""
        self.send(writer.enable_blob(device, None, policy))

    def vector(self, device: str, name: str, limit: float = 0.0) -> Vector:
        """A vector, waited for. Raises `Missing`."""
        with suppress(TimedOut):
            return self.wait(lambda: self.model.vector(device, name), limit, name)
        raise Missing(f"{device} has no property {name}")

    def ask(self, vector: Vector, values: Mapping[str, str | float]) -> None:
        """Asks for new values. Switches that are not named are Off where one only can be On."""
        texts = {name: value if isinstance(value, str) else f"{value:.15g}" for name, value in values.items()}
        if vector.kind is Kind.NUMBER and set(texts) < set(vector.values):
            # Drivers differ in what they make of numbers that are left out.
            texts = {**vector.values, **texts}
        self.send(writer.new_vector(vector.kind, vector.device, vector.name, texts.items()))

    def change(
        self,
        vector: Vector,
        values: Mapping[str, str | float],
        limit: float = ANSWER_LIMIT,
        done: Callable[[Vector], bool] = lambda vector: vector.state is not State.BUSY,
        meanwhile: Callable[[], None] | None = None,
    ) -> Vector:
        """Asks for new values and waits for the answer, until it is `done`. Raises `Alert`, `TimedOut`."""
        device, name = vector.device, vector.name
        before = vector.updates
        self.ask(vector, values)

        def answered() -> Vector | None:
            now = self.model.vector(device, name)
            if now is None or now.updates == before:
                return None
            if now.state is State.ALERT:
                raise Alert(f"{device} refuses {_show(name, values)}{_because(now)}")
            return now if done(now) else None

        return self.wait(answered, limit, f"{device}, {_show(name, values)}", meanwhile)


def _show(name: str, values: Mapping[str, str | float]) -> str:
    return f"{name} ({', '.join(f'{key}={value}' for key, value in values.items())})"


def _because(vector: Vector) -> str:
    return f": {vector.message}" if vector.message else ""


def _connect(server: str, limit: float) -> socket.socket:
    address = parse_address(server)
    try:
        if isinstance(address, str):
            connection = _connect_unix(address, limit)
        else:
            connection = socket.create_connection(address, limit)
            # A computer that was switched off says nothing; this finds out within a minute.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in (
                (socket.TCP_KEEPIDLE, 20),
                (socket.TCP_KEEPINTVL, 10),
                (socket.TCP_KEEPCNT, 3),
            ):
                connection.setsockopt(socket.IPPROTO_TCP, option, value)
    except (OSError, UnicodeError) as error:  # UnicodeError: a host name such as "pi..local"
        reason = getattr(error, "strerror", None) or str(error)
        raise ServerGone(
            f"No INDI server answers at {server}: {reason}. "
            "Is it running there (indi-qsi serve, or indiserver), and may others reach it?",
            reason,
        ) from error
    connection.settimeout(SEND_LIMIT)
    return connection


def _connect_unix(path: str, limit: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(limit)
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


def _is_local(connection: socket.socket) -> bool:
    """By a unix socket, a loopback address, or our own address in the network."""
    if connection.family == socket.AF_UNIX:
        return True
    try:
        here, there = connection.getsockname()[0], connection.getpeername()[0]
    except OSError:
        return False  # it is gone again already
    return here == there or ipaddress.ip_address(there).is_loopback
