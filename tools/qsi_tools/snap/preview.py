# SPDX-License-Identifier: LGPL-2.1-or-later
"""A picture as one looks at it: stretched so that the faint shows, small enough for a telephone, as PNG."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np

from qsi_tools.extras import need
from qsi_tools.snap.measure import Measurement, Pixels, without_mosaic

LONGEST_SIDE = 1000  # pixels
# From so many noises below the background (black) to this part of the brightest pixels (white).
BLACK = 2.5
WHITE_PERCENTILE = 99.9
# White is at least so many noises above black: a dark frame looks even, not torn.
LEAST_RANGE = 60.0
ASINH = 0.1  # below this part of the range the stretch is linear: the background's noise stays calm


def preview(pixels: Pixels, header: Any, measurement: Measurement) -> bytes:
    """The PNG file. Raises `extras.Missing` without Pillow."""
    need("PIL")
    from PIL import Image

    if header.get("BAYERPAT"):
        pixels = without_mosaic(pixels)
    # Made smaller before it is stretched: the mean of several pixels has less noise to stretch.
    small = Image.fromarray(np.ascontiguousarray(pixels, np.float32))
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.BOX)
    light = np.asarray(small)
    noise = max(measurement.noise, 1.0)
    black = measurement.median - BLACK * noise
    white = max(float(np.percentile(light, WHITE_PERCENTILE)), black + LEAST_RANGE * noise)
    part = np.clip((light - black) / (white - black), 0, 1)
    stretched = np.arcsinh(part / ASINH) / np.arcsinh(1 / ASINH)
    shown = Image.fromarray((stretched * 255).astype(np.uint8))
    file = BytesIO()
    shown.save(file, "PNG", optimize=True)
    return file.getvalue()
