# SPDX-License-Identifier: LGPL-2.1-or-later
"""The typed API of a camera: what a program uses to take pictures.

A `Camera` belongs to one thread at a time; its methods block, each with a deadline. All of them may raise
`LinkError`s and `Refused`; what else they raise is said where it happens. Section numbers are those of the
wire protocol.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from usbproto import models
from usbproto import packets as p
from usbproto.capabilities import CapabilityCache, probe
from usbproto.errors import BadArgument, NotSupported, ProtocolError, QsiError, TimedOut
from usbproto.frames import (
    BYTES_PER_PIXEL,
    Array,
    Geometry,
    Pixels,
    ZeroAdjustment,
    decode,
    mask_pixels,
    zero_adjustment,
)
from usbproto.identity import read_identity
from usbproto.link import ByteChannel, Link
from usbproto.models import Sensor, Series
from usbproto.relays import Relays
from usbproto.settings import AltModes, GainChoice, available, default_settings
from usbproto.steady import Steady
from usbproto.wheel import FilterWheel

log = logging.getLogger(__name__)

TICK = 0.0001  # s; exposures count in 100 us ...
TICKS_PER_10MS = 100  # ... and in 10 ms where StartExposureEx is missing
HSR_LIMIT = 5.0  # s for a whole HSR exposure, image included (section 6.0)

# What to do with a camera that is silent as it is opened, or does not end what it says it is doing. It hangs,
# or its loader runs instead of its firmware. How to tell the two apart by asking is not known of real cameras
# (section 7), so nothing is tried on them: both are said.
NOT_TAKEN_OVER = (
    "Unplug it, power the camera off and on, and connect again; if a firmware update was interrupted, "
    "finish it: qsi-firmware recover, or QSI's own Updater"
)

STARTING = "flush and start of the exposure"
TRANSFER = "the image transfer"
OVERSCAN = "the overscan transfer"
_SHORT_WAITS = frozenset({p.TriggerMode.SHORT_WAIT, p.TriggerMode.SHORT_WAIT_RISING})


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
    def warming_up(self) -> bool:
        """Whether the camera brings the CCD to ambient, or has."""
        return self.cooler in (p.CoolerState.GOING_TO_AMBIENT, p.CoolerState.AT_AMBIENT)

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
        self.usb_serial = serial  # by which the same camera is found again
        self.location = ""  # where on the USB it was found, as long as it is open
        self._pending: Geometry | None = None
        self._starts = Steady()
        self.auto_zero = True  # off: the frame is only clipped at its ceiling
        self.pixel_mask: tuple[tuple[int, int], ...] = ()  # unbinned x, y of bad pixels
        try:
            self._take_over()
            self.capabilities, firmware = probe(self._link, series, serial, cache)
            if p.Feature.BASIC_HW_TRIGGER in self.capabilities.features:
                # A trigger mode may be left over from another program; the vendor clears it at connect.
                self._link.exchange(p.BASIC_HW_TRIGGER, p.Trigger(p.TriggerMode.OFF))
            self.details = self._link.exchange(p.GET_DEVICE_DETAILS, p.Empty())
            _check_details(self.details)
            self.identity = read_identity(self._link, series, self.details, serial, firmware)
            defaults = self._link.exchange(p.GET_DEFAULT_SETTINGS, p.Empty())
            self.available = available(defaults, self.details, self.capabilities.features)
            self.default_settings = default_settings(defaults)
            self._settings = self.default_settings
            self.gain = GainChoice.LOW if self._settings.gain == p.Gain.LOW else GainChoice.HIGH
            self.apply_settings(self._settings)
            self.can_abort = self._link.exchange(p.CAN_ABORT_EXPOSURE, p.Empty()).value
        except BaseException:
            self._link.close()
            raise

    def _take_over(self) -> None:
        """Has the camera answer, and end what another program left; a `TimedOut` says `NOT_TAKEN_OVER`."""
        try:
            self._link.exchange(p.INIT, p.Empty(), phase="initialising")
            state = self.state().state
            if state == p.CameraState.WAITING_FOR_TRIGGER:
                # All that a waiting camera may be told is to wait no longer (6.0).
                self._link.exchange(p.BASIC_HW_TRIGGER, p.Trigger(p.TriggerMode.OFF))
            elif state not in (p.CameraState.IDLE, p.CameraState.FILTER_MOVING):
                # A program that was ended, or a cable that was pulled, left an exposure running.
                self._link.exchange(p.ABORT_EXPOSURE, p.Abort(), phase="ending what it was doing")
        except TimedOut as error:
            raise TimedOut(error.phase, error.seconds, NOT_TAKEN_OVER) from error

    def initialise(self) -> None:
        """Takes the camera out of its error state, and sends its settings again."""
        self._pending = None
        self._link.exchange(p.INIT, p.Empty(), phase="initialising")
        self.apply_settings(self._settings)
        self._link.doubtful = True  # it may have forgotten more than its settings

    @property
    def silent(self) -> bool:
        """Whether it has stopped to answer: repeated questions were all in vain."""
        return self._link.silent

    @property
    def doubtful(self) -> bool:
        """Whether it was silent for so long that it may have started anew, and forgotten its settings."""
        return self._link.doubtful

    def trust(self) -> None:
        """Its settings were sent again: it is not `doubtful` any more."""
        self._link.doubtful = False

    def close(self) -> None:
        """Lets the camera go, as it is: cooler and fan keep running."""
        self.location = ""
        self._link.close()

    # --- what it has ---

    @property
    def sensor(self) -> Sensor | None:
        """The sensor by the table of models; None for a model that is not in it."""
        known = models.BASE_TYPES.get(self.identity.base_type)
        return known[1] if known else None

    @cached_property
    def wheel(self) -> FilterWheel | None:
        """The filter wheel, None without one."""
        count = self.details.filter_count
        return FilterWheel(self._link, count) if self.details.has_filter_wheel and count else None

    @cached_property
    def relays(self) -> Relays | None:
        """The guide port, None without one."""
        return Relays(self._link) if self.details.has_relays else None

    @cached_property
    def alt_modes(self) -> AltModes:
        """Manual shutter, shutter output, host-timed exposure."""
        return AltModes(self._link, self.available)

    def test_link(self, count: int = 254) -> None:
        """Has the camera send `count` (1..254) known bytes. Raises `ProtocolError` when they are wrong."""
        if not 1 <= count <= 254:
            raise BadArgument(f"a link test of {count} bytes is outside 1..254")
        burst = self._link.exchange(p.BURST_BLOCK, p.Byte(count)).data
        if burst != bytes(range(count)):
            raise ProtocolError(f"the link test of {count} bytes came back as {burst.hex()}")

    def last_exposure_time(self) -> float | None:
        """Seconds of the last exposure as the camera remembers it, None without one."""
        time = self._link.exchange(p.GET_LAST_EXPOSURE_TIME, p.Empty()).duration_10ms
        return None if time == p.ExposureTime.NONE else time / 100

    def shutter_state(self) -> int:
        """The camera's own code for where its shutter is (section 3.7 gives it no meanings)."""
        return self._link.exchange(p.GET_SHUTTER_STATE, p.Empty()).value

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
        return round(self.specs.min_exposure_units * unit, 4)  # not 0.030000000000000002

    @property
    def max_exposure(self) -> float:
        """Longest exposure, s."""
        return float(self.specs.max_exposure)

    @property
    def electrons_per_adu(self) -> float:
        """e-/ADU at the present gain: the vendor's figure where he has one, else the camera's (6.1)."""
        fixed = models.VENDOR_GAINS.get(self.identity.base_type)
        # Not by index: a gain that the notes do not name is a plain number.
        low = self._settings.gain == p.Gain.LOW
        return fixed[low] if fixed else self.specs.electrons_per_adu

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

    def choose_gain(self, gain: GainChoice) -> None:
        """Fixes the gain, or leaves it to the binning of each exposure. Raises `NotSupported`."""
        if not self.available.gain:
            raise NotSupported("this camera has one gain only")
        self.gain = gain
        if gain is not GainChoice.AUTO:
            self._set_gain(gain.for_binning(1, 1))

    def settle_gain(self, geometry: Geometry) -> None:
        """Automatic gain goes by the binning, so it is settled before each exposure."""
        if self.available.gain:
            self._set_gain(self.gain.for_binning(geometry.bin_x, geometry.bin_y))

    def _set_gain(self, gain: p.Gain) -> None:
        if gain != self._settings.gain:
            self.apply_settings(replace(self._settings, gain=gain))

    # --- external trigger (section 6.0) ---

    def set_trigger(self, mode: p.TriggerMode) -> None:
        """Arms the external trigger, ends a wait, or clears its error.

        While the camera waits in the long mode only `state`, `temperatures` and this may be called. A short
        wait answers `start_exposure` when the trigger came (within 4 s). Raises `NotSupported`.
        """
        if not self.available.trigger:
            raise NotSupported("this camera has no external trigger")
        if mode in _SHORT_WAITS and not self.available.short_trigger:
            raise NotSupported("the short wait for a trigger needs an interline sensor; take the long one")
        self._link.exchange(p.BASIC_HW_TRIGGER, p.Trigger(mode))

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
        self.settle_gain(g)
        self._pending = None
        # What decides how long flush and shutter take.
        kind = g, exposure.open_shutter, self._settings
        quiet, begin = self._starts.sure(kind), time.monotonic()
        if self.capabilities.exposure_ex:
            self._link.exchange(p.START_EXPOSURE_EX, _extended(exposure), phase=STARTING, quiet=quiet)
        else:
            self._link.exchange(p.START_EXPOSURE, _simple(exposure), phase=STARTING, quiet=quiet)
        self._starts.took(kind, time.monotonic() - begin)
        self._pending = g

    def expose_hsr(
        self, exposure: Exposure, target: memoryview, progress: Callable[[int], None] | None = None
    ) -> Image:
        """A high speed readout exposure: start, image and overscan in one exchange of at most 5 s.

        Always opens the shutter. Raises `NotSupported`, `BadArgument`.
        """
        if not self.available.hsr:
            raise NotSupported("this camera has no high speed readout")
        self.check_exposure(exposure.duration)
        if exposure.duration >= HSR_LIMIT:
            raise BadArgument(f"a high speed exposure takes less than {HSR_LIMIT:g} s in all")
        pixels = decode(target, exposure.geometry)
        self.settle_gain(exposure.geometry)
        self._pending = None
        self._link.exchange(p.SET_HSR_MODE, p.Flag(True))
        try:
            auto_zero = self._link.exchange(
                p.HSR_EXPOSURE, _extended(exposure), seconds=HSR_LIMIT, phase="high speed exposure"
            )
            self._link.read_data(target, TRANSFER, progress)
            adjustment = self._read_overscan(auto_zero)
        except BaseException:
            with contextlib.suppress(QsiError):  # the first error says what happened
                self._link.exchange(p.SET_HSR_MODE, p.Flag(False))
            raise
        self._link.exchange(p.SET_HSR_MODE, p.Flag(False))
        return self._finish(pixels, exposure.geometry, auto_zero, adjustment)

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
        self._link.read_data(target, TRANSFER, progress)
        auto_zero = self._link.exchange(
            p.GET_AUTO_ZERO, p.Empty(), phase="asking for the overscan", after=TRANSFER
        )
        adjustment = self._read_overscan(auto_zero)
        return self._finish(pixels, geometry, auto_zero, adjustment)

    def _read_overscan(self, auto_zero: p.AutoZero) -> ZeroAdjustment:
        """Reads the overscan, which comes whether we use it or not, and makes sure that it was the end.

        A byte too many may have slipped in anywhere before: here, or in the pixels of an HSR image.
        """
        count = auto_zero.count if auto_zero.enabled else 0
        overscan = memoryview(bytearray(count * BYTES_PER_PIXEL))
        self._link.read_data(overscan, OVERSCAN)
        self._link.expect_silence(OVERSCAN)
        return zero_adjustment(decode(overscan, Geometry(0, 0, count, 1))[0], auto_zero.level)

    def _finish(
        self, pixels: Pixels, geometry: Geometry, auto_zero: p.AutoZero, adjustment: ZeroAdjustment
    ) -> Image:
        mask_pixels(pixels, geometry, self.pixel_mask, auto_zero.level)
        if not self.auto_zero:
            adjustment = replace(adjustment, offset=0, saturated=False)
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


