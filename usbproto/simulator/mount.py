# SPDX-License-Identifier: LGPL-2.1-or-later
"""A telescope on an equatorial mount: where the stars fall on the sensor, and how the guider moves them.

Two kinds of motion add up. What the relays did is a function of time. The mount's own errors (drift, periodic
error) run on a clock that advances while the camera exposes, not with the wall: so the same series of
exposures gives the same pictures on a slow computer and on a fast one, and a guiding program still has work
to do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from usbproto.simulator.mechanics import Direction

Floats = NDArray[np.float64]
ARCSEC_PER_RADIAN = 206_264.8


@dataclass(frozen=True, slots=True)
class Telescope:
    """Optics and mount. Angles on the sky in arc seconds; the figures of a small telescope."""

    focal_length: float = 800.0  # mm
    # arcsec, full width at half maximum of a star in focus: 2.4 pixels of 7.4 um. PHD2 takes anything below
    # 1.5 pixels for a hot pixel.
    seeing: float = 4.5
    seeing_jitter: float = 0.15  # arcsec, rms motion of the whole field between exposures
    defocus: float = 0.0  # arcsec, added to the star's width in quadrature
    angle: float = 15.0  # degrees from the sensor's columns to the east axis
    guide_rate_ra: float = 7.5  # arcsec/s while a relay is closed: half of the sidereal rate
    guide_rate_dec: float = 7.5
    backlash: float = 0.15  # s that the declination gear is idle after a change of direction
    drift_ra: float = 0.03  # arcsec/s, tracking error
    drift_dec: float = 0.02
    periodic_error: float = 4.0  # arcsec, amplitude in right ascension
    period: float = 480.0  # s, one turn of the worm

    def scale(self, pixel_um: float) -> float:
        """Arc seconds a pixel."""
        return ARCSEC_PER_RADIAN * pixel_um / 1000 / self.focal_length


class Mount:
    """Holds what the relays did, and the clock of the tracking errors."""

    def __init__(self, telescope: Telescope) -> None:
        self.telescope = telescope
        self.clock = 0.0  # s of tracking so far
        self._times = [0.0]
        self._east = [0.0]  # s of movement, east positive
        self._north = [0.0]
        self._running: tuple[Direction, float] | None = None
        self._slack = telescope.backlash  # s of idle movement before declination moves again
        self._last_dec_sign = 0

    def relay(self, direction: Direction | None, now: float) -> None:
        """A relay closes (a direction) or opens (None)."""
        if self._running is not None:
            for time, east, north in self._points_until(now):
                self._add(time, east, north)
            (axis, _), since = self._running
            if axis == "y":
                self._slack = max(0.0, self._slack - (now - since))
        self._running = None
        if direction is not None:
            self._add(now, self._east[-1], self._north[-1])
            self._running = (direction, now)
            if direction[0] == "y" and direction[1] != self._last_dec_sign:
                self._last_dec_sign = direction[1]
                self._slack = self.telescope.backlash

    def _add(self, time: float, east: float, north: float) -> None:
        self._times.append(time)
        self._east.append(east)
        self._north.append(north)

    def _points_until(self, now: float) -> list[tuple[float, float, float]]:
        """The running pulse's corner points: when it began to move, and now."""
        if self._running is None:
            return [(now, self._east[-1], self._north[-1])]
        (axis, sign), since = self._running
        begin = min(now, since + (self._slack if axis == "y" else 0.0))
        east, north = self._east[-1], self._north[-1]
        moved = sign * (now - begin)
        end = (now, east + moved, north) if axis == "x" else (now, east, north + moved)
        return [(begin, east, north), end]

    def forget_before(self, time: float) -> None:
        """Keep the history short: nobody asks for what was before `time`."""
        keep = max(0, int(np.searchsorted(self._times, time, side="right")) - 1)
        del self._times[:keep], self._east[:keep], self._north[:keep]

    def path(self, start: float, end: float, samples: int) -> tuple[Floats, Floats]:
        """Right ascension and declination errors (arcsec) at the middle of `samples` slices of an exposure.

        `start` and `end` are times of the timeline; the exposure begins at the tracking clock's `clock`.
        """
        telescope = self.telescope
        fractions = (np.arange(samples) + 0.5) / samples
        times = start + fractions * (end - start)
        extra = self._points_until(end)
        known = np.array(self._times + [point[0] for point in extra])
        east = np.interp(times, known, np.array(self._east + [point[1] for point in extra]))
        north = np.interp(times, known, np.array(self._north + [point[2] for point in extra]))
        clock = self.clock + fractions * (end - start)
        phase = 2 * math.pi * clock / telescope.period
        ra = telescope.guide_rate_ra * east + telescope.drift_ra * clock
        ra = ra + telescope.periodic_error * np.sin(phase)
        dec = telescope.guide_rate_dec * north + telescope.drift_dec * clock
        return ra, dec

    def on_sensor(self, ra: Floats, dec: Floats, pixel_um: float) -> tuple[Floats, Floats]:
        """Arc seconds -> pixels (columns, rows)."""
        angle = math.radians(self.telescope.angle)
        scale = self.telescope.scale(pixel_um)
        columns = (ra * math.cos(angle) - dec * math.sin(angle)) / scale
        rows = (ra * math.sin(angle) + dec * math.cos(angle)) / scale
        return columns, rows
