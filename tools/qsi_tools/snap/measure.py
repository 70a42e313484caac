# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a picture is worth: its background, its noise, its stars and how sharp they are.

Background and noise are astropy's sigma-clipped median and standard deviation. Stars are found by photutils'
DAOStarFinder; the width is the median of two-dimensional Gaussians that astropy fits to the brightest ones.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsi_tools.extras import Missing, need

Pixels = NDArray[np.float32]

# So many pixels tell background and noise to a part in a thousand; more only take time on a small computer.
SAMPLE = 1_000_000
CLIP = 3.0  # standard deviations that a pixel may be away and still be background
THRESHOLD = 6.0  # standard deviations of the noise that a star stands out of it
GUESSES = (4.0, 10.0)  # pixels, of the stars' width, to find the first ones by
# When the width is so many times another than the guess, they are searched once more: stars that are wider
# than what is looked for are not taken for stars.
SEARCH_AGAIN = 1.15
MAX_FITS = 40  # stars that the width is measured at: the brightest that are not saturated
NEAR_SATURATION = 0.8  # of full scale; such stars are too wide
# Pixels. Less is a hot pixel or a cosmic ray; more fits no telescope that can be guided.
NARROWEST, WIDEST = 1.2, 30.0
BOX = 3.0  # widths from a star's centre to the edge of what is fitted
FULL_SCALE = 65535.0


@dataclass(frozen=True, slots=True)
class Measurement:
    """In ADU, and pixels of the picture. `stars` and `fwhm` are None when they were not looked for."""

    width: int
    height: int
    median: float
    noise: float
    minimum: float
    maximum: float
    stars: int | None = None
    fwhm: float | None = None
    fwhm_arcsec: float | None = None
    missing: str = ""  # what has to be installed for the stars


def open_picture(data: bytes) -> tuple[Pixels, Any]:
    """Pixels and header of a FITS file, compressed or not. Raises ValueError, OSError."""
    from astropy.io import fits

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other drivers' headers are what they are
        with fits.open(BytesIO(data)) as file:
            for part in file:
                if part.data is not None and part.is_image:
                    pixels = np.asarray(part.data, np.float32)
                    if pixels.ndim == 3:  # colour planes
                        pixels = pixels.mean(axis=0)
                    if pixels.ndim == 2 and pixels.size:
                        return pixels, part.header.copy()
    raise ValueError("the file has no picture")


def measure(pixels: Pixels, header: Any, stars: bool) -> Measurement:
    """`stars` says whether to look for stars: darks and flats have none."""
    from astropy.stats import sigma_clipped_stats

    step = max(1, math.isqrt(pixels.size // SAMPLE))
    _, median, noise = sigma_clipped_stats(pixels[::step, ::step], sigma=CLIP)
    height, width = pixels.shape
    basis = (width, height, float(median), float(noise), float(pixels.min()), float(pixels.max()))
    if not stars:
        return Measurement(*basis)
    try:
        need("photutils", "scipy")
    except Missing as missing:
        return Measurement(*basis, missing=str(missing))
    count, fwhm = _stars(pixels, header, float(median))
    scale = header.get("SCALE")
    arcsec = fwhm * scale if fwhm is not None and isinstance(scale, int | float) else None
    return Measurement(*basis, stars=count, fwhm=fwhm, fwhm_arcsec=arcsec)


def _stars(pixels: Pixels, header: Any, median: float) -> tuple[int, float | None]:
    """How many stars there are, and their full width at half maximum, pixels."""
    from astropy.stats import sigma_clipped_stats

    full = header.get("SATURATE")
    ceiling = (full if isinstance(full, int | float) else FULL_SCALE) * NEAR_SATURATION
    factor = 1
    if header.get("BAYERPAT"):  # four pixels of a colour sensor make one without colour
        pixels, factor = without_mosaic(pixels), 2
    noise = float(sigma_clipped_stats(pixels[::2, ::2], sigma=CLIP)[2])
    if noise <= 0:
        return 0, None
    light = pixels - np.float32(median)
    found: list[tuple[float, float, float]] = []
    for guess in GUESSES:
        found = _find(light, noise, guess)
        width = _width(light, found, ceiling - median, guess)
        if width is not None:
            if not 1 / SEARCH_AGAIN < width / guess < SEARCH_AGAIN:
                found = _find(light, noise, width)
                width = _width(light, found, ceiling - median, width) or width
            return len(found), width * factor
    return len(found), None


def without_mosaic(pixels: Pixels) -> Pixels:
    """Four pixels become one. A single row or column stays as it is."""
    if min(pixels.shape) < 2:
        return pixels
    height, width = (length // 2 * 2 for length in pixels.shape)
    blocks: Pixels = pixels[:height, :width].reshape(height // 2, 2, width // 2, 2)
    mean: Pixels = blocks.mean(axis=(1, 3), dtype=np.float32)
    return mean


def _find(light: Pixels, noise: float, width: float) -> list[tuple[float, float, float]]:
    """Column, row and peak of the stars, the brightest first."""
    from photutils.detection import DAOStarFinder

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are none is no reason to warn
        table = DAOStarFinder(threshold=THRESHOLD * noise, fwhm=width)(light)
    if table is None:
        return []
    # photutils renamed its columns in 3.0.
    names = ("x_centroid", "y_centroid") if "x_centroid" in table.colnames else ("xcentroid", "ycentroid")
    table.sort("flux", reverse=True)
    rows = zip(table[names[0]], table[names[1]], table["peak"], strict=True)
    return [(float(x), float(y), float(peak)) for x, y, peak in rows]


def _width(
    light: Pixels, found: list[tuple[float, float, float]], ceiling: float, guess: float
) -> float | None:
    widths: list[float] = []
    reach = math.ceil(BOX * guess)
    height, width = light.shape
    for x, y, peak in found:
        column, row = round(x), round(y)
        inside = reach <= column < width - reach and reach <= row < height - reach
        if not inside or peak > ceiling:
            continue
        stamp = light[row - reach : row + reach + 1, column - reach : column + reach + 1]
        fitted = _fit(stamp, peak, guess)
        if NARROWEST < fitted < WIDEST:
            widths.append(fitted)
        if len(widths) == MAX_FITS:
            break
    return float(np.median(widths)) if widths else None


def _fit(stamp: Pixels, peak: float, guess: float) -> float:
    """Full width at half maximum of a Gaussian on an even ground, pixels; 0 when none fits."""
    from astropy.modeling.fitting import LevMarLSQFitter
    from astropy.modeling.models import Const2D, Gaussian2D
    from astropy.stats import gaussian_fwhm_to_sigma, gaussian_sigma_to_fwhm

    rows, columns = np.mgrid[: stamp.shape[0], : stamp.shape[1]]
    middle, sigma = stamp.shape[0] // 2, guess * gaussian_fwhm_to_sigma
    start = Gaussian2D(peak, middle, middle, sigma, sigma) + Const2D(0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a star that no Gaussian fits is left out below
        fitter = LevMarLSQFitter()
        star = fitter(start, columns, rows, stamp)[0]
    across, down = abs(float(star.x_stddev.value)), abs(float(star.y_stddev.value))
    near = math.hypot(star.x_mean.value - middle, star.y_mean.value - middle) < guess
    if not near or not math.isfinite(across * down):
        return 0.0
    return float(math.sqrt(across * down) * gaussian_sigma_to_fwhm)
