# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command table against recorded bytes of the vendor's library, and against itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from usbproto import packets as p
from usbproto.errors import BadArgument, ProtocolError, Refused

FORBIDDEN = (0x21, 0x22, 0x61, 0x64)

# What the vendor's library sent, and what it means.
RECORDED_REQUESTS: list[tuple[str, Any, p.Payload]] = [
    ("4b00", p.INIT, p.Empty()),
    ("60020238", p.GET_EEPROM, p.EepromAddress(0x0238)),
    ("710100", p.BASIC_HW_TRIGGER, p.Trigger(p.TriggerMode.OFF)),
    (
        "59180000000000000000000000000000000000000000000000ff",
        p.START_EXPOSURE_EX,
        p.StartExposureEx(probe=True),
    ),
    (
        "591800007b2d003200640020001800020002ff00000000000000",
        p.START_EXPOSURE_EX,
        p.StartExposureEx(0x7B, 0x2D, 50, 100, 32, 24, 2, 2, open_shutter=True),
    ),
    (
        "4d09010102000000020100",
        p.SET_SETTINGS,
        p.Settings(
            led=True,
            sound=True,
            fan=p.Fan.FULL,
            gain=p.Gain.HIGH,
            shutter_priority=p.ShutterPriority.MECHANICAL,
            anti_blooming=p.AntiBlooming.NORMAL,
            flush=p.Flush.NORMAL,
            show_progress=True,
            fast_readout=False,
        ),
    ),
    ("4604ff00fe0c", p.SET_TEMPERATURE, p.SetTemperature(True, False, -5.0)),
    ("4a0102", p.SET_FILTER_WHEEL, p.Byte(2)),
    ("480400000019", p.ACTIVATE_RELAY, p.Relays(0, 25)),
    ("4804fff40000", p.ACTIVATE_RELAY, p.Relays(-12, 0)),
    ("44020003", p.ABORT_EXPOSURE, p.Abort(3)),
    ("4f0110", p.SET_ALT_MODE, p.AltModes(p.AltMode.OPEN_SHUTTER)),
]

RECORDED_ANSWERS: list[tuple[str, Any, p.Payload]] = [
    ("5c06000000000100", p.GET_FEATURES, p.Features((0, 0, 0, 0, 1))),
    ("5c020000", p.GET_FEATURES, p.Features((0,))),
    ("5b0a0007d008660960000000", p.GET_TEMPERATURE_EX, p.TemperatureEx(p.CoolerState.OFF, 20, 21.5, 24, 0)),
    (
        "47080107ca0866000c00",
        p.GET_TEMPERATURE,
        p.Temperature(p.CoolerState.ON, 19.94, 21.5, 0.12),
    ),
    ("47080100de08660f4700", p.GET_TEMPERATURE, p.Temperature(p.CoolerState.ON, 2.22, 21.5, 39.11)),
    ("580bffff01f400ff012c384000", p.GET_CCD_SPECS, p.CcdSpecs(65535, 0.5, 255, 300, 14400)),
    ("5103fc1800", p.GET_SET_POINT, p.SetPoint(-10.0)),
    ("42040100ff00", p.GET_DEVICE_STATE, p.DeviceState(p.CameraState.FILTER_MOVING, False, True)),
    ("4e06ff012c010000", p.GET_AUTO_ZERO, p.AutoZero(True, 300, 256)),
    ("5502ff00", p.CAN_ABORT_EXPOSURE, p.Flag(True)),
    (
        "4c13ffffffffff02ff00ff00ff00ff01ffff000000",
        p.GET_DEFAULT_SETTINGS,
        p.DefaultSettings(
            *(True, True, True, True),
            *(True, p.Fan.FULL, True, p.Gain.HIGH, True, p.ShutterPriority.MECHANICAL),
            *(True, p.AntiBlooming.NORMAL, True, p.Flush.MODEST, True, True, False, False),
        ),
    ),
]


@pytest.mark.parametrize(("wire", "command", "value"), RECORDED_REQUESTS)
def test_requests_are_the_vendors_bytes(wire: str, command: Any, value: p.Payload) -> None:
    assert p.encode_request(command, value).hex() == wire
    assert p.decode_request(bytes.fromhex(wire)) == (command, value)


@pytest.mark.parametrize(("wire", "command", "value"), RECORDED_ANSWERS)
def test_answers_mean_what_was_recorded(wire: str, command: Any, value: p.Payload) -> None:
    assert p.decode_answer(command, bytes.fromhex(wire)) == value
    assert p.encode_answer(command, value).hex() == wire


