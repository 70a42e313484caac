# SPDX-License-Identifier: LGPL-2.1-or-later
"""What each camera on the price list is made of: `CameraModel.parse("683wsg-8")`, `list_models()`.

A name is a base type (sensor and series), `c` for a colour sensor, and a body: `i` without mechanical
shutter, `s` with it, `ws` with a filter wheel, `wsg` with the off-axis guider port as well, `-8` with eight
filters instead of five (wire protocol, section 6.1; the Guide, appendix A).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from usbproto.models import BASE_TYPES, FEATURES_FIXED_IN, SERIES_600, Sensor, SensorKind, Series

# Body -> has a mechanical shutter, has a filter wheel.
BODIES: dict[str, tuple[bool, bool]] = {
    "i": (False, False),
    "s": (True, False),
    "ws": (True, True),
    "wsg": (True, True),
}
STANDARD_WHEEL = 5
LARGE_WHEEL = 8

# The last versions that are known of; 500 Series firmware has none of the extended commands here.
FIRMWARE = {"500": "05.02.04", "600": "06.03.04"}
OLD_FIRMWARE_600 = "06.01.07"  # its GetFeatures answer has one byte too many behind it

# Bins, as cameras of the two series were recorded to answer.
MAX_BIN = {"500": 8, "600": 9}

_NAME = re.compile(r"(\d{3})(c?)(wsg|ws|s|i)(-8)?")


@dataclass(frozen=True, slots=True)
class CameraModel:
    """A camera as bought: everything that does not change while it is on."""

    name: str
    base: str
    series: Series
    sensor: Sensor
    colour: bool
    has_shutter: bool
    filter_count: int

    @classmethod
    def parse(cls, name: str) -> CameraModel:
        """The model of this name. Raises `ValueError` for one that was never made."""
        match = _NAME.fullmatch(name.strip().lower())
        if match is None or match[1] not in BASE_TYPES:
            raise ValueError(f"no camera is called {name!r}: see --list-models")
        base, colour, body, large = match[1], bool(match[2]), match[3], bool(match[4])
        series, sensor, in_colour = BASE_TYPES[base]
        shutter, wheel = BODIES[body]
        if colour and not in_colour:
            raise ValueError(f"the {base} was not made with a colour sensor")
        if large and not wheel:
            raise ValueError(f"{name}: only bodies with a filter wheel come with eight positions")
        filters = (LARGE_WHEEL if large else STANDARD_WHEEL) if wheel else 0
        return cls(match[0], base, series, sensor, colour, shutter, filters)

    @property
    def has_wheel(self) -> bool:
        return self.filter_count > 0

    @property
    def interline(self) -> bool:
        """Such a sensor ends an exposure by itself; a full-frame one needs the mechanical shutter."""
        return self.sensor.kind is SensorKind.INTERLINE

    @property
    def extended(self) -> bool:
        """Knows the commands that came with the 600 Series."""
        return self.series is SERIES_600

    @property
    def has_hsr(self) -> bool:
        """High speed readout: assumed for the interline cameras of the 600 Series."""
        return self.extended and self.interline

    @property
    def max_bin(self) -> int:
        return MAX_BIN[self.series.name]

    @property
    def asymmetric_bin(self) -> bool:
        """Assumed for the interline cameras of the 600 Series."""
        return self.extended and self.interline

    @property
    def default_serial(self) -> str:
        """Eight digits as on the nameplate; the first camera of its kind."""
        return f"00{self.base}001"

    @property
    def default_firmware(self) -> str:
        return FIRMWARE[self.series.name]


def version(text: str) -> tuple[int, ...]:
    """`06.01.08` -> (6, 1, 8)."""
    return tuple(int(part) for part in text.split("."))


def has_features_quirk(model: CameraModel, firmware: str) -> bool:
    """Whether this firmware sends one byte too many behind GetFeatures (wire protocol, section 3.9)."""
    return model.extended and version(firmware) < FEATURES_FIXED_IN


def list_models() -> list[str]:
    """Every name that `CameraModel.parse` takes, in the order of the price list."""
    names = []
    for base, (_, _, in_colour) in BASE_TYPES.items():
        for colour in ("", "c") if in_colour else ("",):
            for body, (_, wheel) in BODIES.items():
                names += [f"{base}{colour}{body}{size}" for size in (("", "-8") if wheel else ("",))]
    return names
