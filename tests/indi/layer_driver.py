# SPDX-License-Identifier: LGPL-2.1-or-later
"""A small INDI driver on the INDI layer alone, for the tests: no camera, every kind of vector."""

from __future__ import annotations

import logging
import os
import sys
import threading

from indi_qsi.links.frame import Frame
from indi_qsi.links.stdio import StdioLink
from indi_qsi.properties import (
    BlobElement,
    BlobVector,
    Device,
    Hub,
    LightElement,
    LightVector,
    NumberElement,
    NumberVector,
    Permission,
    Request,
    Rule,
    State,
    SwitchElement,
    SwitchVector,
    TextElement,
    TextVector,
)
from indi_qsi.wire.messages import DelProperty, SnoopedVector


def pattern(size: int, seed: int) -> bytes:
    """Bytes that no other offset and no other seed have."""
    block = bytes((seed + 7 * i + (i >> 8)) & 0xFF for i in range(65_521))
    return (block * (size // len(block) + 1))[:size]


class LayerDriver:
    def __init__(self) -> None:
        self.hub = Hub()
        device = self.device = Device(os.environ.get("INDIDEV", "Layer"), self.hub)
        self.connection = SwitchVector(
            "CONNECTION",
            "Connection",
            "Main Control",
            [SwitchElement("CONNECT", "Connect"), SwitchElement("DISCONNECT", "Disconnect", True)],
            permission=Permission.RW,
            on_request=self.connect,
        )
        self.action = SwitchVector(
            "ACTION",
            "Action",
            "Main Control",
            [SwitchElement("FAIL", "Fail"), SwitchElement("PRINT", "Print")],
            permission=Permission.RW,
            rule=Rule.AT_MOST_ONE,
            on_request=self.act,
        )
        self.level = NumberVector(
            "LEVEL",
            "Level",
            "Main Control",
            [NumberElement("A", "A", 1.5, "%.2f", -10, 10, 0.1), NumberElement("B", "B", 0, "%m", 0, 90)],
            permission=Permission.RW,
        )
        self.note = TextVector(
            "NOTE",
            "Note & more",
            "Options",
            [TextElement("TEXT", "Text", "a <b> & 'c'")],
            permission=Permission.RW,
        )
        self.version = TextVector(
            "VERSION", "Version", "Options", [TextElement("V", "V", "1.0")], permission=Permission.RO
        )
        self.light = LightVector("LIGHT", "Light", "Options", [LightElement("L", "L", State.BUSY)])
        self.take = NumberVector(
            "TAKE",
            "Take",
            "Main Control",
            [NumberElement("SIZE", "Size", 0, "%.0f", 1, 1e8)],
            permission=Permission.RW,
            on_request=self.take_frame,
        )
        self.frame = BlobVector("FRAME", "Frame", "Main Control", [BlobElement("DATA", "Data")])
        self.snooped = TextVector(
            "SNOOPED", "Snooped", "Options", [TextElement("LAST", "Last")], permission=Permission.RO
        )
        device.add(
            self.connection, self.action, self.level, self.note, self.version, self.light, self.snooped
        )
        self.taken = 0

    def connect(self, request: Request[bool]) -> None:
        if request.values["CONNECT"]:
            self.connection.select("CONNECT", state=State.OK, message="connected")
            self.device.add(self.take, self.frame)
        else:
            self.connection.select("DISCONNECT", state=State.IDLE)
            self.device.remove(self.take, self.frame)

    def act(self, request: Request[bool]) -> None:
        if request.given.get("PRINT"):
            print("a stray print")
            os.write(1, b"<stray/>\n")
            self.action.select(None, state=State.OK)
        else:
            raise RuntimeError("as asked for")

    def take_frame(self, request: Request[float]) -> None:
        self.take.set(request.values, state=State.BUSY)
        self.taken += 1
        threading.Thread(target=self.send, args=(int(request.values["SIZE"]), self.taken)).start()

    def send(self, size: int, seed: int) -> None:
        with Frame(size, ".fits") as frame:
            frame.buffer[:] = pattern(size, seed)
            frame.seal()
            self.frame.send("DATA", frame)
        self.take.set(state=State.OK)

    def snoop(self, message: SnoopedVector | DelProperty) -> None:
        if isinstance(message, SnoopedVector):
            text = f"{message.name} {dict(message.values)}"
            self.snooped.set({"LAST": text}, state=State.OK)

    def run(self) -> None:
        link = StdioLink(self.hub, on_closed=lambda reason: logging.info("closed once: %s", reason))
        self.hub.add_device(self.device)
        self.hub.snoop(self.device.name, "LEVEL", self.snoop)
        logging.info("driver pid %d is up, attached: %s", os.getpid(), link.attaches)
        link.run()


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    LayerDriver().run()
