# SPDX-License-Identifier: LGPL-2.1-or-later
"""fpack and what can go wrong with it. Programs that misbehave stand in for it on the path."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits as astropy_fits

from indi_qsi import fits
from indi_qsi.device import compression
from indi_qsi.device.compression import CompressionError, pack, units
from indi_qsi.links.frame import Frame
from tests.support.indi import eventually
from usbproto.frames import Pixels, ZeroAdjustment

needs_fpack = pytest.mark.skipif(
    shutil.which(compression.PROGRAM) is None, reason="fpack (Debian's libcfitsio-bin) is not installed"
)
SHAPES = [(2504, 3326), (200, 320), (1, 1), (2504, 1), (1, 3326), (7, 3)]


def picture(shape: tuple[int, int], kind: str = "sky") -> Pixels:
    noise = np.random.default_rng(1)
    match kind:
        case "sky":
            return noise.normal(300, 12, shape).astype(np.uint16)
        case "flat":
            return np.full(shape, 64_000, np.uint16)
        case _:
            return noise.integers(0, 64_000, shape, np.uint16)


def frame_of(pixels: Pixels) -> Frame:
    header = fits.render_header(pixels.shape, [fits.Card("OBJECT", "M 31", "what")])
    frame = Frame(fits.file_size(len(header), pixels.shape), ".fits")
    fits.write_file(frame.buffer, header, pixels, ZeroAdjustment())
    frame.seal()
    return frame


@needs_fpack
@pytest.mark.parametrize("kind", ["sky", "flat", "noise"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_astropy_reads_the_same_pixels(shape: tuple[int, int], kind: str) -> None:
    pixels = picture(shape, kind)
    with frame_of(pixels) as frame, pack(frame) as packed:
        assert packed.format == ".fits.fz"
        assert os.fstat(packed.fileno()).st_size == packed.size == len(packed.buffer)
        with astropy_fits.open(BytesIO(bytes(packed.buffer))) as file:
            file.verify("exception")
            assert file[1].data.dtype == np.uint16
            np.testing.assert_array_equal(file[1].data, pixels)
            assert file[1].header["OBJECT"] == "M 31"
        if shape == SHAPES[0] and kind == "sky":
            assert packed.size < frame.size / 2
        assert bytes(frame.buffer[:9]) == b"SIMPLE  ="  # the source is as it was


@needs_fpack
def test_a_part_of_a_file_is_not_a_whole_one() -> None:
    with frame_of(picture((200, 320))) as frame, pack(frame) as packed:
        for file, number in ((frame.buffer, 1), (packed.buffer, 2)):
            assert units(file) == number
            for size in (0, 80, 2880, 5760, len(file) - 2880, len(file) - 1):
                assert units(file[:size]) < number
            assert units(memoryview(bytes(file) + bytes(2880))) == 0


@pytest.mark.parametrize("rubbish", [b"x", bytes(2880), b"NAXIS   =  99 " * 9999, b"NAXIS   = -1 ", b"END"])
def test_rubbish_is_no_file(rubbish: bytes) -> None:
    assert units(memoryview(rubbish)) == 0


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place for an fpack of one's own."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    yield tmp_path / "fpack"


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_one_that_does_not_end_is_killed(fake: Path) -> None:
    script(fake, f"echo $$ > {fake}.pid; exec sleep 1000")
    with frame_of(picture((9, 9))) as frame:
        begun = time.monotonic()
        with pytest.raises(CompressionError, match="did not end within"):
            pack(frame, deadline=0.5)
        assert time.monotonic() - begun < 10
    pid = int(fake.with_suffix(".pid").read_text())
    eventually(lambda: not Path(f"/proc/{pid}").exists(), "it is gone")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("exit 3", "status 3"),
        ("kill -SEGV $$", "status -11"),
        ("exit 0", "no whole file"),
        ("echo rubbish", "no whole file"),
        ("head -c 8640 $2", "no whole file"),
        ("cat $2", "no whole file"),  # whole, but not packed
        ("exec cat /dev/zero", "status 1"),  # as much as it can: the memory is bounded
    ],
)
def test_one_that_fails(fake: Path, text: str, reason: str) -> None:
    script(fake, text)
    with frame_of(picture((200, 320))) as frame, pytest.raises(CompressionError, match=reason):
        pack(frame)


def test_one_that_cannot_be_started(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(fake.parent))
    fake.write_text("#!/no/such/program\n")
    fake.chmod(0o755)
    with frame_of(picture((9, 9))) as frame, pytest.raises(CompressionError):
        pack(frame)


def test_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(compression.CompressionError, match="not installed"):
        compression.look_for()
    with frame_of(picture((9, 9))) as frame, pytest.raises(CompressionError, match="libcfitsio-bin"):
        pack(frame)


def test_no_memory_is_left_behind(fake: Path) -> None:
    script(fake, "exit 1")
    before = len(list(Path("/proc/self/fd").iterdir()))
    with frame_of(picture((200, 320))) as frame:
        for _ in range(5):
            with pytest.raises(CompressionError):
                pack(frame)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
