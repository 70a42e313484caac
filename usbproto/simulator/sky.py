# SPDX-License-Identifier: LGPL-2.1-or-later
"""What falls on the sensor: a field of stars, an even light, or nothing. In photo-electrons, unbinned."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from usbproto.simulator.mount import Floats, Mount

Electrons = NDArray[np.float32]

MARGIN = 300  # pixels of sky around the sensor, for stars that drift in
STARS_PER_MEGAPIXEL = 60  # on 5.4 um pixels
FAINTEST = 200.0  # e-/s of the faintest star, without a filter
BRIGHTEST = 60_000.0  # e-/s
SLOPE = 0.9  # of the number of stars over their light
BACKGROUND = 4.0  # e-/s from the sky on a pixel of 5.4 um, without a filter
REFERENCE_PIXEL = 5.4  # um
MAX_SAMPLES = 32  # points on the path of a trailed star
FWHM_SIGMAS = 2.3548  # of a Gaussian
REACH = 4.0  # sigmas around a star's path that are drawn

# What a filter lets through: red, green, blue, luminance, empty (the Guide), then narrow bands (assumed).
FILTERS = (0.30, 0.33, 0.25, 0.90, 1.0, 0.03, 0.03, 0.02)
# Colour mask of the single-shot colour sensors: red green / green blue, relative to no mask.
BAYER = ((0.33, 0.41), (0.41, 0.33))


class Scene(Enum):
    SKY = "sky"
    FLAT = "flat"
    DARK = "dark"


@dataclass(frozen=True, slots=True)
class Area:
    """A part of the sensor in unbinned pixels."""

    x: int
    y: int
    columns: int
    rows: int


@dataclass(frozen=True, slots=True)
class View:
    """What the telescope shows in one exposure: the field's path in pixels, and how wide a star is."""

    scene: Scene
    flat_level: float  # e-/s a pixel
    columns: Floats
    rows: Floats
    sigma: float  # pixels


@dataclass(frozen=True, slots=True)
class StarField:
    """Places in unbinned pixels, light in e-/s, colour from -1 (blue) to 1 (red)."""

    x: Floats
    y: Floats
    flux: Floats
    colour: Floats

    @classmethod
    def make(cls, size: tuple[int, int], pixel_um: float, seed: int) -> StarField:
        """The field for a sensor of `size` (columns, rows): always the same for one seed."""
        rng = np.random.default_rng([seed, 0x57A2])
        columns, rows = size[0] + 2 * MARGIN, size[1] + 2 * MARGIN
        area = columns * rows / 1e6 * (pixel_um / REFERENCE_PIXEL) ** 2
        count = max(40, round(STARS_PER_MEGAPIXEL * area))
        flux = FAINTEST * (1.0 - rng.random(count)) ** (-1 / SLOPE)
        return cls(
            rng.random(count) * columns - MARGIN,
            rng.random(count) * rows - MARGIN,
            np.minimum(flux, BRIGHTEST),
            rng.uniform(-1, 1, count),
        )


class Optics:
    """The telescope's picture of the sky. `scene` and `flat_level` (e-/s a pixel) may be changed."""

    def __init__(self, size: tuple[int, int], pixel_um: float, colour: bool, mount: Mount, seed: int) -> None:
        self.stars = StarField.make(size, pixel_um, seed)
        self.mount = mount
        self.scene = Scene.SKY
        self.flat_level = 10_000.0
        self._pixel = pixel_um
        self._colour = colour
        self._seed = seed

    def view(self, start: float, end: float, exposure: int) -> View:
        """What is seen from `start` to `end` of the timeline; the number of the exposure picks its seeing."""
        columns, rows = self._path(start, end, MAX_SAMPLES)
        length = float(np.hypot(np.diff(columns), np.diff(rows)).sum())
        columns, rows = self._path(start, end, min(MAX_SAMPLES, max(1, math.ceil(length * 2))))
        scale = self.mount.telescope.scale(self._pixel)
        jitter = np.random.default_rng([self._seed, 0x5EE, exposure]).normal(size=2)
        jitter *= self.mount.telescope.seeing_jitter / scale
        return View(self.scene, self.flat_level, columns + jitter[0], rows + jitter[1], self.sigma())

    def _path(self, start: float, end: float, samples: int) -> tuple[Floats, Floats]:
        return self.mount.on_sensor(*self.mount.path(start, end, samples), self._pixel)

    def sigma(self) -> float:
        """Width of a star in pixels; a pixel's own width is part of it."""
        telescope = self.mount.telescope
        width = math.hypot(telescope.seeing, telescope.defocus) / telescope.scale(self._pixel)
        return math.sqrt((width / FWHM_SIGMAS) ** 2 + 1 / 12)

    def render(self, area: Area, seconds: float, throughput: float, view: View) -> Electrons:
        """Mean photo-electrons on each unbinned pixel of `area`. Does not look at what can change."""
        rate = 0.0
        if view.scene is Scene.SKY:
            rate = BACKGROUND * (self._pixel / REFERENCE_PIXEL) ** 2
        elif view.scene is Scene.FLAT:
            rate = view.flat_level
        light: Electrons = np.full((area.rows, area.columns), rate * seconds * throughput, np.float32)
        if view.scene is Scene.SKY:
            self._draw_stars(light, area, seconds * throughput, view)
        if self._colour:
            _colour_mask(light, area)
        return light

    def _draw_stars(self, light: Electrons, area: Area, amount: float, view: View) -> None:
        sigma = view.sigma
        reach = REACH * sigma + 1
        low_x, high_x = float(view.columns.min()) - reach, float(view.columns.max()) + reach
        low_y, high_y = float(view.rows.min()) - reach, float(view.rows.max()) + reach
        stars = self.stars
        x, y = stars.x - area.x, stars.y - area.y
        near = (x + high_x > 0) & (x + low_x < area.columns) & (y + high_y > 0) & (y + low_y < area.rows)
        norm = amount / (2 * math.pi * sigma**2) / len(view.columns)
        for star in np.flatnonzero(near):
            left, right = max(0, int(x[star] + low_x)), min(area.columns, int(x[star] + high_x) + 1)
            top, bottom = max(0, int(y[star] + low_y)), min(area.rows, int(y[star] + high_y) + 1)
            if left >= right or top >= bottom:
                continue
            across = _profile(np.arange(left, right), x[star] + view.columns, sigma)
            along = _profile(np.arange(top, bottom), y[star] + view.rows, sigma)
            stamp = (along.T @ across) * (stars.flux[star] * norm)
            if self._colour:
                _tint(stamp, area.x + left, area.y + top, stars.colour[star])
            light[top:bottom, left:right] += stamp.astype(np.float32)


def _profile(pixels: NDArray[np.int64], centres: Floats, sigma: float) -> Floats:
    """A Gaussian at each of the path's points: points x pixels."""
    away: Floats = (pixels[None, :] - centres[:, None]) / sigma
    return np.exp(-0.5 * away * away)


def _colour_mask(light: Electrons, area: Area) -> None:
    for row in (0, 1):
        for column in (0, 1):
            weight = BAYER[(area.y + row) % 2][(area.x + column) % 2]
            light[row::2, column::2] *= np.float32(weight)


def _tint(stamp: Floats, x: int, y: int, colour: float) -> None:
    """Red stars are brighter behind the mask's red, blue ones behind its blue."""
    stamp[y % 2 :: 2, x % 2 :: 2] *= 1 + 0.4 * colour
    stamp[(y + 1) % 2 :: 2, (x + 1) % 2 :: 2] *= 1 - 0.4 * colour