def test_details_of_a_recorded_camera() -> None:
    wire = bytes.fromhex(
        "4166ffffffffff0cfe09c8021c021c090900000001000836383377736700".ljust(45 * 2 + 20, "0")
    )
    wire = wire[:55] + b"QSI 600 Series Camera".ljust(32, b"\0") + b"06830001".ljust(16, b"\0") + b"\0"
    details = p.decode_answer(p.GET_DEVICE_DETAILS, wire)
    assert (details.columns, details.rows, details.filter_count) == (3326, 2504, 8)
    assert (details.pixel_width, details.max_bin_x, details.asymmetric_bin) == (5.4, 9, False)
    assert (details.model_number, details.serial) == ("683wsg", "06830001")


def test_texts_lose_padding_of_zeros_or_blanks() -> None:
    details = p.DeviceDetails.unpack(
        bytes(21) + b"532ws-M2".ljust(32) + b"x\0junk".ljust(32, b"\0") + b"00502336".ljust(16)
    )
    assert (details.model_number, details.model_name, details.serial) == ("532ws-M2", "x", "00502336")


def test_texts_are_printable_whatever_comes() -> None:
    details = p.DeviceDetails.unpack(bytes(21) + bytes(range(1, 33)) + b"QSI\xff\x0783".ljust(64, b"\0")[:48])
    assert details.model_number == "?" * 31
    assert details.model_name == "QSI??83"
    assert p.printable(bytes(range(256))) == ""


@pytest.mark.parametrize("code", FORBIDDEN)
def test_commands_that_change_a_camera_for_good_are_unknown(code: int) -> None:
    assert code not in p.COMMANDS
    with pytest.raises(ProtocolError):
        p.decode_request(bytes((code, 0)))


def values_of(kind: type[p.Payload]) -> st.SearchStrategy[p.Payload]:
    """Any value of a payload, by way of its bytes."""
    if kind in (p.Features, p.Burst):
        # One feature of FF says that the command is not supported.
        return st.binary(max_size=100).filter(lambda data: data != b"\xff").map(kind.unpack)
    return st.binary(min_size=kind.size(), max_size=kind.size()).map(kind.unpack)


@pytest.mark.parametrize("command", p.COMMANDS.values(), ids=lambda command: command.name)
@settings(max_examples=20)  # of each command
@given(data=st.data())
def test_every_command_survives_the_wire_both_ways(command: p.Command[Any, Any], data: st.DataObject) -> None:
    try:
        request = data.draw(values_of(command.request))
        answer = data.draw(values_of(command.response))
    except BadArgument:  # pragma: no cover - no payload of the table can do that
        pytest.fail("bytes of the right length must decode")
    assert p.decode_request(p.encode_request(command, request)) == (command, request)
    assert p.decode_answer(command, p.encode_answer(command, answer)) == answer


@pytest.mark.parametrize("command", p.COMMANDS.values(), ids=lambda command: command.name)
@settings(max_examples=20)  # of each command
@given(junk=st.binary(max_size=130))
def test_garbage_is_a_typed_error(command: p.Command[Any, Any], junk: bytes) -> None:
    try:
        p.decode_answer(command, junk)
    except (ProtocolError, Refused):
        pass
    else:
        assert junk[0] == command.code
        assert len(junk) == 2 + junk[1]


def test_a_device_error_is_a_refusal_with_meaning_and_remedy() -> None:
    with pytest.raises(Refused, match="filter wheel failed") as caught:
        p.decode_answer(p.SET_FILTER_WHEEL, bytes.fromhex("4a0105"))
    assert caught.value.code == 5
    assert "Power the camera off and on" in caught.value.explain()
    with pytest.raises(Refused):
        p.decode_answer(p.GET_TEMPERATURE, p.encode_refusal(p.GET_TEMPERATURE, 3))


def test_an_answer_to_another_command_is_refused() -> None:
    with pytest.raises(ProtocolError, match="0x4a instead of 0x4b"):
        p.decode_answer(p.INIT, bytes.fromhex("4a0100"))


@pytest.mark.parametrize("value", [-1, 1 << 24])
def test_a_value_that_does_not_fit_its_field_is_refused(value: int) -> None:
    with pytest.raises(BadArgument, match=r"0\.\.16777215"):
        p.encode_request(p.START_EXPOSURE, p.StartExposure(value, 0, 0, 1, 1, 1, 1, True))
