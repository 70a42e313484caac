# SPDX-License-Identifier: LGPL-2.1-or-later
"""Settings and modes, trigger, cooler, filter wheel and relays: on each model what it has, and no more."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from tests.faults.clock import Clock
from tests.protocol.bench import DETAILS, Bench, bench, usb_bench
from usbproto import packets as p
from usbproto.camera import Exposure
from usbproto.errors import DEVICE_ERRORS, BadArgument, NotSupported, ProtocolError, Refused
from usbproto.models import FIXED_GAIN, MECHANICAL_PRIORITY
from usbproto.packets import AltMode, CoolerState, Gain, TriggerMode
from usbproto.relays import Direction
from usbproto.settings import GainChoice
from usbproto.simulator.bodies import CameraModel, list_models
from usbproto.thermometer import NOT_COOLING, PCB_INTERVAL

# --- which settings there are ---


@pytest.mark.parametrize("name", [name for name in list_models() if "-8" not in name and "g" not in name])
def test_settings_of_each_model(name: str) -> None:
    model = CameraModel.parse(name)
    with bench(name) as b:
        available = b.camera.available
        assert available.gain == (model.sensor.gain_high != model.sensor.gain_low)
        assert available.shutter_priority == (model.interline and model.has_shutter)
        assert available.anti_blooming == model.interline
        assert available.fast_readout == model.extended
        assert available.manual_shutter == model.has_shutter
        assert available.host_timed == (model.interline and model.base != "520")
        assert available.trigger == model.extended
        assert available.short_trigger == available.hsr == (model.extended and model.interline)
        assert available.led and available.sound and available.fan and available.flush
        assert available.shutter_output
        assert b.camera.can_abort
        assert (b.camera.wheel is not None) == model.has_wheel


@pytest.mark.parametrize("base", sorted(FIXED_GAIN | MECHANICAL_PRIORITY))
def test_what_the_firmware_says_wrongly(base: str) -> None:
    """503 is known by its quirks only."""
    with bench(f"{base if base != '503' else '504'}ws", connect=False) as b:
        if base == "503":
            details = replace(DETAILS, model_number="503ws")
            b.answers(p.GET_DEVICE_DETAILS, p.encode_answer(p.GET_DEVICE_DETAILS, details))
        said = p.decode_answer(p.GET_DEFAULT_SETTINGS, defaults_of(b))
        b.connect()
        assert said.has_shutter_priority
        assert not b.camera.available.shutter_priority
        if base in FIXED_GAIN:
            assert said.has_gain
            assert not b.camera.available.gain
        b.forget()
        b.camera.gain = GainChoice.AUTO
        b.take(b.window(binning=2))
        assert len(b.sent(p.SET_SETTINGS)) == (base not in FIXED_GAIN)


def defaults_of(b: Bench) -> bytes:
    with b.time.lock:
        b.simulated.fifo.host_wrote(bytes.fromhex("4c00"))
    return b"".join(bytes(piece) for piece in b.simulated.fifo.take(1000))


def test_a_value_without_a_name_goes_back_as_it_came() -> None:
    with bench("660ws") as b:
        assert b.camera.settings.anti_blooming == 3
        assert b.sent(p.SET_SETTINGS)[0][7] == 3


def test_connecting_sends_the_defaults_and_settings_take_effect() -> None:
    with bench("690ws") as b:
        assert b.camera.settings == b.camera.default_settings == b.simulated.firmware.settings.current
        assert b.camera.min_exposure == pytest.approx(0.03)
        wanted = replace(
            b.camera.settings,
            led=False,
            fan=p.Fan.QUIET,
            shutter_priority=p.ShutterPriority.ELECTRONIC,
            flush=p.Flush.NONE,
            fast_readout=True,
        )
        b.camera.apply_settings(wanted)
        assert b.simulated.firmware.settings.current == b.camera.settings == wanted
        assert b.camera.min_exposure == pytest.approx(0.0001)  # read again
        assert b.camera.max_exposure == 14_400.0
        b.check_picture()


def test_settings_that_are_refused_are_not_believed() -> None:
    with bench() as b:
        before = b.camera.settings
        with pytest.raises(Refused):
            b.camera.apply_settings(replace(before, fan=7))  # type: ignore[arg-type]
        assert b.camera.settings == before


# --- gain ---


def test_automatic_gain_switches_only_when_it_must() -> None:
    with bench("583ws") as b:
        b.camera.choose_gain(GainChoice.AUTO)
        b.forget()
        for binning, gain, sent in (
            (1, Gain.HIGH, 0),
            (2, Gain.LOW, 1),
            (3, Gain.LOW, 1),
            (1, Gain.HIGH, 2),
            (1, Gain.HIGH, 2),
        ):
            b.take(b.window(binning=binning))
            assert b.camera.settings.gain == gain == b.simulated.firmware.settings.gain
            assert len(b.sent(p.SET_SETTINGS)) == sent
            assert len(b.sent(p.GET_CCD_SPECS)) == sent
            assert b.camera.electrons_per_adu == (0.5 if gain == Gain.HIGH else 1.1)


def test_a_chosen_gain_stays() -> None:
    with bench("683ws") as b:
        b.camera.choose_gain(GainChoice.LOW)
        b.forget()
        b.take(b.window())
        b.take(b.window(binning=2))
        assert b.sent(p.SET_SETTINGS) == []
        assert b.camera.electrons_per_adu == pytest.approx(1.1)  # as the camera says
        b.camera.choose_gain(GainChoice.HIGH)
        assert b.camera.settings.gain == Gain.HIGH


def test_no_choice_where_the_gain_is_fixed() -> None:
    with bench("532ws") as b:
        with pytest.raises(NotSupported, match="one gain only"):
            b.camera.choose_gain(GainChoice.LOW)
        assert b.camera.electrons_per_adu == 1.3


# --- modes ---


def test_manual_shutter() -> None:
    with bench() as b:
        modes, shutter = b.camera.alt_modes, b.simulated.hardware.shutter
        assert modes.read() == AltMode(0)
        modes.manual_shutter(True)
        modes.move_shutter(True)
        assert shutter.open
        assert b.camera.shutter_state() == 1
        assert b.camera.state().shutter_open
        b.take(light=False)
        assert shutter.open  # exposures leave it alone
        modes.move_shutter(False)
        assert not shutter.open
        modes.manual_shutter(False)
        assert modes.read() == AltMode(0)
        b.happened.clear()
        b.take()
        assert [facts["open"] for facts in b.events("shutter")] == [True, False]  # theirs again


def test_another_mode_does_not_repeat_an_order_to_the_shutter() -> None:
    with bench() as b:
        modes = b.camera.alt_modes
        modes.manual_shutter(True)
        modes.move_shutter(True)
        b.happened.clear()
        modes.shutter_output(True)
        assert b.events("alt_mode") == [{"bits": AltMode.MANUAL_SHUTTER | AltMode.SHUTTER_OUTPUT}]
        modes.shutter_output(False)
        assert modes.read() == AltMode.MANUAL_SHUTTER


def alt_mode_packets(b: Bench) -> list[str]:
    return [packet.hex() for packet in b.channel.sent]


@pytest.mark.parametrize("order", [None, True, False], ids=["no order", "opened", "closed"])
def test_leaving_manual_mode_closes_the_shutter_and_keeps_the_other_modes(order: bool | None) -> None:
    """The modes are asked for once: after the order to close, the camera has that order in their place."""
    with bench() as b:
        modes, shutter = b.camera.alt_modes, b.simulated.hardware.shutter
        modes.shutter_output(True)
        modes.manual_shutter(True)
        b.forget()
        modes.manual_shutter(False)
        assert alt_mode_packets(b) == ["5000", "4f0120", "4f0101"]
        assert modes.read() == AltMode.SHUTTER_OUTPUT
        modes.manual_shutter(True)
        if order is not None:
            modes.move_shutter(order)
        b.forget()
        modes.manual_shutter(False)
        # An order to the shutter takes the place of all modes, so none of them is left to keep.
        assert alt_mode_packets(b) == ["5000", "4f0120", "4f0101" if order is None else "4f0100"]
        assert not shutter.open


def test_leaving_manual_mode_that_was_not_entered_moves_nothing() -> None:
    with bench() as b:
        b.forget()
        b.camera.alt_modes.manual_shutter(False)
        assert alt_mode_packets(b) == ["5000", "4f0100"]


def test_moving_the_shutter_needs_manual_mode() -> None:
    with bench() as b, pytest.raises(Refused):
        b.camera.alt_modes.move_shutter(True)


def test_no_manual_shutter_without_a_shutter() -> None:
    with bench("660i") as b:
        b.forget()
        for call in (b.camera.alt_modes.manual_shutter, b.camera.alt_modes.move_shutter):
            with pytest.raises(NotSupported, match="no mechanical shutter"):
                call(True)
        assert b.channel.sent == []


def test_shutter_output_takes_north_away() -> None:
    with bench() as b:
        assert b.camera.relays is not None
        b.camera.alt_modes.shutter_output(True)
        with pytest.raises(Refused):
            b.camera.relays.pulse(Direction.NORTH, 0.1)
        b.camera.relays.pulse(Direction.SOUTH, 0.1)
        b.camera.alt_modes.shutter_output(False)
        b.camera.relays.pulse(Direction.NORTH, 0.1)


def test_host_timed_exposures() -> None:
    with bench("540ws") as b:
        b.camera.alt_modes.host_timed(True)
        begun = b.time.now()
        b.camera.start_exposure(Exposure(0.05, b.window()))
        assert b.time.now() - begun < 0.25  # the shutter, and no flush
        b.finish(b.window())
        b.camera.alt_modes.host_timed(False)
        b.check_picture()


@pytest.mark.parametrize("model", ["520ws", "583ws", "683ws"])
def test_no_host_timed_exposures(model: str) -> None:
    with bench(model) as b, pytest.raises(NotSupported, match="interline"):
        b.camera.alt_modes.host_timed(True)


# --- external trigger ---


def fire(b: Bench, after: float) -> None:
    b.time.after(after, b.simulated.trigger)


@pytest.mark.parametrize("mode", [TriggerMode.LONG_WAIT, TriggerMode.LONG_WAIT_RISING])
def test_long_wait(mode: TriggerMode) -> None:
    with bench() as b:
        geometry = b.window()
        b.camera.set_trigger(mode)
        b.camera.start_exposure(Exposure(0.1, geometry))
        for _ in range(3):
            b.time.advance(100.0)
            assert b.camera.state().state == p.CameraState.WAITING_FOR_TRIGGER
            assert not b.camera.image_ready()
            b.camera.temperatures()
        fire(b, 1.0)
        b.finish(geometry)
        b.camera.set_trigger(TriggerMode.OFF)
        b.check_picture()


def test_a_long_wait_can_be_ended() -> None:
    with bench() as b:
        b.camera.set_trigger(TriggerMode.LONG_WAIT)
        b.camera.start_exposure(Exposure(0.1, b.window()))
        b.camera.set_trigger(TriggerMode.END_LONG_WAIT)
        assert b.camera.state().state == p.CameraState.IDLE
        b.camera.set_trigger(TriggerMode.OFF)
        b.check_picture()


def test_short_wait() -> None:
    with bench("690ws") as b:
        geometry = b.window()
        b.camera.set_trigger(TriggerMode.SHORT_WAIT)
        fire(b, 3.0)
        b.camera.start_exposure(Exposure(0.1, geometry))  # answers when the trigger came
        assert b.time.now() > 3.0
        b.finish(geometry)


def test_a_short_wait_in_vain() -> None:
    with bench("690ws") as b:
        b.camera.set_trigger(TriggerMode.SHORT_WAIT_RISING)
        with pytest.raises(Refused):
            b.camera.start_exposure(Exposure(0.1, b.window()))
        with pytest.raises(ProtocolError, match="error state"):
            b.camera.image_ready()
        b.camera.set_trigger(TriggerMode.CLEAR_ERROR)
        b.camera.set_trigger(TriggerMode.OFF)
        b.check_picture()


def test_where_there_is_no_trigger() -> None:
    with bench("583ws") as b, pytest.raises(NotSupported, match="no external trigger"):
        b.camera.set_trigger(TriggerMode.LONG_WAIT)
    with bench("683ws") as b, pytest.raises(NotSupported, match="interline sensor; take the long one"):
        b.camera.set_trigger(TriggerMode.SHORT_WAIT)


def test_the_trigger_fires_behind_a_real_chip() -> None:
    with usb_bench() as b:
        b.connect()
        geometry = b.window()
        b.camera.set_trigger(TriggerMode.LONG_WAIT)
        b.camera.start_exposure(Exposure(0.1, geometry))
        assert b.camera.state().state == p.CameraState.WAITING_FOR_TRIGGER
        b.simulated.trigger()
        b.finish(geometry)


# --- cooler ---


def test_cooler() -> None:
    with Clock(), bench() as b:
        assert b.camera.temperatures().cooler == CoolerState.OFF
        assert not b.camera.temperatures().cooling
        assert b.camera.set_point() == -10.0
        b.camera.cool_to(-20.0)
        assert b.camera.set_point() == -20.0
        b.time.advance(3600.0)
        time.sleep(PCB_INTERVAL)  # on the driver's own clock
        t = b.camera.temperatures()
        assert t.cooling and t.cooler == CoolerState.ON
        assert t.ccd == pytest.approx(-20.0, abs=0.2)
        assert t.power is not None and 20 < t.power < 90
        assert t.heat_sink is not None and t.heat_sink > 20
        assert t.pcb is not None and t.pcb > t.heat_sink
        b.camera.warm_up()
        assert b.camera.set_point() == -20.0
        b.time.advance(3600.0)
        assert b.camera.temperatures().at_ambient
        b.camera.cooler_off()
        t = b.camera.temperatures()
        assert (t.cooler, t.power) == (CoolerState.OFF, 0.0)


# A camera that answers SetFilterWheel while the wheel still moves; most likely they answer after it (3.5).
AT_ONCE = ("wheel-answers-at-once",)


def temperature(state: int, power: int) -> bytes:
    """An answer to GetTemperature; power in 0.01 %."""
    return bytes((0x47, 8, state)) + bytes.fromhex("07d00866") + power.to_bytes(2, "big") + b"\0"


@pytest.mark.parametrize("state", [CoolerState.OFF, CoolerState.NO_CONTROL, CoolerState.BROWN_OUT])
@pytest.mark.parametrize("power", [0, 1, 10_000, 65_535])
def test_the_power_of_a_cooler_that_is_off_is_not_believed(state: CoolerState, power: int) -> None:
    """What cameras report then is not known; the vendor does not look at it either."""
    with bench() as b:
        b.answers(p.GET_TEMPERATURE, temperature(state, power))
        assert b.camera.temperatures().power == 0.0
        assert "power" not in b.camera.session.oddities


@pytest.mark.parametrize(
    ("power", "shown"),
    [(0, 0.0), (1, 0.01), (9_999, 99.99), (10_000, 100.0), (10_001, 100.0), (10_500, 100.0)],
)
@pytest.mark.parametrize("state", sorted(set(CoolerState) - NOT_COOLING))
def test_the_power_of_a_cooler_that_works(state: CoolerState, power: int, shown: float) -> None:
    """Regulation may show a little more than all of it."""
    with bench() as b:
        b.answers(p.GET_TEMPERATURE, temperature(state, power))
        assert b.camera.temperatures().power == shown
        assert "power" not in b.camera.session.oddities


@pytest.mark.parametrize("power", [10_501, 20_000, 65_535])
def test_a_power_that_cannot_be_is_unknown_and_said_once(
    power: int, caplog: pytest.LogCaptureFixture
) -> None:
    with bench() as b:
        b.answers(p.GET_TEMPERATURE, temperature(CoolerState.ON, power), times=3)
        for _ in range(3):
            found = b.camera.temperatures()
            assert found.power is None and found.cooling and found.ccd == 20.0
        assert caplog.text.count("shown as unknown") == 1


def test_the_board_is_asked_every_half_minute_and_all_else_each_time() -> None:
    """CCD temperature, heat sink and power are GetTemperature's, as the vendor's."""
    with Clock(), bench() as b:
        b.forget()
        for seconds, boards in ((0.0, 1), (1.0, 1), (PCB_INTERVAL - 1.5, 1), (1.0, 2), (PCB_INTERVAL, 3)):
            time.sleep(seconds)
            b.answers(p.GET_TEMPERATURE, temperature(CoolerState.ON, 4_200))
            found = b.camera.temperatures()
            assert (found.ccd, found.heat_sink, found.power) == (20.0, 21.5, 42.0)
            assert found.pcb is not None and found.pcb > 23.0
            assert len(b.sent(p.GET_TEMPERATURE_EX)) == boards
        assert len(b.sent(p.GET_TEMPERATURE)) == 5


@pytest.mark.parametrize("fault", ["silence", "wrong-echo", "device-error:0x80"])
def test_a_board_that_is_not_answered_costs_its_temperature(
    fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Clock(), bench() as b:
        name, _, code = fault.partition(":")
        b.fault(f"{name}:{code + ',' if code else ''}command=GetTemperatureEx,times=0")
        for _ in range(3):
            found = b.camera.temperatures()
            assert found.pcb is None and found.heat_sink is not None
            time.sleep(PCB_INTERVAL)
        assert caplog.text.count("without the board's temperature") == 1
        b.check_picture()


@pytest.mark.parametrize("code", DEVICE_ERRORS)
def test_a_complaint_of_the_camera_leaves_the_boards_last_temperature(code: int) -> None:
    with Clock(), bench() as b:
        before = b.camera.temperatures().pcb
        assert before is not None
        time.sleep(PCB_INTERVAL)
        b.fault(f"device-error:{code},command=GetTemperatureEx")
        assert b.camera.temperatures().pcb == before


def test_no_board_where_the_command_is_missing() -> None:
    with bench("583ws") as b:
        b.forget()
        assert b.camera.temperatures().pcb is None
        assert b.sent(p.GET_TEMPERATURE_EX) == []


def test_sensors_that_are_not_there() -> None:
    with bench("583ws") as b:
        t = b.camera.temperatures()
        assert t.pcb is None
        assert t.heat_sink is not None
        b.answers(p.GET_TEMPERATURE, bytes.fromhex("47080007d00000000000"))
        assert b.camera.temperatures().heat_sink is None


@pytest.mark.parametrize("fault", ["device-error:0x80", "wrong-echo", "silence"])
def test_a_cooler_is_switched_although_the_set_point_cannot_be_read(
    fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The order needs one to be complete: it has the one that was sent last."""
    with Clock(), bench() as b:
        b.camera.cool_to(-12.5)
        b.forget()
        name, _, code = fault.partition(":")
        b.fault(f"{name}:{code + ',' if code else ''}command=GetSetPoint,times=0")
        b.camera.warm_up()
        b.camera.cooler_off()
        orders = [p.decode_request(packet)[1] for packet in b.sent(p.SET_TEMPERATURE)]
        assert orders == [p.SetTemperature(True, True, -12.5), p.SetTemperature(False, False, -12.5)]
        assert caplog.text.count("continuing without the set point") == 1
        assert b.camera.temperatures().cooler == CoolerState.OFF


