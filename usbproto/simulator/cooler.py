# SPDX-License-Identifier: LGPL-2.1-or-later
"""The thermo-electric cooler, its heat sink, its fans and the supply voltage.

Two heat capacities: the CCD follows the heat sink minus what the cooler pumps, the heat sink follows the air
plus what the cooler burns. Both are computed in fixed steps from the last look to now, so nothing happens
while nobody looks, and a cool-down of fifteen minutes costs some milliseconds.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from usbproto.models import MIN_SET_POINT
from usbproto.packets import CoolerState, Fan

STEP = 1.0  # s
CCD_TIME = 360.0  # s, the CCD's way to 63 % of a change
SINK_TIME = 400.0  # s, the same of the heat sink
ELECTRONICS_HEAT = 1.5  # K that the heat sink is above the air with the cooler off
SINK_RISE = {Fan.FULL: 8.0, Fan.QUIET: 12.0, Fan.OFF: 35.0}  # K at full power
RATED_POWER = 0.85  # of full power: where the Guide gives the cooling below ambient
RATED_DELTA = {"500": 38.0, "600": 45.0}  # K below ambient, fans full
BAND = 4.0  # K around the set point within which the power is regulated
SAFE_WARMING = 4.0 / 60  # K/s on the way to ambient; assumed
AT_AMBIENT = 1.0  # K
FAN_OVERRIDE = (37.0, 33.0)  # degC of the heat sink: fans on in spite of "off", and off again; assumed
TOO_WARM = 40.0  # degC, device error 1
TOO_COLD = -40.0  # degC, device error 2
NOMINAL_VOLTAGE = 12.0
LOW_VOLTAGE, HIGH_VOLTAGE = 11.0, 14.0  # V, device errors 3 and 4
BROWN_OUT = 10.0  # V below which the cooler is switched off
VOLTAGE_LOSS = 0.06  # of the cooling, for each volt away from 12
DEFAULT_SET_POINT = -10.0  # degC
SENSOR_RIPPLE = 0.02  # K, the last digits of a thermometer
PCB_ABOVE_SINK = 2.5  # K


@dataclass(slots=True)
class Environment:
    """What is around the camera."""

    ambient: float = 20.0  # degC
    voltage: float = NOMINAL_VOLTAGE


class Cooler:
    """`look(now)` brings everything up to date; the attributes then are the present ones."""

    def __init__(self, series: str, environment: Environment, now: float, seed: int = 0) -> None:
        self.environment = environment
        full = RATED_POWER * SINK_RISE[Fan.FULL] + ELECTRONICS_HEAT
        self._pumped = (RATED_DELTA[series] + full) / RATED_POWER  # K at full power and 12 V
        self._ripple = random.Random(seed)
        self._time = now
        self.sink = environment.ambient + ELECTRONICS_HEAT
        self.ccd = self.sink
        self.fan_setting = int(Fan.FULL)
        self.reset()

    def reset(self) -> None:
        """Power-up: off. The temperatures stay."""
        self.on = False
        self.to_ambient = False
        self.set_point = DEFAULT_SET_POINT
        self.power = 0.0
        self.fan: Fan = Fan.FULL
        self.fan_setting = int(Fan.FULL)
        self.fan_failed = False
        self.no_control = False
        self._override = False
        self._target = self.ccd

    def command(self, now: float, on: bool, to_ambient: bool, set_point: float) -> None:
        self.look(now)
        if to_ambient and not (self.on and self.to_ambient):
            self._target = self.ccd
        self.on, self.to_ambient, self.set_point = on, to_ambient, set_point
        if not on:
            self.power = 0.0

    def settle(self) -> None:
        """Put everything at its resting place: for tests and for a camera that was on all day."""
        for _ in range(4 * int(SINK_TIME / STEP)):
            self._step(STEP)

    def look(self, now: float) -> None:
        while self._time + STEP <= now:
            self._step(STEP)
            self._time += STEP

    def _step(self, dt: float) -> None:
        air = self.environment.ambient
        pumped = self._pumped * (1 - VOLTAGE_LOSS * abs(self.environment.voltage - NOMINAL_VOLTAGE))
        self.power = self._regulate(pumped, dt)
        self._choose_fan()
        rise = ELECTRONICS_HEAT + SINK_RISE[self.fan] * self.power
        self.sink += (air + rise - self.sink) * dt / SINK_TIME
        self.ccd += (self.sink - pumped * self.power - self.ccd) * dt / CCD_TIME

    def _regulate(self, pumped: float, dt: float) -> float:
        """The power from 0 to 1 that the firmware chooses."""
        if not self.on or self.no_control or self.brown_out:
            return 0.0
        target = max(self.set_point, MIN_SET_POINT)
        if self.to_ambient:
            self._target = min(self._target + SAFE_WARMING * dt, self.environment.ambient)
            target = self._target
            if target >= self.environment.ambient - 0.01:
                return 0.0
        hold = (self.sink - target) / pumped
        return min(1.0, max(0.0, hold + (self.ccd - target) / BAND))

    def _choose_fan(self) -> None:
        warm, cool = FAN_OVERRIDE
        self._override = self.sink > warm or (self._override and self.sink > cool)
        setting = self.fan_setting
        if self.fan_failed:
            self.fan = Fan.OFF
        elif self._override or (setting == Fan.QUIET and self.power > RATED_POWER):
            self.fan = Fan.FULL
        else:
            self.fan = Fan(setting) if setting in set(Fan) else Fan.FULL

    @property
    def brown_out(self) -> bool:
        return self.environment.voltage < BROWN_OUT

    @property
    def state(self) -> CoolerState:
        """As GetTemperature reports it (wire protocol, section 3.4)."""
        if self.no_control:
            return CoolerState.NO_CONTROL
        if not self.on:
            return CoolerState.OFF
        if self.brown_out:
            return CoolerState.BROWN_OUT
        if self.to_ambient:
            near = self.environment.ambient - self.ccd < AT_AMBIENT
            return CoolerState.AT_AMBIENT if near else CoolerState.GOING_TO_AMBIENT
        away = self.ccd - max(self.set_point, MIN_SET_POINT)
        if abs(away) < AT_AMBIENT:
            return CoolerState.ON
        return CoolerState.COOLING if away > 0 else CoolerState.WARMING

    @property
    def error(self) -> int:
        """The soft device error of the moment, or 0 (wire protocol, section 5)."""
        if self.environment.voltage < LOW_VOLTAGE:
            return 3
        if self.environment.voltage > HIGH_VOLTAGE:
            return 4
        if self.sink > TOO_WARM:
            return 1
        return 2 if self.ccd < TOO_COLD else 0

    def read_ccd(self) -> float:
        """The thermometer, with its last digits alive."""
        return self.ccd + self._ripple.uniform(-SENSOR_RIPPLE, SENSOR_RIPPLE)

    @property
    def pcb(self) -> float:
        return self.sink + PCB_ABOVE_SINK
