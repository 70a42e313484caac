# SPDX-License-Identifier: LGPL-2.1-or-later
"""The log of exchanges: each is told at level DEBUG, repeated ones seldom, and nothing costs anything otherwise."""

from __future__ import annotations

import logging
import re
import time

import pytest

from tests.protocol.bench import bench
from usbproto import exchanges
from usbproto import packets as p
from usbproto.errors import Refused, TimedOut
from usbproto.exchanges import REPEAT, ExchangeLog

LINE = re.compile(r"(\w+): ok in \d+\.\d ms \(([0-9a-f]+) -> ([0-9a-f]+)\)")


@pytest.fixture
def debug(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, exchanges.__name__)
    return caplog


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock, which stands still until it is set."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def told(caplog: pytest.LogCaptureFixture, name: str = "") -> list[str]:
    return [r.message for r in caplog.records if r.name == exchanges.__name__ and r.message.startswith(name)]


def test_every_packet_of_a_connect_and_a_picture_is_told(debug: pytest.LogCaptureFixture) -> None:
    with bench() as b:
        b.check_picture()
        lines = [match for match in map(LINE.fullmatch, told(debug)) if match]
        order = {packet.hex(): None for packet in b.channel.sent}
        assert list(dict.fromkeys(line[2] for line in lines)) == list(order)
        for line in lines:
            command = p.COMMANDS[bytes.fromhex(line[2])[0]]
            assert line[1] == command.name
            p.decode_answer(command, bytes.fromhex(line[3]))  # the whole answer
        assert re.fullmatch(
            r"the image transfer: 384 bytes in \d+\.\d ms", told(debug, "the image transfer")[0]
        )


def test_an_answer_that_stays_the_same_is_told_seldom(
    debug: pytest.LogCaptureFixture, clock: list[float]
) -> None:
    with bench() as b:
        debug.clear()
        for tenth in range(round(10 * 2.5 * REPEAT)):
            clock[0] = 1000 + tenth / 10
            b.camera.state()
            b.camera.set_point()  # what is asked in between makes no difference
        first, second, third = told(debug, "GetDeviceState")
        assert LINE.fullmatch(first)
        left_out = round(10 * REPEAT) - 1
        assert [line.partition("), ")[2] for line in (second, third)] == [
            f"after {left_out} more that ended as before"
        ] * 2


def test_another_answer_is_told_at_once(debug: pytest.LogCaptureFixture, clock: list[float]) -> None:
    with bench(strange=("wheel-answers-at-once",)) as b:
        assert b.camera.wheel is not None
        debug.clear()
        clock[0] = 1000.0
        for _ in range(3):
            b.camera.state()
        b.camera.wheel.move(2)
        for _ in range(3):
            b.camera.state()
        still, moving = told(debug, "GetDeviceState")
        assert still.endswith("(4200 -> 420407000000)")
        assert moving.endswith("(4200 -> 42040100ff00), after 2 more that ended as before")


def test_orders_are_told_each_time(debug: pytest.LogCaptureFixture, clock: list[float]) -> None:
    with bench() as b:
        debug.clear()
        for _ in range(3):
            b.camera.abort_exposure()
        assert len(told(debug, "AbortExposure")) == 3


def test_what_failed_is_told_with_its_reason(debug: pytest.LogCaptureFixture, clock: list[float]) -> None:
    with bench() as b:
        debug.clear()
        b.fault("device-error:3,command=GetSetPoint,times=2")
        for _ in range(2):
            with pytest.raises(Refused):
                b.camera.set_point()
        (line,) = told(debug)
        assert line == "GetSetPoint: failed after 0.0 ms (5100): " + str(Refused("GetSetPoint", 3))
        b.fault("silence:command=SetTemperature")
        with pytest.raises(TimedOut) as caught:
            b.camera.cool_to(-1.0)
        assert told(debug, "SetTemperature") == [
            f"SetTemperature: failed after 0.0 ms (4604ff00ff9c): {caught.value}"
        ]


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING])
def test_nothing_is_put_together_for_nobody(
    level: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError

    for name in ("answered", "failed", "received"):
        monkeypatch.setattr(ExchangeLog, name, never)
    caplog.set_level(level)
    with bench() as b:
        b.fault("device-error:3,command=GetSetPoint")
        with pytest.raises(Refused):
            b.camera.set_point()
        b.check_picture()
