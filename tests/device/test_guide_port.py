# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the end-to-end tests of guiding cannot bring about: two devices on one port, and an unlucky link."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest

from indi_qsi.device import guider
from indi_qsi.device.activity import Activity
from indi_qsi.device.guider import NORTH_SOUTH, WEST_EAST, GuidePort, GuiderSubject
from indi_qsi.device.orders import OrderBook
from indi_qsi.device.worker import CameraThread, Priority
from indi_qsi.properties import Device, Hub
from tests.support.indi import PATIENCE, RecordingLink, eventually, request, values
from usbproto.errors import Disconnected, TimedOut
from usbproto.relays import Direction

NS, WE = NORTH_SOUTH.vector, WEST_EAST.vector


class SlowRelays:
    """Relays behind a link whose next answer may be kept back, or be an error."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.ends = 0.0
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None

    def pulse(self, direction: Direction, seconds: float, *, ask: bool = True) -> float:
        self.log.append(f"{direction.name} {seconds:g}")
        assert self.gate.wait(PATIENCE)
        if (error := self.error) is not None:
            self.error = None
            raise error
        self.ends = time.monotonic() + seconds
        return seconds

    def done(self) -> bool:
        return time.monotonic() >= self.ends

    def stop(self) -> None:
        self.log.append("stop")
        self.ends = 0.0


class FakeCamera:
    def __init__(self, relays: SlowRelays) -> None:
        self.relays = relays


class Bench:
    """Two devices, as a camera and its guider device, on one port."""

    def __init__(self) -> None:
        self.hub, self.link = Hub(), RecordingLink()
        self.hub.attach(self.link)
        self.activity = Activity()
        self.thread = CameraThread("camera test", OrderBook(self.activity.allows), lambda error: None)
        self.shutter_on_guide_port = False
        self.port = GuidePort(self.thread, self.activity, self)
        self.relays = SlowRelays()
        self.camera = cast(Any, FakeCamera(self.relays))
        self.subjects = []
        for name in ("A", "B"):
            device, subject = Device(name, self.hub), GuiderSubject(self.port)
            subject.connect(self.camera)
            device.add(*subject.vectors())
            self.hub.add_device(device)
            self.subjects.append(subject)
        self.seen: list[tuple[str, str, str]] = []
        self.link.take()

    def ask(self, device: str, element: str, length: float) -> None:
        vector = NS if element in "NS" else WE
        request(
            self.hub,
            None,
            f"<newNumberVector device='{device}' name='{vector}'>"
            f"<oneNumber name='TIMED_GUIDE_{element}'>{length}</oneNumber></newNumberVector>",
        )

    def states(self, device: str, vector: str) -> list[str]:
        for message in self.link.take():
            if message.tag == "setNumberVector":
                assert message.attrib["state"] == "Busy" or set(map(float, values(message).values())) == {0}
                self.seen.append((message.attrib["device"], message.attrib["name"], message.attrib["state"]))
        return [state for who, what, state in self.seen if (who, what) == (device, vector)]

    def wait(self, device: str, vector: str, *states: str) -> None:
        eventually(lambda: self.states(device, vector) == list(states), f"{states} in {self.seen}")


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.relays.gate.set()
    bench.port.close("the end")
    bench.thread.stop()


def test_another_device_takes_the_axis(bench: Bench) -> None:
    bench.ask("A", "N", 20_000)
    eventually(lambda: bench.relays.ends, "it runs")
    bench.ask("B", "S", 30)
    bench.wait("B", NS, "Busy", "Idle")
    bench.wait("A", NS, "Busy", "Idle")  # its own is over as well
    assert bench.relays.log == ["NORTH 20", "stop", "SOUTH 0.03"]


def test_stopping_one_device_leaves_the_pulse_of_the_other(bench: Bench) -> None:
    bench.ask("A", "N", 60)
    bench.subjects[1].stop()
    bench.wait("A", NS, "Busy", "Idle")
    assert bench.relays.log == ["NORTH 0.06"]
    bench.ask("B", "W", 20_000)
    eventually(lambda: "WEST 20" in bench.relays.log, "it runs")
    bench.subjects[1].stop()
    bench.wait("B", WE, "Busy", "Idle")


def test_a_stop_while_the_order_is_on_its_way(bench: Bench) -> None:
    bench.relays.gate.clear()
    bench.ask("A", "N", 20_000)
    eventually(lambda: bench.relays.log, "the order is out")
    bench.ask("A", "N", 0)
    assert bench.states("A", NS) == ["Busy"]  # the relay may be closed: not over yet
    bench.relays.gate.set()
    bench.wait("A", NS, "Busy", "Idle")
    assert bench.relays.log == ["NORTH 20", "stop"]


def test_an_order_without_an_answer(bench: Bench) -> None:
    """Nobody knows whether the relay has closed: it is opened; the other axis has its turn."""
    bench.relays.gate.clear()
    bench.relays.error = TimedOut("ActivateRelay", 3)
    bench.ask("A", "N", 100)
    eventually(lambda: bench.relays.log, "the order is out")
    bench.ask("A", "E", 20)
    bench.relays.gate.set()
    bench.wait("A", NS, "Busy", "Alert")
    bench.wait("A", WE, "Busy", "Idle")
    assert bench.relays.log == ["NORTH 0.1", "stop", "EAST 0.02"]


def test_the_camera_leaves(bench: Bench) -> None:
    bench.relays.gate.clear()
    bench.relays.error = Disconnected("gone")
    bench.ask("A", "N", 100)
    bench.ask("A", "E", 100)
    bench.ask("B", "E", 100)  # takes the place of A's
    bench.relays.gate.set()
    for subject in bench.subjects:
        subject.disconnect()  # whoever notices first that it is gone: this answers for all
    bench.wait("A", NS, "Busy", "Alert")
    bench.wait("A", WE, "Busy", "Idle")
    bench.wait("B", WE, "Busy", "Alert")
    bench.ask("B", "E", 100)
    bench.wait("B", WE, "Busy", "Alert", "Alert")


def test_a_busy_thread(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pulses end by the clock, wait in vain, are replaced and stopped; each vector hears of it once."""
    monkeypatch.setattr(guider, "STALE", 0.15)
    bench.ask("A", "N", 100)
    eventually(lambda: bench.relays.ends, "it runs")
    gate = threading.Event()
    bench.thread.post(Priority.URGENT, lambda: gate.wait(PATIENCE))  # a transfer
    bench.ask("A", "S", 50)  # in the place of what runs: cannot be sent
    bench.ask("A", "W", 50)
    bench.wait("A", NS, "Busy", "Busy", "Alert")
    bench.wait("A", WE, "Busy", "Alert")
    bench.ask("A", "E", 50)
    bench.ask("A", "E", 0)
    bench.wait("A", WE, "Busy", "Alert", "Busy", "Idle")
    gate.set()
    bench.ask("A", "N", 20)
    bench.wait("A", NS, "Busy", "Busy", "Alert", "Busy", "Idle")
    assert bench.relays.log[0] == "NORTH 0.1" and bench.relays.log[-1] == "NORTH 0.02"
    assert not [order for order in bench.relays.log if order[0] in "SWE" and order != "stop"]


