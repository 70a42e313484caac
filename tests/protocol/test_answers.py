# SPDX-License-Identifier: LGPL-2.1-or-later
"""How long real answers are is not known: fields and device error come from their offsets, whatever follows.

A longer answer is taken, and reported once for each command and connection; a shorter one is an error that
shows its bytes. What comes behind an answer without being counted is dropped and counted.
"""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.protocol.bench import TIMING, ScriptedChannel, bench
from usbproto import packets as p
from usbproto.errors import ProtocolError, Refused
from usbproto.link import Link
from usbproto.session import Session
from usbproto.timing import FAST, TIMINGS, VENDOR, Timing

BURST = 5  # bytes of the link tests here
MORE = (1, 7)  # bytes beyond the layout
ALL = list(p.COMMANDS.values())
# GetFeatures has no layout of its own: how long its answer is says how many features there are (3.9).
FIXED = [command for command in ALL if command.response is not p.Features]


def request_of(command: p.Command[Any, Any]) -> p.Payload:
    """Any request; what is asked matters for the link test alone."""
    if command is p.BURST_BLOCK:
        return p.Byte(BURST)
    request: p.Payload = command.request.unpack(bytes(command.request.size()))
    return request


def size_of(command: p.Command[Any, Any]) -> int:
    return BURST if command is p.BURST_BLOCK else command.response.size()


def packet(command: p.Command[Any, Any], payload: bytes) -> bytes:
    return bytes((command.code, len(payload))) + payload


def names(command: p.Command[Any, Any]) -> str:
    return command.name


# --- longer, shorter, refused ---


@pytest.mark.parametrize("more", MORE)
@pytest.mark.parametrize("command", FIXED, ids=names)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_a_longer_answer_has_its_fields_where_they_belong(
    command: p.Command[Any, Any], more: int, data: st.DataObject
) -> None:
    size = size_of(command)
    fields = data.draw(st.binary(min_size=size, max_size=size))
    rest = data.draw(st.binary(min_size=more, max_size=more))
    longer, request = packet(command, fields + b"\0" + rest), request_of(command)
    assert p.decode_answer(command, longer, request) == command.response.unpack(fields)
    assert p.split_answer(command, longer, request) == p.Parts(fields, 0, more)


@pytest.mark.parametrize("more", (0, *MORE))
@pytest.mark.parametrize("command", FIXED, ids=names)
def test_the_device_error_has_one_place(command: p.Command[Any, Any], more: int) -> None:
    """Not the last byte of the answer, whatever that is."""
    fields, request = bytes(size_of(command)), request_of(command)
    with pytest.raises(Refused) as caught:
        p.decode_answer(command, packet(command, fields + b"\x05" + bytes(more)), request)
    assert (caught.value.code, caught.value.command) == (5, command.name)
    if more:
        p.decode_answer(command, packet(command, fields + b"\0" + b"\x05" * more), request)


@pytest.mark.parametrize("command", FIXED, ids=names)
def test_every_shorter_answer_is_an_error_that_shows_its_bytes(command: p.Command[Any, Any]) -> None:
    size = size_of(command)
    for count in range(size + 1):
        short = packet(command, b"\xa5" * count)
        with pytest.raises(ProtocolError) as caught:
            p.decode_answer(command, short, request_of(command))
        assert command.name in str(caught.value)
        assert f"{count} payload bytes instead of {size + 1}" in str(caught.value)
        assert short.hex() in str(caught.value)


