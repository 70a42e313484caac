# SPDX-License-Identifier: LGPL-2.1-or-later
"""A picture's memory: what was received becomes the file, in place where it can."""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import BytesIO

import numpy as np
import pytest
from astropy.io import fits as astropy_fits

from indi_qsi import fits
from indi_qsi.device.plate import FITS, NATIVE, Plate
from indi_qsi.links import frame as frame_module
from indi_qsi.links.frame import Frame
from usbproto.camera import Image
from usbproto.frames import Geometry, Pixels, ZeroAdjustment, adjust_zero, decode

ONE_BLOCK, TWO_BLOCKS = fits.BLOCK, 2 * fits.BLOCK
ADJUSTMENTS = [
    ZeroAdjustment(),
    ZeroAdjustment(123),
    ZeroAdjustment(-123),
    ZeroAdjustment(saturated=True),
]
SHAPES = [(1, 1), (2504, 3326), (3, 70_000)]


@pytest.fixture(autouse=True)
def no_spare() -> Iterator[None]:
    frame_module.spare.drop()
    yield
    frame_module.spare.drop()


def exposed(plate: Plate, geometry: Geometry, adjustment: ZeroAdjustment) -> tuple[Image, Pixels]:
    """An image in the plate, and what is to become of it."""
    pixels = np.random.default_rng(1).integers(0, 65536, geometry.shape, np.uint16)
    plate.target[:] = pixels.astype("<u2").tobytes()
    return Image(decode(plate.target, geometry), geometry, adjustment, 200), adjust_zero(pixels, adjustment)


def geometry_of(shape: tuple[int, int]) -> Geometry:
    return Geometry(0, 0, shape[1], shape[0])


def inode(frame: Frame) -> int:
    return os.fstat(frame.fileno()).st_ino


@pytest.mark.parametrize("adjustment", ADJUSTMENTS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("header_size", "format"), [(ONE_BLOCK, FITS), (TWO_BLOCKS, FITS), (ONE_BLOCK, NATIVE)]
)
def test_the_file_is_right_wherever_the_pixels_were_received(
    header_size: int, format: str, shape: tuple[int, int], adjustment: ZeroAdjustment
) -> None:
    geometry = geometry_of(shape)
    with Plate(geometry, header_size, format) as plate:
        image, expected = exposed(plate, geometry, adjustment)
        frame, size = plate.fits(image, [fits.Card("OBJECT", "M 31")])
    with frame:
        assert (size, frame.format) == (ONE_BLOCK, FITS)
        assert os.fstat(frame.fileno()).st_size == frame.size == fits.file_size(ONE_BLOCK, shape)
        with astropy_fits.open(BytesIO(bytes(frame.buffer))) as file:
            file.verify("exception")
            assert file[0].header["OBJECT"] == "M 31"
            np.testing.assert_array_equal(file[0].data, expected)


@pytest.mark.parametrize("adjustment", ADJUSTMENTS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("format", [FITS, NATIVE])
def test_native_is_the_pixels(format: str, shape: tuple[int, int], adjustment: ZeroAdjustment) -> None:
    geometry = geometry_of(shape)
    with Plate(geometry, ONE_BLOCK, format) as plate:
        image, expected = exposed(plate, geometry, adjustment)
        frame = plate.native(image)
    with frame:
        assert (frame.format, frame.size) == (NATIVE, geometry.bytes)
        assert os.fstat(frame.fileno()).st_size == geometry.bytes
        np.testing.assert_array_equal(np.frombuffer(bytes(frame.buffer), "<u2").reshape(shape), expected)


def take(geometry: Geometry, header_size: int, format: str) -> int:
    """Which memory a picture ends up in."""
    with Plate(geometry, header_size, format) as plate:
        before = inode(plate._frame)
        image, _ = exposed(plate, geometry, ZeroAdjustment())
        frame = plate.native(image) if format == NATIVE else plate.fits(image, [])[0]
    with frame:
        assert inode(frame) == before, "it was finished where it was received"
        return before


@pytest.mark.parametrize("format", [FITS, NATIVE])
def test_all_pictures_of_a_series_use_the_same_memory(format: str) -> None:
    geometry = Geometry(0, 0, 300, 200)
    assert len({take(geometry, ONE_BLOCK, format) for _ in range(4)}) == 1


def test_a_client_that_looks_at_the_last_picture_costs_one_piece_more() -> None:
    geometry = Geometry(0, 0, 300, 200)
    used = []
    held: list[int] = []
    for _ in range(5):
        with Plate(geometry, ONE_BLOCK, FITS) as plate:
            image, _ = exposed(plate, geometry, ZeroAdjustment())
            frame, _ = plate.fits(image, [])
            del image
        held.append(os.dup(frame.share()))
        if len(held) > 1:
            os.close(held.pop(0))
        used.append(inode(frame))
        frame.release()
        del plate
    os.close(held.pop())
    assert len(set(used)) == 2
