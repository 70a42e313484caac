# SPDX-License-Identifier: LGPL-2.1-or-later
"""ACTIVE_DEVICES: the other devices at the telescope, and what they say of themselves (snooping).

The values go into FITS headers. What a device has not said, or has taken back, is not known; what it marks as
an alert is not listened to. Only indiserver forwards other drivers' properties: where clients connect to us
directly, nothing is known.

All names are empty at first. The C++ drivers start with those of INDI's simulators, and who does not change
them has 'Telescope Simulator' in the headers of real pictures.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from indi_qsi.device.config_file import ConfigFile
from indi_qsi.device.subject import OPTIONS
from indi_qsi.properties import (
    Hub,
    Permission,
    Request,
    State,
    TextElement,
    TextVector,
)
from indi_qsi.wire.limits import MAX_NAME
from indi_qsi.wire.messages import DelProperty, SnoopedVector
from indi_qsi.wire.numbers import parse_number

TIMEOUT = 60.0  # s, advisory
TELESCOPE, ROTATOR, FOCUSER = "ACTIVE_TELESCOPE", "ACTIVE_ROTATOR", "ACTIVE_FOCUSER"
FILTER, SKY_QUALITY = "ACTIVE_FILTER", "ACTIVE_SKYQUALITY"

# The vectors that are asked for, by the element that names their device.
SNOOPED: dict[str, tuple[str, ...]] = {
    TELESCOPE: (
        "EQUATORIAL_EOD_COORD",
        "EQUATORIAL_COORD",
        "TELESCOPE_INFO",
        "GEOGRAPHIC_COORD",
        "TELESCOPE_PIER_SIDE",
    ),
    ROTATOR: ("ABS_ROTATOR_ANGLE",),
    FOCUSER: ("ABS_FOCUS_POSITION", "FOCUS_TEMPERATURE"),
    FILTER: ("FILTER_SLOT", "FILTER_NAME"),
    SKY_QUALITY: ("SKY_QUALITY",),
}
# A mount that says J2000 says it as often as it says the coordinates of date. One that has stopped saying it,
# for longer than it needs for an update, would send us back to where it was.
J2000_BEHIND = 10.0  # s


@dataclass(frozen=True, slots=True)
class Position:
    """Where the telescope points: hours and degrees, of date or J2000."""

    ra: float
    dec: float
    of_date: bool


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is known of the other devices. None: not known.

    Degrees (longitude to the east, -180..180), mm, degC, steps, mag per square arcsec.
    """

    telescope: str = ""
    position: Position | None = None
    latitude: float | None = None
    longitude: float | None = None
    pier_side: str | None = None
    focal_length: float | None = None
    aperture: float | None = None
    rotator_angle: float | None = None
    focuser_position: float | None = None
    focuser_temperature: float | None = None
    filter_name: str | None = None
    sky_brightness: float | None = None


