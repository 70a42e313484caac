# SPDX-License-Identifier: LGPL-2.1-or-later
"""The parts of `qsi-snap`: names that are never taken twice, measurements that are right."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
from astropy.io.fits import Header
from qsi_tools.snap import files, measure, preview, request

from tests.support.rig import Sim, stand_alone
from tests.tools.running import run
from usbproto.simulator.mount import Telescope

FACTS = {"device": "QSI CCD", "type": "light", "filter": "H α/7"}


@pytest.mark.parametrize(
    ("pattern", "index", "name"),
    [
        ("{device}_{type}_{index}", 7, "QSI_CCD_light_007"),
        ("M31", 1, "M31"),
        ("M31", 2, "M31_002"),
        ("{filter}/{date}x", 1, "H_α_7/nonex"),
    ],
)
def test_names(pattern: str, index: int, name: str) -> None:
    assert files.fill(pattern, FACTS, index) == name


@pytest.mark.parametrize("pattern", ["{object}", "folder/", "", "{device.x}"])
def test_bad_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError):
        files.check_pattern(pattern)


@pytest.mark.parametrize("name", ["a.fits", "a.FIT", "a.fits.fz", "a"])
def test_extensions_are_not_doubled(name: str) -> None:
    assert files.without_extension(name) == "a"


def _save_many(folder: str, text: str) -> None:
    for number in range(20):
        files.save(f"{text} {number}".encode(), f"{folder}/x_{{index}}", {}, ".fits")


@pytest.mark.parametrize("links", [True, False], ids=["links", "no-links"])
def test_many_programs_save_under_one_pattern(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:  # as on a memory stick

        def refused(*_: object) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", refused)
    context = multiprocessing.get_context("fork")
    programs = [context.Process(target=_save_many, args=(str(tmp_path), str(who))) for who in range(4)]
    for program in programs:
        program.start()
    for program in programs:
        program.join(60)
    contents = sorted(path.read_text() for path in tmp_path.iterdir())
    assert contents == sorted(f"{who} {number}" for who in range(4) for number in range(20))
    assert (tmp_path / "x_080.fits").exists()


def test_a_server_chooses_no_folder(tmp_path: Path) -> None:
    path = files.save(b"x", str(tmp_path / "M31"), {}, "/../../other.fits")
    assert path.parent == tmp_path and path.read_bytes() == b"x"


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("mine")
    with pytest.raises(OSError):
        files.save(b"data", f"{blocker}/picture", {}, ".fits")
    tmp_path.chmod(0o755)
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and blocker.read_text() == "mine"


def test_limits_grow_with_what_is_asked_for() -> None:
    assert request.exposure_limit(10, 0) == 10 + request.READOUT_ALLOWANCE
    assert request.exposure_limit(0, 8_300_000) > request.exposure_limit(0, 0) + 60
    assert request.cooling_limit(20, -20, 0) == request.COOLING_ALLOWANCE + 20 * 60
    assert request.cooling_limit(20, -20, 1) == request.COOLING_ALLOWANCE + 40 * 60


@pytest.mark.parametrize("text", ["1,2,3", "a,b,c,d", "-1,0,5,5", "0,0,0,5"])
def test_frames_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="is no frame"):
        request.parse_frame(text)


def field(fwhm: float, stars: int = 30, hot: int = 40) -> measure.Pixels:
    """Stars on noise, and hot pixels that are none."""
    rng = np.random.default_rng(3)
    rows, columns = np.mgrid[:500, :600]
    light = rng.normal(300, 8, rows.shape)
    sigma = fwhm / 2.3548
    places = [(60 + 95 * (star % 6), 50 + 95 * (star // 6)) for star in range(stars)]
    for x, y in places:
        x, y = x + rng.uniform(-0.5, 0.5), y + rng.uniform(-0.5, 0.5)
        light += (
            rng.uniform(20_000, 60_000)
            / (2 * np.pi * sigma**2)
            * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
        )
    light[rng.integers(0, 500, hot), rng.integers(0, 600, hot)] += 3000
    return light.astype(np.float32)


@pytest.mark.parametrize("fwhm", [2.0, 3.3, 14.0])
def test_stars_are_counted_and_measured(fwhm: float) -> None:
    measured = measure.measure(field(fwhm), Header({"SCALE": 1.5}), stars=True)
    assert measured.fwhm == pytest.approx(fwhm, rel=0.05)
    assert measured.fwhm_arcsec == pytest.approx(1.5 * fwhm, rel=0.05)
    assert measured.stars == pytest.approx(30, abs=3)
    assert measured.median == pytest.approx(300, abs=1)
    assert measured.noise == pytest.approx(8, rel=0.1)


def test_a_picture_of_nothing_has_no_stars() -> None:
    even = np.full((200, 300), 500, np.float32)
    assert measure.measure(even, Header(), stars=True).stars == 0
    noise = np.random.default_rng(1).normal(500, 9, (200, 300)).astype(np.float32)
    measured = measure.measure(noise, Header(), stars=True)
    assert (measured.stars, measured.fwhm) == (0, None)


@pytest.mark.parametrize("shape", [(1, 1), (1, 100), (100, 1), (2, 2)])
def test_a_strip_of_a_colour_sensor_has_no_stars(shape: tuple[int, int]) -> None:
    strip, header = np.ones(shape, np.float32), Header({"BAYERPAT": "RGGB"})
    measured = measure.measure(strip, header, stars=True)
    assert measured.stars == 0
    assert preview.preview(strip, header, measured).startswith(b"\x89PNG")


@pytest.mark.parametrize("seeing", [3.5, 8.0])
def test_the_seeing_of_the_simulated_sky_comes_out(seeing: float, tmp_path: Path) -> None:
    with (
        Sim(tmp_path, telescope=Telescope(seeing=seeing)) as sim,
        stand_alone(tmp_path, sim.environ) as server,
    ):
        server.connect()
        server.set("SCOPE_INFO.FOCAL_LENGTH;APERTURE=800;200")
        arguments = ("--frame", "500,500,1200,900", "--no-preview", "--json")
        ended = run(tmp_path / "out", "qsi-snap", "--server", server.address, "3", *arguments)
        assert ended.code == 0, ended.err
        (told,) = ended.json["pictures"]
        width = sim.camera.hardware.optics.sigma() * 2.3548  # of the whole way to the pixel
        assert told["fwhm"] == pytest.approx(width, rel=0.06)
        assert told["fwhm_arcsec"] == pytest.approx(width * 1.392, rel=0.06)
        assert told["stars"] > 8
