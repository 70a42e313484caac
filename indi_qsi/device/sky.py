# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where in the sky: coordinates of date to J2000, and how high above the horizon. Pure; needs no network.

The work is done by ERFA, the library of the IAU's own algorithms on which astropy.coordinates is built. It is
called directly because nothing here needs the Earth's measured rotation (IERS tables), which astropy would
download or warn about on a computer at a telescope without Internet.

Times are Unix times in s. UT1 - UTC, which those tables would give, stays below 0.9 s: 14 arcsec in azimuth,
nothing in J2000 coordinates.
"""

from __future__ import annotations

import math

UNIX_EPOCH = 2440587.5  # Julian date
DAY = 86400.0  # s
# Terrestrial time - UTC, s: fixed since 2017. A leap second more or less moves no star by a milliarcsecond.
TT_MINUS_UTC = 69.184


def to_j2000(ra: float, dec: float, unix: float) -> tuple[float, float]:
    """Right ascension (hours) and declination (degrees) of date as J2000, both in degrees.

    Of date means apparent, as mounts say it (true equator and equinox): precession, nutation and aberration
    are taken out. The result is in the ICRS, which is FK5 J2000 to within 0.03 arcsec.
    """
    import erfa  # type: ignore[import-untyped, unused-ignore]

    tt = _tt(unix)
    # ERFA's frame of date counts right ascension from another origin than the equinox.
    origins = float(erfa.eo06a(UNIX_EPOCH, tt))
    right, declination, _ = erfa.atic13(math.radians(ra * 15) + origins, math.radians(dec), UNIX_EPOCH, tt)
    return math.degrees(float(right)) % 360, math.degrees(float(declination))


def horizontal(ra: float, dec: float, unix: float, latitude: float, longitude: float) -> tuple[float, float]:
    """Azimuth (from north over east) and altitude of a J2000 position; everything in degrees.

    `longitude` counts to the east. Geometric: without refraction.
    """
    import erfa  # type: ignore[import-untyped, unused-ignore]

    tt, ut = _tt(unix), unix / DAY
    right, declination, origins = erfa.atci13(math.radians(ra), math.radians(dec), 0, 0, 0, 0, UNIX_EPOCH, tt)
    sidereal = float(erfa.gst06a(UNIX_EPOCH, ut, UNIX_EPOCH, tt)) + math.radians(longitude)
    azimuth, altitude = erfa.hd2ae(
        sidereal - (float(right) - float(origins)), float(declination), math.radians(latitude)
    )
    return math.degrees(float(azimuth)) % 360, math.degrees(float(altitude))


def airmass(altitude: float) -> float | None:
    """Relative airmass at an altitude in degrees (Pickering 2002); None below the horizon."""
    if altitude < 0:
        return None
    return 1 / math.sin(math.radians(altitude + 244 / (165 + 47 * altitude**1.1)))


def sexagesimal(value: float, *, wrap: int | None = None) -> str:
    """Hours or degrees as 'HH MM SS.ss', with a sign if negative; `wrap` 24 keeps hours below it."""
    hundredths = round(abs(value) * 3600 * 100)
    if wrap is not None:
        hundredths %= wrap * 3600 * 100
    minutes, rest = divmod(hundredths, 60 * 100)
    sign = "-" if value < 0 and hundredths else ""
    return f"{sign}{minutes // 60:02d} {minutes % 60:02d} {rest // 100:02d}.{rest % 100:02d}"


def _tt(unix: float) -> float:
    """Terrestrial time, in days since `UNIX_EPOCH`."""
    return (unix + TT_MINUS_UTC) / DAY
