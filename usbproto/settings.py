# SPDX-License-Identifier: LGPL-2.1-or-later
"""The camera's settings: what this model lets one choose, and the modes that are switched by bits.

The camera cannot be asked for its settings, so they are always sent as a whole (wire protocol, section 3.7).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

from usbproto import models
from usbproto import packets as p
from usbproto.errors import NotSupported
from usbproto.link import Link
from usbproto.models import SensorKind

_SHUTTER_ORDERS = p.AltMode.OPEN_SHUTTER | p.AltMode.CLOSE_SHUTTER


class GainChoice(Enum):
    """AUTO exists on the host only: high for 1x1, low for any binning (section 6.0)."""

    HIGH = "high"
    LOW = "low"
    AUTO = "auto"

    def for_binning(self, bin_x: int, bin_y: int) -> p.Gain:
        """The camera's gain for an exposure with this binning."""
        if self is GainChoice.AUTO:
            return p.Gain.HIGH if (bin_x, bin_y) == (1, 1) else p.Gain.LOW
        return p.Gain.HIGH if self is GainChoice.HIGH else p.Gain.LOW


@dataclass(frozen=True, slots=True)
class Available:
    """Which settings this camera has, quirks of its firmware set right."""

    led: bool
    sound: bool
    fan: bool
    gain: bool
    shutter_priority: bool
    anti_blooming: bool
    flush: bool
    fast_readout: bool
    manual_shutter: bool
    shutter_output: bool
    host_timed: bool
    trigger: bool
    short_trigger: bool
    hsr: bool


def available(defaults: p.DefaultSettings, details: p.DeviceDetails, features: p.Features) -> Available:
    """Works it out from what the camera said of itself."""
    base = models.base_type(details.model_number)
    known = models.BASE_TYPES.get(base)
    interline = known is not None and known[1].kind is SensorKind.INTERLINE
    trigger = p.Feature.BASIC_HW_TRIGGER in features
    return Available(
        led=defaults.has_led,
        sound=defaults.has_sound,
        fan=defaults.has_fan,
        gain=defaults.has_gain and base not in models.FIXED_GAIN,
        shutter_priority=(
            defaults.has_shutter_priority and details.has_shutter and base not in models.MECHANICAL_PRIORITY
        ),
        anti_blooming=defaults.has_anti_blooming,
        flush=defaults.has_flush,
        fast_readout=defaults.has_fast_readout,
        manual_shutter=details.has_shutter,
        shutter_output=details.has_relays,
        host_timed=interline and base not in models.NO_HOST_TIMING,
        trigger=trigger,
        short_trigger=trigger and interline,
        hsr=p.Feature.HSR_EXPOSURE in features,
    )


def default_settings(d: p.DefaultSettings) -> p.Settings:
    """The camera's own defaults, as settings that can be sent."""
    return p.Settings(
        d.led,
        d.sound,
        d.fan,
        d.gain,
        d.shutter_priority,
        d.anti_blooming,
        d.flush,
        d.show_progress,
        d.fast_readout,
    )


_LISTED: dict[str, type[IntEnum]] = {
    "fan": p.Fan,
    "gain": p.Gain,
    "shutter_priority": p.ShutterPriority,
    "anti_blooming": p.AntiBlooming,
    "flush": p.Flush,
}


def unlisted(settings: p.Settings) -> dict[str, int]:
    """The settings whose values no list names, by their names in words."""
    values = {name: int(getattr(settings, name)) for name in _LISTED}
    return {
        name.replace("_", " "): value for name, value in values.items() if value not in set(_LISTED[name])
    }


class AltModes:
    """Modes that the camera forgets when it is switched off (AltMode1 bits)."""

    def __init__(self, link: Link, available: Available) -> None:
        self._link = link
        self._available = available

    def read(self) -> p.AltMode:
        """The bits as they are."""
        return self._link.exchange(p.GET_ALT_MODE, p.Empty()).bits

    def manual_shutter(self, on: bool) -> None:
        """Takes the mechanical shutter out of the exposures' control, or gives it back closed (section 8)."""
        self._require(self._available.manual_shutter, "no mechanical shutter")
        bits = self.read()
        if not on and bits & (p.AltMode.MANUAL_SHUTTER | _SHUTTER_ORDERS):
            self.move_shutter(False)
        self._switch(bits, p.AltMode.MANUAL_SHUTTER, on)

    def move_shutter(self, open_it: bool) -> None:
        """Opens or closes the shutter in manual mode."""
        self._require(self._available.manual_shutter, "no mechanical shutter")
        self._write(p.AltMode.OPEN_SHUTTER if open_it else p.AltMode.CLOSE_SHUTTER)

    def shutter_output(self, on: bool) -> None:
        """Lets the guide port's "up" output follow the shutter; there is no guiding north meanwhile."""
        self._require(self._available.shutter_output, "no guide port")
        self._switch(self.read(), p.AltMode.SHUTTER_OUTPUT, on)

    def host_timed(self, on: bool) -> None:
        """Exposures without a flush before, so that the next begins while an image transfers."""
        self._require(self._available.host_timed, "no host-timed exposures (interline sensors have them)")
        self._switch(self.read(), p.AltMode.HOST_TIMED, on)

    def _switch(self, bits: p.AltMode, bit: p.AltMode, on: bool) -> None:
        """Switches one of the `bits` that the camera has."""
        if bits & _SHUTTER_ORDERS:
            # The camera keeps the last order in place of the mode: written back, it would be obeyed again.
            bits = bits & ~_SHUTTER_ORDERS | p.AltMode.MANUAL_SHUTTER
        self._write(bits | bit if on else bits & ~bit)

    def _write(self, bits: p.AltMode) -> None:
        self._link.exchange(p.SET_ALT_MODE, p.AltModes(bits))

    @staticmethod
    def _require(there: bool, what: str) -> None:
        if not there:
            raise NotSupported(f"this camera has {what}")