class Watch:
    """One other device: the last values of the vectors that were asked for, and when they came."""

    def __init__(self, device: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self.device = device
        self._clock = clock
        self._lock = threading.Lock()
        self._values: dict[str, dict[str, str]] = {}
        self._updated: dict[str, float] = {}

    def receive(self, message: SnoopedVector | DelProperty) -> None:
        """A message about the device, in the thread of a link."""
        with self._lock:
            if isinstance(message, DelProperty):
                for name in [message.name] if message.name is not None else list(self._values):
                    self._values.pop(name, None)
                    self._updated.pop(name, None)
            elif message.state is not State.ALERT:
                # An update may hold some of the elements only.
                known = {} if message.define else self._values.get(message.name, {})
                self._values[message.name] = {**known, **dict(message.values)}
                self._updated[message.name] = self._clock()

    def updated(self, vector: str) -> float | None:
        """When the vector was told last, monotonic."""
        with self._lock:
            return self._updated.get(vector)

    def texts(self, vector: str) -> Mapping[str, str]:
        """The values of a vector in the order of its elements; empty when it is not known."""
        with self._lock:
            return dict(self._values.get(vector, {}))

    def number(self, vector: str, element: str, low: float = -1e9, high: float = 1e9) -> float | None:
        """A number; None when it is not known, no number, or outside of what it can be."""
        text = self.texts(vector).get(element)
        try:
            value = parse_number(text) if text is not None else None
        except ValueError:
            return None
        return value if value is not None and low <= value <= high else None

    def chosen(self, vector: str) -> str | None:
        """The switch that is On."""
        return next((name for name, text in self.texts(vector).items() if text.startswith("On")), None)


def position(mount: Watch) -> Position | None:
    """Where the mount points: as it says it in J2000, or else of date."""
    found = {}
    for vector in ("EQUATORIAL_COORD", "EQUATORIAL_EOD_COORD"):
        ra, dec = mount.number(vector, "RA", 0, 24), mount.number(vector, "DEC", -90, 90)
        if ra is not None and dec is not None:
            found[vector] = Position(ra, dec, vector == "EQUATORIAL_EOD_COORD"), mount.updated(vector) or 0.0
    j2000, of_date = found.get("EQUATORIAL_COORD"), found.get("EQUATORIAL_EOD_COORD")
    if j2000 and (of_date is None or j2000[1] >= of_date[1] - J2000_BEHIND):
        return j2000[0]
    return of_date[0] if of_date else None


def filter_name(wheel: Watch) -> str | None:
    """The name of the filter in the light path; the names' order is that of the slots."""
    slot = wheel.number("FILTER_SLOT", "FILTER_SLOT_VALUE", 1, 1000)
    names = list(wheel.texts("FILTER_NAME").values())
    return names[round(slot) - 1] if slot is not None and round(slot) <= len(names) else None


def surroundings(watches: Mapping[str, Watch]) -> Surroundings:
    """Everything that is known now."""
    mount, focuser = watches[TELESCOPE], watches[FOCUSER]
    longitude = mount.number("GEOGRAPHIC_COORD", "LONG", -180, 360)
    side = mount.chosen("TELESCOPE_PIER_SIDE")
    return Surroundings(
        telescope=mount.device,
        position=position(mount),
        latitude=mount.number("GEOGRAPHIC_COORD", "LAT", -90, 90),
        longitude=longitude - 360 if longitude is not None and longitude > 180 else longitude,
        pier_side={"PIER_WEST": "WEST", "PIER_EAST": "EAST"}.get(side or ""),
        # A mount that does not know its telescope says 0.
        focal_length=mount.number("TELESCOPE_INFO", "TELESCOPE_FOCAL_LENGTH", 1) or None,
        aperture=mount.number("TELESCOPE_INFO", "TELESCOPE_APERTURE", 1) or None,
        rotator_angle=watches[ROTATOR].number("ABS_ROTATOR_ANGLE", "ANGLE", -360, 360),
        focuser_position=focuser.number("ABS_FOCUS_POSITION", "FOCUS_ABSOLUTE_POSITION"),
        focuser_temperature=focuser.number("FOCUS_TEMPERATURE", "TEMPERATURE", -100, 100),
        filter_name=filter_name(watches[FILTER]),
        sky_brightness=watches[SKY_QUALITY].number("SKY_QUALITY", "SKY_BRIGHTNESS", 0.01, 40),
    )


class Snooping:
    """The vector ACTIVE_DEVICES, which is there before a camera is connected, and the devices it names."""

    def __init__(self, hub: Hub, config: ConfigFile) -> None:
        self._hub = hub
        self._config = config
        self._watches = {element: Watch() for element in SNOOPED}
        labels = ("Telescope", "Rotator", "Focuser", "Filter", "Sky Quality")
        self.vector = TextVector(
            "ACTIVE_DEVICES",
            "Snoop devices",
            OPTIONS,
            [
                TextElement(name, label, max_length=MAX_NAME - 1)
                for name, label in zip(SNOOPED, labels, strict=True)
            ],
            permission=Permission.RW,
            state=State.OK,
            timeout=TIMEOUT,
            on_request=self._requested,
        )

    def surroundings(self) -> Surroundings:
        """What is known of the other devices now. Any thread."""
        return surroundings(self._watches)

    def close(self) -> None:
        """The device is removed: no more is asked for."""
        for watch in self._watches.values():
            self._hub.unsnoop(watch.receive)

    def _requested(self, request: Request[str]) -> None:
        news = {name: text for name, text in request.values.items() if text != self.vector[name]}
        for element, device in news.items():
            self._watch(element, device)
        if news and request.link is not None:
            self._config.keep(self.vector, request.values)
        else:
            self.vector.set(request.values, state=State.OK)

    def _watch(self, element: str, device: str) -> None:
        # Everything that was known is of the old device, and what still comes from it is not listened to.
        self._hub.unsnoop(self._watches[element].receive)
        watch = self._watches[element] = Watch(device)
        # A device of this process needs no asking: what our own wheel does is known.
        if device and all(own.name != device for own in self._hub.devices):
            for name in SNOOPED[element]:
                self._hub.snoop(device, name, watch.receive)
