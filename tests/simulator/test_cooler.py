# SPDX-License-Identifier: LGPL-2.1-or-later
"""The cooler keeps the Guide's figures."""

from __future__ import annotations

import time
from dataclasses import fields

import pytest

from tests.simulator.bench import Bench, bench
from usbproto import packets as p
from usbproto.errors import Refused
from usbproto.simulator.cooler import Environment

MINUTE = 60.0


def cool(b: Bench, set_point: float, on: bool = True, ambient: bool = False) -> None:
    b.ask(p.SET_TEMPERATURE, p.SetTemperature(on, ambient, set_point))


def settle_time(b: Bench, set_point: float, limit: float = 40 * MINUTE) -> float:
    """Seconds until the CCD is at the set point to 0.1 K and stays there for two minutes."""
    start = b.time.now()
    inside = None
    while b.time.now() - start < limit:
        b.time.advance(1.0)
        if abs(b.ask(p.GET_TEMPERATURE).ccd - set_point) > 0.1:
            inside = None
        elif inside is None:
            inside = b.time.now()
        elif b.time.now() - inside > 2 * MINUTE:
            return inside - start
    raise AssertionError("it never settled")


@pytest.mark.parametrize("model", ["583wsg", "683wsg"])
def test_cool_down(model: str) -> None:
    with bench(model, environment=Environment(20.0)) as b:
        started = time.monotonic()
        assert b.ask(p.GET_TEMPERATURE).cooler is p.CoolerState.OFF
        cool(b, -10.0)
        b.time.advance(MINUTE)
        first = b.ask(p.GET_TEMPERATURE)
        assert (first.cooler, first.power) == (p.CoolerState.COOLING, 100)
        assert 5 * MINUTE < MINUTE + settle_time(b, -10.0) < 15 * MINUTE
        for _ in range(600):
            b.time.advance(2.0)
            reading = b.ask(p.GET_TEMPERATURE)
            assert abs(reading.ccd + 10) <= 0.1
        assert reading.cooler is p.CoolerState.ON
        assert 50 < reading.power < 85
        assert b.ask(p.GET_SET_POINT).set_point == -10
        assert time.monotonic() - started < 5


@pytest.mark.parametrize(("model", "delta"), [("583wsg", 38), ("683wsg", 45)])
def test_delta_at_85_per_cent(model: str, delta: float) -> None:
    with bench(model, environment=Environment(15.0)) as b:
        cool(b, 15.0 - delta)
        b.time.advance(60 * MINUTE)
        reading = b.ask(p.GET_TEMPERATURE)
        assert reading.ccd == pytest.approx(15 - delta, abs=0.1)
        assert reading.power == pytest.approx(85, abs=1)


def test_out_of_reach_is_tried_for_ever() -> None:
    with bench("583wsg", environment=Environment(25.0)) as b:
        cool(b, -40.0)
        b.time.advance(3 * 3600)
        reading = b.ask(p.GET_TEMPERATURE)
        assert (reading.power, reading.cooler) == (100, p.CoolerState.COOLING)
        assert reading.ccd == pytest.approx(25 - 44.7, abs=1)


def test_never_below_minus_forty() -> None:
    with bench("683wsg", environment=Environment(-5.0)) as b:
        cool(b, -60.0)
        b.time.advance(3600)
        assert b.ask(p.GET_TEMPERATURE).ccd == pytest.approx(-40, abs=0.1)