@pytest.mark.parametrize("degrees", [-40.01, 50.1, float("nan"), 1e9])
def test_set_points_out_of_range_change_nothing(degrees: float) -> None:
    with bench() as b:
        b.forget()
        with pytest.raises(BadArgument, match=r"outside -40\.\.50 °C"):
            b.camera.cool_to(degrees)
        assert b.channel.sent == []


# --- filter wheel ---


def wait_for_wheel(b: Bench) -> None:
    assert b.camera.wheel is not None
    while b.camera.wheel.moving():
        b.time.advance(0.1)


@pytest.mark.parametrize(("model", "count"), [("683ws", 5), ("583wsg-8", 8)])
@pytest.mark.parametrize("at_once", [True, False], ids=["answered at once", "answered after the move"])
def test_filter_wheel(model: str, count: int, at_once: bool) -> None:
    with bench(model, strange=AT_ONCE if at_once else ()) as b:
        wheel = b.camera.wheel
        assert wheel is not None
        assert wheel.count == count
        for position in (count - 1, 0, 2):
            wheel.move(position)
            assert wheel.moving() == at_once
            assert (b.camera.state().state == p.CameraState.FILTER_MOVING) == at_once
            wait_for_wheel(b)
            assert wheel.position() == position
        assert b.sent(p.SET_FILTER_TRIM) == []
        b.forget()
        for position in (-1, count):
            with pytest.raises(BadArgument, match=rf"outside 0\.\.{count - 1}"):
                wheel.move(position)
        for trim in (-32_768, 32_768):
            with pytest.raises(BadArgument, match=r"outside -32767\.\.32767"):
                wheel.move(0, trim)
        assert b.channel.sent == []


