# SPDX-License-Identifier: LGPL-2.1-or-later
"""How long an answer is waited for after a failed transfer, and what happens to an answer that comes late.

A failed read does not end an exchange: the chip still has what the camera sent after it. The link waits a short time
for an answer that normally comes at once, and the whole time limit for one that takes long by its nature.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.faults.clock import Clock
from tests.protocol.bench import (
    TIMING,
    Bench,
    ScriptedChannel,
    Trip,
    bench,
    clocked_bench,
    failed_transfer,
)
from usbproto import packets as p
from usbproto.camera import IDLE_DOUBT, Exposure
from usbproto.errors import (
    Disconnected,
    Interrupted,
    LinkError,
    ProtocolError,
    Refused,
    TimedOut,
    TransferFailed,
)
from usbproto.ftdi import FAILURE_PAUSE, SIO_SET_BIT_MODE
from usbproto.link import ATTEMPTS, GRACE, TRANSFER_ATTEMPTS, Link
from usbproto.packets import CameraState, ReplyTime
from usbproto.relays import Direction
from usbproto.session import Session
from usbproto.takeover import POWERED_UP
from usbproto.timing import FAST, VENDOR, Timing

PATIENCE = ReplyTime.NORMAL.value
LOST = "lost on the USB"


@pytest.fixture(autouse=True)
def clock() -> Iterator[Clock]:
    """The pause after a failed transfer, and the waiting of the driver, cost nothing."""
    with Clock() as made:
        yield made


def read_fails(b: Bench, command: p.Command[Any, Any], *, times: int = 1, nth: int = 1) -> None:
    """Reads of the answer fail, and the answer is still to come."""
    b.channel.trips.append(Trip("read", failed_transfer, nth, times, reached=True, only=command.code))


def write_fails(b: Bench, command: p.Command[Any, Any], times: int = 1) -> None:
    """The command is lost on its way to the camera."""
    b.channel.trips.append(Trip("write", failed_transfer, times=times, only=command.code))


def read_fails_in_last_attempt(b: Bench) -> None:
    """All attempts of GetSetPoint before it were lost on their way to the camera."""
    write_fails(b, p.GET_SET_POINT, TRANSFER_ATTEMPTS - 1)

    def fails() -> TransferFailed:
        assert len(b.sent(p.GET_SET_POINT)) == TRANSFER_ATTEMPTS
        return failed_transfer()

    # After each lost attempt the queue is drained, by one read.
    b.channel.trips.append(Trip("read", fails, TRANSFER_ATTEMPTS, reached=True, only=p.GET_SET_POINT.code))


def late(b: Bench, command: p.Command[Any, Any], seconds: float, times: int = 1) -> None:
    b.fault(f"late-answer:{seconds},command={command.name},times={times}")


def names(b: Bench) -> list[str]:
    return [p.COMMANDS[packet[0]].name for packet in b.channel.sent]


# --- a failed read is not the end of an exchange ---


@pytest.mark.parametrize("nth", [1, 2])
def test_an_answer_that_comes_after_a_failed_read_is_taken(nth: int) -> None:
    """Before the first byte of the answer, or between its two parts."""
    with bench() as b:
        relays = b.camera.relays
        assert relays is not None
        b.forget()
        for command in (p.GET_SET_POINT, p.SET_TEMPERATURE, p.ABORT_RELAYS):
            read_fails(b, command, nth=nth)
        assert b.camera.set_point() == -10.0
        b.camera.cool_to(-5.0)
        relays.stop()
        assert names(b) == ["GetSetPoint", "SetTemperature", "AbortRelays"]
        assert all(trip.times == 0 for trip in b.channel.trips)


def test_an_order_whose_answer_comes_after_a_failed_read_is_not_asked_after() -> None:
    with bench() as b:
        relays = b.camera.relays
        assert relays is not None
        late(b, p.ACTIVATE_RELAY, GRACE / 2)
        read_fails(b, p.ACTIVATE_RELAY)
        b.forget()
        relays.pulse(Direction.WEST, 1.0)
        assert names(b) == ["IsRelayDone", "ActivateRelay"]


def test_after_a_failed_read_an_answer_is_waited_for_only_shortly() -> None:
    """The answer was most likely lost, and asking again costs less than the time limit."""
    with bench() as b:
        late(b, p.GET_SET_POINT, 10.0)
        read_fails(b, p.GET_SET_POINT)
        b.forget()
        began = b.time.now()
        assert b.camera.set_point() == -10.0
        assert len(b.sent(p.GET_SET_POINT)) == 2
        assert GRACE <= b.time.now() - began < PATIENCE / 2


def test_further_failures_do_not_make_that_wait_longer() -> None:
    with bench() as b:
        late(b, p.GET_SET_POINT, 10.0)
        read_fails(b, p.GET_SET_POINT, times=20)
        b.forget()
        began = b.time.now()
        assert b.camera.set_point() == -10.0
        assert b.time.now() - began < PATIENCE / 2
        assert b.channel.trips[-1].times == 0


def test_the_wait_after_a_failed_read_never_exceeds_the_time_limit() -> None:
    """A probe with one second has no more because a transfer failed."""
    with bench() as b:
        b.fault("silence:command=GetSetPoint,times=0")
        read_fails(b, p.GET_SET_POINT, times=1)
        began = b.time.now()
        limit = GRACE / 2
        with pytest.raises(LinkError):
            b.camera._link.exchange(p.GET_SET_POINT, p.Empty(), seconds=limit)
        assert b.time.now() - began < TRANSFER_ATTEMPTS * (limit + FAILURE_PAUSE + GRACE)


def test_an_init_is_waited_for_although_a_read_failed() -> None:
    with bench(connect=False) as b:
        late(b, p.INIT, POWERED_UP - 0.5)
        b.connect(None, Trip("read", failed_transfer, reached=True, only=p.INIT.code))
        assert len(b.sent(p.INIT)) == 1
        assert b.time.now() >= POWERED_UP - 0.5
        assert len(b.said) == 1
        b.check_picture()


def test_a_wheel_is_waited_for_although_a_read_failed() -> None:
    """It answers when it has arrived, which takes longer than the short wait; nothing else is sent meanwhile."""
    with bench() as b:
        wheel = b.camera.wheel
        assert wheel is not None
        read_fails(b, p.SET_FILTER_WHEEL)
        b.forget()
        began = b.time.now()
        wheel.move(3)
        assert b.time.now() - began > 2 * GRACE
        assert names(b) == ["SetFilterWheel"]
        assert wheel.position() == 3


def test_the_last_attempt_is_patient() -> None:
    """Attempts before it may keep the camera busy, so that its answer comes later than usual."""
    with bench() as b:
        b.forget()
        late(b, p.GET_SET_POINT, PATIENCE - 1.0)
        read_fails_in_last_attempt(b)
        began = b.time.now()
        assert b.camera.set_point() == -10.0
        assert len(b.sent(p.GET_SET_POINT)) == TRANSFER_ATTEMPTS
        assert b.time.now() - began >= PATIENCE - 1.0
        assert b.channel.trips[-1].times == 0


def test_the_last_attempt_ends_at_the_time_limit_with_the_failure() -> None:
    with bench() as b:
        b.forget()
        b.fault("silence:command=GetSetPoint,times=0")
        read_fails_in_last_attempt(b)
        began = b.time.now()
        with pytest.raises(TransferFailed):
            b.camera.set_point()
        assert len(b.sent(p.GET_SET_POINT)) == TRANSFER_ATTEMPTS
        assert PATIENCE <= b.time.now() - began < PATIENCE + TRANSFER_ATTEMPTS


@pytest.mark.parametrize("error", [Disconnected("gone"), Interrupted()], ids=lambda e: type(e).__name__)
def test_a_wait_that_goes_on_still_ends_when_the_camera_leaves_or_the_program_wants_it(
    error: Exception,
) -> None:
    with bench() as b:
        b.forget()
        read_fails(b, p.GET_SET_POINT)
        b.channel.trips.append(Trip("read", lambda: error, only=p.GET_SET_POINT.code))  # type: ignore[arg-type,return-value]
        with pytest.raises(type(error)):
            b.camera.set_point()
        assert len(b.channel.sent) == 1


# --- failures of the camera and of the USB ---

# Any order of failures that leaves one attempt of each kind.
MIXED = [
    *([["silence"] * (ATTEMPTS - 1) + [LOST] * (TRANSFER_ATTEMPTS - 1)]),
    *([[LOST] * (TRANSFER_ATTEMPTS - 1) + ["wrong-echo"] * (ATTEMPTS - 1)]),
    [LOST, "silence", LOST, "wrong-echo", LOST, LOST],
]


def failures_of(wanted: list[str]) -> Callable[[bytes], bytes]:
    """A camera that answers GetSetPoint in these ways, and then well."""
    left = list(wanted)

    def answer(packet: bytes) -> bytes:
        way = left.pop(0) if left else ""
        if way == LOST:
            raise failed_transfer()
        return {"silence": b"", "wrong-echo": b"\x52\x03\xfc\x18\x00"}.get(way, b"\x51\x03\xfc\x18\x00")

    return answer


@pytest.mark.parametrize("ways", MIXED, ids=["-".join(ways) for ways in MIXED])
def test_failures_of_the_camera_and_of_the_usb_are_counted_apart(ways: list[str]) -> None:
    channel = ScriptedChannel(failures_of(ways))
    wire = Link(channel, Session(TIMING))
    assert wire.exchange(p.GET_SET_POINT, p.Empty()).set_point == -10.0
    assert len(channel.sent) == len(ways) + 1


@pytest.mark.parametrize(
    ("ways", "error"),
    [
        ([*[LOST] * (TRANSFER_ATTEMPTS - 1), *["silence"] * ATTEMPTS], TimedOut),
        ([*["silence"] * (ATTEMPTS - 1), *[LOST] * TRANSFER_ATTEMPTS], TransferFailed),
        ([*[LOST] * (TRANSFER_ATTEMPTS - 1), *["wrong-echo"] * ATTEMPTS], ProtocolError),
    ],
    ids=["silence", "USB", "echo"],
)
def test_either_kind_ends_the_exchange_by_itself(ways: list[str], error: type[LinkError]) -> None:
    channel = ScriptedChannel(failures_of([*ways, *ways]))
    wire = Link(channel, Session(TIMING))
    with pytest.raises(error):
        wire.exchange(p.GET_SET_POINT, p.Empty())
    assert len(channel.sent) == len(ways)


def test_a_refusal_after_failures_is_an_answer() -> None:
    """The camera is not silent, and the question is not sent again."""
    with bench() as b:
        b.forget()
        b.fault("silence:command=GetSetPoint,times=2")
        write_fails(b, p.GET_SET_POINT)
        refuse = p.encode_answer(p.GET_SET_POINT, p.SetPoint(-10.0))[:-1] + b"\x03"

        def fail(reply: Any) -> None:
            if reply.command is p.GET_SET_POINT and len(b.sent(p.GET_SET_POINT)) == 4:
                reply.packet = refuse

        b.simulated.firmware.tampering.append(fail)
        with pytest.raises(Refused):
            b.camera.set_point()
        assert len(b.sent(p.GET_SET_POINT)) == 4
        assert not b.camera.silent


# --- answers that come late ---

STATE = p.encode_answer(p.GET_DEVICE_STATE, p.DeviceState(CameraState.IDLE, False, False))
COOLED = b"\x46\x01\x00"


def late_before_state(*first: bytes, failing: int = 1) -> Link:
    """A link on which SetTemperature was not answered `failing` times; these bytes precede the next state."""
    answers = {p.SET_TEMPERATURE.code: b"", p.GET_DEVICE_STATE.code: b"".join(first) + STATE}
    wire = Link(ScriptedChannel(lambda packet: answers[packet[0]]), Session(TIMING))
    for _ in range(failing):
        with pytest.raises(TimedOut):
            wire.exchange(p.SET_TEMPERATURE, p.SetTemperature(True, False, -5.0))
    return wire


def ask_state(wire: Link, **options: Any) -> CameraState:
    return CameraState(wire.exchange(p.GET_DEVICE_STATE, p.Empty(), **options).state)


ONCE = {"seconds": PATIENCE}  # a question with a time limit of its own is asked once


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_late_answers_in_front_of_the_awaited_one_are_dropped(failing: int) -> None:
    wire = late_before_state(*[COOLED] * failing, failing=failing)
    assert ask_state(wire, **ONCE) is CameraState.IDLE
    assert wire.session.oddities == {"late answer": failing}


def test_a_late_answer_is_dropped_with_its_whole_length() -> None:
    wire = late_before_state(b"\x46\x09" + bytes(range(9)))
    assert ask_state(wire, **ONCE) is CameraState.IDLE


@pytest.mark.parametrize(("answers", "failing"), [(1, 0), (2, 1), (3, 2)])
def test_no_more_are_dropped_than_may_still_come(answers: int, failing: int) -> None:
    """Anything else in front of an answer is another echo, and an error."""
    wire = late_before_state(*[COOLED] * answers, failing=failing)
    with pytest.raises(ProtocolError, match="the camera answered 4601 to 4200"):
        ask_state(wire, **ONCE)


def test_only_answers_of_the_command_that_failed_are_dropped() -> None:
    wire = late_before_state(b"\x44\x01\x00")
    with pytest.raises(ProtocolError, match="the camera answered 4401"):
        ask_state(wire, **ONCE)


def test_a_late_answer_of_an_earlier_command_does_not_spoil_an_order() -> None:
    """Through the simulated camera: the setting timed out, and the order after it is sent and answered once."""
    with bench() as b:
        late(b, p.SET_TEMPERATURE, PATIENCE + 0.1)
        late(b, p.START_EXPOSURE_EX, 0.5)
        with pytest.raises(TimedOut):
            b.camera.cool_to(-5.0)
        b.forget()
        b.camera.start_exposure(Exposure(0.1, b.window()))
        assert names(b) == ["StartExposureEx"]
        assert b.camera.session.oddities["late answer"] == 1
        image = b.finish(b.window())
        assert (image.pixels == b.sensor_held()).all()


# --- looks and drains ---


def suspect(b: Bench) -> None:
    """The next command must drain the queue first: an answer was not waited for."""
    b.channel.trips.append(Trip("read", Interrupted, reached=True, only=p.GET_SET_POINT.code))
    with pytest.raises(Interrupted):
        b.camera.set_point()


@pytest.mark.parametrize("times", [1, TRANSFER_ATTEMPTS - 1])
def test_a_drain_whose_transfer_failed_is_repeated(times: int) -> None:
    with bench() as b:
        suspect(b)
        read_fails(
            b, p.GET_SET_POINT, times=times
        )  # until the next command is sent, these are reads of the drain
        assert b.camera.state().state is CameraState.IDLE
        assert b.channel.trips[-1].times == 0
        assert names(b)[-2:] == ["GetSetPoint", "GetDeviceState"]
        b.check_picture()


def test_nothing_is_sent_before_the_queue_is_known_to_be_empty() -> None:
    with bench() as b:
        suspect(b)
        read_fails(b, p.GET_SET_POINT, times=1000)
        sent = len(b.channel.sent)
        with pytest.raises(TransferFailed):
            b.camera.state()
        assert len(b.channel.sent) == sent
        b.channel.trips.clear()
        assert b.camera.state().state is CameraState.IDLE


@pytest.mark.parametrize(
    "command", [p.TRANSFER_IMAGE, p.GET_AUTO_ZERO], ids=["behind the pixels", "behind the overscan"]
)
@pytest.mark.parametrize("times", [1, TRANSFER_ATTEMPTS - 1])
def test_a_look_behind_an_image_whose_transfer_failed_is_repeated(
    command: p.Command[Any, Any], times: int
) -> None:
    """The image is complete: it is not lost because of that look."""
    with bench() as b:
        made = Trip("look", failed_transfer, times=times, reached=True, only=command.code)
        b.channel.trips.append(made)
        b.check_picture()
        assert made.times == 0


@pytest.mark.parametrize("times", [1, 2, 1000])
def test_a_look_behind_an_answer_does_not_spoil_the_answer(times: int) -> None:
    """The vendor's timing makes it. A look that keeps failing is a matter for the next exchange."""
    with bench(connect=False) as b:
        b.connect(timing=VENDOR)
        b.channel.trips.append(
            Trip("look", failed_transfer, times=times, reached=True, only=p.ACTIVATE_RELAY.code)
        )
        assert b.camera.relays is not None
        b.camera.relays.pulse(Direction.WEST, 1.0)
        assert len(b.events("relay")) == len(b.sent(p.ACTIVATE_RELAY)) == 1
        b.channel.trips.clear()
        assert not b.camera.relays.done()


