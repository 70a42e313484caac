# SPDX-License-Identifier: LGPL-2.1-or-later
"""From the first Init to a camera that is ready: the vendor's patience, states that pass, and optional parts.

Whatever is optional costs one feature and one line in the log when it fails, never the connection.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.faults.clock import Clock
from tests.protocol.bench import (
    DETAILS,
    TIMING,
    Bench,
    SimulatedChannel,
    Trip,
    bench,
    clocked_bench,
    failed_transfer,
)
from usbproto import discovery
from usbproto import packets as p
from usbproto.camera import DEFAULT_MAX_EXPOSURE, Camera
from usbproto.capabilities import Capabilities
from usbproto.errors import Disconnected, Interrupted, QsiError, Refused, TimedOut, TransferFailed
from usbproto.ftdi import CONTROL_ATTEMPTS
from usbproto.link import ATTEMPTS, SLOW_NOTICE, TRANSFER_ATTEMPTS
from usbproto.packets import CameraState, ReplyTime
from usbproto.session import Session
from usbproto.takeover import POWERED_UP, SETTLE_INTERVAL, SETTLE_LIMIT
from usbproto.timing import FAST, TIMINGS, VENDOR, Timing

PATIENCE = ReplyTime.NORMAL.value


@pytest.fixture(autouse=True)
def clock() -> Iterator[Clock]:
    """Pauses of the driver cost nothing."""
    with Clock() as made:
        yield made


def lines(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if words in record.getMessage() and record.levelno >= logging.WARNING
    ]


# --- Init ---


@pytest.mark.parametrize("seconds", [0.6, 2.9, 3.1, 12.0, 14.9])
def test_an_init_that_takes_long_is_waited_for(seconds: float) -> None:
    with bench(connect=False) as b:
        b.fault(f"late-answer:{seconds},command=Init")
        b.connect()
        # A camera that is powering up would never answer the first one.
        assert len(b.sent(p.INIT)) == (1 if seconds < POWERED_UP else 2)
        assert bool(b.said) == (seconds > SLOW_NOTICE)
        b.check_picture()


# How long each Init is waited for.
INITS = [POWERED_UP, *[PATIENCE] * ATTEMPTS]


@pytest.mark.parametrize("silent", [1, 2, ATTEMPTS])
def test_an_init_that_is_not_answered_is_repeated_with_the_vendors_patience(silent: int) -> None:
    with bench(connect=False) as b:
        b.fault(f"silence:command=Init,times={silent}")
        b.connect()
        assert len(b.sent(p.INIT)) == silent + 1
        waited = sum(INITS[:silent])
        assert waited <= b.time.now() < waited + INITS[silent]
        notices = [
            "The camera has not answered yet: waiting up to 7 s (it may be powering up)",
            *[
                f"The camera has not answered yet: waiting up to 15 s (Init, attempt {n} of 3)"
                for n in range(1, ATTEMPTS + 1)
            ],
        ]
        assert b.said == notices[:silent]
        b.check_picture()


def test_after_the_last_silent_init_the_camera_is_given_up() -> None:
    with bench(connect=False) as b:
        b.fault("hang")
        with pytest.raises(TimedOut, match=r"within 15\.0 s during initialising"):
            b.connect()
        assert [packet.hex() for packet in b.channel.sent] == ["4b00"] * len(INITS)
        assert sum(INITS) <= b.time.now() < sum(INITS) + len(INITS)
        assert len(b.said) == len(INITS)
        assert b.said[-1].endswith("waiting up to 15 s (Init, attempt 3 of 3)")
        assert b.channel.closed == 1


def test_a_late_init_is_not_taken_for_the_answer_to_something_else() -> None:
    with bench(connect=False) as b:
        b.fault("late-answer:15.05,command=Init")
        b.connect()
        assert b.camera.set_point() == -10.0
        b.check_picture()


def test_an_init_that_is_answered_with_nonsense_is_repeated() -> None:
    """Something that another program, or the last connection, was still to be told may come first."""
    with bench(connect=False) as b:
        b.answers(p.INIT, b"\x59\x01\x00" + b"\x4b\x01\x00")
        b.connect()
        assert len(b.sent(p.INIT)) == 2
        b.check_picture()


# --- the state at connect ---


def state_is(b: Bench, state: CameraState, times: int) -> None:
    answer = p.encode_answer(p.GET_DEVICE_STATE, p.DeviceState(state, False, False))
    b.answers(p.GET_DEVICE_STATE, answer, times)


@pytest.mark.parametrize(
    ("state", "words"), [(CameraState.ERROR, "in its error state"), (CameraState.FLUSHING, "busy")]
)
@pytest.mark.parametrize("times", [1, 20])
def test_a_state_that_passes_is_waited_for(
    state: CameraState, words: str, times: int, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with bench(connect=False) as b:
        state_is(b, state, times)
        b.connect()
        assert b.said == [f"The camera is {words}: waiting up to 15 s for it to be ready"]
        assert len(b.sent(p.GET_DEVICE_STATE)) == times + 1
        assert b.sent(p.ABORT_EXPOSURE) == []
        assert not lines(caplog, "is still")
        b.check_picture()


@pytest.mark.parametrize("state", [CameraState.ERROR, CameraState.FLUSHING])
def test_a_state_that_does_not_pass_is_ended(
    state: CameraState, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    asked = round(SETTLE_LIMIT / SETTLE_INTERVAL)
    with bench(connect=False) as b:
        state_is(b, state, asked + 50)
        begun = clock.monotonic()
        b.connect()
        assert len(lines(caplog, "is still")) == 1
        assert len(b.sent(p.ABORT_EXPOSURE)) == 1
        assert clock.monotonic() - begun >= SETTLE_LIMIT
        assert asked * 0.9 <= len(b.sent(p.GET_DEVICE_STATE)) <= asked + 5
        state_is(b, state, 0)
        b.simulated.firmware.tampering.clear()
        b.check_picture()


@pytest.mark.parametrize("state", [CameraState.EXPOSING, CameraState.READING, CameraState.DOWNLOADING])
def test_what_another_program_left_is_ended_at_once(state: CameraState) -> None:
    with bench(connect=False) as b:
        state_is(b, state, 1)
        b.connect()
        assert b.said == []
        assert [packet.hex() for packet in b.channel.sent[:3]] == ["4b00", "4200", "44020000"]
        b.check_picture()


def test_waiting_for_a_state_can_be_ended(clock: Clock) -> None:
    with bench(connect=False) as b:
        state_is(b, CameraState.FLUSHING, 1000)
        session = Session(TIMING)

        def stop(text: str) -> None:
            session.stop.request()

        session.progress = stop
        with pytest.raises(Interrupted):
            connect_with(b, session)
        assert b.channel.closed == 1
        assert len(b.sent(p.GET_DEVICE_STATE)) == 1


def connect_with(b: Bench, session: Session) -> None:
    b.channel = SimulatedChannel(b.simulated)
    b.camera = Camera(b.channel, b.simulated.model.series, b.simulated.serial, None, session)


# --- optional parts: each fails in each way ---


WAYS: dict[str, Callable[[Bench, p.Command[Any, Any]], list[Trip]]] = {
    "silence": lambda b, c: faulty(b, f"silence:command={c.name},times=0"),
    "device error": lambda b, c: faulty(b, f"device-error:0x80,command={c.name},times=0"),
    "another echo": lambda b, c: faulty(b, f"wrong-echo:command={c.name},times=0"),
    "cut short": lambda b, c: faulty(b, f"short-answer:command={c.name},times=0"),
    "too short": lambda b, c: tampered(b, c),
    "failed transfer": lambda b, c: [Trip("write", failed_transfer, times=1000, only=c.code)],
}


def faulty(b: Bench, text: str) -> list[Trip]:
    b.fault(text)
    return []


def tampered(b: Bench, command: p.Command[Any, Any]) -> list[Trip]:
    b.answers(command, bytes((command.code, 0)), times=1000)
    return []


@pytest.mark.parametrize("way", WAYS)
def test_an_eeprom_that_cannot_be_read_is_asked_once(way: str, caplog: pytest.LogCaptureFixture) -> None:
    """The vendor takes such a byte for FF; asked byte by byte, each would cost a second."""
    with bench(connect=False) as b:
        begun = b.time.now()
        b.connect(None, *WAYS[way](b, p.GET_EEPROM))
        asked = b.sent(p.GET_EEPROM)
        assert len(set(asked)) == 1
        assert len(asked) == (TRANSFER_ATTEMPTS if way == "failed transfer" else 1)
        assert len(lines(caplog, "without the EEPROM's content")) == 1
        assert b.time.now() - begun < 3.0
        identity = b.camera.identity
        assert (identity.firmware, identity.hardware, identity.manufactured) == ("", "", "")
        assert identity.marketing_model is None
        assert (identity.model, identity.serial) == ("683wsg", "00683001")  # as the camera itself says
        b.channel.trips.clear()
        b.check_picture()


def test_an_eeprom_that_fails_in_the_middle_keeps_what_was_read() -> None:
    with bench(connect=False) as b:
        left = 10

        def fail(reply: Any) -> None:
            nonlocal left
            if reply.command is p.GET_EEPROM:
                left -= 1
                if left < 0:
                    reply.packet = b""

        b.simulated.firmware.tampering.append(fail)
        b.connect()
        assert len(b.sent(p.GET_EEPROM)) == 11
        assert b.camera.identity.marketing_model is not None  # it came first
        assert b.camera.identity.manufactured == ""
        b.check_picture()


OF_683 = Capabilities(p.Features((0, 0, 0, 0, 1)), True, True)
PROBES = {
    "features": (p.GET_FEATURES, replace(OF_683, features=p.Features())),
    "temperature_ex": (p.GET_TEMPERATURE_EX, replace(OF_683, temperature_ex=False)),
    "exposure_ex": (p.START_EXPOSURE_EX, replace(OF_683, exposure_ex=False)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", PROBES)
def test_a_probe_that_fails_costs_its_own_feature(
    name: str, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    command, expected = PROBES[name]
    with bench(connect=False) as b:
        begun = b.time.now()
        b.connect(None, *WAYS[way](b, command))
        if name == "temperature_ex" and way == "device error":
            assert b.camera.capabilities == OF_683  # any answer shows that it is there
        else:
            assert b.camera.capabilities == expected
            # Silence is how most cameras say no; of features, less than two bytes say the same.
            said_no = way in ("silence", "cut short") or (name, way) == ("features", "too short")
            heard = 0 if said_no else 1
            assert len(lines(caplog, f"continuing without {command.name}")) == heard
        assert b.time.now() - begun < 3.0
        b.channel.trips.clear()
        b.simulated.firmware.tampering.clear()
        b.take(seconds=0.5)


@pytest.mark.parametrize("timing", TIMINGS.values(), ids=lambda timing: timing.name)
def test_looking_behind_the_features_may_fail(timing: Timing) -> None:
    """It is looked for a byte too many; that look is as optional as the features."""
    with bench(connect=False) as b:
        b.connect(None, Trip("look", failed_transfer, reached=True, only=p.GET_FEATURES.code), timing=timing)
        b.check_picture()


@pytest.mark.parametrize("way", WAYS)
def test_trims_that_fail_cost_the_trims(way: str, caplog: pytest.LogCaptureFixture) -> None:
    with bench() as b:
        wheel = b.camera.wheel
        assert wheel is not None
        b.channel.trips.extend(WAYS[way](b, p.SET_FILTER_TRIM))
        assert not wheel.has_trims()
        b.channel.trips.clear()
        b.forget()
        assert not wheel.has_trims()
        assert b.channel.sent == []  # asked once
        wheel.move(2)
        assert b.sent(p.SET_FILTER_TRIM) == []
        heard = 0 if way in ("silence", "cut short") else 1
        assert len(lines(caplog, "continuing without SetFilterTrim")) == heard


@pytest.mark.parametrize("way", WAYS)
def test_a_trigger_that_cannot_be_switched_off_costs_a_line(
    way: str, caplog: pytest.LogCaptureFixture
) -> None:
    with bench(connect=False) as b:
        b.connect(None, *WAYS[way](b, p.BASIC_HW_TRIGGER))
        assert len(lines(caplog, "without switching the external trigger off")) == 1
        assert b.camera.available.trigger
        b.channel.trips.clear()
        b.check_picture()


@pytest.mark.parametrize("way", WAYS)
def test_a_camera_that_does_not_say_whether_it_can_abort_is_aborted(
    way: str, caplog: pytest.LogCaptureFixture
) -> None:
    with bench(connect=False) as b:
        begun = b.time.now()
        b.connect(None, *WAYS[way](b, p.CAN_ABORT_EXPOSURE))
        assert b.camera.can_abort
        assert len(lines(caplog, "without CanAbortExposure")) == 1
        assert b.time.now() - begun < 3.0
        b.channel.trips.clear()
        b.check_picture()


def test_a_camera_that_cannot_abort_says_so() -> None:
    with bench(connect=False) as b:
        b.answers(p.CAN_ABORT_EXPOSURE, p.encode_answer(p.CAN_ABORT_EXPOSURE, p.Flag(False)))
        b.connect()
        assert not b.camera.can_abort


@pytest.mark.parametrize("way", [way for way in WAYS if way != "failed transfer"])
@pytest.mark.parametrize("timing", TIMINGS.values(), ids=lambda timing: timing.name)
def test_everything_optional_fails_at_once(
    way: str, timing: Timing, caplog: pytest.LogCaptureFixture
) -> None:
    optional = [command for command, _ in PROBES.values()]
    optional += [p.GET_EEPROM, p.BASIC_HW_TRIGGER, p.CAN_ABORT_EXPOSURE]
    with bench(connect=False) as b:
        for command in optional:
            WAYS[way](b, command)
        b.connect(timing=timing)
        assert b.camera.identity.model == "683wsg"
        said = [
            record.getMessage() for record in caplog.records if "continuing without" in record.getMessage()
        ]
        assert len(said) == len(set(said))
        b.take(seconds=0.5)


@pytest.mark.parametrize("error", [Disconnected("gone"), Interrupted()], ids=lambda e: type(e).__name__)
@pytest.mark.parametrize(
    "command",
    [p.GET_FEATURES, p.GET_TEMPERATURE_EX, p.START_EXPOSURE_EX, p.GET_EEPROM, p.CAN_ABORT_EXPOSURE],
    ids=lambda command: command.name,
)
def test_a_camera_that_is_gone_is_nothing_optional(error: QsiError, command: p.Command[Any, Any]) -> None:
    with bench(connect=False) as b:
        with pytest.raises(type(error)):
            b.connect(None, Trip("read", lambda: error, times=1000, only=command.code))
        assert b.channel.closed == 1


@pytest.mark.parametrize(
    "command",
    [p.INIT, p.GET_DEVICE_STATE, p.GET_DEVICE_DETAILS, p.GET_DEFAULT_SETTINGS, p.GET_CCD_SPECS],
    ids=lambda command: command.name,
)
def test_what_is_not_optional_is_an_error(command: p.Command[Any, Any]) -> None:
    with bench(connect=False) as b:
        b.fault(f"device-error:0x80,command={command.name},times=0")
        with pytest.raises(Refused):
            b.connect()
        assert b.channel.closed == 1


# --- odd contents ---


def test_defaults_that_no_list_names_are_sent_back(caplog: pytest.LogCaptureFixture) -> None:
    odd = {"fan": 7, "gain": 9, "shutter_priority": 4, "anti_blooming": 3, "flush": 200}
    with bench(connect=False) as b:
        defaults = p.decode_answer(p.GET_DEFAULT_SETTINGS, ask(b, "4c00"))
        changed = replace(defaults, **odd)
        b.answers(p.GET_DEFAULT_SETTINGS, p.encode_answer(p.GET_DEFAULT_SETTINGS, changed))
        b.answers(p.SET_SETTINGS, bytes.fromhex("4d0100"))
        b.connect()
        (sent,) = b.sent(p.SET_SETTINGS)
        _, settings = p.decode_request(sent)
        for name, value in odd.items():
            assert getattr(settings, name) == value
            assert len(lines(caplog, f"reports {value} for {name.replace('_', ' ')}")) == 1
        assert b.camera.electrons_per_adu > 0


def ask(b: Bench, packet: str) -> bytes:
    with b.time.lock:
        b.simulated.fifo.host_wrote(bytes.fromhex(packet))
    return b"".join(bytes(piece) for piece in b.simulated.fifo.take(1000))


def test_a_model_that_is_not_in_the_table_is_used_as_it_describes_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for number in ("6120wsg", "abc", ""):
        with bench(connect=False) as b:
            details = replace(DETAILS, model_number=number)
            b.answers(p.GET_DEVICE_DETAILS, p.encode_answer(p.GET_DEVICE_DETAILS, details))
            b.connect()
            assert b.camera.sensor is None
            assert (b.camera.array.columns, b.camera.array.rows) == (768, 512)
            assert len(lines(caplog, "is not in the table of models")) == 1
            assert b.camera.electrons_per_adu > 0
            b.take()
        caplog.clear()


def test_a_camera_that_gives_no_longest_exposure_has_the_guides() -> None:
    with bench(connect=False) as b:
        specs = p.decode_answer(p.GET_CCD_SPECS, ask(b, "5800"))
        b.answers(p.GET_CCD_SPECS, p.encode_answer(p.GET_CCD_SPECS, replace(specs, max_exposure=0)))
        b.connect()
        assert b.camera.max_exposure == DEFAULT_MAX_EXPOSURE


# --- through a claimed channel ---


def test_a_camera_that_cannot_be_opened_is_let_go() -> None:
    """Otherwise this very program would keep it in use until it ends."""
    with clocked_bench() as b:
        claimed = discovery.claim(backend=b.backend)
        b.backend.failing.extend([("control", errno.EIO)] * CONTROL_ATTEMPTS)
        with pytest.raises(TransferFailed):
            claimed.open(session=Session(VENDOR))
        b.connect()
        b.check_picture()


@pytest.mark.parametrize("timing", TIMINGS.values(), ids=lambda timing: timing.name)
def test_a_session_decides_the_timing_of_its_channel(timing: Timing) -> None:
    with clocked_bench() as b:
        b.connect(session=Session(timing))
        latencies = [value for kind, request, value, _ in b.backend.requests if (kind, request) == (0x40, 9)]
        assert latencies[-1] == timing.latency_ms
        b.check_picture()
        assert b.camera.session.timing is timing


def test_both_timings_say_the_same_to_a_healthy_camera() -> None:
    """The vendor's is slower, and asks no more."""
    sent = []
    for timing in (FAST, VENDOR):
        with bench(connect=False) as b:
            b.connect(timing=timing)
            b.take()
            sent.append([packet for packet in b.channel.sent if packet[0] != p.GET_DEVICE_STATE.code])
    assert sent[0] == sent[1]
