# SPDX-License-Identifier: LGPL-2.1-or-later
"""For tests of the parts of the device: a client that notes when updates come, and a connected camera."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from tests.support.indi import eventually, values
from tests.support.rig import IndiClient, Server, Sim, stand_alone


@dataclass(frozen=True)
class Update:
    """One `set`: when it came (Unix time), and what it says."""

    at: float
    state: str
    values: dict[str, str]
    message: str

    def number(self, name: str) -> float:
        return float(self.values[name])


class Observer(IndiClient):
    """Notes when messages come."""

    def _take(self, element: Element) -> None:
        element.set("received", repr(time.time()))
        super()._take(element)

    def updates(self, vector: str) -> list[Update]:
        """Every update of a vector so far."""
        return [
            Update(float(m.attrib["received"]), m.attrib["state"], values(m), m.get("message", ""))
            for m in list(self.messages)
            if m.get("name") == vector and m.tag.startswith("set")
        ]

    def until(self, vector: str, *states: str, after: int = 0) -> list[Update]:
        """The updates from number `after` on, as soon as the last one is in one of these states."""

        def found() -> list[Update]:
            updates = self.updates(vector)[after:]
            return updates if updates and updates[-1].state in states else []

        seen = [f"{u.state} {u.message}" for u in self.updates(vector)[-5:]]
        return eventually(found, f"{vector} becomes {states}; it was {seen}")

    def messages_with(self, text: str) -> list[str]:
        """Every message to the user so far that has this text."""
        return [m.get("message", "") for m in list(self.messages) if text in m.get("message", "")]

    def definition(self, vector: str) -> Element:
        """The vector as it is defined now."""
        self.clear()
        self.send(f"<getProperties version='1.7' device='QSI CCD' name='{vector}'/>")
        return eventually(
            lambda: [m for m in list(self.messages) if m.get("name") == vector and m.tag.startswith("def")],
            f"{vector} is defined",
        )[0]

    def choose(self, vector: str, element: str) -> list[Update]:
        """Switches an element on, and waits until it is so."""
        before = len(self.updates(vector))
        self.new("Switch", vector, **{element: "On"})
        updates = self.until(vector, "Ok", "Alert", after=before)
        assert updates[-1].state == "Ok" and updates[-1].values[element] == "On", updates
        return updates

    def disconnect_camera(self) -> None:
        def gone() -> int:
            return sum(m.tag == "delProperty" and m.get("name") == "CCD1" for m in list(self.messages))

        before = gone()
        self.new("Switch", "CONNECTION", DISCONNECT="On")
        self.until("CONNECTION", "Idle")
        eventually(lambda: gone() > before, "the properties go")  # until then, who asks is told of them

    def small_frame(self) -> None:
        self.new("Number", "CCD_FRAME", X=0, Y=0, WIDTH=320, HEIGHT=200)
        self.wait_for("setNumberVector", name="CCD_FRAME", state="Ok")


def happened(sim: Sim, *events: str) -> list[dict[str, Any]]:
    """What happened so far in the camera, of these kinds."""
    return [happening for happening in list(sim.happened) if happening["e"] in events]


def wait_event(sim: Sim, event: str, count: int = 1) -> dict[str, Any]:
    """The so-many-th event of a kind, waited for."""
    return eventually(lambda: happened(sim, event)[count - 1 :], f"{event} number {count}")[0]


@contextmanager
def connected(
    directory: Path,
    model: str = "683wsg",
    prepare: Callable[[Sim], object] = lambda sim: None,
    **options: Any,
) -> Iterator[tuple[Sim, Server, Observer]]:
    """A camera of this model, a driver for it, and a client that has connected it."""
    with Sim(directory, model, **options) as sim, stand_alone(directory, sim.environ) as server:
        prepare(sim)
        with Observer(server.address) as client:
            client.connect_camera()
            yield sim, server, client