# --- each error is counted once ---


def test_each_error_of_the_link_is_counted_once() -> None:
    """Three of them change the timing, so one that counts twice would do it too early.

    Reads that fail while one answer is waited for are one bad moment of the link.
    """
    ways: dict[str, tuple[Trip, int]] = {
        "a read, and the answer comes": (Trip("read", failed_transfer, reached=True), 1),
        "a read, and the answer is lost": (Trip("read", failed_transfer), 1),
        "two reads, and the answer comes": (Trip("read", failed_transfer, times=2, reached=True), 1),
        "the command": (Trip("write", failed_transfer), 1),
        "the look": (Trip("look", failed_transfer, reached=True), 1),
        "all looks": (Trip("look", failed_transfer, times=TRANSFER_ATTEMPTS + 1, reached=True), 6),
    }
    for name, (made, expected) in ways.items():
        with bench() as b:
            counted = link_errors(b)
            made.only = None if made.call == "look" else p.GET_SET_POINT.code
            b.channel.trips.append(made)
            assert b.camera.set_point() == -10.0, name
            assert len(counted) == expected, name


@pytest.mark.parametrize(("fault", "failing"), [("silence", 2), ("wrong-echo", 2)])
def test_each_failure_of_the_camera_is_counted_once(fault: str, failing: int) -> None:
    with bench() as b:
        counted = link_errors(b)
        b.fault(f"{fault}:command=GetSetPoint,times={failing}")
        assert b.camera.set_point() == -10.0
        assert len(counted) == failing


