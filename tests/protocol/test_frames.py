# SPDX-License-Identifier: LGPL-2.1-or-later
"""Geometry, decoding, auto-zero and mask against plain arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from usbproto import frames
from usbproto.errors import BadArgument, ProtocolError
from usbproto.frames import Array, Geometry, ZeroAdjustment

KAF_8300 = Array(3326, 2504, 9, 9)


@st.composite
def windows(draw: st.DrawFn) -> tuple[int, int, int, int, int]:
    binning = draw(st.integers(1, 9))
    x = draw(st.integers(0, KAF_8300.columns - binning))
    y = draw(st.integers(0, KAF_8300.rows - binning))
    width = draw(st.integers(binning, KAF_8300.columns - x))
    height = draw(st.integers(binning, KAF_8300.rows - y))
    return x, y, width, height, binning


@given(windows())
def test_any_window_on_the_sensor_fits_and_stays_on_it(window: tuple[int, int, int, int, int]) -> None:
    x, y, width, height, binning = window
    g = KAF_8300.fit(x, y, width, height, binning, binning)
    assert g.shape == (height // binning, width // binning)
    assert (g.x + g.width) * binning <= KAF_8300.columns
    assert (g.y + g.height) * binning <= KAF_8300.rows


@pytest.mark.parametrize(
    "frame",
    [(-1, 0, 10, 10), (3326, 0, 1, 1), (0, 2504, 1, 1), (0, 0, 3327, 1), (0, 0, 0, 5), (3320, 0, 7, 1)],
)
def test_a_frame_off_the_sensor_is_refused_with_the_range(frame: tuple[int, int, int, int]) -> None:
    with pytest.raises(BadArgument, match=r"outside .*\d+\.\.\d+"):
        KAF_8300.fit(*frame)


def test_a_frame_smaller_than_a_binned_pixel_is_refused() -> None:
    with pytest.raises(BadArgument, match="smaller than one 4x4 pixel"):
        KAF_8300.fit(0, 0, 3, 100, 4, 4)


@pytest.mark.parametrize(
    ("array", "bins", "good"),
    [
        (KAF_8300, (9, 9), True),
        (KAF_8300, (10, 10), False),
        (KAF_8300, (0, 0), False),
        (KAF_8300, (1, 2), True),  # the one exception
        (KAF_8300, (2, 1), False),
        (Array(100, 100, 4, 4, asymmetric_bin=True), (4, 1), True),
        (Array(100, 100, 8, 8, power_of_two_bin=True), (3, 3), False),
        (Array(100, 100, 8, 8, power_of_two_bin=True), (4, 4), True),
    ],
)
def test_binning_rules(array: Array, bins: tuple[int, int], good: bool) -> None:
    if good:
        array.check_binning(*bins)
    else:
        with pytest.raises(BadArgument):
            array.check_binning(*bins)


def test_decode_reads_little_endian_rows() -> None:
    pixels = frames.decode(bytes(range(12)), Geometry(0, 0, 3, 2))
    assert pixels.tolist() == [[0x0100, 0x0302, 0x0504], [0x0706, 0x0908, 0x0B0A]]


@pytest.mark.parametrize("length", [0, 11, 13, 24])
def test_decode_refuses_any_other_length(length: int) -> None:
    with pytest.raises(ProtocolError, match=f"{length} bytes instead of 12"):
        frames.decode(bytes(length), Geometry(0, 0, 3, 2))


overscans = st.lists(st.integers(0, 65535), max_size=300).map(lambda v: np.array(v, np.uint16))


@given(overscans, st.integers(0, 400))
def test_zero_adjustment_is_the_trimmed_mean(overscan: np.ndarray, level: int) -> None:
    result = frames.zero_adjustment(overscan, level)
    kept = sorted(overscan.tolist())[32:-32]
    if not kept:
        assert result == ZeroAdjustment()
        return
    mean = sum(kept) / len(kept)
    assert result.mean == pytest.approx(mean)
    if mean > 10_000:
        assert result.saturated
    elif mean == 0:
        assert result.offset == 0
    else:
        assert result.mean is not None
        assert result.offset == level - int(result.mean)


def test_only_the_first_8192_overscan_pixels_count() -> None:
    overscan = np.full(9000, 300, np.uint16)
    overscan[8192:] = 60_000
    assert frames.zero_adjustment(overscan, 200) == ZeroAdjustment(-100, mean=300.0)


@given(
    st.lists(st.integers(0, 65535), min_size=1, max_size=50),
    st.integers(-65_535, 65_535),
    st.booleans(),
)
def test_adjust_zero_is_plain_arithmetic(values: list[int], offset: int, separate: bool) -> None:
    pixels = np.array([values], np.uint16)
    out = np.empty_like(pixels) if separate else None
    result = frames.adjust_zero(pixels, ZeroAdjustment(offset), out)
    assert result.tolist() == [[min(64_000, max(0, value + offset)) for value in values]]
    if separate:
        assert pixels.tolist() == [values]


def test_a_saturated_frame_is_forced_to_the_ceiling() -> None:
    pixels = np.array([[5, 65535]], np.uint16)
    assert frames.adjust_zero(pixels, ZeroAdjustment(saturated=True)).tolist() == [[64_000, 64_000]]


def test_mask_follows_binning_and_window() -> None:
    pixels = np.ones((10, 20), np.uint16)
    g = Geometry(5, 10, 20, 10, 2, 2)
    inside = frames.mask_pixels(pixels, g, [(10, 20), (49, 39), (9, 20), (50, 20), (10, 40)], 200)
    assert inside == 2
    assert pixels[0, 0] == 200
    assert pixels[9, 19] == 200
    assert pixels.sum() == 198 + 400
