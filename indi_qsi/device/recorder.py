# SPDX-License-Identifier: LGPL-2.1-or-later
"""Collects what a header tells: when the shutter opens, and when the picture is there.

What may change during an exposure is captured at its beginning (`capture`, cheap, in the camera thread). The
records are made when the file is (`cards`, in the frame thread): coordinates take some ms.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from indi_qsi.device.cooler import CoolerSubject
from indi_qsi.device.filters import FilterSubject
from indi_qsi.device.keywords import KeywordsSubject
from indi_qsi.device.optics import OpticsSubject
from indi_qsi.device.snooping import Snooping, Surroundings
from indi_qsi.device.subject import Subject
from indi_qsi.device.temperatures import TemperatureHistory
from indi_qsi.properties import Device, Level, Vector

if TYPE_CHECKING:
    from indi_qsi.device.header import CameraFacts
    from indi_qsi.device.run import Run
    from indi_qsi.fits import Card
    from usbproto.camera import Camera, Image
    from usbproto.thermometer import Temperatures


@dataclass(frozen=True, slots=True)
class Captured:
    """What held at the beginning of an exposure."""

    camera: CameraFacts
    filter_name: str | None
    surroundings: Surroundings
    focal_length: float | None
    aperture: float | None
    rotation: float | None
    custom: tuple[Card, ...]


class HeaderSubject(Subject):
    """The headers of all pictures, and the vectors by which clients have their say in them."""

    def __init__(
        self, device: Device, snooping: Snooping, cooler: CoolerSubject, filters: FilterSubject
    ) -> None:
        self._device = device
        self._snooping = snooping
        self._cooler = cooler
        self._filters = filters
        cooler.measured.append(self.measured)
        self._camera: Camera | None = None
        self._temperatures = TemperatureHistory()
        self.keywords = KeywordsSubject()
        self.optics = OpticsSubject(device.add, device.remove)
        self._captured: WeakKeyDictionary[Run, Captured] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def vectors(self) -> Sequence[Vector[Any]]:
        return (*self.keywords.vectors(), *self.optics.vectors())

    def saved(self) -> Sequence[Vector[Any]]:
        return self.optics.saved()

    def connect(self, camera: Camera) -> None:
        self._camera = camera
        self.keywords.connect(camera)
        self.optics.connect(camera)

    def disconnect(self) -> None:
        self._camera = None
        self._temperatures.clear()  # the next ones may be another camera's

    def measured(self, measured: Temperatures) -> None:
        """The camera's temperatures now. Camera thread."""
        self._temperatures.add(time.monotonic(), measured, self._cooler.target)

    def records(self) -> tuple[Card, ...]:
        """What clients want in the header of an exposure that is asked for now. Any thread."""
        return self.keywords.cards()

    def capture(self, run: Run) -> None:
        """The shutter has just opened. Camera thread."""
        assert self._camera is not None
        captured = self._capture(self._camera, run)
        with self._lock:
            self._captured[run] = captured

    def cards(self, run: Run, image: Image) -> list[Card]:
        """The header's records but for the mandatory ones, of a run that was captured. Any thread."""
        from indi_qsi.device.header import CLOCK_STEP, Facts, header

        with self._lock:
            captured = self._captured[run]
        assert run.opened is not None  # no image without an exposure
        assert run.opened_wall is not None
        then = self._temperatures.at(run.opened + run.duration / 2)
        step = (time.time() - run.opened_wall) - (time.monotonic() - run.opened)
        if abs(step) > CLOCK_STEP:
            self._device.message(
                f"The computer's clock was set by {step:+.1f} s since the shutter opened: the times in the "
                "picture's header are by the clock as it was before (CLOCKSTP)",
                Level.WARNING,
            )
        return header(
            Facts(
                device=self._device.name,
                camera=captured.camera,
                frame_type=run.frame_type,
                geometry=image.geometry,
                open_shutter=run.exposure.open_shutter,
                opened=run.opened_wall,
                duration=run.duration,
                temperature=then.ccd if then else None,
                set_point=then.set_point if then else None,
                power=then.power if then else None,
                adjustment=image.adjustment,
                zero_level=image.zero_level,
                filter_name=captured.filter_name,
                surroundings=captured.surroundings,
                focal_length=captured.focal_length,
                aperture=captured.aperture,
                rotation=captured.rotation,
                custom=captured.custom,
                clock_step=step,
            )
        )

    def _capture(self, camera: Camera, run: Run) -> Captured:
        optics = self.optics
        return Captured(
            camera=camera_facts(camera, optics.bayer),
            filter_name=self._filters.current,
            surroundings=self._snooping.surroundings(),
            focal_length=optics.focal_length,
            aperture=optics.aperture,
            rotation=optics.angle,
            custom=run.records,
        )


def camera_facts(camera: Camera, bayer: tuple[int, int, str] | None) -> CameraFacts:
    """What the camera says of itself, with its present settings."""
    from indi_qsi.device.header import CameraFacts

    identity, details, settings = camera.identity, camera.details, camera.settings
    readout = "Fast" if settings.fast_readout else "Quality"
    return CameraFacts(
        model=identity.model,
        serial=identity.serial,
        firmware=identity.firmware,
        sensor=camera.sensor.name if camera.sensor else None,
        pixel_width=details.pixel_width,
        pixel_height=details.pixel_height,
        electrons_per_adu=camera.electrons_per_adu,
        gain_mode=_gain_mode(settings.gain) if camera.available.gain else None,
        readout_mode=readout if camera.available.fast_readout else None,
        has_shutter=details.has_shutter,
        has_cooler=details.has_temperature_regulation,
        bayer=bayer,
    )


def _gain_mode(gain: int) -> str:
    """The gain's name; its number where no list names what the camera reported."""
    from usbproto.packets import Gain

    return Gain(gain).name.capitalize() if gain in set(Gain) else str(gain)
