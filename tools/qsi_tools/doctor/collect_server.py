# SPDX-License-Identifier: LGPL-2.1-or-later
"""An INDI server, asked for definitions only: nothing is connected or set, and no pictures are asked for."""

from __future__ import annotations

from qsi_tools.doctor.facts import DRIVER, Device, Server
from qsi_tools.indi.client import Client, ServerGone
from qsi_tools.indi.model import Model

DEFAULT = "127.0.0.1:7624"
CONNECT_TIME = 3.0  # s; a server in this house takes milliseconds
FIRST_TIME = 3.0  # s; its drivers may still be starting
# Definitions have no end mark: they have all come when none has come for a while. Updates do not count: a
# connected camera sends them for ever.
QUIET_TIME = 1.0  # s
MORE_TIME = 7.0  # s after the first; a server whose devices never fall silent


def collect(address: str | None) -> Server:
    """What the server there serves; None: the usual one. Raises ValueError for what is no address."""
    asked, address = address is not None, address or DEFAULT
    try:
        client = Client(address, connect_limit=CONNECT_TIME)
    except ServerGone as error:
        return Server(address, False, local=False, asked=asked, problem=error.reason)
    problem = ""
    with client:
        try:
            client.get_properties()
            client.wait_quietly(lambda: bool(client.model.devices), FIRST_TIME)
            client.settle(QUIET_TIME, MORE_TIME)
        except ServerGone as error:
            problem = error.reason  # what it has told until then counts
    devices, others = _sorted(client.model)
    return Server(address, True, client.local, asked, devices, others, problem)


def _sorted(model: Model) -> tuple[tuple[Device, ...], tuple[str, ...]]:
    """Our devices with their values, and the names of the others."""
    ours, others = [], []
    for name, vectors in sorted(model.devices.items()):
        info = vectors.get("DRIVER_INFO")
        program = info.values.get("DRIVER_EXEC", "") if info is not None else ""
        if program.rpartition("/")[2] == DRIVER:
            states = {vector.name: vector.state.value for vector in vectors.values()}
            ours.append(Device(name, states, {vector.name: vector.values for vector in vectors.values()}))
        else:
            others.append(name)
    return tuple(ours), tuple(others)