def test_filter_trims() -> None:
    with bench("683ws", strange=AT_ONCE) as b:
        wheel, real = b.camera.wheel, b.simulated.hardware.wheel
        assert wheel is not None
        wheel.move(1, -300)
        assert (real.trim, real.moving) == (-300, True)
        wait_for_wheel(b)
        wheel.move(2)
        assert real.trim == 0  # the camera would keep the one before
        wait_for_wheel(b)
        assert [packet.hex() for packet in b.sent(p.SET_FILTER_TRIM)] == ["5a020000", "5a02fed4", "5a020000"]
        assert wheel.has_trims()


def test_a_firmware_without_trims() -> None:
    with bench("583ws", strange=AT_ONCE) as b:
        wheel = b.camera.wheel
        assert wheel is not None
        with pytest.raises(NotSupported, match="no filter trims"):
            wheel.move(1, 5)
        assert not b.simulated.hardware.wheel.moving
        before = b.time.now()
        assert not wheel.has_trims()  # asked once
        wheel.move(1)
        assert b.time.now() - before < 0.1
        assert len(b.sent(p.SET_FILTER_TRIM)) == 1


# --- guide port ---


@pytest.mark.parametrize(
    ("direction", "x", "y"),
    [
        (Direction.EAST, 25, 0),
        (Direction.WEST, -25, 0),
        (Direction.NORTH, 0, 25),
        (Direction.SOUTH, 0, -25),
    ],
)
def test_pulses_by_direction(direction: Direction, x: int, y: int) -> None:
    with bench() as b:
        relays = b.camera.relays
        assert relays is not None
        assert relays.pulse(direction, 0.25) == 0.25
        assert b.events("relay") == [{"x": x, "y": y}]
        assert not relays.done()
        b.time.advance(0.3)
        assert relays.done()
        assert b.events("relay_end") == [{"axis": "x" if x else "y", "aborted": False}]