def test_a_failure_of_the_pixels_is_counted_once() -> None:
    with bench() as b:
        b.camera.start_exposure(Exposure(0.05, b.window()))
        counted = link_errors(b)
        b.channel.trips.append(Trip("read", failed_transfer, nth=3, only=p.TRANSFER_IMAGE.code))
        with pytest.raises(TransferFailed):
            b.finish(b.window())
        assert len(counted) == 1


def link_errors(b: Bench) -> list[str]:
    """The errors of the link that the session counts from now on."""
    counted: list[str] = []

    def keep(kind: str, reason: str) -> None:
        if kind == "link":
            counted.append(reason)

    b.camera.session.keep = keep
    return counted


# --- what became of a start ---


def test_a_start_is_asked_after_only_when_idle_can_be_believed(clock: Clock) -> None:
    """A camera may say for a moment that it is idle although it has begun to expose."""
    with bench() as b:
        moments: list[float] = []

        def fails() -> TransferFailed:
            moments.append(clock.monotonic())
            return failed_transfer()

        def note(reply: Any) -> None:
            if reply.command is p.GET_DEVICE_STATE:
                moments.append(clock.monotonic())

        b.simulated.firmware.tampering.append(note)
        b.forget()
        b.channel.trips.append(Trip("write", fails, reached=True, only=p.START_EXPOSURE_EX.code))
        b.camera.start_exposure(Exposure(0.5, b.window()))
        assert moments[1] - moments[0] >= FAILURE_PAUSE + IDLE_DOUBT
        assert len(b.sent(p.START_EXPOSURE_EX)) == 1