def _extended(exposure: Exposure) -> p.StartExposureEx:
    g, ticks = exposure.geometry, round(exposure.duration / TICK)
    return p.StartExposureEx(
        duration_10ms=ticks // TICKS_PER_10MS,
        remainder_100us=ticks % TICKS_PER_10MS,
        column_offset=g.x,
        row_offset=g.y,
        columns=g.width,
        rows=g.height,
        bin_y=g.bin_y,
        bin_x=g.bin_x,
        open_shutter=exposure.open_shutter,
    )


def _simple(exposure: Exposure) -> p.StartExposure:
    g, ticks = exposure.geometry, round(exposure.duration / TICK)
    return p.StartExposure(
        # Rounded to 10 ms; an exposure that is not a bias never rounds to one.
        duration_10ms=max(1, round(ticks / TICKS_PER_10MS)) if ticks else 0,
        column_offset=g.x,
        row_offset=g.y,
        columns=g.width,
        rows=g.height,
        bin_y=g.bin_y,
        bin_x=g.bin_x,
        open_shutter=exposure.open_shutter,
    )


def _check_details(details: p.DeviceDetails) -> None:
    """A frame is worked out from these figures: nonsense is refused before anything is built on it."""
    if not (details.columns and details.rows and details.max_bin_x and details.max_bin_y):
        raise ProtocolError(
            f"the camera describes a sensor of {details.columns} x {details.rows} pixels "
            f"with binning up to {details.max_bin_x}x{details.max_bin_y}"
        )
