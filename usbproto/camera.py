# SPDX-License-Identifier: LGPL-2.1-or-later
"""The typed API of a camera: what a program uses to take pictures.

A `Camera` belongs to one thread at a time; its methods block, each with a deadline. All of them may raise
`LinkError`s and `Refused`; what else they raise is said where it happens. Section numbers are those of the
wire protocol.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from usbproto import models
from usbproto import packets as p
from usbproto.capabilities import CapabilityCache, probe
from usbproto.errors import BadArgument, LinkError, NotSupported, ProtocolError
from usbproto.frames import Array, Geometry, Pixels, ZeroAdjustment, decode, zero_adjustment
from usbproto.identity import read_identity
from usbproto.link import ByteChannel, Link
from usbproto.models import Series

log = logging.getLogger(__name__)

TICK = 0.0001  # s; exposures count in 100 us ...
TICKS_PER_10MS = 100  # ... and in 10 ms where StartExposureEx is missing
# The camera flushes and moves the shutter before it answers; the vendor waits this long.
START_LIMIT = p.ReplyTime.LONG.value


@dataclass(frozen=True, slots=True)
class Exposure:
    """What to take. `duration` in s, 0 for a bias; `open_shutter` False for darks and biases."""

    duration: float
    geometry: Geometry
    open_shutter: bool = True


@dataclass(frozen=True, slots=True)
class Temperatures:
    """degC, and the cooler's power in per cent. None where the camera has no such sensor."""

    cooler: p.CoolerState
    ccd: float
    heat_sink: float | None
    pcb: float | None
    power: float

    @property
    def cooling(self) -> bool:
        """Whether the cooler works: regulating, or warming up at its own rate."""
        return self.cooler not in (p.CoolerState.OFF, p.CoolerState.NO_CONTROL, p.CoolerState.BROWN_OUT)

    @property
    def at_ambient(self) -> bool:
        """Whether a warm-up has come to its end."""
        return self.cooler == p.CoolerState.AT_AMBIENT


@dataclass(frozen=True, slots=True)
class Image:
    """A frame as the camera sent it, with what auto-zero needs.

    `pixels` of shape (rows, columns) is a view of the caller's buffer. `zero_level` in ADU.
    """

    pixels: Pixels
    geometry: Geometry
    adjustment: ZeroAdjustment
    zero_level: int