@pytest.mark.parametrize(
    ("state", "starts"),
    [
        (CameraState.IDLE, 2),
        (CameraState.ERROR, 2),
        (CameraState.FLUSHING, 1),
        (CameraState.EXPOSING, 1),
        (CameraState.READING, 1),
    ],
)
def test_a_start_that_was_lost_is_sent_again_by_the_state(state: CameraState, starts: int) -> None:
    with bench() as b:
        write_fails(b, p.START_EXPOSURE_EX)
        b.answers(p.GET_DEVICE_STATE, p.encode_answer(p.GET_DEVICE_STATE, p.DeviceState(state, False, False)))
        b.forget()
        b.camera.start_exposure(Exposure(0.5, b.window()))
        assert len(b.sent(p.START_EXPOSURE_EX)) == starts


# --- a chip that was reset ---


@pytest.mark.parametrize("timing", [FAST, VENDOR], ids=lambda timing: timing.name)
def test_a_chip_that_was_reset_is_noticed_by_its_latency_timer(timing: Timing) -> None:
    """A reset chip has the vendor's latency, so with the vendor's timing only a time-out shows the reset."""
    with clocked_bench() as b:
        b.connect(session=Session(timing))
        b.simulated.device.reset_bus()
        b.backend.requests.clear()
        b.backend.failing.append(("read", errno.EIO))
        began = time.monotonic()
        assert b.camera.set_point() == -10.0
        assert SIO_SET_BIT_MODE in [request for _, request, _, _ in b.backend.requests]
        assert (time.monotonic() - began >= PATIENCE) == (timing is VENDOR)
        assert b.camera.doubtful == (timing is VENDOR)
        b.check_picture()
