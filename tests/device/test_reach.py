# SPDX-License-Identifier: LGPL-2.1-or-later
"""A set point that is out of reach is said once; one that only takes its time is not."""

from __future__ import annotations

import pytest

from indi_qsi.device import reach as module
from indi_qsi.device.reach import PATIENCE, Reach
from usbproto.packets import CoolerState
from usbproto.simulator.cooler import Cooler, Environment
from usbproto.thermometer import Temperatures


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


def reading(ccd: float, power: float) -> Temperatures:
    return Temperatures(CoolerState.COOLING, ccd, None, None, power)


def cool_down(
    monkeypatch: pytest.MonkeyPatch, ambient: float, target: float, seconds: int = 3600
) -> list[int]:
    """When it was told, in a cool-down of the simulated cooler, s."""
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    cooler = Cooler("600", Environment(ambient=ambient), clock.now)
    cooler.command(clock.now, on=True, to_ambient=False, set_point=target)
    reach = Reach()
    told = []
    for second in range(0, seconds, 2):
        clock.now += 2
        cooler.look(clock.now)
        if reach.lost(reading(cooler.read_ccd(), cooler.power * 100), target):
            told.append(second)
    return told


@pytest.mark.parametrize(("ambient", "target"), [(20, -10), (20, -20), (0, -40), (20, 20)])
def test_what_can_be_reached_is_not_complained_of(
    monkeypatch: pytest.MonkeyPatch, ambient: float, target: float
) -> None:
    assert cool_down(monkeypatch, ambient, target) == []


@pytest.mark.parametrize(("ambient", "target"), [(35, -40), (40, -30)])
def test_what_cannot_is_said_once(monkeypatch: pytest.MonkeyPatch, ambient: float, target: float) -> None:
    told = cool_down(monkeypatch, ambient, target)
    assert len(told) == 1 and told[0] > PATIENCE


def test_a_new_set_point_is_a_new_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    reach = Reach()
    for _ in range(2):
        assert not reach.lost(reading(0, 100), -40)
        clock.now += PATIENCE + 1
        assert reach.lost(reading(0, 100), -40)
        clock.now += PATIENCE + 1
        assert not reach.lost(reading(0, 100), -40)
        reach.restart()
    assert not reach.lost(reading(0, 100), -40)
    clock.now += PATIENCE - 1
    assert not reach.lost(reading(0, 80), -40)  # not at full power
    clock.now += PATIENCE - 1
    assert not reach.lost(reading(0, 100), -40)