def test_one_axis_at_a_time_and_a_new_pulse_ends_a_running_one() -> None:
    with bench() as b:
        relays, real = b.camera.relays, b.simulated.hardware.relays
        assert relays is not None
        relays.pulse(Direction.SOUTH, 2.0)
        b.time.advance(0.5)
        b.forget()
        relays.pulse(Direction.EAST, 0.1)
        assert real.active == ("x", 1)
        assert [packet[0] for packet in b.channel.sent] == [
            p.IS_RELAY_DONE.code,
            p.ABORT_RELAYS.code,
            p.ACTIVATE_RELAY.code,
        ]
        assert b.events("relay_end") == [{"axis": "y", "aborted": True}]
        relays.stop()
        assert real.active is None
        assert relays.done()


@pytest.mark.parametrize(
    ("seconds", "units"), [(0.005, 1), (0.0149, 1), (0.015, 2), (0.025, 3), (0.29, 29), (50.0, 5000)]
)
def test_pulse_lengths_are_rounded_to_10_ms(seconds: float, units: int) -> None:
    with bench() as b:
        assert b.camera.relays is not None
        assert b.camera.relays.pulse(Direction.NORTH, seconds) == pytest.approx(units / 100)
        assert b.events("relay") == [{"x": 0, "y": units}]


