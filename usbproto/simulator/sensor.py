# SPDX-License-Identifier: LGPL-2.1-or-later
"""The CCD: from photo-electrons on its pixels to numbers on the wire. Pure functions of their arguments.

An exposure's noise comes from a generator seeded with the camera's seed and the exposure's number: the same
series of exposures gives the same pixels. Shot noise is drawn from the normal distribution of its variance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from usbproto.models import Sensor
from usbproto.simulator.sky import Area, Electrons

Pixels = NDArray[np.uint16]

MAX_ADU = 65_535
BINNED_WELL = 2.0  # the output register holds so many pixels' full wells; assumed
HOT_FRACTION = 3e-4  # of the pixels are hot
HOT_RANGE = (30.0, 3000.0)  # times the normal dark current
STRIPE = 64  # rows that are computed at a time: they stay in the processor's cache

BIAS_ABOVE_ZERO = 60.0  # ADU that the raw bias is above the zero level; auto-zero takes it away
BIAS_WANDER = 4.0  # ADU rms from one exposure to the next
BIAS_SLOPE = 2.0  # ADU from the first row to the last
OVERSCAN_COUNT = 256  # overscan pixels that the camera hands out, as it was recorded to


@dataclass(frozen=True, slots=True)
class Window:
    """What is read: offsets and sizes in binned pixels."""

    column_offset: int
    row_offset: int
    columns: int
    rows: int
    bin_x: int = 1
    bin_y: int = 1

    @property
    def area(self) -> Area:
        return Area(
            self.column_offset * self.bin_x,
            self.row_offset * self.bin_y,
            self.columns * self.bin_x,
            self.rows * self.bin_y,
        )


@dataclass(frozen=True, slots=True)
class HotPixels:
    """The defects of one sensor: `rate` in multiples of the normal dark current."""

    x: NDArray[np.int64]
    y: NDArray[np.int64]
    rate: NDArray[np.float32]

    @classmethod
    def make(cls, sensor: Sensor, seed: int, serial: str) -> HotPixels:
        """Always the same for one seed and serial number."""
        rng = np.random.default_rng([seed, 0x407, *serial.encode()])
        columns, rows = sensor.active
        count = round(columns * rows * HOT_FRACTION)
        low, high = np.log(HOT_RANGE)
        rate = np.exp(rng.uniform(low, high, count)).astype(np.float32)
        return cls(rng.integers(0, columns, count), rng.integers(0, rows, count), rate)


def dark_rate(sensor: Sensor, celsius: float) -> float:
    """Dark current in e-/s a pixel."""
    return float(sensor.dark_current * 2 ** ((celsius - sensor.dark_at) / sensor.dark_doubling))


def bloom(charge: Electrons, well: float) -> None:
    """Pixels that overflow fill those above and below them, half each way (in place)."""
    columns = np.flatnonzero((charge > well).any(axis=0))
    if not len(columns):
        return
    part = charge[:, columns]
    excess = np.maximum(part - well, 0) / 2
    np.minimum(part, well, out=part)
    rows = range(len(part))
    for order in (rows, reversed(rows)):
        carry = np.zeros(len(columns), np.float32)
        for row in order:
            total = part[row] + carry
            part[row] = np.minimum(total, well)
            carry = total - part[row] + excess[row]
    charge[:, columns] = part


def bin_charge(charge: Electrons, bin_x: int, bin_y: int) -> Electrons:
    """Charge of neighbours added up on the chip."""
    if bin_x == bin_y == 1:
        return charge
    rows, columns = charge.shape
    summed: Electrons = charge.reshape(rows // bin_y, bin_y, columns // bin_x, bin_x).sum(
        axis=(1, 3), dtype=np.float32
    )
    return summed


def collect(
    sensor: Sensor, light: Electrons, dark_electrons: float, hot: HotPixels, window: Window
) -> Electrons:
    """Mean charge of each binned pixel: light and dark current, held by the wells. Changes `light`."""
    area = window.area
    light += np.float32(dark_electrons)
    if dark_electrons > 0:
        inside = (
            (hot.x >= area.x)
            & (hot.x < area.x + area.columns)
            & (hot.y >= area.y)
            & (hot.y < area.y + area.rows)
        )
        charge = hot.rate[inside] * np.float32(dark_electrons)
        np.add.at(light, (hot.y[inside] - area.y, hot.x[inside] - area.x), charge)
    if not sensor.anti_blooming:
        bloom(light, sensor.full_well)
    np.minimum(light, sensor.full_well, out=light)
    return bin_charge(light, window.bin_x, window.bin_y)


def digitise(
    charge: Electrons, sensor: Sensor, gain: float, bias: NDArray[np.float32], rng: np.random.Generator
) -> Pixels:
    """Mean charge -> ADU, with shot and read noise. `gain` in e-/ADU, `bias` in ADU for each row."""
    rows, columns = charge.shape
    result = np.empty((rows, columns), np.uint16)
    noise = np.empty((min(STRIPE, rows), columns), np.float32)
    read_variance = np.float32(sensor.read_noise**2)
    well = np.float32(BINNED_WELL * sensor.full_well)
    for top in range(0, rows, STRIPE):
        mean = np.minimum(charge[top : top + STRIPE], well)
        drawn = noise[: len(mean)]
        rng.standard_normal(out=drawn, dtype=np.float32)
        drawn *= np.sqrt(mean + read_variance)
        drawn += mean
        drawn *= np.float32(1 / gain)
        drawn += bias[top : top + STRIPE, None] + np.float32(0.5)
        np.clip(drawn, 0, MAX_ADU, out=drawn)
        result[top : top + STRIPE] = drawn
    return result


def bias_of_rows(rows: int, level: float) -> NDArray[np.float32]:
    """The bias drifts while the rows are read."""
    return (level + BIAS_SLOPE * (np.arange(rows) / max(1, rows) - 0.5)).astype(np.float32)


def overscan(bias: NDArray[np.float32], sensor: Sensor, gain: float, rng: np.random.Generator) -> Pixels:
    """Pixels without light and dark current, taken evenly from all rows."""
    rows = np.linspace(0, len(bias) - 1, OVERSCAN_COUNT).astype(np.int64)
    level = bias[rows] + rng.normal(0, sensor.read_noise / gain, OVERSCAN_COUNT)
    return np.clip(level + 0.5, 0, MAX_ADU).astype(np.uint16)
