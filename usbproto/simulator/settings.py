# SPDX-License-Identifier: LGPL-2.1-or-later
"""The advanced settings of a simulated camera: defaults by model, what is set, what it does."""

from __future__ import annotations

from enum import IntEnum

from usbproto.models import FIXED_GAIN, MECHANICAL_PRIORITY
from usbproto.packets import (
    AltMode,
    AntiBlooming,
    DefaultSettings,
    Fan,
    Flush,
    Gain,
    Settings,
    ShutterPriority,
)
from usbproto.simulator.bodies import CameraModel

_MANUAL = AltMode.MANUAL_SHUTTER | AltMode.OPEN_SHUTTER | AltMode.CLOSE_SHUTTER
MECHANICAL_MINIMUM = 0.03  # s, the shortest exposure with the mechanical shutter
ELECTRONIC_MINIMUM = 100e-6  # s
MAX_EXPOSURE = 14_400  # s
ODD_ANTI_BLOOMING = 3  # one 660 was seen to answer it
# The settings whose values the notes list (wire protocol, section 3.7).
LISTED: dict[str, type[IntEnum]] = {
    "fan": Fan,
    "gain": Gain,
    "shutter_priority": ShutterPriority,
    "anti_blooming": AntiBlooming,
    "flush": Flush,
}


def default_settings(model: CameraModel) -> DefaultSettings:
    """GetDefaultAdvDetails, with the firmware's quirks (wire protocol, section 3.7)."""
    sensor = model.sensor
    anti_blooming: int = ODD_ANTI_BLOOMING if model.base == "660" else AntiBlooming.NORMAL
    return DefaultSettings(
        has_led=True,
        led=True,
        has_sound=True,
        sound=True,
        has_fan=True,
        fan=Fan.FULL,
        has_gain=sensor.gain_low != sensor.gain_high or model.base in FIXED_GAIN,
        gain=Gain.HIGH,
        has_shutter_priority=model.has_shutter and (model.interline or model.base in MECHANICAL_PRIORITY),
        shutter_priority=ShutterPriority.MECHANICAL,
        has_anti_blooming=model.interline,
        anti_blooming=anti_blooming,  # type: ignore[arg-type]  # a plain number, as on the wire
        has_flush=True,
        flush=Flush.NORMAL,
        has_show_progress=True,
        show_progress=False,
        has_fast_readout=model.extended,
        fast_readout=False,
    )


class SettingsMemory:
    """`current` as the host set them, `alt_mode` bits as written. Both are forgotten without power.

    `defaults` are what the camera reports, and begins with. With a value that no list names the camera
    flushes and amplifies as it normally does.
    """

    def __init__(self, model: CameraModel) -> None:
        self._model = model
        self.defaults = default_settings(model)
        self.reset()

    def reset(self) -> None:
        d = self.defaults
        self.alt_mode = AltMode(0)
        self.current = Settings(
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

    @property
    def gain(self) -> Gain:
        """What the amplifier does: a fixed gain stays high, whatever was set."""
        sensor = self._model.sensor
        low = self.current.gain == Gain.LOW and sensor.gain_low != sensor.gain_high
        return Gain.LOW if low else Gain.HIGH

    @property
    def flush(self) -> Flush:
        return Flush(self.current.flush) if self.current.flush in set(Flush) else Flush.NORMAL

    def accepts(self, settings: Settings) -> bool:
        """Whether a camera knows these values: those of the lists, and its own defaults."""
        return all(
            getattr(settings, name) in {*kind, getattr(self.defaults, name)} for name, kind in LISTED.items()
        )

    @property
    def electronic_shutter(self) -> bool:
        """Whether the sensor itself begins and ends the exposure."""
        priority = self.current.shutter_priority
        return self._model.interline and (
            not self._model.has_shutter or priority == ShutterPriority.ELECTRONIC
        )

    @property
    def min_exposure(self) -> float:
        """The shortest exposure in seconds."""
        return ELECTRONIC_MINIMUM if self.electronic_shutter else MECHANICAL_MINIMUM

    @property
    def manual_shutter(self) -> bool:
        return bool(self.alt_mode & _MANUAL)