class Camera:
    """An open camera, identified and ready."""

    def __init__(
        self, channel: ByteChannel, series: Series, serial: str = "", cache: CapabilityCache | None = None
    ) -> None:
        """Initialises the camera and reads what it is (section 3.1). Takes over the channel.

        `serial` is the USB serial number, the key under which `cache` remembers what the firmware can do.
        """
        self._link = Link(channel)
        self._pending: Geometry | None = None
        try:
            self._link.exchange(p.INIT, p.Empty(), phase="initialising")
            if self.state().state not in (p.CameraState.IDLE, p.CameraState.FILTER_MOVING):
                # A program that was ended, or a cable that was pulled, left an exposure running.
                self._link.exchange(p.ABORT_EXPOSURE, p.Abort())
            self.capabilities = probe(self._link, series, serial, cache)
            if p.Feature.BASIC_HW_TRIGGER in self.capabilities.features:
                # A trigger mode may be left over from another program; the vendor clears it at connect.
                self._link.exchange(p.BASIC_HW_TRIGGER, p.Trigger(p.TriggerMode.OFF))
            self.details = self._link.exchange(p.GET_DEVICE_DETAILS, p.Empty())
            _check_details(self.details)
            self.identity = read_identity(self._link, series, self.details, serial)
            self.defaults = self._link.exchange(p.GET_DEFAULT_SETTINGS, p.Empty())
            self._settings = default_settings(self.defaults)
            self.apply_settings(self._settings)
        except BaseException:
            self._link.close()
            raise

    def close(self) -> None:
        """Lets the camera go, as it is: cooler and fan keep running."""
        self._link.close()

    # --- what it is ---

    @property
    def array(self) -> Array:
        """The unbinned imaging array and the binning that the camera can do."""
        d = self.details
        return Array(d.columns, d.rows, d.max_bin_x, d.max_bin_y, d.asymmetric_bin, d.power_of_two_bin)

    @property
    def min_exposure(self) -> float:
        """Shortest exposure but for a bias, s."""
        unit = TICK if self.capabilities.exposure_ex else 0.001
        return self.specs.min_exposure_units * unit

    @property
    def max_exposure(self) -> float:
        """Longest exposure, s."""
        return float(self.specs.max_exposure)

    @property
    def electrons_per_adu(self) -> float:
        """e-/ADU at the present gain: the vendor's figure where he has one, else the camera's (6.1)."""
        fixed = models.VENDOR_GAINS.get(self.identity.base_type)
        return fixed[self._settings.gain] if fixed else self.specs.electrons_per_adu

    # --- settings ---

    @property
    def settings(self) -> p.Settings:
        """What was sent last; the camera has no question for it."""
        return self._settings

    def apply_settings(self, settings: p.Settings) -> None:
        """Sends all settings, and reads again what may depend on them (section 3.7)."""
        self._link.exchange(p.SET_SETTINGS, settings)
        self._settings = settings
        self.specs = self._link.exchange(p.GET_CCD_SPECS, p.Empty())

    # --- exposure ---

    def check_exposure(self, duration: float) -> None:
        """Raises `BadArgument` when the camera cannot expose for so many seconds (0 is a bias)."""
        if duration != 0 and not self.min_exposure <= duration <= self.max_exposure:
            raise BadArgument(
                f"exposure of {duration:g} s is outside {self.min_exposure:g}..{self.max_exposure:g} s"
            )

    def start_exposure(self, exposure: Exposure) -> None:
        """Starts; returns when the camera says that the exposure runs, after flush and shutter (to 20 s).

        An image of an earlier exposure that was not read is lost. Raises `BadArgument`.
        """
        self.check_exposure(exposure.duration)
        g = exposure.geometry
        ticks = round(exposure.duration / TICK)
        self._pending = None
        if self.capabilities.exposure_ex:
            self._link.exchange(
                p.START_EXPOSURE_EX,
                p.StartExposureEx(
                    duration_10ms=ticks // TICKS_PER_10MS,
                    remainder_100us=ticks % TICKS_PER_10MS,
                    column_offset=g.x,
                    row_offset=g.y,
                    columns=g.width,
                    rows=g.height,
                    bin_y=g.bin_y,
                    bin_x=g.bin_x,
                    open_shutter=exposure.open_shutter,
                ),
                phase="flush and start of the exposure",
            )
        else:
            self._link.exchange(
                p.START_EXPOSURE,
                p.StartExposure(
                    duration_10ms=_whole_10ms(ticks),
                    column_offset=g.x,
                    row_offset=g.y,
                    columns=g.width,
                    rows=g.height,
                    bin_y=g.bin_y,
                    bin_x=g.bin_x,
                    open_shutter=exposure.open_shutter,
                ),
                phase="flush and start of the exposure",
            )
        self._pending = g

    def state(self) -> p.DeviceState:
        """What the camera is doing."""
        return self._link.exchange(p.GET_DEVICE_STATE, p.Empty())

    def image_ready(self) -> bool:
        """True when the exposure that was started has been read out. Raises `ProtocolError` in state 0."""
        state = self.state().state
        if state == p.CameraState.ERROR:
            raise ProtocolError("the camera went into its error state during the exposure")
        return self._pending is not None and state == p.CameraState.IDLE

    def abort_exposure(self) -> None:
        """Ends a running exposure without an image; harmless when none runs."""
        self._pending = None
        self._link.exchange(p.ABORT_EXPOSURE, p.Abort())

    def read_image(self, target: memoryview, progress: Callable[[int], None] | None = None) -> Image:
        """Reads the image that is ready into `target` (flat, of `geometry.bytes` bytes).

        `progress` is told the bytes so far. The pixels are raw: apply `image.adjustment` with
        `frames.adjust_zero`. Raises `ProtocolError` when the camera sends any other number of bytes.
        """
        geometry = self._pending
        if geometry is None:
            raise BadArgument("there is no image to read: no exposure was started")
        pixels = decode(target, geometry)
        self._pending = None
        self._link.exchange(p.TRANSFER_IMAGE, p.Empty(), phase="asking for the image")
        self._link.read_data(target, "the image transfer", progress)
        self._link.expect_silence("the image transfer")
        auto_zero = self._link.exchange(p.GET_AUTO_ZERO, p.Empty(), phase="asking for the overscan")
        adjustment = ZeroAdjustment()
        if auto_zero.enabled and auto_zero.count:
            overscan = memoryview(bytearray(auto_zero.count * 2))
            self._link.read_data(overscan, "the overscan transfer")
            strip = decode(overscan, Geometry(0, 0, auto_zero.count, 1))
            adjustment = zero_adjustment(strip[0], auto_zero.level)
        return Image(pixels, geometry, adjustment, auto_zero.level)

    # --- cooler ---

    def temperatures(self) -> Temperatures:
        """The camera's temperatures and the cooler's power (section 3.4)."""
        # "Heat-sink temperature reads 0 on cameras without that sensor" (6.0).
        if self.capabilities.temperature_ex:
            ex = self._link.exchange(p.GET_TEMPERATURE_EX, p.Empty())
            return Temperatures(ex.cooler, ex.ccd, ex.heat_sink or None, ex.pcb or None, ex.power)
        t = self._link.exchange(p.GET_TEMPERATURE, p.Empty())
        return Temperatures(t.cooler, t.ccd, t.heat_sink or None, None, t.power)

    def set_point(self) -> float:
        """The temperature that the camera regulates to, degC."""
        return self._link.exchange(p.GET_SET_POINT, p.Empty()).set_point

    @property
    def set_point_range(self) -> tuple[float, float]:
        """Lowest and highest set point, degC."""
        return models.MIN_SET_POINT, models.MAX_SET_POINT

    def cool_to(self, set_point: float) -> None:
        """Switches the cooler on, with a set point in degC. Raises `BadArgument`, `NotSupported`."""
        if not self.details.has_temperature_regulation:
            raise NotSupported("this camera cannot regulate its temperature")
        low, high = self.set_point_range
        if not low <= set_point <= high:
            raise BadArgument(f"set point {set_point:g} °C is outside {low:g}..{high:g} °C")
        self._link.exchange(p.SET_TEMPERATURE, p.SetTemperature(True, False, set_point))

    def warm_up(self) -> None:
        """Lets the camera bring the CCD to ambient at its own safe rate, with the cooler on."""
        self._link.exchange(p.SET_TEMPERATURE, p.SetTemperature(True, True, self.set_point()))

    def cooler_off(self) -> None:
        """Switches the cooler's power off at once."""
        self._link.exchange(p.SET_TEMPERATURE, p.SetTemperature(False, False, self.set_point()))

    def recover(self) -> None:
        """After a `LinkError`: stops what may be running and empties the queue, so that work can go on."""
        self._pending = None
        self._link.drain()
        try:
            self._link.exchange(p.ABORT_EXPOSURE, p.Abort())
        except LinkError as error:
            log.warning("no answer to an abort after a fault: %s", error)
            raise


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


def _whole_10ms(ticks: int) -> int:
    """Duration in 10 ms, rounded; an exposure that is not a bias never rounds to one."""
    return max(1, round(ticks / TICKS_PER_10MS)) if ticks else 0


def _check_details(details: p.DeviceDetails) -> None:
    """A frame is worked out from these figures: nonsense is refused before anything is built on it."""
    if not (details.columns and details.rows and details.max_bin_x and details.max_bin_y):
        raise ProtocolError(
            f"the camera describes a sensor of {details.columns} x {details.rows} pixels "
            f"with binning up to {details.max_bin_x}x{details.max_bin_y}"
        )
