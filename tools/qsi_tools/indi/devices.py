# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which devices a server has, and the one that is meant."""

from __future__ import annotations

from indi_qsi.wire.messages import State
from qsi_tools.indi.client import ANSWER_LIMIT, Client, Missing
from qsi_tools.indi.model import Vector

# Bits of DRIVER_INTERFACE, as INDI numbers them.
CAMERA = 2

# Devices define themselves at their own pace, and nothing says that there will be no more. A driver that is
# just being started takes seconds on a Raspberry Pi.
FIRST_LIMIT = 15.0  # s for the first device that fits
QUIET = 0.7  # s of silence after it: then there is no other


def devices_with(client: Client, interface: int) -> list[str]:
    """The devices that say they are of this kind."""
    found = []
    for device, vectors in client.model.devices.items():
        info = vectors.get("DRIVER_INFO")
        text = info.values.get("DRIVER_INTERFACE", "") if info is not None else ""
        if text.isdecimal() and int(text) & interface:
            found.append(device)
    return found


def choose(client: Client, name: str | None, interface: int, usual: str) -> str:
    """The device of this name, waited for; without one the only one of this kind, or that of the usual name.

    Raises `Missing`.
    """
    if name is not None:
        client.wait_quietly(lambda: name in client.model.devices, FIRST_LIMIT)
        if name in client.model.devices:
            return name
        client.settle(QUIET, QUIET)
        there = ", ".join(client.model.devices) or "no device at all"
        raise Missing(f"{client.server} has no device {name!r}; it has {there}")
    client.wait_quietly(lambda: bool(devices_with(client, interface)), FIRST_LIMIT)
    client.settle(QUIET, FIRST_LIMIT)
    found = devices_with(client, interface)
    if not found:
        there = ", ".join(client.model.devices) or "no device at all"
        raise Missing(f"{client.server} has no camera; it has {there}")
    if len(found) > 1 and usual in found:
        return usual
    if len(found) > 1:
        raise Missing(f"{client.server} has several cameras: choose one by --device: {', '.join(found)}")
    return found[0]


def set_switch(client: Client, vector: Vector, element: str, limit: float = ANSWER_LIMIT) -> None:
    """Switches an element on and waits until it is so. Raises `ClientError`."""
    if element not in vector.values:
        raise Missing(f"{vector.device} has no {element} in {vector.name}: {', '.join(vector.values)}")
    if not (vector.on(element) and vector.state is not State.BUSY):
        client.change(vector, {element: "On"}, limit, lambda now: now.on(element))