def test_off_and_to_ambient() -> None:
    with bench("683wsg") as b:
        cool(b, -10.0)
        b.time.advance(20 * MINUTE)
        cool(b, -10.0, ambient=True)
        before = b.ask(p.GET_TEMPERATURE)
        assert before.cooler is p.CoolerState.GOING_TO_AMBIENT
        b.time.advance(2 * MINUTE)
        warmer = b.ask(p.GET_TEMPERATURE)
        assert warmer.ccd - before.ccd <= 2 * 4.1
        assert warmer.ccd > before.ccd + 5
        b.time.advance(20 * MINUTE)
        assert b.ask(p.GET_TEMPERATURE).cooler is p.CoolerState.AT_AMBIENT
        cool(b, -10.0)
        b.time.advance(20 * MINUTE)
        cool(b, -10.0, on=False)
        reading = b.ask(p.GET_TEMPERATURE)
        assert (reading.cooler, reading.power) == (p.CoolerState.OFF, 0)
        b.time.advance(MINUTE)
        assert b.ask(p.GET_TEMPERATURE).ccd > -10 + 4.1  # at once, not at the safe rate


def test_it_cannot_heat() -> None:
    with bench("683wsg", environment=Environment(-10.0)) as b:
        cool(b, 10.0)
        b.time.advance(30 * MINUTE)
        reading = b.ask(p.GET_TEMPERATURE)
        assert (reading.power, reading.cooler) == (0, p.CoolerState.WARMING)
        assert reading.ccd == pytest.approx(-8.5, abs=0.2)


def test_set_point_limits() -> None:
    with bench() as b:
        for bad in (-100.01, 100.01):
            with pytest.raises(Refused):
                cool(b, bad)
        cool(b, 100.0)


def test_pcb_temperature() -> None:
    with bench() as b:
        reading = b.ask(p.GET_TEMPERATURE_EX)
        assert reading.pcb > reading.heat_sink > 20


def test_fan_off_is_overridden() -> None:
    with bench("683wsg", environment=Environment(24.0)) as b:
        d = b.ask(p.GET_DEFAULT_SETTINGS)
        values = {field.name: getattr(d, field.name) for field in fields(p.Settings)}
        b.ask(p.SET_SETTINGS, p.Settings(**{**values, "fan": p.Fan.OFF}))
        assert b.hardware.cooler.fan_setting == p.Fan.OFF
        cool(b, -40.0)
        hottest, fans = 0.0, set()
        for _ in range(120):
            b.time.advance(30)
            hottest = max(hottest, b.ask(p.GET_TEMPERATURE).heat_sink)
            fans.add(b.hardware.cooler.fan)
        assert fans == {p.Fan.OFF, p.Fan.FULL}
        assert hottest < 40


@pytest.mark.parametrize(
    ("around", "error"),
    [({"voltage": 10.9}, 3), ({"voltage": 14.1}, 4), ({"ambient": 39.0}, 1), ({"ambient": -45.0}, 2)],
)
def test_soft_errors_ride_on_the_temperature(around: dict[str, float], error: int) -> None:
    with bench() as b:
        b.camera.set_environment(**around)
        b.time.advance(3600)
        answer = b.exchange(b"\x47\x00")
        assert answer[-1] == error
        assert answer[:2] == b"\x47\x08"
        assert b.exchange(b"\x5b\x00")[-1] == error
        assert b.camera.indicator.led == f"red 1, yellow {error}"
        b.picture(0.1, (10, 10))  # the camera goes on
        b.camera.set_environment(ambient=20.0, voltage=12.0)
        b.time.advance(3600)
        b.ask(p.GET_TEMPERATURE)
        assert b.events("error")[-1]["code"] == 0


def test_brown_out() -> None:
    with bench() as b:
        cool(b, -10.0)
        b.time.advance(600)
        b.camera.set_environment(voltage=9.5)
        b.time.advance(10)
        answer = b.exchange(b"\x47\x00")
        assert (answer[2], answer[-1]) == (p.CoolerState.BROWN_OUT, 3)
        assert int.from_bytes(answer[7:9], "big") == 0


def test_a_night_costs_no_time() -> None:
    with bench() as b:
        cool(b, -15.0)
        b.time.advance(12 * 3600)
        start = time.process_time()
        b.ask(p.GET_TEMPERATURE)
        assert time.process_time() - start < 1.0