@pytest.mark.parametrize("seconds", [-0.1, 50.001, float("nan"), float("inf")])
def test_pulse_lengths_out_of_range(seconds: float) -> None:
    with bench() as b:
        assert b.camera.relays is not None
        b.forget()
        with pytest.raises(BadArgument, match=r"outside 0\.\.50 s"):
            b.camera.relays.pulse(Direction.NORTH, seconds)
        for short in (0.0, 0.0049):
            with pytest.raises(BadArgument, match="shorter than the camera's 10 ms"):
                b.camera.relays.pulse(Direction.NORTH, short)
        assert b.channel.sent == []


# --- what the camera remembers ---


def test_last_exposure_time() -> None:
    with bench() as b:
        assert b.camera.last_exposure_time() is None
        b.take(seconds=1.25)
        assert b.camera.last_exposure_time() == 1.25


def test_values_that_cannot_be_are_told_apart_by_who_must_act() -> None:
    """A bad argument is a ValueError too, for callers who know no more."""
    with bench() as b:
        calls: list[Any] = [
            lambda: b.camera.array.fit(0, 0, 10, 10, 3, 2),
            lambda: b.camera.cool_to(99.0),
            lambda: b.camera.test_link(0),
        ]
        for call in calls:
            with pytest.raises(ValueError, match=r"\d"):
                call()
