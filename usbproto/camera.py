# SPDX-License-Identifier: LGPL-2.1-or-later
"""The typed API of a camera: what a program uses to take pictures.

A `Camera` belongs to the thread that made it: in any other thread its link raises `WrongThread`. Its methods
block, each with a deadline. All of them may raise `LinkError`s and `Refused`; what else they raise is said
where it happens. Section numbers are those of the wire protocol.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

from usbproto import models
from usbproto import packets as p
from usbproto.capabilities import CapabilityCache, probe
from usbproto.deadline import Deadline
from usbproto.errors import (
    BadArgument,
    NotSupported,
    ProtocolError,
    QsiError,
)
from usbproto.frames import (
    BYTES_PER_PIXEL,
    OVERSCAN_USED,
    Array,
    Geometry,
    Pixels,
    ZeroAdjustment,
    decode,
    mask_pixels,
    zero_adjustment,
)
from usbproto.identity import Eeprom, read_identity
from usbproto.link import ByteChannel, Link
from usbproto.models import Sensor, Series
from usbproto.relays import Relays
from usbproto.session import Session
from usbproto.settings import AltModes, GainChoice, available, default_settings, unlisted
from usbproto.steady import Steady
from usbproto.takeover import IDLE_STATES, SETTLE_INTERVAL, SETTLE_LIMIT, initialise, take_over, trigger_off
from usbproto.thermometer import Temperatures, Thermometer
from usbproto.timing import Timing
from usbproto.wheel import FilterWheel

log = logging.getLogger(__name__)

T = TypeVar("T")

TICK = 0.0001  # s; exposures count in 100 us ...
TICKS_PER_10MS = 100  # ... and in 10 ms where StartExposureEx is missing
HSR_LIMIT = 5.0  # s for a whole HSR exposure, image included (section 6.0)
# s after a start within which a camera may still say that it is idle: no image is ready before it is over.
IDLE_DOUBT = 0.05
DEFAULT_MAX_EXPOSURE = 14_400.0  # s, the Guide's longest; for a camera that gives none

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
        self,
        channel: ByteChannel,
        series: Series,
        serial: str = "",
        cache: CapabilityCache | None = None,
        session: Session | None = None,
    ) -> None:
        """Initialises the camera and reads what it is (section 3.1). Takes over the channel.

        `serial` is the USB serial number, the key under which `cache` remembers what the firmware can do.
        What is optional costs a feature and a line in the log when it fails, not the connection.
        """
        self._link = Link(channel, session)
        self.session = self._link.session
        self.session.flight.mask(serial)
        self.usb_serial = serial  # by which the same camera is found again
        self._pending: Geometry | None = None
        self.started_at = 0.0  # monotonic, when the last exposure began, as far as the camera says
        self._duration = 0.0  # s, of that exposure
        self._left_idle = False  # it has been seen busy since
        self._aborted = False  # an exposure was ended, and the camera may not be idle yet
        self._trigger = p.TriggerMode.OFF
        self._set_point = 0.0  # degC, as sent last
        self._starts = Steady()
        self.auto_zero = True  # off: the frame is only clipped at its ceiling
        self.pixel_mask: tuple[tuple[int, int], ...] = ()  # unbinned x, y of bad pixels
        try:
            self._aborted = take_over(self._link)
            self._identify(series, cache)
            self._read_settings()
            self._thermometer = Thermometer(self._link, has_board=self.capabilities.temperature_ex)
        except BaseException:
            self._link.close()
            raise

    def _identify(self, series: Series, cache: CapabilityCache | None) -> None:
        eeprom = Eeprom(self._link)
        self.capabilities, firmware = probe(self._link, eeprom, self.usb_serial, cache)
        if p.Feature.BASIC_HW_TRIGGER in self.capabilities.features:
            # A trigger mode may be left over from another program; the vendor clears it at connect.
            self._link.optional("switching the external trigger off", lambda: trigger_off(self._link), None)
        self.details = self._checked(self._link.exchange(p.GET_DEVICE_DETAILS, p.Empty()))
        self.session.flight.mask(self.details.serial)
        self.identity = read_identity(eeprom, series, self.details, self.usb_serial, firmware)
        self.session.flight.facts |= {
            "model": self.identity.model,
            "firmware": self.identity.firmware or "unknown",
        }
        if self.sensor is None:
            self.session.odd(
                "model",
                f"The model {self.identity.model_number or 'without a name'} is not in the table of models: "
                "using what the camera reports of itself",
            )

    def _checked(self, details: p.DeviceDetails) -> p.DeviceDetails:
        """A frame is worked out from these figures: without an array there is none."""
        if not (details.columns and details.rows):
            raise ProtocolError(f"the camera describes a sensor of {details.columns} x {details.rows} pixels")
        if details.max_bin_x and details.max_bin_y:
            return details
        self.session.odd("binning", "The camera gives 0 as its highest binning: no binning is offered")
        return replace(details, max_bin_x=details.max_bin_x or 1, max_bin_y=details.max_bin_y or 1)

    def _read_settings(self) -> None:
        defaults = self._link.exchange(p.GET_DEFAULT_SETTINGS, p.Empty())
        self.available = available(defaults, self.details, self.capabilities.features)
        self.default_settings = default_settings(defaults)
        self._settings = self.default_settings
        self.gain = _choice_of(self.default_settings)
        for name, value in unlisted(self._settings).items():
            self.session.odd(
                f"setting {name}",
                f"The camera reports {value} for {name}, which no list names; it is sent back as it is",
            )
        # A camera that refuses its own defaults keeps what it has.
        self._link.optional(
            "sending its default settings",
            lambda: self._link.exchange(p.SET_SETTINGS, self._settings),
            p.Empty(),
        )
        self.specs = self._link.exchange(p.GET_CCD_SPECS, p.Empty())
        short = p.ReplyTime.SHORT.value
        self.can_abort = self._link.optional(
            "CanAbortExposure (aborting is tried all the same)",
            lambda: self._link.exchange(p.CAN_ABORT_EXPOSURE, p.Empty(), seconds=short).value,
            True,
        )

    def initialise(self) -> None:
        """Takes the camera out of its error state, and sends its settings again."""
        self._pending = None
        initialise(self._link)
        self.apply_settings(self._settings)
        self._link.doubtful = True  # it may have forgotten more than its settings

    @property
    def silent(self) -> bool:
        """Whether it has stopped answering: repeated questions were all in vain."""
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

    def optional(self, what: str, ask: Callable[[], T], otherwise: T) -> T:
        """What `ask` returns; if that fails and the camera is still there, `otherwise` and a log line."""
        return self._link.optional(what, ask, otherwise)

    def use_timing(self, timing: Timing) -> None:
        """Talks to the camera with this timing from now on. Raises `LinkError`."""
        self._link.use_timing(timing)

    def test_link(self, count: int = p.MAX_BURST) -> None:
        """Has the camera send `count` (1..124) known bytes. Raises `ProtocolError` when they are wrong."""
        if not 1 <= count <= p.MAX_BURST:
            raise BadArgument(f"a link test of {count} bytes is outside 1..{p.MAX_BURST}")
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
        return float(self.specs.max_exposure) or DEFAULT_MAX_EXPOSURE

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

    def default_gain(self) -> None:
        """Goes back to the camera's own gain, whatever it is."""
        self.gain = _choice_of(self.default_settings)
        self._set_gain(self.default_settings.gain)

    def settle_gain(self, geometry: Geometry) -> None:
        """Automatic gain goes by the binning, so it is settled before each exposure."""
        if self.available.gain and self.gain is GainChoice.AUTO:
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
        if mode == p.TriggerMode.END_LONG_WAIT:
            self._aborted = True
        elif mode != p.TriggerMode.CLEAR_ERROR:
            self._trigger = mode

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
        self.wait_for_idle()
        g = exposure.geometry
        self.settle_gain(g)
        self._pending = None
        if not self.details.has_shutter:
            exposure = replace(exposure, open_shutter=True)  # as the vendor sends it (3.3)
        # What decides how long flush and shutter take.
        kind = g, exposure.open_shutter, self._settings
        quiet = self._starts.sure(kind) if self.session.timing.estimates else 0.0
        begin = time.monotonic()
        if self.capabilities.exposure_ex:
            extended = _extended(exposure)
            answered = self._link.order(
                p.START_EXPOSURE_EX, extended, self._has_begun, phase=STARTING, quiet=quiet
            )
        else:
            simple = _simple(exposure)
            answered = self._link.order(
                p.START_EXPOSURE, simple, self._has_begun, phase=STARTING, quiet=quiet
            )
        # Of a start that was not answered the beginning is not known: this is the earliest.
        self.started_at = time.monotonic() if answered else begin
        if answered:
            self._starts.took(kind, self.started_at - begin)
        self._duration = exposure.duration
        self._left_idle = not answered  # it was seen then
        self._pending = g

    def _has_begun(self) -> bool | None:
        """What became of a start whose answer was lost; None if a trigger may have come already.

        A camera that is idle may have taken a short exposure all the same. Taking it again harms nothing.
        """
        if self._trigger is not p.TriggerMode.OFF:
            return None
        self.session.stop.pause(IDLE_DOUBT)
        return self.state().state not in (p.CameraState.IDLE, p.CameraState.ERROR)

    def wait_for_idle(self) -> None:
        """After an abort a camera may need some time until it takes the next exposure (`SETTLE_LIMIT`)."""
        if not self._aborted:
            return
        limit = Deadline(SETTLE_LIMIT)
        while self.state().state not in (*IDLE_STATES, p.CameraState.ERROR):
            if limit.passed:
                self.session.odd("abort", f"The camera is not idle {SETTLE_LIMIT:g} s after an abort")
                break
            self.session.stop.pause(SETTLE_INTERVAL)
        self._aborted = False

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
        found = self._link.exchange(p.GET_DEVICE_STATE, p.Empty())
        self._left_idle = self._left_idle or found.state != p.CameraState.IDLE
        return found

    def image_ready(self) -> bool:
        """True when the exposure that was started has been read out. Raises `ProtocolError` in state 0.

        A camera may say for a moment after a start that it is idle (section 8): an old image must not be
        taken for the new one.
        """
        state = self.state().state
        if state == p.CameraState.ERROR:
            raise ProtocolError("the camera went into its error state during the exposure")
        return self._pending is not None and state == p.CameraState.IDLE and self.left_idle

    @property
    def left_idle(self) -> bool:
        """Whether the exposure that was started has surely begun, as far as the last `state` tells."""
        over = self.started_at + self._duration + IDLE_DOUBT
        return self._left_idle or time.monotonic() >= over

    def abort_exposure(self) -> None:
        """Ends a running exposure without an image; harmless when none runs."""
        self._pending = None
        self._link.exchange(p.ABORT_EXPOSURE, p.Abort())
        self._aborted = True

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
        if count > OVERSCAN_USED:  # the vendor reads none then; whether they come all the same is not known
            self.session.odd(
                "overscan",
                f"The camera announces {count} overscan pixels, over {OVERSCAN_USED}: no auto-zero",
            )
            self._link.drop_rest()
            return ZeroAdjustment()
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
        return self._thermometer.read()

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
        self._set_point = set_point

    def warm_up(self) -> None:
        """Lets the camera bring the CCD to ambient at its own safe rate, with the cooler on."""
        self._link.exchange(p.SET_TEMPERATURE, p.SetTemperature(True, True, self._kept_set_point()))

    def cooler_off(self) -> None:
        """Switches the cooler's power off at once."""
        self._link.exchange(p.SET_TEMPERATURE, p.SetTemperature(False, False, self._kept_set_point()))

    def _kept_set_point(self) -> float:
        """For an order that needs one to be complete: the camera's, or else the last that was sent."""
        return self._link.optional("the set point", self.set_point, self._set_point)


def _choice_of(settings: p.Settings) -> GainChoice:
    """The choice that these settings show; of a gain that no list names, the camera's usual one."""
    return GainChoice.LOW if settings.gain == p.Gain.LOW else GainChoice.HIGH


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
