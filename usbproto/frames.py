# SPDX-License-Identifier: LGPL-2.1-or-later
"""Frame geometry, pixel decoding, auto-zero and pixel mask. Pure, on numpy arrays.

Images are arrays of shape (rows, columns), row 0 first read, of unsigned 16-bit ADU.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from usbproto.errors import BadArgument, ProtocolError
from usbproto.models import PIXEL_CEILING

BYTES_PER_PIXEL = 2
WIRE_PIXEL = np.dtype("<u2")
Pixels = npt.NDArray[np.uint16]

# Auto-zero, wire protocol section 4.
OVERSCAN_USED = 8192  # pixels; of a camera that announces more, none are used
OVERSCAN_TRIM = 32  # pixels dropped at either end of the sorted overscan
OVERSCAN_SATURATED = 10_000  # ADU; an overscan above this says that the whole CCD is saturated


@dataclass(frozen=True, slots=True)
class Geometry:
    """What part of the sensor an exposure reads, in binned pixels, fixed before it starts.

    `x`, `y` is the first pixel, `width` x `height` the size of the image.
    """

    x: int
    y: int
    width: int
    height: int
    bin_x: int = 1
    bin_y: int = 1

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of the image."""
        return self.height, self.width

    @property
    def pixels(self) -> int:
        return self.width * self.height

    @property
    def bytes(self) -> int:
        return self.pixels * BYTES_PER_PIXEL


@dataclass(frozen=True, slots=True)
class Array:
    """The unbinned imaging array of a camera and the binning that it can do (GetDeviceDetails)."""

    columns: int
    rows: int
    max_bin_x: int
    max_bin_y: int
    asymmetric_bin: bool = False
    power_of_two_bin: bool = False

    def check_binning(self, bin_x: int, bin_y: int) -> None:
        """Raises `BadArgument` for a binning that the camera cannot do (section 3.3)."""
        for name, value, highest in (("X", bin_x, self.max_bin_x), ("Y", bin_y, self.max_bin_y)):
            if not 1 <= value <= highest:
                raise BadArgument(f"{name} binning {value} is outside 1..{highest}")
            if self.power_of_two_bin and value & (value - 1):
                raise BadArgument(f"{name} binning {value} is not a power of two")
        if bin_x != bin_y and not self.asymmetric_bin and (bin_x, bin_y) != (1, 2):
            raise BadArgument(f"binning {bin_x}x{bin_y}: this camera bins both axes alike, or 1x2")

    def fit(self, x: int, y: int, width: int, height: int, bin_x: int = 1, bin_y: int = 1) -> Geometry:
        """The geometry of a frame that is given in unbinned sensor pixels.

        The image is floor(width / bin_x) x floor(height / bin_y) pixels, from floor(x / bin_x),
        floor(y / bin_y). Raises `BadArgument` when the frame leaves the sensor or holds no binned pixel.
        """
        self.check_binning(bin_x, bin_y)
        if not (0 <= x < self.columns and 0 <= y < self.rows):
            raise BadArgument(f"frame origin {x}, {y} is outside 0..{self.columns - 1}, 0..{self.rows - 1}")
        if not (1 <= width <= self.columns - x and 1 <= height <= self.rows - y):
            raise BadArgument(
                f"frame size {width} x {height} at {x}, {y} is outside "
                f"1..{self.columns - x} x 1..{self.rows - y}"
            )
        if width < bin_x or height < bin_y:
            raise BadArgument(f"frame size {width} x {height} is smaller than one {bin_x}x{bin_y} pixel")
        return Geometry(x // bin_x, y // bin_y, width // bin_x, height // bin_y, bin_x, bin_y)


def decode(data: bytes | bytearray | memoryview, geometry: Geometry) -> Pixels:
    """Received bytes as an array of `geometry.shape`; a view, not a copy.

    Raises `ProtocolError` for any other number of bytes than the geometry's.
    """
    if len(data) != geometry.bytes:
        raise ProtocolError(
            f"the image has {len(data)} bytes instead of {geometry.bytes} "
            f"({geometry.width} x {geometry.height} pixels)"
        )
    return np.frombuffer(data, WIRE_PIXEL).reshape(geometry.shape)


@dataclass(frozen=True, slots=True)
class ZeroAdjustment:
    """What auto-zero does to a frame: add `offset` ADU, or force it to the ceiling when `saturated`.

    `mean` is the overscan's trimmed mean in ADU, None when there was nothing to go by.
    """

    offset: int = 0
    saturated: bool = False
    mean: float | None = None


def zero_adjustment(overscan: Pixels, level: int) -> ZeroAdjustment:
    """Works out auto-zero from the overscan pixels and the zero level in ADU (section 4)."""
    used = np.sort(overscan[:OVERSCAN_USED])[OVERSCAN_TRIM:-OVERSCAN_TRIM]
    if not len(used):
        return ZeroAdjustment()
    mean = float(used.mean())
    if mean > OVERSCAN_SATURATED:
        return ZeroAdjustment(saturated=True, mean=mean)
    if mean == 0:
        return ZeroAdjustment(mean=mean)
    return ZeroAdjustment(level - int(mean), mean=mean)


def adjust_zero(
    pixels: Pixels, adjustment: ZeroAdjustment, out: Pixels | None = None, plus: int = 0
) -> Pixels:
    """Applies auto-zero and the ceiling of 64000 ADU, which holds without auto-zero too.

    What comes out has `plus` added, modulo 65536. Works in place unless `out` is given; copies nothing.
    """
    out = pixels if out is None else out
    if adjustment.saturated:
        out[...] = (PIXEL_CEILING + plus) & 0xFFFF
        return out
    offset = min(max(adjustment.offset, -0xFFFF), PIXEL_CEILING)
    # What the offset would bring below 0 or above the ceiling is kept from it before: two passes in all.
    low, high = max(0, -offset), min(PIXEL_CEILING - offset, 0xFFFF)
    np.clip(pixels, np.uint16(low), np.uint16(high), out=out)
    out += np.uint16((offset + plus) & 0xFFFF)  # modulo 65536: a negative offset is taken off
    return out


def mask_pixels(pixels: Pixels, geometry: Geometry, mask: Iterable[tuple[int, int]], fill: int) -> int:
    """Replaces masked pixels by `fill` ADU, in place; returns how many lay inside the frame.

    The mask is in unbinned sensor pixels from 0; those outside the frame are skipped (section 6.0).
    """
    replaced = 0
    for mask_x, mask_y in mask:
        column = mask_x // geometry.bin_x - geometry.x
        row = mask_y // geometry.bin_y - geometry.y
        if 0 <= column < geometry.width and 0 <= row < geometry.height:
            pixels[row, column] = fill
            replaced += 1
    return replaced
