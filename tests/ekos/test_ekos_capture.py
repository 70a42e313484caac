# SPDX-License-Identifier: LGPL-2.1-or-later
"""Ekos' Capture module takes frames of every kind; what it writes is what the camera saw."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from astropy.io.fits import Header

from tests.ekos.ekos import JOB_LIMIT, Ekos
from tests.ekos.observatory import Camera
from tests.ekos.sequence import Job
from tests.ekos.settings import MAX_TEMPERATURE_DIFFERENCE
from tests.support.rig import DEVICE, opened

pytestmark = pytest.mark.ekos

SET_POINT = -10.0  # degC
FALL = 0.3  # K that the temperature must have fallen by before the long wait is cut short


def compare(files: list[Path], camera: Camera, job: Job) -> list[Header]:
    """Pixels and the records that all frames have; returns the headers."""
    headers = []
    for file, picture in zip(files, camera.pictures(job.count), strict=True):
        header, pixels = opened(file.read_bytes())
        np.testing.assert_array_equal(pixels, picture)
        assert header["INSTRUME"] == DEVICE
        assert header["IMAGETYP"] == f"{job.kind} Frame"
        assert (header["XBINNING"], header["YBINNING"]) == (job.binning, job.binning)
        assert header["EXPTIME"] == pytest.approx(0 if job.kind == "Bias" else job.exposure)
        headers.append(header)
    return headers


def test_a_job_waits_until_the_camera_is_cold(ekos: Ekos, camera: Camera) -> None:
    warm, start = ekos.number("CCD_TEMPERATURE", "CCD_TEMPERATURE_VALUE"), len(camera.happened)
    job = Job(temperature=SET_POINT)
    folder = ekos.begin(job)
    ekos.wait(
        # KStars shows the wish until the first measured value comes.
        lambda: SET_POINT + 1 < ekos.number("CCD_TEMPERATURE", "CCD_TEMPERATURE_VALUE") < warm - FALL,
        "Ekos sees the temperature fall",
        JOB_LIMIT,
    )
    assert ekos.state("CCD_TEMPERATURE") == "Busy"
    assert ekos.switch("CCD_COOLER", "COOLER_ON") == "On"
    assert ekos.number("CCD_COOLER_POWER", "CCD_COOLER_VALUE") > 0
    assert [e["set_point"] for e in camera.since(start) if e["e"] == "temperature"] == [SET_POINT]
    assert not any(e["e"] == "expose" for e in camera.since(start))

    camera.cool_down()
    ekos.wait_complete(job)
    (header,) = compare(ekos.files(folder), camera, job)
    assert header["CCD-TEMP"] == pytest.approx(SET_POINT, abs=MAX_TEMPERATURE_DIFFERENCE)
    assert ekos.state("CCD_TEMPERATURE") == "Ok"

    # It is cold already: the same wish again is answered at once.
    (header,) = compare(ekos.run(job), camera, job)
    assert header["CCD-TEMP"] == pytest.approx(SET_POINT, abs=MAX_TEMPERATURE_DIFFERENCE)


@pytest.mark.parametrize("kind", ["Light", "Dark", "Bias", "Flat"])
def test_frame_types(kind: str, ekos: Ekos, camera: Camera) -> None:
    job = Job(kind)
    start = len(camera.happened)
    compare(ekos.run(job), camera, job)
    (light,) = [e["light"] for e in camera.since(start) if e["e"] == "expose"]
    assert light == (kind in ("Light", "Flat"))


def test_binned(ekos: Ekos, camera: Camera) -> None:
    job = Job(binning=2)
    (header,) = compare(ekos.run(job), camera, job)
    assert (header["NAXIS1"], header["NAXIS2"]) == (1663, 1252)
    assert header["XPIXSZ"] == 2 * header["PIXSIZE1"]


def test_part_of_the_frame(ekos: Ekos, camera: Camera) -> None:
    job = Job(frame=(101, 202, 303, 151))
    (header,) = compare(ekos.run(job), camera, job)
    assert (header["NAXIS1"], header["NAXIS2"]) == (303, 151)
    assert (header["XORGSUBF"], header["YORGSUBF"]) == (101, 202)


def test_binned_part_of_the_frame(ekos: Ekos, camera: Camera) -> None:
    job = Job(binning=2, frame=(100, 200, 300, 150))
    (header,) = compare(ekos.run(job), camera, job)
    assert (header["NAXIS1"], header["NAXIS2"]) == (150, 75)
    assert (header["XORGSUBF"], header["YORGSUBF"]) == (50, 100)


def test_several_frames_in_a_row(ekos: Ekos, camera: Camera) -> None:
    job = Job(count=3)
    headers = compare(ekos.run(job), camera, job)
    begun = [datetime.fromisoformat(header["DATE-OBS"]) for header in headers]
    assert begun == sorted(set(begun))


def test_abort(ekos: Ekos, camera: Camera) -> None:
    start = len(camera.happened)
    folder = ekos.begin(Job(exposure=60))
    ekos.wait(lambda: ekos.state("CCD_EXPOSURE") == "Busy", "the exposure runs", JOB_LIMIT)
    ekos.wait(
        lambda: any(e["e"] == "exposure_start" for e in camera.since(start)), "the shutter opens", JOB_LIMIT
    )
    ekos.abort()
    ekos.wait(
        lambda: any(e["e"] == "abort" for e in camera.since(start)), "the camera is told to abort", JOB_LIMIT
    )
    ekos.wait(lambda: ekos.state("CCD_EXPOSURE") == "Idle", "Ekos sees the exposure end", JOB_LIMIT)
    assert ekos.queue == "Aborted"
    assert ekos.files(folder) == []

    job = Job()
    compare(ekos.run(job), camera, job)
