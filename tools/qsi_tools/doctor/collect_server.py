# SPDX-License-Identifier: LGPL-2.1-or-later
"""An INDI server, asked for definitions only: nothing is connected or set."""

from __future__ import annotations

import ipaddress
import socket

from indi_qsi.wire.messages import SnoopedVector
from indi_qsi.wire.parser import Parser
from qsi_tools.doctor.facts import Device, Server
from usbproto.deadline import Deadline

DEFAULT = "127.0.0.1:7624"
QUESTION = b'<getProperties version="1.7"/>\n'
EXECUTABLE = "indi_qsi_ccd"
CONNECT_TIME = 3.0  # s; a server in this house takes milliseconds
FIRST_TIME = 3.0  # s; its drivers may still be starting
# Definitions have no end mark: they have all come when nothing comes for a while.
QUIET_TIME = 1.0  # s
TOTAL_TIME = 10.0  # s; a server whose devices never fall silent


def split(address: str) -> tuple[str, int]:
    """HOST:PORT, or HOST alone. Raises ValueError."""
    host, colon, port = address.rpartition(":")
    if not colon:
        host, port = address, "7624"
    if not host or not (port.isascii() and port.isdecimal()) or not 0 < int(port) < 65536:
        raise ValueError(f"{address!r} is no address; write HOST:PORT, such as {DEFAULT}")
    return host.strip("[]"), int(port)


def collect(address: str | None) -> Server:
    """What the server at HOST:PORT serves; None: the usual one. Raises ValueError for what is no address."""
    asked, address = address is not None, address or DEFAULT
    host, port = split(address)
    try:
        connection = socket.create_connection((host, port), timeout=CONNECT_TIME)
    except OSError as error:
        return Server(address, False, _is_local(host), asked, problem=error.strerror or str(error))
    with connection:
        local = _is_local(connection.getpeername()[0])
        try:
            vectors = _definitions(connection)
        except OSError as error:
            return Server(address, True, local, asked, problem=error.strerror or str(error))
    devices, others = _sorted(vectors)
    return Server(address, True, local, asked, devices, others)


def _definitions(connection: socket.socket) -> list[SnoopedVector]:
    """Definitions and updates. A connected camera sends updates for ever; only definitions are waited for."""
    connection.sendall(QUESTION)
    parser = Parser()
    vectors: list[SnoopedVector] = []
    total, quiet = Deadline(TOTAL_TIME), Deadline(FIRST_TIME)
    while not (total.passed or quiet.passed):
        connection.settimeout(max(0.01, min(total.remaining, quiet.remaining)))
        try:
            data = connection.recv(65536)
        except TimeoutError:
            break
        if not data:
            break
        new = [message for message in parser.feed(data) if isinstance(message, SnoopedVector)]
        vectors += new
        if any(vector.define for vector in new):
            quiet = Deadline(QUIET_TIME)
    return vectors


def _sorted(vectors: list[SnoopedVector]) -> tuple[tuple[Device, ...], tuple[str, ...]]:
    """Our devices with their values, and the names of the others."""
    states: dict[str, dict[str, str]] = {}
    values: dict[str, dict[str, dict[str, str]]] = {}
    for vector in vectors:
        if vector.state is not None:
            states.setdefault(vector.device, {})[vector.name] = vector.state.value
        values.setdefault(vector.device, {}).setdefault(vector.name, {}).update(vector.values)
    ours = [
        name
        for name, device in values.items()
        if device.get("DRIVER_INFO", {}).get("DRIVER_EXEC", "").rpartition("/")[2] == EXECUTABLE
    ]
    devices = tuple(Device(name, states.get(name, {}), values[name]) for name in sorted(ours))
    return devices, tuple(sorted(set(values) - set(ours)))


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
