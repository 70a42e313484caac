# SPDX-License-Identifier: LGPL-2.1-or-later
"""Coordinates: against published numbers, and against astropy's own way."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from indi_qsi.device.sky import DAY, TT_MINUS_UTC, airmass, horizontal, sexagesimal, to_j2000
from tests.support.indi import PATIENCE

ARCSEC = 1 / 3600


def separation(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Arcsec between two near places in degrees."""
    along = (one[0] - other[0] + 180) % 360 - 180
    return math.hypot(along * math.cos(math.radians(one[1])), one[1] - other[1]) * 3600


def degrees(whole: int, minutes: int, seconds: float) -> float:
    return whole + minutes / 60 + seconds / 3600


def test_apparent_place_of_theta_persei() -> None:
    """Meeus, Astronomical Algorithms, examples 21.b and 23.a: 2028 November 13.19 TD, proper motion included."""
    when = datetime(2028, 11, 13, tzinfo=UTC).timestamp() + 0.19 * DAY - TT_MINUS_UTC
    mean = (degrees(2, 44, 12.9747) * 15, degrees(49, 13, 39.896))
    found = to_j2000(degrees(2, 46, 14.390), degrees(49, 21, 7.45), when)
    assert separation(found, mean) < 0.3


@pytest.mark.filterwarnings("ignore:leap-second")  # an old astropy cannot renew its list
@pytest.mark.parametrize("unix", [9.5e8, 1.2e9, 1.5e9])  # where astropy brings the Earth's rotation along
@pytest.mark.parametrize("place", [(0.0, 0.0), (359.99, 89.9), (123.4, -67.8), (270.0, 45.0)])
def test_as_astropy_does_it(unix: float, place: tuple[float, float]) -> None:
    from astropy import units as u
    from astropy.coordinates import ICRS, TETE, AltAz, EarthLocation, SkyCoord
    from astropy.time import Time
    from astropy.utils import iers

    time = Time(unix, format="unix")
    site = EarthLocation(lon=-70.4 * u.deg, lat=-24.6 * u.deg)
    star = SkyCoord(ICRS(place[0] * u.deg, place[1] * u.deg))
    with iers.earth_orientation_table.set(iers.IERS_B.open(iers.IERS_B_FILE)):
        of_date = star.transform_to(TETE(obstime=time))
        seen = star.transform_to(AltAz(obstime=time, location=site))
    assert separation(to_j2000(of_date.ra.deg / 15, of_date.dec.deg, unix), place) < 0.05
    # Without UT1 - UTC.
    assert separation(horizontal(*place, unix, -24.6, -70.4), (seen.az.deg, seen.alt.deg)) < 15


def test_of_date_differs_by_what_it_should() -> None:
    """About 20 arcsec a year of precession since 2000."""
    assert 400 < separation(to_j2000(0, 0, 1.8e9), (0, 0)) < 1800


def test_horizontal_of_the_pole_and_the_zenith() -> None:
    azimuth, altitude = horizontal(0, 90, 1.7e9, 52, 0)
    assert altitude == pytest.approx(52, abs=0.2)
    assert math.cos(math.radians(azimuth)) > 0.99


def test_airmass() -> None:
    assert airmass(90) == pytest.approx(1, abs=1e-4)
    assert airmass(30) == pytest.approx(1.99, abs=0.01)
    assert airmass(0) == pytest.approx(38.7, abs=0.1)
    assert airmass(-0.1) is None


def test_sexagesimal() -> None:
    assert sexagesimal(5.919529, wrap=24) == "05 55 10.30"
    assert sexagesimal(23.9999999, wrap=24) == "00 00 00.00"
    assert sexagesimal(-5.391111) == "-05 23 28.00"
    assert sexagesimal(-0.25) == "-00 15 00.00"
    assert sexagesimal(-1e-9) == "00 00 00.00"
    assert sexagesimal(89.99999999) == "90 00 00.00"


def test_any_clock_and_any_place_will_do() -> None:
    for unix in (0.0, -1e9, 1e11):
        for dec in (-90, 90):
            assert all(map(math.isfinite, to_j2000(24, dec, unix)))
            assert all(map(math.isfinite, horizontal(360, dec, unix, -90, 180)))


def test_it_works_without_a_network_and_silently() -> None:
    code = (
        "import socket, warnings; warnings.simplefilter('error')\n"
        "def none(*a, **k): raise OSError('no network here')\n"
        "socket.socket = socket.create_connection = socket.getaddrinfo = none\n"
        "from indi_qsi.device.sky import to_j2000, horizontal\n"
        "to_j2000(1, 2, 2.6e9); horizontal(1, 2, 2.6e9, 3, 4)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, env=dict(os.environ)
    )
    assert (result.returncode, result.stderr) == (0, "")