@pytest.mark.parametrize("command", FIXED, ids=names)
def test_a_longer_answer_is_reported_once_a_command_and_connection(
    command: p.Command[Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    longer = packet(command, bytes(size_of(command) + 1) + b"\xee")
    for connection in (1, 2):
        wire = Link(ScriptedChannel(lambda sent: longer), Session(TIMING))
        for _ in range(3):
            wire.exchange(command, request_of(command))
        lines = [record.message for record in caplog.records if command.name in record.message]
        assert len(lines) == connection
        assert "1 bytes more than is known" in lines[0] and longer.hex() in lines[0]
        assert wire.session.oddities == {f"longer answer to {command.name}": 3}


def test_each_command_has_a_report_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    with bench() as b:

        def longer(reply: Any) -> None:
            head, body = reply.packet[:1], reply.packet[2:]
            reply.packet = head + bytes((len(body) + 2,)) + body + b"\x01\x02"

        b.simulated.firmware.tampering.append(longer)
        caplog.clear()
        b.connect()
        b.check_picture()
        b.camera.temperatures()
        lines = [record.message for record in caplog.records if "more than is known" in record.message]
        asked = {packet[0] for packet in b.channel.sent}
        assert len(lines) == len(set(lines)) == len(asked)


# --- GetFeatures (3.9) ---

FEATURES = [
    ("5c00", (), 0, 0),  # less than two bytes: the command is not supported
    ("5c0100", (), 0, 0),
    ("5c0103", (), 0, 0),
    ("5c02ff00", (), 0, 0),  # FF and one more: not supported either
    ("5c02ff03", (), 0, 0),
    ("5c020000", (0,), 0, 0),
    ("5c020100", (1,), 0, 0),
    ("5c03ff0000", (255, 0), 0, 0),  # three bytes are features again, and only a 1 means that one is there
    ("5c020103", (1,), 3, 0),
    ("5c06000000000100", (0, 0, 0, 0, 1), 0, 0),
    ("5c06010000000103", (1, 0, 0, 0, 1), 3, 0),
    ("5c0700000000010000", (0, 0, 0, 0, 1, 0), 0, 0),  # a feature that is not known yet
    # What would be an error stands behind a 0, where the error of the five known features would be.
    ("5c0700000000010001", (0, 0, 0, 0, 1), 0, 1),
    ("5c09000000000100eeeeee", (0, 0, 0, 0, 1), 0, 3),
    ("5c0700000000010103", (0, 0, 0, 0, 1, 1), 3, 0),
]


@pytest.mark.parametrize(("wire", "flags", "error", "extra"), FEATURES)
def test_features_by_the_length_of_the_answer(
    wire: str, flags: tuple[int, ...], error: int, extra: int
) -> None:
    parts = p.split_answer(p.GET_FEATURES, bytes.fromhex(wire))
    assert (tuple(parts.fields), parts.error, parts.extra) == (flags, error, extra)
    known = [feature for feature in p.Feature if feature in p.Features(flags)]
    assert known == [feature for feature in p.Feature if flags[feature : feature + 1] == (1,)]


HAS_TRIGGER = "5c06000000000100"


@pytest.mark.parametrize("timing", TIMINGS.values(), ids=lambda timing: timing.name)
@pytest.mark.parametrize(
    ("answer", "trigger", "warned"),
    [
        (HAS_TRIGGER, True, False),
        (HAS_TRIGGER + "00", False, False),  # a byte too many: old firmware, and no features
        (HAS_TRIGGER + "01", False, False),
        ("5c06000000000103", False, True),  # refused
        ("5c0600000000010300", False, False),  # that was no device error but the last feature
        ("5d06000000000100", False, True),  # another echo
        ("5c0600", False, False),  # the rest never came: as if it were silent
        ("", False, False),
    ],
)
def test_any_failure_of_the_question_means_no_features(
    answer: str, trigger: bool, warned: bool, timing: Timing, caplog: pytest.LogCaptureFixture
) -> None:
    with bench("690ws", connect=False) as b:
        b.answers(p.GET_FEATURES, bytes.fromhex(answer))
        b.connect(timing=timing)
        assert (p.Feature.BASIC_HW_TRIGGER in b.camera.capabilities.features) == trigger
        assert bool(b.sent(p.BASIC_HW_TRIGGER)) == trigger
        assert len(b.sent(p.GET_FEATURES)) == 1  # a probe is asked once
        assert ("without GetFeatures" in caplog.text) == warned
        b.check_picture()


# --- the link test (3.1) ---


@pytest.mark.parametrize("count", [1, BURST, p.MAX_BURST])
def test_a_link_test_is_as_long_as_it_was_asked_for(count: int) -> None:
    data = bytes(range(count))
    asked = p.Byte(count)
    assert p.decode_answer(p.BURST_BLOCK, packet(p.BURST_BLOCK, data + b"\0"), asked).data == data
    longer = packet(p.BURST_BLOCK, data + b"\0\x01\x02")
    assert p.decode_answer(p.BURST_BLOCK, longer, asked).data == data
    with pytest.raises(ProtocolError, match="payload bytes instead of"):
        p.decode_answer(p.BURST_BLOCK, packet(p.BURST_BLOCK, data), asked)


def test_a_link_test_survives_a_longer_answer() -> None:
    with bench() as b:
        b.answers(p.BURST_BLOCK, packet(p.BURST_BLOCK, bytes(range(BURST)) + b"\0\x77"))
        b.camera.test_link(BURST)
        b.answers(p.BURST_BLOCK, packet(p.BURST_BLOCK, bytes(range(BURST)) + b"\x03\x77"))
        with pytest.raises(Refused):
            b.camera.test_link(BURST)


def test_the_vendors_reader_takes_the_whole_link_test() -> None:
    """At most 126 payload bytes, the device error among them; and a host sends no more than 128 bytes."""
    assert p.MAX_BURST + 1 <= 126
    with bench() as b:
        b.camera.test_link()
        (sent,) = b.sent(p.BURST_BLOCK)
        assert sent == bytes((0x65, 1, p.MAX_BURST))


# --- bytes that nothing has counted ---


@pytest.mark.parametrize("timing", TIMINGS.values(), ids=lambda timing: timing.name)
@pytest.mark.parametrize("surplus", [1, 40, 700])
def test_left_over_bytes_are_dropped_and_counted(
    surplus: int, timing: Timing, caplog: pytest.LogCaptureFixture
) -> None:
    with bench(connect=False) as b:
        b.connect(timing=timing)
        caplog.clear()
        for _ in range(3):
            b.fault(f"long-answer:{surplus},command=GetSetPoint")
            assert b.camera.set_point() == -10.0
            assert b.camera.state().state == p.CameraState.IDLE
        assert b.camera.session.oddities["stray bytes"] == 3
        lines = [record.message for record in caplog.records if "stray" in record.message]
        assert len(lines) == 1
        assert f"Dropped {surplus} stray bytes" in lines[0]
        # Where the bytes were found is where that timing looks.
        assert ("at GetSetPoint" if timing is VENDOR else "at a command") in lines[0]
        b.check_picture()


@pytest.mark.parametrize("timing", TIMINGS.values(), ids=lambda timing: timing.name)
def test_what_an_order_leaves_over_does_not_spoil_the_order(timing: Timing) -> None:
    """The answer was there: nothing is sent twice, and nothing fails."""
    with bench(connect=False) as b:
        b.connect(timing=timing)
        b.forget()
        b.fault("long-answer:3,command=StartExposureEx")
        b.check_picture()
        assert len(b.sent(p.START_EXPOSURE_EX)) == 1


def test_data_behind_an_answer_are_not_left_over() -> None:
    for timing in (FAST, VENDOR):
        data = bytes(range(100))
        wire = Link(ScriptedChannel(lambda sent: b"\x45\x01\x00" + bytes(range(100))), Session(timing))
        wire.exchange(p.TRANSFER_IMAGE, p.Empty())
        target = bytearray(len(data))
        wire.read_data(memoryview(target), "the data")
        assert target == data
        assert wire.session.oddities == {}
