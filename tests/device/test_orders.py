# SPDX-License-Identifier: LGPL-2.1-or-later
"""The order book: what goes first, what replaces what, and that every order ends."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from indi_qsi.device import orders
from indi_qsi.device.activity import QUIET_BEFORE, Activity, Phase
from indi_qsi.device.choices import CHOICES
from indi_qsi.device.orders import FULL, MAX_WAITING, Order, OrderBook
from indi_qsi.device.rules import POWER_OFF, ROLE_SETTINGS, RULES, When
from indi_qsi.properties import Device, Hub, NumberElement, NumberVector, Permission, State
from tests.support.indi import RecordingLink, eventually, values
from usbproto.errors import Disconnected, NoCamera, QsiError

CAN_WAIT = "CCD_FLUSH", "CCD_TEMPERATURE", "CCD_EXPOSURE", "FILTER_SLOT"


class Bench:
    """A book without a camera thread: `take_all` is the camera, with what `allowed` lets pass."""

    def __init__(self) -> None:
        self.allowed = set(When)
        self.book = OrderBook(lambda when: when in self.allowed)
        self.device = Device("D", Hub())
        self.link = RecordingLink()
        self.device.hub.attach(self.link)
        self.device.hub.add_device(self.device)
        self.done: list[str] = []

    def vector(self, name: str) -> NumberVector:
        found = self.device.get(name)
        if found is None:
            element = NumberElement("X", "x", 0, "%g", 0, 1000)
            found = NumberVector(name, name, "Main", [element], permission=Permission.RW)
            self.device.add(found)
        assert isinstance(found, NumberVector)
        return found

    def ask(self, name: str, value: float = 0.0, **options: object) -> Order | None:
        def work(order: Order) -> None:
            self.done.append(f"{name}={value:g}")
            order.answer.end(State.OK, {"X": value})

        return self.book.submit(self.vector(name), work, **options)  # type: ignore[arg-type]

    def take_all(self) -> list[str]:
        """What the camera is told now."""
        self.done.clear()
        while (order := self.book.take()) is not None:
            order.carry_out()
        return list(self.done)

    def states(self, name: str) -> list[tuple[str, str, str]]:
        return [
            (m.attrib["state"], values(m)["X"], m.get("message", ""))
            for m in self.link.take()
            if m.get("name") == name and m.tag.startswith("set")
        ]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_the_order_of_requests_is_the_order_of_effects(bench: Bench) -> None:
    for name in ("CCD_EXPOSURE", "Gain", "CCD_TEMPERATURE", "FILTER_SLOT", "CCD_FLUSH"):
        bench.ask(name, 1)
    assert [name.partition("=")[0] for name in bench.take_all()] == [
        *("CCD_EXPOSURE", "Gain", "CCD_TEMPERATURE", "FILTER_SLOT", "CCD_FLUSH")
    ]


def test_independent_orders_pass_one_that_cannot_go(bench: Bench) -> None:
    bench.allowed = {When.LINK_QUIET}
    for name in ("Gain", "CCD_TEMPERATURE", "Fan", "CCD_FLUSH"):
        bench.ask(name, 1)
    assert bench.take_all() == ["CCD_TEMPERATURE=1", "Fan=1"]
    bench.allowed = set(When)
    assert bench.take_all() == ["Gain=1", "CCD_FLUSH=1"]


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("Gain", "CCD_EXPOSURE"),  # an exposure depends on everything
        ("CCD_EXPOSURE", "CCD_TEMPERATURE"),  # and everything on an exposure
        ("CCD_ROLE", "Fan"),  # a role brings a fan of its own
        ("CCD_SHUTTER", "HOST_TIMED"),
    ],
)
def test_no_order_overtakes_one_on_which_it_depends(bench: Bench, first: str, then: str) -> None:
    bench.allowed = set(When) - {RULES[first].when}
    bench.ask(first, 1)
    bench.ask(then, 1)
    assert bench.take_all() == []
    bench.allowed = set(When)
    assert bench.take_all() == [f"{first}=1", f"{then}=1"]


def test_a_newer_order_replaces_a_waiting_one_and_answers_for_it(bench: Bench) -> None:
    for value in (1, 2, 3):
        bench.ask("Gain", value)
    assert bench.take_all() == ["Gain=3"]
    assert bench.states("Gain") == [("Busy", "0.0", "")] * 3 + [("Ok", "3.0", "")]


def test_no_order_is_replaced_on_which_another_counts(bench: Bench) -> None:
    for name, value in (("Gain", 1), ("CCD_EXPOSURE", 5), ("Gain", 2)):
        bench.ask(name, value)
    assert bench.take_all() == ["Gain=1", "CCD_EXPOSURE=5", "Gain=2"]
    # Busy until the newest has ended, with the value that the camera has.
    assert [(state, x) for state, x, _ in bench.states("Gain")] == [
        *[("Busy", "0.0")] * 2,
        ("Busy", "1.0"),
        ("Ok", "2.0"),
    ]


def test_the_newer_one_has_the_newer_place(bench: Bench) -> None:
    for name, value in (("CCD_TEMPERATURE", -20), ("CCD_COOLER", 0), ("CCD_TEMPERATURE", 5)):
        bench.ask(name, value)
    assert bench.take_all() == ["CCD_TEMPERATURE=-20", "CCD_COOLER=0", "CCD_TEMPERATURE=5"]
    for name, value in (("CCD_TEMPERATURE", -20), ("Gain", 1), ("CCD_TEMPERATURE", 5)):
        bench.ask(name, value)
    assert bench.take_all() == ["Gain=1", "CCD_TEMPERATURE=5"]


def test_the_book_is_bounded(bench: Bench) -> None:
    bench.allowed = set()
    for number in range(MAX_WAITING):
        bench.ask(("Gain", "CCD_EXPOSURE")[number % 2], 1)
    bench.link.take()
    assert bench.ask("CCD_FLUSH", 1) is None
    assert bench.states("CCD_FLUSH") == [("Alert", "0.0", f"[ERROR] {FULL}")]
    assert bench.book.waiting == MAX_WAITING


def test_a_flood_for_one_vector_is_one_order(bench: Bench) -> None:
    bench.allowed = set()
    for number in range(2000):
        bench.ask("CCD_TEMPERATURE", number % 50)
    assert bench.book.waiting == 1


def test_without_a_camera_what_waits_and_what_comes_is_refused_in_words(bench: Bench) -> None:
    bench.ask("Gain", 1)
    bench.book.suspend(Disconnected("away"), NoCamera("lost", "wait"))
    assert bench.states("Gain")[-1] == ("Alert", "0.0", "[ERROR] lost. wait")
    bench.ask("Gain", 2)
    assert bench.states("Gain")[-1][0] == "Alert" and not bench.take_all()
    bench.book.resume()
    bench.ask("Gain", 3)
    assert bench.take_all() == ["Gain=3"]


def test_an_order_that_fails_ends_as_alert(bench: Bench) -> None:
    def fail(order: Order) -> None:
        raise QsiError("it is stuck", "Free it")

    order = bench.book.submit(bench.vector("FILTER_SLOT"), fail)
    assert order is not None and bench.book.take() is order
    with pytest.raises(QsiError) as caught:
        order.carry_out()
    order.fail(caught.value)
    assert bench.states("FILTER_SLOT")[-1] == ("Alert", "0.0", "[ERROR] it is stuck. Free it")
    assert order.done


def preparing(bench: Bench, prepare: Callable[[], None]) -> list[str]:
    """Asks for an exposure whose folder must be prepared; the calls of `prepared`."""
    calls: list[str] = []
    bench.ask("CCD_EXPOSURE", 1, prepare=prepare, prepared=lambda order: calls.append("ready"), disk="D")
    return calls


def test_an_order_waits_in_its_place_until_it_is_prepared(bench: Bench) -> None:
    answers = threading.Event()
    calls = preparing(bench, lambda: assert_true(answers.wait(20)))
    bench.ask("Gain", 2)
    assert bench.take_all() == [] and not calls
    answers.set()
    eventually(lambda: calls, "it is prepared")
    eventually(lambda: bench.take_all() == ["CCD_EXPOSURE=1", "Gain=2"], "both go, in their order")


def assert_true(value: bool) -> None:
    assert value


def test_a_preparation_that_fails_ends_the_order(bench: Bench) -> None:
    def fail() -> None:
        raise QsiError("no such folder")

    calls = preparing(bench, fail)
    eventually(lambda: not bench.vector("CCD_EXPOSURE").pending, "it ends")
    assert bench.states("CCD_EXPOSURE")[-1] == ("Alert", "0.0", "[ERROR] no such folder")
    assert not calls and not bench.take_all()


def test_a_preparation_that_hangs_ends_the_order(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "PREPARE_LIMIT", 0.01)
    answers = threading.Event()
    calls = preparing(bench, lambda: assert_true(answers.wait(20)))
    eventually(lambda: not bench.vector("CCD_EXPOSURE").pending, "it ends")
    assert "D does not answer within 0.01 s" in bench.states("CCD_EXPOSURE")[-1][2]
    answers.set()
    assert not calls and not bench.take_all()


def test_withdrawing_takes_the_older_ones_only(bench: Bench) -> None:
    bench.allowed = set()
    older, middle, newer = (bench.ask("CCD_EXPOSURE", number) for number in range(3))
    assert bench.book.withdraw(bench.vector("CCD_EXPOSURE"), before=middle) == [older]
    assert bench.book.withdraw(bench.vector("CCD_EXPOSURE")) == [middle, newer]


# --- the table of rules ---


def test_every_setting_of_the_camera_has_a_rule() -> None:
    assert {choice.vector for choice in CHOICES} <= RULES.keys()
    assert {choice.vector for choice in CHOICES if choice.kept} == set(ROLE_SETTINGS)


def test_what_the_camera_does_decides_what_may_go() -> None:
    activity = Activity()

    def may_go() -> set[When]:
        return {when for when in When if activity.allows(when)}

    everything, urgent = set(When), {When.OVERTAKES}
    assert may_go() == everything
    activity.wheel_moving = True
    assert may_go() == everything - {When.EXPOSURE, When.WHEEL}
    activity.wheel_moving = False
    activity.exposing = True
    with_the_link_free = urgent | {When.ENDS_TRIGGER, When.LINK_QUIET}
    activity.phase, activity.closes = Phase.EXPOSING, float("inf")
    assert may_go() == with_the_link_free
    activity.closes = -QUIET_BEFORE  # by our clock it is over
    assert may_go() == urgent
    activity.phase = Phase.READING
    assert may_go() == urgent
    activity.phase = Phase.WAITING
    assert may_go() == urgent | {POWER_OFF.when}
