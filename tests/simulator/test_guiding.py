# SPDX-License-Identifier: LGPL-2.1-or-later
"""Stars move with the relays as a guiding program expects."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from tests.simulator.bench import Bench, bench
from usbproto import packets as p
from usbproto.simulator.mount import Telescope

STILL = Telescope(
    seeing_jitter=0, drift_ra=0, drift_dec=0, periodic_error=0, backlash=0, angle=15.0, guide_rate_dec=5.0
)
HALF = 30  # pixels around the guide star


class Guide:
    """A guide star: the brightest that is alone, measured as a guiding program does."""

    def __init__(self, b: Bench) -> None:
        self.b = b
        stars = b.hardware.optics.stars
        columns, rows = b.hardware.sensor.active
        inside = (stars.x > 200) & (stars.x < columns - 200) & (stars.y > 200) & (stars.y < rows - 200)
        for star in np.argsort(-stars.flux):
            near = np.hypot(stars.x - stars.x[star], stars.y - stars.y[star]) < 3 * HALF
            if inside[star] and near.sum() == 1:
                self.x, self.y = round(stars.x[star]) - HALF, round(stars.y[star]) - HALF
                return
        raise AssertionError("no star is alone")

    def measure(self, seconds: float = 1.0) -> np.ndarray:
        """The star's place in pixels."""
        size = (2 * HALF, 2 * HALF)
        pixels = self.b.picture(seconds, size, column_offset=self.x, row_offset=self.y)
        light = np.clip(pixels - np.median(pixels) - 60, 0, None)
        rows, columns = np.indices(light.shape)
        return np.array([(light * columns).sum(), (light * rows).sum()]) / light.sum()

    def pulse(self, x: int = 0, y: int = 0) -> None:
        self.b.ask(p.ACTIVATE_RELAY, p.Relays(x, y))
        self.b.time.advance(abs(x + y) * 0.01 + 0.1)


@pytest.mark.parametrize(
    ("x", "y", "direction", "rate"),
    [(100, 0, 15, 7.5), (-100, 0, 195, 7.5), (0, 80, 105, 5.0), (0, -80, 285, 5.0), (25, 0, 15, 7.5)],
)
def test_a_pulse_moves_the_stars(x: int, y: int, direction: float, rate: float) -> None:
    with bench("683wsg", readout=0.0, telescope=STILL) as b:
        guide = Guide(b)
        before = guide.measure()
        guide.pulse(x, y)
        moved = guide.measure() - before
        pixels = abs(x + y) * 0.01 * rate / STILL.scale(5.4)
        assert np.hypot(*moved) == pytest.approx(pixels, abs=0.1)
        angle = math.degrees(math.atan2(moved[1], moved[0])) % 360
        assert angle == pytest.approx(direction, abs=5)


def test_a_pulse_that_is_cut_off_counts_as_long_as_it_was() -> None:
    with bench("683wsg", readout=0.0, telescope=STILL) as b:
        guide = Guide(b)
        before = guide.measure()
        b.ask(p.ACTIVATE_RELAY, p.Relays(500, 0))
        b.time.advance(1.0)
        b.ask(p.ABORT_RELAYS)
        moved = guide.measure() - before
        assert np.hypot(*moved) == pytest.approx(7.5 / STILL.scale(5.4), abs=0.1)


def test_backlash_only_at_a_change_of_direction() -> None:
    with bench("683wsg", readout=0.0, telescope=replace(STILL, backlash=0.5)) as b:
        guide = Guide(b)
        places = [guide.measure()]
        for pulse in (100, 100, -100, -100):
            guide.pulse(y=pulse)
            places.append(guide.measure())
        steps = [float(np.hypot(*step)) for step in np.diff(places, axis=0)]
        whole = 5.0 / STILL.scale(5.4)
        assert steps == pytest.approx([whole / 2, whole, whole / 2, whole], abs=0.15)


def test_drift_trails_the_stars() -> None:
    with bench("683wsg", readout=0.0, telescope=replace(STILL, drift_ra=0.5)) as b:
        guide = Guide(b)
        first = guide.measure(1.0)
        guide.measure(10.0)
        last = guide.measure(1.0)
        assert np.hypot(*(last - first)) == pytest.approx(11 * 0.5 / STILL.scale(5.4), abs=0.2)


def test_defocus_widens_the_stars() -> None:
    with bench("683wsg", readout=0.0, telescope=STILL) as b:
        guide = Guide(b)
        size = {"column_offset": guide.x, "row_offset": guide.y}
        sharp = b.picture(1.0, (60, 60), **size)
        b.camera.set_defocus(8.0)
        blurred = b.picture(1.0, (60, 60), **size)
        assert blurred.max() - np.median(blurred) < (sharp.max() - np.median(sharp)) / 3


def test_closed_loop() -> None:
    """Calibrate on a drifting mount with backlash and periodic error, then hold the star."""
    moving = Telescope(drift_ra=0.2, drift_dec=0.15, periodic_error=6.0, period=120.0)
    with bench("683wsg", readout=0.0, telescope=moving) as b:
        guide = Guide(b)
        columns = []
        for axis in ("x", "y"):
            start = guide.measure()
            guide.pulse(**{axis: 150})
            columns.append((guide.measure() - start) / 1.5)
            guide.pulse(**{axis: -150})
        per_second = np.array(columns).T
        target = guide.measure()
        free, held = [], []
        for _ in range(40):
            error = guide.measure(2.0) - target
            held.append(np.hypot(*error))
            east, north = -0.7 * np.linalg.solve(per_second, error)
            for axis, seconds in (("x", east), ("y", north)):
                if abs(seconds) > 0.05:
                    guide.pulse(**{axis: round(float(np.clip(seconds, -1, 1)) * 100)})
        for _ in range(20):
            free.append(np.hypot(*(guide.measure(2.0) - target)))
        assert np.sqrt(np.mean(np.square(held[10:]))) < 1.0
        assert max(free) > 4
