# SPDX-License-Identifier: LGPL-2.1-or-later
"""Commands to the parts: cooler, filter wheel, guider relays, shutter."""

from __future__ import annotations

from typing import Any

from usbproto import packets as p
from usbproto.models import MAX_RELAY_10MS, SET_POINT_WIRE_LIMIT
from usbproto.packets import Command
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
from usbproto.simulator.hardware import Hardware
from usbproto.simulator.mechanics import SHUTTER_FAILED, WHEEL_FAILED, Shutter
from usbproto.simulator.settings import SettingsMemory


class PartCommands:
    """`answers_moves_at_once`: SetFilterWheel is answered when the move begins, not when it is over."""

    def __init__(self, hardware: Hardware, settings: SettingsMemory) -> None:
        self._hardware = hardware
        self._model = hardware.model
        self._settings = settings
        self._timeline = hardware.timeline
        self._log = hardware.log
        self.answers_moves_at_once = False

    def handlers(self) -> dict[Command[Any, Any], Handler]:
        return {
            p.SET_TEMPERATURE: self._set_temperature,
            p.GET_TEMPERATURE: self._temperature,
            p.GET_TEMPERATURE_EX: self._temperature_ex,
            p.GET_SET_POINT: lambda _: Answer(p.SetPoint(self._hardware.cooler.set_point)),
            p.SET_FILTER_WHEEL: self._set_filter,
            p.GET_FILTER_POSITION: self._filter_position,
            p.SET_FILTER_TRIM: self._set_trim,
            p.ACTIVATE_RELAY: self._relay,
            p.IS_RELAY_DONE: lambda _: Answer(p.Flag(self._hardware.relays.active is None)),
            p.ABORT_RELAYS: self._abort_relays,
            p.SET_SHUTTER: self._set_shutter,
            p.GET_SHUTTER_STATE: self._shutter_state,
        }

    def _set_temperature(self, request: p.SetTemperature) -> Answer:
        if abs(request.set_point) > SET_POINT_WIRE_LIMIT:
            return refusal(BAD_ARGUMENT)
        on, ambient, set_point = request.cooler_on, request.go_to_ambient, request.set_point
        self._hardware.cooler.command(self._timeline.now(), on, ambient, set_point)
        self._log.emit("temperature", on=on, ambient=ambient, set_point=set_point)
        return OK

    def _temperature(self, _: p.Empty) -> Answer:
        cooler = self._hardware.cooler
        cooler.look(self._timeline.now())
        return Answer(
            p.Temperature(cooler.state, cooler.read_ccd(), cooler.sink, cooler.power * 100), cooler.error
        )

    def _temperature_ex(self, _: p.Empty) -> Answer:
        cooler = self._hardware.cooler
        cooler.look(self._timeline.now())
        return Answer(
            p.TemperatureEx(cooler.state, cooler.read_ccd(), cooler.sink, cooler.pcb, cooler.power * 100),
            cooler.error,
        )

    def _set_filter(self, request: p.Byte) -> Answer | Later:
        wheel = self._hardware.wheel
        if not self._model.has_wheel:
            return refusal(NOT_ON_THIS_MODEL)
        if wheel.failed:
            return refusal(WHEEL_FAILED)
        if request.value >= wheel.slots:
            return refusal(BAD_ARGUMENT)
        later = Later()

        def arrived() -> None:
            later.resolve(refusal(WHEEL_FAILED) if wheel.failed else OK)

        def go() -> None:
            if not wheel.failed:
                wheel.move(request.value)
            if self.answers_moves_at_once:
                arrived()
            else:
                wheel.when_still(arrived)

        wheel.when_still(go)
        return later

    def _filter_position(self, _: p.Empty) -> Answer:
        wheel = self._hardware.wheel
        if not self._model.has_wheel:
            return refusal(NOT_ON_THIS_MODEL)
        return Answer(p.Byte(wheel.position), WHEEL_FAILED if wheel.failed else 0)

    def _set_trim(self, request: p.Trim) -> Answer:
        if not self._model.has_wheel:
            return refusal(NOT_ON_THIS_MODEL)
        self._hardware.wheel.trim = request.trim
        return OK

    def _relay(self, request: p.Relays) -> Answer:
        if max(abs(request.x), abs(request.y)) > MAX_RELAY_10MS:
            return refusal(BAD_ARGUMENT)
        north = not request.x and request.y > 0
        if north and self._settings.alt_mode & p.AltMode.SHUTTER_OUTPUT:
            return refusal(NOT_NOW)  # the output follows the shutter
        self._hardware.relays.pulse(request.x, request.y)
        return OK

    def _abort_relays(self, _: p.Empty) -> Answer:
        self._hardware.relays.stop()
        return OK

    def _set_shutter(self, request: p.Flag) -> Answer | Later:
        if not self._model.has_shutter:
            return refusal(NOT_ON_THIS_MODEL)
        return move_shutter(self._hardware.shutter, request.value)

    def _shutter_state(self, _: p.Empty) -> Answer:
        if not self._model.has_shutter:
            return refusal(NOT_ON_THIS_MODEL)
        shutter = self._hardware.shutter
        return Answer(p.Byte(int(shutter.open)), SHUTTER_FAILED if shutter.failed else 0)


def move_shutter(shutter: Shutter, to_open: bool) -> Later:
    """Answered when it is there."""
    later = Later()

    def moved() -> None:
        shutter.reported = shutter.reported or shutter.failed
        later.resolve(refusal(SHUTTER_FAILED) if shutter.failed else OK)

    shutter.move(to_open, moved)
    return later
