# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the user wants of the camera, and how long each part of it may take. Pure."""

from __future__ import annotations

from dataclasses import dataclass

FRAME_TYPES = {"light": "FRAME_LIGHT", "dark": "FRAME_DARK", "bias": "FRAME_BIAS", "flat": "FRAME_FLAT"}

# s beside exposure and transfer: flushing, the wait for a filter wheel that is still turning, and the readout
# of a large sensor at 800 kHz, with as much again.
READOUT_ALLOWANCE = 90.0
# Bytes/s of a bad wireless network. The camera's own USB gives four times as much at its slowest.
SLOWEST_NETWORK = 250_000
BASE64 = 4 / 3
# K/min that a cooler achieves under bad conditions; half of what the cameras do at worst.
SLOWEST_COOLING = 2.0
COOLING_ALLOWANCE = 300.0  # s to settle at the set point
FILTER_LIMIT = 60.0  # s; a wheel of eight takes ten


@dataclass(frozen=True, slots=True)
class Frame:
    """A part of the sensor in its own pixels, whatever the binning is."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Request:
    """None means: as the camera has it."""

    seconds: float
    count: int = 1
    frame_type: str = "light"
    binning: tuple[int, int] | None = None
    frame: Frame | None = None
    full_frame: bool = False
    filter: str | None = None
    filter_device: str | None = None
    temperature: float | None = None
    tolerance: float = 0.5  # K
    cooling_limit: float | None = None  # s
    settings: tuple[tuple[str, str, str], ...] = ()  # vector, element, value


def parse_frame(text: str) -> Frame:
    """'X,Y,WIDTH,HEIGHT'. Raises ValueError."""
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{text!r} is no frame; write X,Y,WIDTH,HEIGHT in pixels, or full") from None
    if x < 0 or y < 0 or width < 1 or height < 1:
        raise ValueError(f"{text!r} is no frame: X and Y are at least 0, WIDTH and HEIGHT at least 1")
    return Frame(x, y, width, height)


def parse_binning(text: str) -> tuple[int, int]:
    """'2' or '1x2' (columns x rows). Raises ValueError."""
    across, _, down = text.partition("x")
    try:
        binning = int(across), int(down or across)
    except ValueError:
        binning = (0, 0)
    if min(binning) < 1:
        raise ValueError(f"{text!r} is no binning; write 2, or 1x2 for columns x rows")
    return binning


def parse_setting(text: str) -> tuple[str, str, str]:
    """'VECTOR.ELEMENT=VALUE'. Raises ValueError."""
    name, equals, value = text.partition("=")
    vector, dot, element = name.partition(".")
    if not (equals and dot and vector and element):
        raise ValueError(f"{text!r} is no setting; write VECTOR.ELEMENT=VALUE, such as Gain.High=On")
    return vector, element, value


def exposure_limit(seconds: float, pixels: int) -> float:
    """s from the request of an exposure to its picture, at the very most."""
    return seconds + READOUT_ALLOWANCE + 2 * pixels * BASE64 / SLOWEST_NETWORK


def cooling_limit(now: float, target: float, ramp: float) -> float:
    """s to reach a temperature, with a ramp of so many K/min (0: none)."""
    rate = min(SLOWEST_COOLING, ramp) if ramp > 0 else SLOWEST_COOLING
    return COOLING_ALLOWANCE + abs(target - now) / rate * 60
