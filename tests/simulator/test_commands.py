# SPDX-License-Identifier: LGPL-2.1-or-later
"""Command by command, at the packet level."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterator
from dataclasses import fields

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.simulator.bench import Bench, bench
from usbproto import packets as p
from usbproto.errors import Refused
from usbproto.simulator.answers import BAD_ARGUMENT, NO_IMAGE, NOT_NOW, NOT_ON_THIS_MODEL
from usbproto.simulator.bodies import list_models
from usbproto.simulator.commands import EXTENDED
from usbproto.simulator.inbox import FORBIDDEN

SMALL = (64, 48)


@contextlib.contextmanager
def refusal(code: int) -> Iterator[None]:
    """The camera refuses with this code."""
    with pytest.raises(Refused) as caught:
        yield
    assert caught.value.code == code


@pytest.fixture
def b():
    with bench("683wsg") as made:
        yield made


# --- identity ---


def test_identity(b: Bench) -> None:
    details = b.ask(p.GET_DEVICE_DETAILS)
    assert (details.model_number, details.model_name) == ("683wsg", "QSI 600 Series Camera")
    assert (details.columns, details.rows, details.pixel_width) == (3326, 2504, 5.4)
    assert (details.serial, details.filter_count, details.max_bin_x) == ("00683001", 5, 9)
    specs = b.ask(p.GET_CCD_SPECS)
    assert (specs.max_adu, specs.electrons_per_adu, specs.full_well_hundreds) == (65535, 0.5, 255)
    assert (specs.min_exposure_units, specs.max_exposure) == (300, 14400)


@pytest.mark.parametrize("model", list_models())
def test_every_model_tells_its_details(model: str) -> None:
    with bench(model) as b:
        details = b.ask(p.GET_DEVICE_DETAILS)
        assert details.model_number == model
        assert (details.columns, details.rows) == b.hardware.sensor.active
        assert details.has_filter_wheel == ("w" in model)
        assert details.has_shutter == ("s" in model)
        assert details.filter_count == (0 if "w" not in model else 8 if model.endswith("-8") else 5)
        read = bytes(b.ask(p.GET_EEPROM, p.EepromAddress(a)).value for a in (0x238, 0x232, 0x233, 0x22E))
        assert read == bytes(
            (
                4 if model[0] == "6" else 2,
                3 if "w" in model else 2,
                3 if "s" in model else 2,
                3 if "c" in model else 2,
            )
        )
        b.ask(p.GET_DEFAULT_SETTINGS)
        minimum = b.ask(p.GET_CCD_SPECS).min_exposure_units * (1e-4 if model[0] == "6" else 1e-3)
        assert minimum == pytest.approx(
            0.03 if "s" in model else 1e-4 if model[0] == "6" else 1e-3, rel=0.01
        ) or (not b.camera.model.interline)


def test_eeprom_strings(b: Bench) -> None:
    text = bytes(b.ask(p.GET_EEPROM, p.EepromAddress(0x20 + i)).value for i in range(8))
    assert text == b"06.03.04"
    assert b.ask(p.GET_EEPROM, p.EepromAddress(0xFFFF)).value == 0xFF


@pytest.mark.parametrize("count", [1, 2, 128, 254])
def test_burst(b: Bench, count: int) -> None:
    assert b.ask(p.BURST_BLOCK, p.Byte(count)).data == bytes(range(count))


def test_burst_limits(b: Bench) -> None:
    for count in (0, 255):
        with refusal(BAD_ARGUMENT):
            b.ask(p.BURST_BLOCK, p.Byte(count))


def test_features_and_their_old_quirk(b: Bench) -> None:
    assert p.Feature.BASIC_HW_TRIGGER in b.ask(p.GET_FEATURES)
    assert b.exchange(b"\x5c\x00").hex() == "5c06000000000100"
    with bench("683wsg", firmware="06.01.07") as old:
        assert old.exchange(b"\x5c\x00").hex() == "5c0600000000010000"
    with bench("640wsg") as interline:
        assert p.Feature.HSR_EXPOSURE in interline.ask(p.GET_FEATURES)


def test_the_500_series_is_silent_to_extended_commands() -> None:
    with bench("583wsg") as b:
        for code in EXTENDED:
            command = p.COMMANDS[code]
            assert b.exchange(bytes((code, command.request.size())) + bytes(command.request.size()), 2) == b""
        assert [facts["code"] for facts in b.events("ignored")] == list(EXTENDED)
        assert b.state() is p.CameraState.IDLE


@pytest.mark.parametrize("code", FORBIDDEN)
@pytest.mark.parametrize("payload", [b"", b"\0", b"\x4b\x00\x00"])
def test_forbidden_commands_are_ignored(b: Bench, code: int, payload: bytes) -> None:
    before = bytes(b.hardware.eeprom)
    assert b.exchange(bytes((code, len(payload))) + payload, 3) == b""
    assert b.events("ignored")[-1]["code"] == code
    assert bytes(b.hardware.eeprom) == before
    assert b.state() is p.CameraState.IDLE


# --- bytes ---


@given(cuts=st.lists(st.integers(0, 40), max_size=12))
def test_packets_may_come_in_any_pieces(cuts: list[int]) -> None:
    stream = bytes.fromhex("42005800550047005100490050006002002041005c00")
    with bench() as b:
        whole = b.exchange(stream)
        places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
        answers = b""
        for start, end in itertools.pairwise(places):
            b.write(stream[start:end])
            answers += b.read()
        # The thermometer's last digits are alive.
        assert len(answers) == len(whole)
        assert answers[:40] == whole[:40]
        assert not b.events("ignored")


@given(garbage=st.binary(max_size=60))
def test_garbage_never_breaks_it(garbage: bytes) -> None:
    with bench() as b:
        b.write(garbage)
        b.time.advance(10)  # longer than anything that it could have started, except exposures
        b.read()
        b.write(b"")
        b.exchange(b"\x44\x02\x00\x00")
        b.time.advance(1)
        b.exchange(b"\x71\x01\x00")
        b.time.advance(1)
        assert b.exchange(b"\x55\x00").hex() == "5502ff00"


def test_garbage_is_skipped_and_told(b: Bench) -> None:
    assert b.exchange(b"\xff\xfe\x55\x00").hex() == "5502ff00"
    assert b.events("ignored")[-1]["bytes"] == "fffe"


def test_half_a_packet_is_given_up(b: Bench) -> None:
    b.write(b"\x43\x10\x00")
    b.time.advance(1)
    assert b.exchange(b"\x55\x00").hex() == "5502ff00"


# --- power ---


def test_power_up_takes_six_seconds() -> None:
    with bench(starting=True) as b:
        assert b.camera.indicator.led == "yellow"
        assert b.exchange(b"\x4b\x00", 5.9) == b""
        b.time.advance(0.1)
        b.ask(p.INIT)
        assert [facts["sound"] for facts in b.events("beep")] == ["chirp-chirp"]


def test_power_off_forgets(b: Bench) -> None:
    b.ask(p.SET_TEMPERATURE, p.SetTemperature(True, False, -5.0))
    b.ask(p.SET_ALT_MODE, p.AltModes(p.AltMode.MANUAL_SHUTTER))
    b.start(10, SMALL)
    b.camera.power_off()
    assert not b.camera.device.plugged
    b.camera.power_on()
    b.time.advance(6)
    assert b.state() is p.CameraState.IDLE
    assert b.ask(p.GET_TEMPERATURE).cooler is p.CoolerState.OFF
    assert b.ask(p.GET_SET_POINT).set_point == -10
    assert b.ask(p.GET_ALT_MODE).bits == 0
    with refusal(NO_IMAGE):
        b.ask(p.TRANSFER_IMAGE)


# --- exposures ---


def test_states_and_times_of_an_exposure(b: Bench) -> None:
    b.write(p.encode_request(p.START_EXPOSURE_EX, p.StartExposureEx(200, 0, 0, 0, *SMALL, 1, 1, True)))
    assert b.firmware.imager.state is p.CameraState.FLUSHING
    assert b.read() == b""
    b.time.advance(0.249)  # two flush cycles of an eighth of a second
    assert not b.hardware.shutter.open
    b.time.advance(0.201)  # the shutter
    assert b.read().hex() == "590100"
    state = b.ask(p.GET_DEVICE_STATE)
    assert (state.state, state.shutter_open) == (p.CameraState.EXPOSING, True)
    b.time.advance(2.0)
    assert b.state() is p.CameraState.READING
    b.wait_idle()
    start, end = b.when("exposure_start")[0], b.when("exposure_end")[0]
    assert end - start == pytest.approx(2.0)
    assert b.when("idle")[0] - end == pytest.approx(0.2 + 0.02 + 2574 * 20e-6 + 64 * 48 / 800e3)
    assert b.ask(p.GET_DEVICE_STATE).shutter_open is False
    assert b.ask(p.GET_LAST_EXPOSURE_TIME).duration_10ms == 200
    assert b.transfer().size == 64 * 48
    with refusal(NO_IMAGE):
        b.ask(p.TRANSFER_IMAGE)
    data = b.exchange(b"\x4e\x00")
    zero = p.decode_answer(p.GET_AUTO_ZERO, data[:8])
    assert (zero.enabled, zero.level, zero.count) == (True, 300, 256)
    assert len(data) == 8 + 2 * 256


@pytest.mark.parametrize(("fast", "seconds"), [(False, 10.4), (True, 1.04)])
def test_readout_speeds(b: Bench, fast: bool, seconds: float) -> None:
    b.start(0.1, fast_readout=fast)
    b.wait_idle()
    taken = b.when("idle")[0] - b.when("exposure_end")[0]
    assert taken == pytest.approx(seconds + 0.27, abs=0.05)


def test_times_can_be_given(tmp_path: object) -> None:
    with bench("583wsg", readout=3.0) as b:
        b.start(0.1)
        b.wait_idle()
        assert b.when("idle")[0] - b.when("exposure_end")[0] == pytest.approx(3.2)


def test_probe_answers_without_exposing(b: Bench) -> None:
    b.ask(p.START_EXPOSURE_EX, p.StartExposureEx(probe=True))
    assert not b.events("expose")
    assert b.state() is p.CameraState.IDLE


@pytest.mark.parametrize("seconds", [0.0, 0.03, 1.2345, 14_400.0])
def test_durations(b: Bench, seconds: float) -> None:
    b.start(seconds, SMALL)
    b.time.advance(14_500)
    assert b.events("exposure_end")[0]["seconds"] == pytest.approx(seconds)


@pytest.mark.parametrize("seconds", [0.001, 0.0299, 14_400.1])
def test_durations_that_are_refused(b: Bench, seconds: float) -> None:
    with refusal(BAD_ARGUMENT):
        b.start(seconds, SMALL)


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=200)
@given(
    bins=st.tuples(st.integers(0, 10), st.integers(0, 10)),
    x=st.integers(0, 3400),
    y=st.integers(0, 2600),
    columns=st.integers(0, 300),
    rows=st.integers(0, 300),
)
def test_geometry(bins: tuple[int, int], x: int, y: int, columns: int, rows: int) -> None:
    """The camera takes exactly what section 3.3 allows, and sends exactly that many pixels."""
    bin_x, bin_y = bins
    allowed = (
        1 <= bin_x <= 9
        and 1 <= bin_y <= 9
        and (bin_x == bin_y or bins == (1, 2))
        and columns > 0
        and rows > 0
        and (x + columns) * bin_x <= 3326
        and (y + rows) * bin_y <= 2504
    )
    b = always_on()
    request = p.StartExposureEx(5, 0, x, y, columns, rows, bin_y, bin_x, True)
    answer = b.exchange(p.encode_request(p.START_EXPOSURE_EX, request))
    assert answer[2] == (0 if allowed else BAD_ARGUMENT)
    if allowed:
        b.wait_idle()
        assert b.transfer().size == columns * rows


@functools.cache
def always_on() -> Bench:
    """One camera for all examples."""
    return Bench("683wsg", readout=0.0)


def test_asymmetric_binning_on_interline() -> None:
    with bench("690wsg") as b:
        assert b.picture(0.1, (20, 10), bin_x=4, bin_y=2).shape == (10, 20)


@pytest.mark.parametrize("phase", [0.0, 0.3, 1.0, 5.6, 30.0])
def test_abort_in_every_phase(b: Bench, phase: float) -> None:
    b.write(p.encode_request(p.START_EXPOSURE_EX, p.StartExposureEx(500, 0, 0, 0, 3326, 2504, 1, 1, True)))
    b.time.advance(phase)
    b.read()
    b.write(b"\x44\x02\x00\x03")
    b.time.advance(1)
    assert b.read()[-3:].hex() == "440100"
    assert b.state() is p.CameraState.IDLE
    assert b.ask(p.GET_DEVICE_STATE).shutter_open is False
    if phase < 30:
        assert b.events("abort")
        with refusal(NO_IMAGE):
            b.ask(p.TRANSFER_IMAGE)
    b.picture(0.1, SMALL)


def test_aborted_time_is_told(b: Bench) -> None:
    b.start(100, SMALL)
    b.time.advance(1.5 - b.time.now() + b.when("exposure_start")[0])
    b.ask(p.ABORT_EXPOSURE, p.Abort(3))
    assert b.ask(p.GET_LAST_EXPOSURE_TIME).duration_10ms == 150


def test_geometry_of_a_pending_image_is_its_own(b: Bench) -> None:
    first = b.picture(0.1, (10, 10))
    b.start(0.1, (30, 20))
    b.wait_idle()
    b.start(0.1, (40, 5))  # the one before is lost
    b.wait_idle()
    assert first.size == 100
    assert b.transfer().size == 200


def test_busy_camera_refuses_another_exposure(b: Bench) -> None:
    b.start(10, SMALL)
    with refusal(NOT_NOW):
        b.start(1, SMALL)
    with refusal(NOT_NOW):
        b.ask(p.TRANSFER_IMAGE)
    assert b.ask(p.GET_TEMPERATURE).cooler is p.CoolerState.OFF


def test_commands_during_a_transfer_are_lost(b: Bench) -> None:
    b.start(0.1, SMALL)
    b.wait_idle()
    b.write(b"\x45\x00\x47\x00")
    head = b.read(100)
    b.write(b"\x42\x00")
    assert len(head + b.read()) == 3 + 2 * 64 * 48
    assert [facts["code"] for facts in b.events("ignored")] == [0x47, 0x42]
    assert b.state() is p.CameraState.IDLE


def test_commands_wait_for_the_one_before(b: Bench) -> None:
    b.write(
        p.encode_request(p.START_EXPOSURE_EX, p.StartExposureEx(100, 0, 0, 0, *SMALL, 1, 1, True))
        + b"\x42\x00"
    )
    assert b.read() == b""
    b.time.advance(0.5)
    assert b.read().hex() == "590100" + "420406ff0000"


def test_bias_and_dark_keep_the_shutter_closed(b: Bench) -> None:
    b.picture(0.0, SMALL, open_shutter=False)
    b.picture(1.0, SMALL, open_shutter=False)
    assert not b.events("shutter")


def test_flush_settings(b: Bench) -> None:
    for flush, seconds in enumerate((0.0, 0.125, 0.25, 0.5, 1.0)):
        b.ask(p.SET_SETTINGS, settings_with(b, flush=p.Flush(flush)))
        b.happened.clear()
        b.start(0.1, SMALL, open_shutter=False)
        b.wait_idle()
        assert b.when("exposure_start")[0] - b.when("expose")[0] == pytest.approx(seconds)


def settings_with(b: Bench, **changes: object) -> p.Settings:
    d = b.ask(p.GET_DEFAULT_SETTINGS)
    values = {field.name: getattr(d, field.name) for field in fields(p.Settings)}
    return p.Settings(**{**values, **changes})


# --- high speed readout ---


def test_hsr_exposure() -> None:
    with bench("640wsg") as b:
        request = p.StartExposureEx(10, 0, 0, 0, 2048, 2048, 1, 1, False)
        packet = p.encode_request(p.HSR_EXPOSURE, request)
        assert b.exchange(packet)[-1] == NOT_NOW
        b.ask(p.SET_HSR_MODE, p.Flag(True))
        before = b.time.now()
        data = b.exchange(packet)
        assert b.time.now() - before < 5
        zero = p.decode_answer(p.HSR_EXPOSURE, data[:8])
        assert len(data) == 8 + 2 * (2048 * 2048 + zero.count)
        assert b.events("exposure_start")[0]["light"]
        long = p.StartExposureEx(500, 0, 0, 0, 2048, 2048, 1, 1, False)
        assert b.exchange(p.encode_request(p.HSR_EXPOSURE, long))[-1] == BAD_ARGUMENT


def test_hsr_is_refused_where_it_does_not_exist(b: Bench) -> None:
    with refusal(NOT_ON_THIS_MODEL):
        b.ask(p.SET_HSR_MODE, p.Flag(True))


# --- external trigger ---


def test_long_wait(b: Bench) -> None:
    b.ask(p.BASIC_HW_TRIGGER, p.Trigger(p.TriggerMode.LONG_WAIT))
    b.start(1.0, SMALL)
    assert b.state() is p.CameraState.WAITING_FOR_TRIGGER
    b.time.advance(100)
    b.ask(p.GET_TEMPERATURE)
    assert b.exchange(b"\x57\x00", 2) == b""
    b.camera.trigger()
    b.time.advance(0.3)
    assert b.state() is p.CameraState.EXPOSING
    b.wait_idle()
    assert b.transfer().size == 64 * 48


def test_long_wait_can_be_ended(b: Bench) -> None:
    b.ask(p.BASIC_HW_TRIGGER, p.Trigger(p.TriggerMode.LONG_WAIT_RISING))
    b.start(1.0, SMALL)
    b.ask(p.BASIC_HW_TRIGGER, p.Trigger(p.TriggerMode.END_LONG_WAIT))
    assert b.state() is p.CameraState.IDLE
    with refusal(NO_IMAGE):
        b.ask(p.TRANSFER_IMAGE)


@pytest.mark.parametrize("delay", [0.001, 0.05, 0.19, 0.3])
def test_abort_between_trigger_and_exposure(b: Bench, delay: float) -> None:
    b.ask(p.BASIC_HW_TRIGGER, p.Trigger(p.TriggerMode.LONG_WAIT))
    b.start(5.0, SMALL, hold_shutter_open=True)
    b.camera.trigger()
    b.time.advance(delay)
    b.ask(p.ABORT_EXPOSURE, p.Abort())
    b.time.advance(10)
    assert b.state() is p.CameraState.IDLE
    assert not b.firmware.imager.ready


def test_a_trigger_before_armed_fires_when_armed(b: Bench) -> None:
    b.ask(p.BASIC_HW_TRIGGER, p.Trigger(p.TriggerMode.LONG_WAIT))
    b.write(p.encode_request(p.START_EXPOSURE_EX, p.StartExposureEx(100, 0, 0, 0, *SMALL, 1, 1, True)))
    b.camera.trigger()
    b.time.advance(0.5)
    assert b.read().hex() == "590100"
    assert b.state() is p.CameraState.EXPOSING


def test_short_wait() -> None:
    with bench("690wsg") as b:
        b.ask(p.BASIC_HW_TRIGGER, p.Trigger(p.TriggerMode.SHORT_WAIT))
        b.write(p.encode_request(p.START_EXPOSURE_EX, p.StartExposureEx(100, 0, 0, 0, *SMALL, 1, 1, True)))
        b.time.advance(2)
        assert b.read() == b""
        b.write(b"\x42\x00")
        assert b.read() == b""
        b.camera.trigger()
        assert b.read().hex().startswith("590100")
        b.wait_idle()
        b.read()
        with pytest.raises(Refused):
            b.start(1.0, SMALL)  # nobody fires: 4 s later an error
        assert b.state() is p.CameraState.ERROR
        b.ask(p.BASIC_HW_TRIGGER, p.Trigger(p.TriggerMode.CLEAR_ERROR))
        assert b.state() is p.CameraState.IDLE


def test_short_wait_needs_interline(b: Bench) -> None:
    with refusal(NOT_ON_THIS_MODEL):
        b.ask(p.BASIC_HW_TRIGGER, p.Trigger(p.TriggerMode.SHORT_WAIT))


def test_trigger_mode_is_forgotten_at_init(b: Bench) -> None:
    b.ask(p.BASIC_HW_TRIGGER, p.Trigger(p.TriggerMode.LONG_WAIT))
    b.ask(p.INIT)
    b.start(1.0, SMALL)
    assert b.state() is p.CameraState.EXPOSING


# --- filter wheel ---


@pytest.mark.parametrize(
    ("model", "target", "seconds"), [("683wsg", 1, 1.0), ("683wsg", 3, 1.7), ("683ws-8", 4, 3.1)]
)
def test_wheel(model: str, target: int, seconds: float) -> None:
    with bench(model) as b:
        b.ask(p.SET_FILTER_TRIM, p.Trim(-3))
        b.write(p.encode_request(p.SET_FILTER_WHEEL, p.Byte(target)))
        b.write(p.encode_request(p.GET_FILTER_POSITION, p.Empty()))
        b.time.advance(seconds - 0.01)
        assert b.camera.indicator.led == "yellow"
        assert b.read() == b""  # nothing is served during the move
        b.time.advance(0.02)
        assert b.read().hex() == f"4a01005702{target:02x}00"
        assert b.when("filter_end")[0] - b.when("filter")[0] == pytest.approx(seconds)
        assert b.state() is p.CameraState.IDLE


def test_wheel_limits(b: Bench) -> None:
    with refusal(BAD_ARGUMENT):
        b.ask(p.SET_FILTER_WHEEL, p.Byte(5))
    with bench("683s") as without, refusal(NOT_ON_THIS_MODEL):
        without.ask(p.SET_FILTER_WHEEL, p.Byte(0))


def test_an_exposure_waits_for_the_wheel(b: Bench) -> None:
    b.camera.strange.add("wheel-answers-at-once")
    b.ask(p.SET_FILTER_WHEEL, p.Byte(2))
    b.start(0.1, SMALL)
    assert b.when("exposure_start")[0] > b.when("filter_end")[0]


# --- relays ---


@pytest.mark.parametrize(("x", "y"), [(25, 0), (-12, 0), (0, 5000), (0, -1)])
def test_relays(b: Bench, x: int, y: int) -> None:
    b.ask(p.ACTIVATE_RELAY, p.Relays(x, y))
    assert b.ask(p.IS_RELAY_DONE).value is False
    b.time.advance(abs(x + y) * 0.01)
    assert b.ask(p.IS_RELAY_DONE).value is True
    assert b.events("relay") == [{"x": x, "y": y}]
    assert b.when("relay_end")[0] - b.when("relay")[0] == pytest.approx(abs(x + y) * 0.01)


def test_relays_one_axis_at_a_time(b: Bench) -> None:
    b.ask(p.ACTIVATE_RELAY, p.Relays(100, 100))
    b.ask(p.ACTIVATE_RELAY, p.Relays(0, 10))
    b.ask(p.ABORT_RELAYS)
    assert b.events("relay") == [{"x": 100, "y": 0}, {"x": 0, "y": 10}]
    assert [facts["aborted"] for facts in b.events("relay_end")] == [True, True]
    with refusal(BAD_ARGUMENT):
        b.ask(p.ACTIVATE_RELAY, p.Relays(5001, 0))


def test_shutter_output_takes_the_north_relay(b: Bench) -> None:
    b.ask(p.SET_ALT_MODE, p.AltModes(p.AltMode.SHUTTER_OUTPUT))
    with refusal(NOT_NOW):
        b.ask(p.ACTIVATE_RELAY, p.Relays(0, 10))
    b.ask(p.ACTIVATE_RELAY, p.Relays(0, -10))


# --- settings and shutter ---


def test_defaults_with_their_quirks() -> None:
    for model, gain, priority, fast in (
        ("583wsg", True, True, False),
        ("516ws", True, True, False),
        ("683wsg", True, False, True),
        ("632ws", False, False, True),
        ("640ws", True, True, True),
        ("620i", True, False, True),
    ):
        with bench(model) as b:
            d = b.ask(p.GET_DEFAULT_SETTINGS)
            assert (d.has_gain, d.has_shutter_priority, d.has_fast_readout) == (gain, priority, fast), model
            assert d.fan == 2
    with bench("660ws") as b:
        assert b.ask(p.GET_DEFAULT_SETTINGS).anti_blooming == 3


def test_gain_switches_where_it_can(b: Bench) -> None:
    b.ask(p.SET_SETTINGS, settings_with(b, gain=p.Gain.LOW))
    assert b.ask(p.GET_CCD_SPECS).electrons_per_adu == 1.1
    with bench("516ws") as fixed:
        fixed.ask(p.SET_SETTINGS, settings_with(fixed, gain=p.Gain.LOW))
        assert fixed.ask(p.GET_CCD_SPECS).electrons_per_adu == 2.6


def test_settings_out_of_range(b: Bench) -> None:
    with refusal(BAD_ARGUMENT):
        b.ask(p.SET_SETTINGS, settings_with(b, fan=7))


def test_led_and_beeper(b: Bench) -> None:
    b.start(1.0, SMALL)
    b.wait_idle()
    b.ask(p.GET_DEVICE_STATE)
    shown = [facts["shows"] for facts in b.events("led")]
    assert shown == ["yellow", "red flashing", "yellow", "green"]
    b.ask(p.SET_SETTINGS, settings_with(b, led=False, sound=False))
    assert b.events("led")[-1]["shows"] == "off"
    b.camera.set_environment(voltage=10.5)
    assert b.events("led")[-1]["shows"] == "red 1, yellow 3"  # errors cannot be switched off
    assert b.events("beep")[-1]["sound"] == "long 1, short 3"


def test_manual_shutter(b: Bench) -> None:
    with refusal(NOT_NOW):
        b.ask(p.SET_ALT_MODE, p.AltModes(p.AltMode.OPEN_SHUTTER))
    for bits in (0x02, 0x10):
        b.ask(p.SET_ALT_MODE, p.AltModes(p.AltMode(bits)))
    assert b.ask(p.GET_SHUTTER_STATE).value == 1
    b.picture(0.1, SMALL, open_shutter=False)
    assert b.ask(p.GET_SHUTTER_STATE).value == 1
    b.ask(p.SET_ALT_MODE, p.AltModes(p.AltMode.CLOSE_SHUTTER))
    assert b.ask(p.GET_SHUTTER_STATE).value == 0
    assert b.ask(p.GET_ALT_MODE).bits == 0x20


def test_set_shutter_and_bodies_without() -> None:
    with bench("690ws") as b:
        b.ask(p.SET_SHUTTER, p.Flag(True))
        assert b.ask(p.GET_DEVICE_STATE).shutter_open
    with bench("690i") as b:
        for command, request in (
            (p.SET_SHUTTER, p.Flag(True)),
            (p.GET_SHUTTER_STATE, p.Empty()),
            (p.SET_ALT_MODE, p.AltModes(p.AltMode.MANUAL_SHUTTER)),
        ):
            with refusal(NOT_ON_THIS_MODEL):
                b.ask(command, request)


def test_electronic_shutter_priority() -> None:
    with bench("690ws") as b:
        b.ask(p.SET_SETTINGS, settings_with(b, shutter_priority=p.ShutterPriority.ELECTRONIC))
        assert b.ask(p.GET_CCD_SPECS).min_exposure_units == 1
        b.picture(0.0001, SMALL)
        assert b.ask(p.GET_DEVICE_STATE).shutter_open  # between lights
        b.picture(0.1, SMALL, open_shutter=False)
        assert b.events("shutter")[-1]["open"] is False


def test_host_timed_needs_interline(b: Bench) -> None:
    with refusal(NOT_ON_THIS_MODEL):
        b.ask(p.SET_ALT_MODE, p.AltModes(p.AltMode.HOST_TIMED))
    with bench("640ws") as interline:
        interline.ask(p.SET_ALT_MODE, p.AltModes(p.AltMode.HOST_TIMED))
        interline.start(1.0, SMALL, open_shutter=False)
        assert interline.when("exposure_start") == interline.when("expose")
