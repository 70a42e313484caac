# SPDX-License-Identifier: LGPL-2.1-or-later
"""Commands about the camera itself: identity, state, link test, settings."""

from __future__ import annotations

from typing import Any

from usbproto import packets as p
from usbproto.packets import Command
from usbproto.simulator import bodies
from usbproto.simulator.answers import (
    BAD_ARGUMENT,
    NOT_NOW,
    NOT_ON_THIS_MODEL,
    OK,
    Answer,
    Handler,
    Later,
    refusal,
)
from usbproto.simulator.commands_parts import move_shutter
from usbproto.simulator.hardware import Hardware
from usbproto.simulator.imager import Imager
from usbproto.simulator.sensor import MAX_ADU
from usbproto.simulator.settings import MAX_EXPOSURE, SettingsMemory

INIT_TIME = 0.05  # s; it can take 0.6 s (wire protocol, section 3.1)
SPECS_UNIT = {"500": 1e-3, "600": 1e-4}  # s, of the shortest exposure in GetCCDSpecs
NO_HOST_TIMING = "520"
BLANK = 0xFF  # what lies behind the EEPROM


class CameraCommands:
    """See the module."""

    def __init__(self, hardware: Hardware, settings: SettingsMemory, imager: Imager) -> None:
        self._hardware = hardware
        self._model = hardware.model
        self._settings = settings
        self._imager = imager
        self._timeline = hardware.timeline
        self._log = hardware.log

    def handlers(self) -> dict[Command[Any, Any], Handler]:
        return {
            p.INIT: self._init,
            p.GET_DEVICE_DETAILS: self._details,
            p.GET_DEVICE_STATE: self._state,
            p.GET_CCD_SPECS: self._specs,
            p.GET_FEATURES: self._features,
            p.GET_EEPROM: self._eeprom,
            p.BURST_BLOCK: self._burst,
            p.GET_DEFAULT_SETTINGS: lambda _: Answer(self._settings.defaults),
            p.SET_SETTINGS: self._set_settings,
            p.SET_ALT_MODE: self._set_alt_mode,
            p.GET_ALT_MODE: lambda _: Answer(p.AltModes(self._settings.alt_mode)),
        }

    def _init(self, _: p.Empty) -> Later:
        self._imager.trigger_mode = p.TriggerMode.OFF
        self._imager.end_wait()
        self._imager.clear_error()
        later = Later()
        self._timeline.after(INIT_TIME, lambda: later.resolve(OK))
        return later

    def _details(self, _: p.Empty) -> Answer:
        model = self._model
        columns, rows = model.sensor.active
        return Answer(
            p.DeviceDetails(
                has_camera=True,
                has_shutter=model.has_shutter,
                has_filter_wheel=model.has_wheel,
                has_relays=True,
                has_temperature_regulation=True,
                columns=columns,
                rows=rows,
                pixel_width=model.sensor.pixel,
                pixel_height=model.sensor.pixel,
                max_bin_x=model.max_bin,
                max_bin_y=model.max_bin,
                asymmetric_bin=model.asymmetric_bin,
                power_of_two_bin=False,
                rows_per_block=1,
                control_each_block=False,
                filter_count=model.filter_count,
                model_number=model.name,
                model_name=model.series.product,
                serial=self._hardware.serial,
            )
        )

    def _state(self, _: p.Empty) -> Answer:
        state, moving = self._imager.state, self._hardware.wheel.moving
        if moving and state is p.CameraState.IDLE:
            state = p.CameraState.FILTER_MOVING
        return Answer(p.DeviceState(state, self._hardware.shutter.open, moving))

    def _specs(self, _: p.Empty) -> Answer:
        unit = SPECS_UNIT[self._model.series.name]
        sensor = self._model.sensor
        return Answer(
            p.CcdSpecs(
                MAX_ADU,
                self._imager.electrons_per_adu,
                sensor.full_well // 100,
                max(1, round(self._settings.min_exposure / unit)),
                MAX_EXPOSURE,
            )
        )

    def _features(self, _: p.Empty) -> Answer:
        flags = [0] * len(p.Feature)
        flags[p.Feature.HSR_EXPOSURE] = int(self._model.has_hsr)
        flags[p.Feature.BASIC_HW_TRIGGER] = 1
        extra = (b"\0",) if bodies.has_features_quirk(self._model, self._hardware.firmware) else ()
        return Answer(p.Features(tuple(flags)), data=extra)

    def _eeprom(self, request: p.EepromAddress) -> Answer:
        memory = self._hardware.eeprom
        return Answer(p.Byte(memory[request.address] if request.address < len(memory) else BLANK))

    def _burst(self, request: p.Byte) -> Answer:
        if not 1 <= request.value <= 254:
            return refusal(BAD_ARGUMENT)
        return Answer(p.Burst(bytes(range(request.value))))

    def _set_settings(self, request: p.Settings) -> Answer:
        if not self._settings.accepts(request):
            return refusal(BAD_ARGUMENT)
        self._settings.current = request
        cooler = self._hardware.cooler
        cooler.look(self._timeline.now())
        cooler.fan_setting = int(request.fan)
        self._log.emit(
            "settings",
            led=request.led,
            sound=request.sound,
            fan=int(request.fan),
            gain=int(request.gain),
            shutter_priority=int(request.shutter_priority),
            anti_blooming=int(request.anti_blooming),
            flush=int(request.flush),
            show_progress=request.show_progress,
            fast_readout=request.fast_readout,
        )
        return OK

    def _set_alt_mode(self, request: p.AltModes) -> Answer | Later:
        bits, mode = request.bits, p.AltMode
        manual = mode.MANUAL_SHUTTER | mode.OPEN_SHUTTER | mode.CLOSE_SHUTTER
        if bits & manual and not self._model.has_shutter:
            return refusal(NOT_ON_THIS_MODEL)
        timed = self._model.interline and self._model.base != NO_HOST_TIMING
        if bits & mode.HOST_TIMED and not timed:
            return refusal(NOT_ON_THIS_MODEL)
        if bits & (mode.OPEN_SHUTTER | mode.CLOSE_SHUTTER) and not self._settings.manual_shutter:
            return refusal(NOT_NOW)
        self._settings.alt_mode = bits
        self._log.emit("alt_mode", bits=int(bits))
        if bits & (mode.OPEN_SHUTTER | mode.CLOSE_SHUTTER):
            return move_shutter(self._hardware.shutter, bool(bits & mode.OPEN_SHUTTER))
        return OK
