# SPDX-License-Identifier: LGPL-2.1-or-later
"""A client that notes when and in which order everything came, and questions to ask of it."""

from __future__ import annotations

import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.indi import eventually, values
from tests.support.rig import DEVICE, IndiClient, Server, Sim, opened, stand_alone

# A frame that takes a moment to transfer, whatever the sensor.
SMALL = {"X": 0, "Y": 0, "WIDTH": 320, "HEIGHT": 200}
POLLING = 200  # ms; a test that waits for temperatures waits five times less
GUIDE = ("TELESCOPE_TIMED_GUIDE_NS", "TELESCOPE_TIMED_GUIDE_WE")
# Guiding programs keep pointers to these.
LASTING = ("CCD_EXPOSURE", "CCD_FRAME", "CCD_BINNING", "CCD_INFO", "CCD1", *GUIDE)


class Witness(IndiClient):
    """`arrivals` holds (monotonic time, message) of everything, and is never cleared.

    A mark is a place in it: what the questions below look at begins there.
    """

    def __init__(self, address: str) -> None:
        self.arrivals: list[tuple[float, ET.Element]] = []
        super().__init__(address)

    def _take(self, element: ET.Element) -> None:
        super()._take(element)
        self.arrivals.append((time.monotonic(), element))

    @property
    def mark(self) -> int:
        return len(self.arrivals)

    def after(
        self, mark: int, vector: str | None = None, tag: str = "set", device: str = DEVICE
    ) -> list[ET.Element]:
        """Messages of a device whose tag begins so, about one vector or all."""
        found = [message for _, message in self.arrivals[mark:] if message.tag.startswith(tag)]
        return [m for m in found if m.get("device") == device and vector in (None, m.get("name"))]

    def latest(self, vector: str) -> dict[str, str]:
        """The values that it was said to have last."""
        told = [m for _, m in self.arrivals if m.get("name") == vector and m.get("device") == DEVICE]
        return values([m for m in told if m.tag[:3] in ("def", "set")][-1])

    def when(self, message: ET.Element) -> float:
        return next(at for at, element in self.arrivals if element is message)

    def ask(self, kind: str, vector: str, **elements: object) -> int:
        """Sends a request; the mark is before it."""
        mark = self.mark
        self.new(kind, vector, **elements)
        return mark

    def answer(self, mark: int, vector: str, *states: str, device: str = DEVICE) -> ET.Element:
        """The first update in one of these states; without any: the first that is not Busy."""
        wanted = states or ("Idle", "Ok", "Alert")

        def found() -> list[ET.Element]:
            return [m for m in self.after(mark, vector, device=device) if m.get("state") in wanted]

        return eventually(found, f"{vector} becomes one of {wanted}")[0]

    def put(self, kind: str, vector: str, **elements: object) -> ET.Element:
        """A request that must be answered by Ok, sooner or later."""
        answer = self.answer(self.ask(kind, vector, **elements), vector)
        assert answer.get("state") == "Ok", ET.tostring(answer)
        return answer

    def course(self, mark: int, vector: str) -> list[str]:
        """The states without repetitions."""
        states: list[str] = []
        for message in self.after(mark, vector):
            if states[-1:] != [message.attrib["state"]]:
                states.append(message.attrib["state"])
        return states

    def definition(self, vector: str) -> ET.Element:
        """As it is now."""
        mark = self.mark
        self.send(f"<getProperties version='1.7' device='{DEVICE}' name='{vector}'/>")
        return eventually(lambda: self.after(mark, vector, "def"), f"{vector} is defined")[0]

    def definitions(self) -> list[ET.Element]:
        """All of them, in their order."""
        mark = self.mark
        self.send("<getProperties version='1.7'/>")
        # The answer to a second question comes behind that to the first.
        self.send(f"<getProperties version='1.7' device='{DEVICE}' name='CONNECTION'/>")
        eventually(lambda: len(self.after(mark, "CONNECTION", "def")) >= 2, "two definitions")
        return self.after(mark, tag="def")[:-1]

    def take(self, seconds: float = 0.05) -> tuple[int, bytes]:
        """A picture: the mark before the request, and the file."""
        number = len(self.blobs)
        mark = self.ask("Number", "CCD_EXPOSURE", CCD_EXPOSURE_VALUE=seconds)
        answer = self.answer(mark, "CCD_EXPOSURE")
        assert answer.get("state") == "Ok", ET.tostring(answer)
        assert len(self.blobs) == number + 1
        return mark, self.blobs[number]

    def shape(self, seconds: float = 0.05) -> tuple[int, ...]:
        return tuple(opened(self.take(seconds)[1])[1].shape)

    def temperatures(self, mark: int, count: int) -> list[ET.Element]:
        """So many updates of the temperature, waited for: a clock that ticks while a camera is connected."""
        return eventually(
            lambda: self.after(mark, "CCD_TEMPERATURE")[count - 1 :] and self.after(mark, "CCD_TEMPERATURE"),
            f"{count} temperatures",
        )

    def disconnect(self) -> int:
        mark = self.ask("Switch", "CONNECTION", DISCONNECT="On")
        self.answer(mark, "CONNECTION", "Idle")
        eventually(lambda: self.after(mark, "CCD1", "del"), "the properties go")
        return mark

    def connect(self) -> int:
        """Asks for everything, then connects; the mark is before the request to connect."""
        self.send(f"<getProperties version='1.7'/><enableBLOB device='{DEVICE}'>Also</enableBLOB>")
        eventually(lambda: self.after(0, "CONFIG_PROCESS", "def"), "the first definitions")
        mark = self.ask("Switch", "CONNECTION", CONNECT="On")
        answer = self.answer(mark, "CONNECTION")
        assert answer.get("state") == "Ok", ET.tostring(answer)
        # Everything is defined in one burst: behind its last message there is nothing of it.
        last = ("FILTER_TRIM", "EXTERNAL_TRIGGER", "SHUTTER_OUTPUT")
        eventually(lambda: any(self.after(mark, name, "def") for name in last), "all definitions")
        return mark


def number(message: ET.Element) -> float:
    """The value of the first element."""
    return float(next(iter(values(message).values())))


@contextmanager
def bench(folder: Path, model: str = "683wsg", **options: object) -> Iterator[tuple[Sim, Server, Witness]]:
    """A camera of one's own, connected, with a small frame, without flush, and often asked its temperature."""
    folder.mkdir(exist_ok=True)
    with Sim(folder, model, **options) as sim, stand_alone(folder, sim.environ) as server:
        with Witness(server.address) as client:
            client.connect()
            client.put("Number", "POLLING_PERIOD", PERIOD_MS=POLLING)
            client.put("Switch", "CCD_FLUSH", FLUSH_NONE="On")
            client.put("Number", "CCD_FRAME", **SMALL)
            sim.happened.clear()
            yield sim, server, client