def test_a_stop_of_what_the_camera_cannot_be_told(bench: Bench) -> None:
    bench.ask("A", "N", 150)
    eventually(lambda: bench.relays.ends, "it runs")
    gate = threading.Event()
    bench.thread.post(Priority.URGENT, lambda: gate.wait(PATIENCE))
    bench.ask("A", "N", 0)
    assert bench.states("A", NS) == ["Busy"]  # the relay is closed until its time is over
    bench.wait("A", NS, "Busy", "Idle")
    assert bench.relays.done()
    gate.set()


def test_the_north_is_taken_while_a_pulse_waits(bench: Bench) -> None:
    bench.ask("A", "E", 60)
    bench.ask("A", "N", 50)
    bench.shutter_on_guide_port = True
    bench.wait("A", NS, "Busy", "Alert")
    bench.wait("A", WE, "Busy", "Idle")
    assert bench.relays.log == ["EAST 0.06"]


def test_a_flood_of_requests(bench: Bench) -> None:
    for _ in range(300):
        bench.ask("A", "N", 100)
        bench.ask("B", "E", 100)
    bench.ask("A", "N", 0)
    bench.ask("B", "E", 0)
    for device, vector in (("A", NS), ("B", WE)):
        eventually(lambda d=device, v=vector: bench.states(d, v)[-1] == "Idle", "it ends")  # type: ignore[misc]
        states = bench.states(device, vector)
        assert states.count("Busy") == 300
        assert "Alert" not in states
