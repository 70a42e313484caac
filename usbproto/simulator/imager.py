# SPDX-License-Identifier: LGPL-2.1-or-later
"""Taking a picture: flush, shutter, trigger, exposure, readout; and the image that waits for the host.

    IDLE -> FLUSHING -> [WAITING_FOR_TRIGGER] -> EXPOSING -> READING -> IDLE
                              |-> ERROR (no trigger within 4 s; until the host clears it)

The command that starts an exposure is answered when the exposure begins, with an external trigger in the long
mode when the camera is armed, in high speed readout when the image is there.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

from usbproto.packets import AltMode, CameraState, Flush, Gain, ShutterPriority, TriggerMode
from usbproto.simulator.answers import NOT_NOW, TRIGGER_TIMED_OUT
from usbproto.simulator.darkroom import Darkroom, Frame, Order, Shot
from usbproto.simulator.hardware import Hardware
from usbproto.simulator.mechanics import SHUTTER_FAILED
from usbproto.simulator.settings import SettingsMemory
from usbproto.simulator.timeline import Event

# Flush cycles of the five settings (the Guide); the largest sensor takes a second for eight of them.
FLUSH_CYCLES = {
    Flush.NONE: 0,
    Flush.MODEST: 1,
    Flush.NORMAL: 2,
    Flush.AGGRESSIVE: 4,
    Flush.VERY_AGGRESSIVE: 8,
}
FLUSH_CYCLE = 0.125  # s for FLUSH_PIXELS
FLUSH_PIXELS = 3348 * 2574

# Pixels a second. The 500 Series is assumed to read at the 600's quality speed.
QUALITY_SPEED = 800e3
FAST_SPEED = 8e6
ROW_TIME = 20e-6  # s to shift one row; assumed
READ_OVERHEAD = 0.02  # s; assumed

SHORT_WAIT = 4.0  # s that a short-wait exposure waits for its trigger
LONG_LATENCY = 0.005  # s from the trigger to the exposure (plus the shutter where it must still open)

SHORT_WAITS = frozenset({TriggerMode.SHORT_WAIT, TriggerMode.SHORT_WAIT_RISING})
LONG_WAITS = frozenset({TriggerMode.LONG_WAIT, TriggerMode.LONG_WAIT_RISING})
_RENDER_POLL = 0.005  # s between looks whether a picture is computed


# Called with 0, or with the refusal.
Taken = Callable[[int], None]


class Imager:
    """`readout` (s) overrides the time that a readout takes. `background`: compute pictures in a thread."""

    def __init__(
        self,
        hardware: Hardware,
        settings: SettingsMemory,
        *,
        readout: float | None = None,
        background: bool = False,
    ) -> None:
        self.state = CameraState.IDLE
        self.readout = readout
        self.trigger_mode = TriggerMode.OFF
        self.frame: Frame | None = None  # the last picture
        self.ready = False  # it was not yet asked for
        self.last_seconds: float | None = None
        self.stuck: set[CameraState] = set()  # states that never end
        self._hardware = hardware
        self._settings = settings
        self._timeline = hardware.timeline
        self._log = hardware.log
        self._count = 0
        self._stops = 0
        self._order: Order | None = None
        self._taken: Taken | None = None
        self._next: Event | None = None  # the end of the present state
        self._since = 0.0
        self._triggered = False
        self._rendering: Future[Frame] | None = None
        self._darkroom = Darkroom(hardware, background)

    def close(self) -> None:
        self._darkroom.close()

    # --- the sequence ---

    def start(self, order: Order, taken: Taken) -> None:
        """Begin; the last picture is lost. `taken` is called when the command may be answered."""
        self.ready = False
        self._order, self._taken = order, taken
        self._count += 1
        window = order.window
        self._log.emit(
            "expose",
            n=self._count,
            seconds=order.seconds,
            x=window.column_offset,
            y=window.row_offset,
            columns=window.columns,
            rows=window.rows,
            bin_x=window.bin_x,
            bin_y=window.bin_y,
            light=order.light,
        )
        self._enter(CameraState.FLUSHING)
        self._hardware.wheel.when_still(self._unless_stopped(self._flush))

    def _flush(self) -> None:
        self._after(self.flush_time, self._open_shutter)

    @property
    def flush_time(self) -> float:
        if self._settings.alt_mode & AltMode.HOST_TIMED:
            return 0.0
        columns, rows = self._hardware.sensor.total
        cycles = FLUSH_CYCLES[self._settings.flush]
        return cycles * FLUSH_CYCLE * columns * rows / FLUSH_PIXELS

    def _open_shutter(self) -> None:
        order = self._order
        assert order is not None
        waits = self.trigger_mode in LONG_WAITS and not self._hardware.model.interline
        if self._settings.manual_shutter or not self._hardware.model.has_shutter or waits:
            self._armed()
        else:
            self._hardware.shutter.move(order.light, self._unless_stopped(self._armed))

    def _armed(self) -> None:
        if self._shutter_failed():
            return
        if self.trigger_mode is TriggerMode.OFF:
            self._begin()
            return
        self._enter(CameraState.WAITING_FOR_TRIGGER)
        self._log.emit("waiting")
        if self.trigger_mode in LONG_WAITS:
            self._tell(0)
        else:
            self._after(SHORT_WAIT, self._no_trigger)
        if self._triggered:
            self.trigger()

    def _shutter_failed(self) -> bool:
        """A failed shutter refuses one exposure; later ones are taken without it."""
        shutter = self._hardware.shutter
        if not shutter.failed or shutter.reported:
            return False
        shutter.reported = True
        self._enter(CameraState.IDLE)
        self._tell(SHUTTER_FAILED)
        return True

    def trigger(self) -> None:
        """The external trigger. One that comes while arming is kept."""
        self._log.emit("trigger")
        self._triggered = self.state is CameraState.FLUSHING
        if self.state is not CameraState.WAITING_FOR_TRIGGER:
            return
        assert self._order is not None
        if self.trigger_mode in SHORT_WAITS:
            self._begin()
        elif self._hardware.model.interline or not self._hardware.model.has_shutter:
            self._after(LONG_LATENCY, self._begin)
        else:
            light = self._order.light and not self._settings.manual_shutter
            begin = self._unless_stopped(self._begin)
            self._after(LONG_LATENCY, lambda: self._hardware.shutter.move(light, begin))

    def _no_trigger(self) -> None:
        self._enter(CameraState.ERROR)
        self._tell(TRIGGER_TIMED_OUT)

    def _begin(self) -> None:
        assert self._order is not None
        self._triggered = False
        self._enter(CameraState.EXPOSING)
        self._since = self._timeline.now()
        self._hardware.mount.forget_before(self._since)
        self._log.emit("exposure_start", n=self._count, light=self._order.light)
        order = self._order
        self._after(order.seconds, self._end)
        if not order.hsr:
            self._tell(0)  # last: the command behind this one, maybe an abort, is served in this call

    def _end(self) -> None:
        order = self._order
        assert order is not None
        self._over(order.seconds)
        shot = self._shot(order)
        self._hardware.mount.clock += order.seconds
        self._rendering = self._darkroom.develop(shot)
        self._enter(CameraState.READING)
        seconds = self.readout_time(order) if self.readout is None else self.readout
        if self._keeps_open(order):
            self._after(seconds, self._finish)
        else:
            read = self._unless_stopped(lambda: self._after(seconds, self._finish))
            self._hardware.shutter.move(False, read)

    def _over(self, seconds: float) -> None:
        self.last_seconds = seconds
        self._log.emit("exposure_end", n=self._count, seconds=round(seconds, 6))

    def _keeps_open(self, order: Order) -> bool:
        """Whether the shutter stays as it is after the exposure."""
        priority = self._settings.current.shutter_priority
        electronic = self._hardware.model.interline and priority == ShutterPriority.ELECTRONIC
        return order.hold_open or electronic or self._settings.manual_shutter

    def _finish(self) -> None:
        assert self._rendering is not None
        if not self._rendering.done():
            self._after(_RENDER_POLL, self._finish)
            return
        self.frame = self._rendering.result()
        self._rendering = None
        self.ready = True
        self._enter(CameraState.IDLE)
        self._log.emit("idle", n=self._count)
        self._tell(0)

    def abort(self) -> None:
        """End an exposure in any phase; there will be no picture."""
        if self.state in (CameraState.IDLE, CameraState.ERROR):
            return
        self._log.emit("abort", state=self.state.name)
        if self.state is CameraState.EXPOSING:
            self._over(self._timeline.now() - self._since)
        order, taken = self._order, self._taken
        self._stop()
        if order is not None and not self._keeps_open(order):
            self._hardware.shutter.move(False)
        if taken is not None:
            taken(NOT_NOW)

    def end_wait(self) -> None:
        """Stop waiting for the trigger."""
        if self.state is CameraState.WAITING_FOR_TRIGGER:
            self.abort()

    def clear_error(self) -> None:
        if self.state is CameraState.ERROR:
            self._enter(CameraState.IDLE)

    def power_off(self) -> None:
        self._stop()
        self.trigger_mode = TriggerMode.OFF
        self.ready = False
        self.frame = None
        self.last_seconds = None

    def _stop(self) -> None:
        self._stops += 1
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self._rendering = self._taken = self._order = None
        self._triggered = False
        self.stuck.clear()
        self._enter(CameraState.IDLE)

    def _enter(self, state: CameraState) -> None:
        self.state = state
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _unless_stopped(self, callback: Callable[[], None]) -> Callable[[], None]:
        """For parts that call back when they have moved: an exposure that was ended must not go on."""
        stops = self._stops

        def guarded() -> None:
            if stops == self._stops:
                callback()

        return guarded

    def _after(self, seconds: float, callback: Callable[[], None]) -> None:
        if self.state not in self.stuck:
            self._next = self._timeline.after(seconds, callback)

    def _tell(self, error: int) -> None:
        taken, self._taken = self._taken, None
        if taken is not None:
            taken(error)

    # --- the picture ---

    @property
    def number(self) -> int:
        """Of the last exposure that was begun, from 1."""
        return self._count

    def readout_time(self, order: Order) -> float:
        """Seconds to read a window: its pixels at the pixel rate, all rows shifted past."""
        fast = self._hardware.model.extended and (
            order.fast or order.hsr or self._settings.current.fast_readout
        )
        pixels = order.window.columns * order.window.rows
        rows = self._hardware.sensor.total[1]
        return READ_OVERHEAD + rows * ROW_TIME + pixels / (FAST_SPEED if fast else QUALITY_SPEED)

    @property
    def electrons_per_adu(self) -> float:
        sensor = self._hardware.sensor
        return sensor.gain_low if self._settings.gain is Gain.LOW else sensor.gain_high

    def _shot(self, order: Order) -> Shot:
        hardware = self._hardware
        now = self._timeline.now()
        hardware.cooler.look(now)
        lit = hardware.sees_light and order.seconds > 0
        return Shot(
            self._count,
            order,
            order.seconds,
            lit,
            hardware.throughput if lit else 0.0,
            hardware.optics.view(now - order.seconds, now, self._count),
            # To 0.1 K: pictures do not depend on when exactly they were taken.
            round(hardware.cooler.ccd, 1),
            self.electrons_per_adu,
        )
