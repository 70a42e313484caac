# SPDX-License-Identifier: LGPL-2.1-or-later
"""From an exposure to the picture in the camera's memory."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from usbproto.models import ZERO_LEVEL_500, Series
from usbproto.simulator import sensor as ccd
from usbproto.simulator.hardware import Hardware
from usbproto.simulator.sensor import Pixels, Window
from usbproto.simulator.sky import View

# The 500 Series' level is known (wire protocol, section 4), the other as cameras were recorded to answer.
_ZERO_LEVEL = {"500": ZERO_LEVEL_500, "600": 300}


def zero_level(series: Series) -> int:
    """ADU that the host pins the bias to."""
    return _ZERO_LEVEL[series.name]


@dataclass(frozen=True, slots=True)
class Order:
    """An exposure as the host asked for it. `hsr`: answered when the image is there."""

    window: Window
    seconds: float
    light: bool
    fast: bool = False
    hold_open: bool = False
    hsr: bool = False


@dataclass(frozen=True, slots=True)
class Shot:
    """Everything that a picture depends on, as it was in its exposure."""

    number: int
    order: Order
    seconds: float
    lit: bool
    throughput: float
    view: View
    celsius: float
    gain: float


@dataclass(frozen=True, slots=True)
class Frame:
    """A picture in the camera's memory. `pixels` as they go over the wire, before the host's auto-zero."""

    number: int
    pixels: Pixels
    overscan: Pixels
    zero_level: int

    @property
    def wire(self) -> memoryview:
        return wire(self.pixels)

    @property
    def overscan_wire(self) -> memoryview:
        return wire(self.overscan)


def wire(pixels: Pixels) -> memoryview:
    """Little-endian bytes."""
    return np.ascontiguousarray(pixels, dtype="<u2").reshape(-1).view(np.uint8).data


class Darkroom:
    """Computes pictures, in a thread of its own when `background` is set."""

    def __init__(self, hardware: Hardware, background: bool) -> None:
        self._hardware = hardware
        self._pool = ThreadPoolExecutor(1, "darkroom") if background else None

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def develop(self, shot: Shot) -> Future[Frame]:
        """The picture, as soon as it is there."""
        if self._pool is not None:
            return self._pool.submit(self._picture, shot)
        done: Future[Frame] = Future()
        done.set_result(self._picture(shot))
        return done

    def _picture(self, shot: Shot) -> Frame:
        hardware, sensor, window = self._hardware, self._hardware.sensor, shot.order.window
        area = window.area
        if shot.lit:
            light = hardware.optics.render(area, shot.seconds, shot.throughput, shot.view)
        else:
            light = np.zeros((area.rows, area.columns), np.float32)
        dark = ccd.dark_rate(sensor, shot.celsius) * shot.seconds
        charge = ccd.collect(sensor, light, dark, hardware.hot_pixels, window)
        rng = np.random.Generator(np.random.SFC64([hardware.seed, shot.number]))
        zero = zero_level(hardware.model.series)
        level = zero + ccd.BIAS_ABOVE_ZERO + ccd.BIAS_WANDER * rng.standard_normal()
        bias = ccd.bias_of_rows(window.rows, level)
        pixels = ccd.digitise(charge, sensor, shot.gain, bias, rng)
        return Frame(shot.number, pixels, ccd.overscan(bias, sensor, shot.gain, rng), zero)
