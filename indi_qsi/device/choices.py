# SPDX-License-Identifier: LGPL-2.1-or-later
"""The table of the camera's settings: what there is to choose, what it needs, how it is done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from usbproto.camera import Camera
    from usbproto.settings import Available

# How a choice is carried out, given the camera and the chosen element.
Action = Callable[["Camera", str], None]


@dataclass(frozen=True)
class Choice:
    """One switch vector. `available` names the attribute of `usbproto.settings.Available` that it needs.

    `field` is the field of the camera's settings that it sets, with the value of each element in their order;
    a choice without one has an action in `ACTIONS`. Those that are `kept` hold at the next connect. The last
    `special` elements need an attribute of `Available` themselves.
    """

    vector: str
    label: str
    elements: tuple[tuple[str, str], ...]
    available: str | None
    field: str | None = None
    values: tuple[int, ...] = ()
    kept: bool = True
    default: int = 0
    special: tuple[int, str] = (0, "")

    def there(self, has: Available) -> bool:
        """Whether a camera has it."""
        return self.available is None or bool(getattr(has, self.available))

    def offered(self, has: Available) -> tuple[tuple[str, str], ...]:
        """The elements that a camera has."""
        count, need = self.special
        return self.elements[:-count] if count and not getattr(has, need) else self.elements


ON_OFF = (("INDI_ENABLED", "Enabled"), ("INDI_DISABLED", "Disabled"))

# The vectors and elements that other drivers for these cameras had keep their names.
CHOICES = (
    Choice("Fan", "Fan", (("Off", "Off"), ("Quiet", "Quiet"), ("Full", "Full")), "fan", "fan", (0, 1, 2)),
    Choice("Gain", "Gain", (("High", "High"), ("Low", "Low"), ("Auto", "Auto")), "gain"),
    Choice(
        "AntiBlooming",
        "Anti-blooming",
        (("Normal", "Normal"), ("High", "High")),
        "anti_blooming",
        "anti_blooming",
        (0, 1),
    ),
    Choice(
        "READOUT_QUALITY",
        "Readout",
        (("QUALITY_HIGH", "High Quality"), ("QUALITY_LOW", "Fast")),
        "fast_readout",
        "fast_readout",
        (0, 1),
    ),
    Choice(
        "CCD_FLUSH",
        "Pre-exposure Flush",
        (
            ("FLUSH_NONE", "None"),
            ("FLUSH_MODEST", "Modest"),
            ("FLUSH_NORMAL", "Normal"),
            ("FLUSH_AGGRESSIVE", "Aggressive"),
            ("FLUSH_VERY_AGGRESSIVE", "Very Aggressive"),
        ),
        "flush",
        "flush",
        (0, 1, 2, 3, 4),
    ),
    Choice(
        "SHUTTER_PRIORITY",
        "Shutter Priority",
        (("PRIORITY_MECHANICAL", "Mechanical"), ("PRIORITY_ELECTRONIC", "Electronic")),
        "shutter_priority",
        "shutter_priority",
        (0, 1),
    ),
    Choice("STATUS_LED", "Status Light", ON_OFF, "led", "led", (1, 0)),
    Choice("BEEPER", "Beeper", ON_OFF, "sound", "sound", (1, 0)),
    Choice("AUTO_ZERO", "Auto-zero", ON_OFF, None),
    Choice(
        "CCD_SHUTTER",
        "Shutter",
        (
            ("SHUTTER_ON", "Manual open"),
            ("SHUTTER_OFF", "Manual close"),
            ("SHUTTER_AUTO", "Automatic"),
        ),
        "manual_shutter",
        kept=False,
        default=2,
    ),
    Choice("SHUTTER_OUTPUT", "Shutter on Guide Port", ON_OFF, "shutter_output", kept=False, default=1),
    Choice("HOST_TIMED", "Host-timed Exposure", ON_OFF, "host_timed", kept=False, default=1),
    Choice("HIGH_SPEED_READOUT", "High Speed Readout", ON_OFF, "hsr", kept=False, default=1),
    Choice(
        "EXTERNAL_TRIGGER",
        "External Trigger",
        (
            ("TRIGGER_OFF", "Off"),
            ("TRIGGER_LONG_FALLING", "Long wait, falling edge"),
            ("TRIGGER_LONG_RISING", "Long wait, rising edge"),
            ("TRIGGER_SHORT_FALLING", "Short wait, falling edge"),
            ("TRIGGER_SHORT_RISING", "Short wait, rising edge"),
        ),
        "trigger",
        kept=False,
        special=(2, "short_trigger"),
    ),
)
ROLES = (("ROLE_MAIN", "Main Camera"), ("ROLE_GUIDER", "Guider"))


def _gain(camera: Camera, element: str) -> None:
    from usbproto.settings import GainChoice

    camera.choose_gain(GainChoice[element.upper()])


def _auto_zero(camera: Camera, element: str) -> None:
    camera.auto_zero = element == ON_OFF[0][0]


def _shutter(camera: Camera, element: str) -> None:
    camera.alt_modes.manual_shutter(element != "SHUTTER_AUTO")
    if element != "SHUTTER_AUTO":
        camera.alt_modes.move_shutter(element == "SHUTTER_ON")


def _shutter_output(camera: Camera, element: str) -> None:
    camera.alt_modes.shutter_output(element == ON_OFF[0][0])


def _host_timed(camera: Camera, element: str) -> None:
    camera.alt_modes.host_timed(element == ON_OFF[0][0])


def _high_speed(camera: Camera, element: str) -> None:
    """Only chosen here; the exposure does it."""


def _trigger(camera: Camera, element: str) -> None:
    from usbproto.packets import TriggerMode

    modes = {
        "TRIGGER_OFF": TriggerMode.OFF,
        "TRIGGER_LONG_FALLING": TriggerMode.LONG_WAIT,
        "TRIGGER_LONG_RISING": TriggerMode.LONG_WAIT_RISING,
        "TRIGGER_SHORT_FALLING": TriggerMode.SHORT_WAIT,
        "TRIGGER_SHORT_RISING": TriggerMode.SHORT_WAIT_RISING,
    }
    camera.set_trigger(modes[element])


ACTIONS: dict[str, Action] = {
    "Gain": _gain,
    "AUTO_ZERO": _auto_zero,
    "CCD_SHUTTER": _shutter,
    "SHUTTER_OUTPUT": _shutter_output,
    "HOST_TIMED": _host_timed,
    "HIGH_SPEED_READOUT": _high_speed,
    "EXTERNAL_TRIGGER": _trigger,
}
# These are bits that the camera goes on with until it is switched off.
ALT_MODES = frozenset({"CCD_SHUTTER", "SHUTTER_OUTPUT", "HOST_TIMED"})
