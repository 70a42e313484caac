# SPDX-License-Identifier: LGPL-2.1-or-later
"""One table of ids, series, sensors and quirks. Feeds the code, the udev rules, the simulator and the docs.

Sources: wire protocol, sections 1 (ids), 3.7 and 3.8 (quirks, feature bytes) and 6.1 (sensors, from the
Guide's appendix A).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum


@dataclass(frozen=True, slots=True)
class Chip:
    """The FTDI chip between USB and camera.

    `packet` is the usual size of its bulk packets in bytes, two status bytes included (an FT2232H behind a
    full-speed hub has an FT245's). `sync_fifo` says that channel A is put into synchronous FIFO mode at open.
    """

    name: str
    packet: int
    sync_fifo: bool


FT245 = Chip("FT245", 64, sync_fifo=False)
FT2232H = Chip("FT2232H", 512, sync_fifo=True)


@dataclass(frozen=True, slots=True)
class Series:
    """One line of cameras, which is also one USB product."""

    name: str
    product_id: int
    chip: Chip
    product: str


VENDOR_ID = 0x0403
SERIES_500 = Series("500", 0xEB48, FT245, "QSI 500 Series Camera")
SERIES_600 = Series("600", 0xEB49, FT2232H, "QSI 600 Series Camera")
SERIES = (SERIES_500, SERIES_600)


def series_of(product_id: int) -> Series | None:
    """The series of a USB product id (vendor 0403), or None when it is not a QSI camera."""
    return next((series for series in SERIES if series.product_id == product_id), None)


def channel_serial(usb_serial: str) -> str | None:
    """The camera's serial from the USB string; None for the second channel of a chip.

    The string of a dual-channel chip can end in `A` or `B`. The vendor drops what ends in `B` and strips a
    trailing `A` (wire protocol, section 1); so do we, or one camera would be two.
    """
    serial = usb_serial.replace("\0", "").strip().upper()
    if serial.endswith("B"):
        return None
    return serial.removesuffix("A")


class SensorKind(Enum):
    FULL_FRAME = "full frame"
    INTERLINE = "interline"


@dataclass(frozen=True, slots=True)
class Sensor:
    """A CCD. Pixels are columns x rows; `overscan_columns` are dark reference pixels of each row.

    `full_well` e-, `read_noise` e- (rms), `dark_current` e-/s per pixel at `dark_at` degC, doubling every
    `dark_doubling` degC, `gain_high` and `gain_low` e-/ADU. The Guide is silent on the Sony sensors: their
    noise figures are typical ones, used by the simulator alone.
    """

    name: str
    kind: SensorKind
    total: tuple[int, int]
    active: tuple[int, int]
    pixel: float
    full_well: int
    read_noise: float
    dark_current: float
    dark_at: float
    dark_doubling: float
    anti_blooming: bool
    gain_high: float
    gain_low: float
    feature_code: int

    @property
    def overscan_columns(self) -> int:
        return self.total[0] - self.active[0]


_FF, _IL = SensorKind.FULL_FRAME, SensorKind.INTERLINE

# fmt: off
KAF_0402 = Sensor("KAF-0402ME", _FF, (784, 520), (768, 512), 9.0, 100_000, 15.0, 1.0, 0.0, 6.3, False, 2.6, 2.6, 2)
KAF_1603 = Sensor("KAF-1603ME", _FF, (1552, 1032), (1536, 1024), 9.0, 100_000, 15.0, 1.0, 0.0, 6.3, False, 2.6, 2.6, 3)
KAF_3200 = Sensor("KAF-3200ME", _FF, (2254, 1510), (2184, 1472), 6.8, 55_000, 7.0, 0.5, 0.0, 6.0, False, 1.3, 1.3, 4)
KAF_8300 = Sensor("KAF-8300", _FF, (3348, 2574), (3326, 2504), 5.4, 25_500, 8.0, 0.02, -10.0, 5.8, True, 0.5, 1.1, 5)
KAI_2020 = Sensor("KAI-2020", _IL, (1640, 1214), (1600, 1200), 7.4, 45_000, 8.0, 0.1, 0.0, 6.3, True, 0.8, 1.9, 6)
KAI_04022 = Sensor("KAI-04022", _IL, (2112, 2072), (2048, 2048), 7.4, 40_000, 8.0, 0.1, 0.0, 6.3, True, 0.8, 1.9, 7)
ICX674 = Sensor("ICX674", _IL, (1980, 1480), (1940, 1460), 4.54, 20_000, 5.0, 0.01, 0.0, 6.0, True, 0.3, 0.6, 8)
ICX694 = Sensor("ICX694", _IL, (2798, 2228), (2758, 2208), 4.54, 20_000, 5.0, 0.01, 0.0, 6.0, True, 0.3, 0.6, 9)
ICX814 = Sensor("ICX814", _IL, (3428, 2732), (3388, 2712), 3.69, 15_000, 4.0, 0.01, 0.0, 6.0, True, 0.25, 0.5, 10)
# fmt: on

# Base type (the leading digits of the model number) -> series, sensor, whether a colour version was made.
BASE_TYPES: dict[str, tuple[Series, Sensor, bool]] = {
    "504": (SERIES_500, KAF_0402, False),
    "516": (SERIES_500, KAF_1603, False),
    "520": (SERIES_500, KAI_2020, True),
    "532": (SERIES_500, KAF_3200, False),
    "540": (SERIES_500, KAI_04022, True),
    "583": (SERIES_500, KAF_8300, True),
    "604": (SERIES_600, KAF_0402, False),
    "616": (SERIES_600, KAF_1603, False),
    "620": (SERIES_600, KAI_2020, True),
    "628": (SERIES_600, ICX674, True),
    "632": (SERIES_600, KAF_3200, False),
    "640": (SERIES_600, KAI_04022, True),
    "660": (SERIES_600, ICX694, True),
    "683": (SERIES_600, KAF_8300, True),
    "690": (SERIES_600, ICX814, True),
}


def base_type(model_number: str) -> str:
    """The leading digits of a model number: `583wsg` -> `583`."""
    digits = len(model_number) - len(model_number.lstrip("0123456789"))
    return model_number[:digits]


# --- auto-zero and pixel values (section 4) ---

ZERO_LEVEL_500 = 200  # ADU; what the overscan is pinned to on the 500 Series
PIXEL_CEILING = 64_000  # ADU; pixels are clipped here, with auto-zero or without


# --- quirks (section 3.7) ---

# They report gain as switchable although it is not.
FIXED_GAIN = frozenset({"503", "504", "516", "532"})
# Their shutter is always mechanical, whatever the defaults say.
MECHANICAL_PRIORITY = frozenset({"503", "504", "516", "532", "583"})
# Interline sensors, yet without host-timed exposures in the vendor's API (section 6.0).
NO_HOST_TIMING = frozenset({"520"})
# Firmware of the 600 Series before this sends one byte too many after GetFeatures.
FEATURES_FIXED_IN = (6, 1, 8)
# The vendor's own e-/ADU (high, low gain), which win over what the camera reports (section 6.1).
VENDOR_GAINS: dict[str, tuple[float, float]] = {
    "503": (2.6, 2.6),
    "504": (2.6, 2.6),
    "516": (2.6, 2.6),
    "520": (0.8, 1.9),
    "540": (0.8, 1.9),
    "532": (1.3, 1.3),
    "583": (0.5, 1.1),
}


# --- feature bytes in the EEPROM (section 3.8) ---


class Address(IntEnum):
    """EEPROM addresses. Strings are 8 bytes of ASCII."""

    MODEL = 0x0000
    MANUFACTURING_DATE = 0x0008
    HARDWARE_SERIAL = 0x0010
    HARDWARE_REVISION = 0x0018
    FIRMWARE_REVISION = 0x0020
    NAME = 0x0028
    SENSOR_CLASS = 0x022A
    MICROLENS = 0x022D
    COLOUR_MASK = 0x022E
    SENSOR_TYPE = 0x022F
    FILTER_WHEEL = 0x0232
    SHUTTER = 0x0233
    COOLING = 0x0235
    FAMILY = 0x0238


EEPROM_TEXT_BYTES = 8
FEATURE_UNKNOWN = frozenset({0, 1, 255})  # not implemented, not specified, not initialised

RS_FAMILY = 5
FAMILY_DIGIT = {2: "5", 4: "6", 6: "7"}
SENSOR_NUMBER = {2: "04", 3: "16", 4: "32", 5: "83", 6: "20", 7: "40", 8: "28", 9: "60", 10: "90"}
KODAK_INTERLINE = frozenset({6, 7})  # KAI-2020 and KAI-04022: their bodies without wheel and shutter are `i`
PRESENT = 3  # shutter and filter wheel: 2 none, 3 standard
COLOUR = frozenset({3, 4})  # Bayer, Truesense
WITH_MICROLENS = 3
SENSOR_CLASS = {3: "1", 4: "2", 5: "E"}


@dataclass(frozen=True, slots=True)
class FeatureBytes:
    """The feature bytes of an EEPROM that make the marketing name, as they stand there."""

    family: int
    sensor: int
    colour_mask: int
    filter_wheel: int
    shutter: int
    sensor_class: int
    microlens: int


def marketing_model(found: FeatureBytes) -> str | None:
    """The name on the price list, like `683ws-1` or `RS8.3-1`; None when it was never set (section 3.8)."""
    number = SENSOR_NUMBER.get(found.sensor)
    if number is None:
        return None
    if found.family == RS_FAMILY:
        name = f"RS{number[0]}.{number[1]}"
    elif found.family in FAMILY_DIGIT:
        colour = "c" if found.colour_mask in COLOUR else ""
        body = ("w" if found.filter_wheel == PRESENT else "") + ("s" if found.shutter == PRESENT else "")
        if not body:
            body = "i" if found.sensor in KODAK_INTERLINE else "x"
        name = FAMILY_DIGIT[found.family] + number + colour + body
    else:
        return None
    grade = SENSOR_CLASS.get(found.sensor_class)
    if grade is None:
        return name
    return f"{name}-{'M' if found.microlens == WITH_MICROLENS else ''}{grade}"


# --- limits of the camera (sections 3.3, 3.4, 3.6, 6) ---

MIN_SET_POINT = -40.0  # degC; the camera never cools below
MAX_SET_POINT = 50.0  # degC; the vendor accepts 100, but a cooler can only cool
SET_POINT_WIRE_LIMIT = 100.0  # degC, either sign
MAX_RELAY_10MS = 5000  # 50 s, the longest pulse that the camera times
RELAY_UNIT = 0.01  # s
POWER_UP_TIME = 6.0  # s, during which the camera does not answer
