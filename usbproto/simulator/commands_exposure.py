# SPDX-License-Identifier: LGPL-2.1-or-later
"""Commands that take pictures: exposures, abort, transfer, auto-zero, high speed readout, trigger."""

from __future__ import annotations

from typing import Any

from usbproto import packets as p
from usbproto.packets import Command
from usbproto.simulator.answers import (
    BAD_ARGUMENT,
    NO_IMAGE,
    NOT_NOW,
    NOT_ON_THIS_MODEL,
    OK,
    Answer,
    Handler,
    Later,
    refusal,
)
from usbproto.simulator.darkroom import Frame, Order, zero_level
from usbproto.simulator.hardware import Hardware
from usbproto.simulator.imager import LONG_WAITS, SHORT_WAITS, Imager
from usbproto.simulator.sensor import Window
from usbproto.simulator.settings import MAX_EXPOSURE, SettingsMemory

HSR_LIMIT = 5.0  # s that a high speed readout exposure may take in all
DURATION_UNIT = 0.01  # s
REMAINDER_UNIT = 100e-6  # s
ROUNDING = 1e-9  # s


class ExposureCommands:
    """`hsr_mode`: as the host set it."""

    def __init__(self, hardware: Hardware, settings: SettingsMemory, imager: Imager) -> None:
        self._hardware = hardware
        self._model = hardware.model
        self._settings = settings
        self._imager = imager
        self._timeline = hardware.timeline
        self._log = hardware.log
        self.hsr_mode = False

    def power_off(self) -> None:
        self.hsr_mode = False

    def handlers(self) -> dict[Command[Any, Any], Handler]:
        return {
            p.START_EXPOSURE: self._start,
            p.START_EXPOSURE_EX: self._start_ex,
            p.ABORT_EXPOSURE: self._abort,
            p.TRANSFER_IMAGE: self._transfer,
            p.GET_AUTO_ZERO: self._auto_zero,
            p.SET_HSR_MODE: self._set_hsr_mode,
            p.HSR_EXPOSURE: self._hsr_exposure,
            p.GET_LAST_EXPOSURE_TIME: self._last_exposure,
            p.CAN_ABORT_EXPOSURE: lambda _: Answer(p.Flag(True)),
            p.CAN_STOP_EXPOSURE: lambda _: Answer(p.Flag(False)),
            p.BASIC_HW_TRIGGER: self._trigger_mode,
        }

    def _start(self, request: p.StartExposure) -> Answer | Later:
        return self._expose(request, request.duration_10ms * DURATION_UNIT)

    def _start_ex(self, request: p.StartExposureEx) -> Answer | Later:
        return OK if request.probe else self._expose(request, _seconds(request))

    def _hsr_exposure(self, request: p.StartExposureEx) -> Answer | Later:
        if not self._model.has_hsr:
            return refusal(NOT_ON_THIS_MODEL)
        if not self.hsr_mode:
            return refusal(NOT_NOW)
        return OK if request.probe else self._expose(request, _seconds(request), hsr=True)

    def _expose(
        self, request: p.StartExposure | p.StartExposureEx, seconds: float, hsr: bool = False
    ) -> Answer | Later:
        if self._imager.state is not p.CameraState.IDLE:
            return refusal(NOT_NOW)
        window = Window(
            request.column_offset,
            request.row_offset,
            request.columns,
            request.rows,
            request.bin_x,
            request.bin_y,
        )
        duration_fits = seconds == 0 or self._settings.min_exposure - ROUNDING <= seconds <= MAX_EXPOSURE
        if not self._fits(window) or not duration_fits:
            return refusal(BAD_ARGUMENT)
        light = request.open_shutter or hsr
        order = Order(window, seconds, light, request.fast_readout, request.hold_shutter_open, hsr)
        if hsr and seconds + self._imager.readout_time(order) > HSR_LIMIT:
            return refusal(BAD_ARGUMENT)
        later = Later()

        def taken(error: int) -> None:
            if error:
                later.resolve(refusal(error))
            else:
                later.resolve(self._hsr_answer() if hsr else OK)

        self._imager.start(order, taken)
        return later

    def _fits(self, window: Window) -> bool:
        """Wire protocol, section 3.3. 1x2 is one column by two rows."""
        columns, rows = self._model.sensor.active
        x, y = window.bin_x, window.bin_y
        if not (1 <= x <= self._model.max_bin and 1 <= y <= self._model.max_bin):
            return False
        if x != y and not self._model.asymmetric_bin and (x, y) != (1, 2):
            return False
        return (
            window.columns > 0
            and window.rows > 0
            and (window.column_offset + window.columns) * x <= columns
            and (window.row_offset + window.rows) * y <= rows
        )

    def _abort(self, _: p.Abort) -> Answer:
        self._imager.abort()
        return OK

    def _transfer(self, _: p.Empty) -> Answer:
        frame = self._imager.frame
        if self._imager.state is not p.CameraState.IDLE:
            return refusal(NOT_NOW)
        if frame is None or not self._imager.ready:
            return refusal(NO_IMAGE)
        self._note_transfer(frame)
        return Answer(data=(frame.wire,))

    def _auto_zero(self, _: p.Empty) -> Answer:
        """The overscan of the last picture; before the first one, auto-zero is off."""
        frame = self._imager.frame
        if frame is None:
            return Answer(p.AutoZero(False, zero_level(self._model.series), 0))
        count = len(frame.overscan)
        self._log.emit("auto_zero", count=count, level=frame.zero_level)
        return Answer(p.AutoZero(True, frame.zero_level, count), data=(frame.overscan_wire,))

    def _hsr_answer(self) -> Answer:
        frame = self._imager.frame
        assert frame is not None
        self._note_transfer(frame)
        return Answer(
            p.AutoZero(True, frame.zero_level, len(frame.overscan)),
            data=(frame.wire, frame.overscan_wire),
        )

    def _note_transfer(self, frame: Frame) -> None:
        """The camera keeps a picture until it is asked for: once."""
        self._imager.ready = False
        self._log.emit("transfer", n=frame.number, bytes=frame.pixels.nbytes)

    def _set_hsr_mode(self, request: p.Flag) -> Answer:
        if not self._model.has_hsr:
            return refusal(NOT_ON_THIS_MODEL)
        self.hsr_mode = request.value
        return OK

    def _last_exposure(self, _: p.Empty) -> Answer:
        seconds = self._imager.last_seconds
        if seconds is None:
            return Answer(p.ExposureTime(p.ExposureTime.NONE))
        return Answer(p.ExposureTime(round(seconds / DURATION_UNIT)))

    def _trigger_mode(self, request: p.Trigger) -> Answer:
        mode, imager = request.mode, self._imager
        if mode == p.TriggerMode.CLEAR_ERROR:
            imager.clear_error()
        elif mode == p.TriggerMode.END_LONG_WAIT:
            imager.end_wait()
        elif mode == p.TriggerMode.OFF or mode in SHORT_WAITS | LONG_WAITS:
            if mode in SHORT_WAITS and not self._model.interline:
                return refusal(NOT_ON_THIS_MODEL)
            imager.end_wait()
            imager.clear_error()
            imager.trigger_mode = p.TriggerMode(mode)
        else:
            return refusal(BAD_ARGUMENT)
        self._log.emit("trigger_mode", mode=int(mode))
        return OK


def _seconds(request: p.StartExposureEx) -> float:
    return request.duration_10ms * DURATION_UNIT + request.remainder_100us * REMAINDER_UNIT
