# SPDX-License-Identifier: LGPL-2.1-or-later
"""A transfer that failed is one transfer that failed, at whichever step of whichever command.

Questions and settings are sent again, because that changes nothing. What became of an order is found out by
asking. Only a device that is gone has left. Each step is made to fail at the channel (in simulated time), and
each errno at the USB (on a clock that skips waiting).
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.faults.clock import Clock
from tests.protocol.bench import (
    KNOWN,
    TIMING,
    Bench,
    Trip,
    UsbBench,
    bench,
    clocked_bench,
    failed_transfer,
    usb_failure,
)
from usbproto import discovery, ftdi
from usbproto import packets as p
from usbproto.camera import Exposure
from usbproto.errors import Disconnected, Interrupted, ProtocolError, QsiError, TimedOut, TransferFailed
from usbproto.link import TRANSFER_ATTEMPTS
from usbproto.packets import Kind, TriggerMode
from usbproto.relays import Direction
from usbproto.session import CAREFUL_AFTER, CAREFUL_WITHIN, Session
from usbproto.timing import FAST, TIMINGS, VENDOR, Timing


@pytest.fixture(autouse=True)
def clock() -> Iterator[Clock]:
    """The pause after a failed transfer, and what may be waited for behind it, cost nothing."""
    with Clock() as made:
        yield made


# Where a transfer of an exchange can fail: before the command, on its way out (lost, or there all the same),
# and on the way back (the answer lost, or still to be read).
STEPS = {
    "looking for stray bytes": Trip("look", failed_transfer, reached=True),
    "the command, which is lost": Trip("write", failed_transfer),
    "the command, which arrives": Trip("write", failed_transfer, reached=True),
    "the answer, which is lost": Trip("read", failed_transfer),
    "the answer, which comes later": Trip("read", failed_transfer, reached=True),
    "the rest of the answer": Trip("read", failed_transfer, nth=2),
}
STEP = pytest.mark.parametrize("step", STEPS)


def trip(b: Bench, step: str, command: p.Command[Any, Any], times: int = 1) -> None:
    """The next time that this command is sent (what fails before a command counts for the next one)."""
    made = STEPS[step]
    only = None if made.call == "look" else command.code
    b.channel.trips.append(Trip(made.call, failed_transfer, made.nth, times, made.reached, only))


# --- questions and settings ---


@STEP
@pytest.mark.parametrize("times", [1, TRANSFER_ATTEMPTS - 1])
def test_a_question_is_asked_again(step: str, times: int) -> None:
    with bench() as b:
        trip(b, step, p.GET_SET_POINT, times)
        assert b.camera.set_point() == -10.0
        assert b.camera.state().state == p.CameraState.IDLE  # a late answer is not taken for another
        b.check_picture()


@STEP
@pytest.mark.parametrize("times", [1, TRANSFER_ATTEMPTS - 1])
def test_a_setting_is_sent_again(step: str, times: int) -> None:
    with bench() as b:
        trip(b, step, p.SET_TEMPERATURE, times)
        b.camera.cool_to(-5.0)
        assert b.simulated.hardware.cooler.set_point == -5.0
        assert b.camera.set_point() == -5.0
        b.check_picture()


@STEP
def test_a_link_that_fails_each_time_is_given_up(step: str) -> None:
    with bench() as b:
        b.forget()
        trip(b, step, p.GET_SET_POINT, times=1000)
        with pytest.raises(TransferFailed) as caught:
            b.camera.set_point()
        assert "another USB cable" in caught.value.explain()
        sent = len(b.sent(p.GET_SET_POINT))
        if STEPS[step].call == "write":
            assert sent == TRANSFER_ATTEMPTS
        else:  # where reading fails, nothing is sent before the queue is known to be empty
            assert sent <= TRANSFER_ATTEMPTS
        b.channel.trips.clear()
        b.check_picture()


SETTINGS: dict[str, Callable[[Bench], object]] = {
    "SetTemperature": lambda b: b.camera.cool_to(-5.0),
    "SetAdvSettings": lambda b: b.camera.apply_settings(b.camera.settings),
    "AbortExposure": lambda b: b.camera.abort_exposure(),
    "BasicHWTrigger": lambda b: b.camera.set_trigger(TriggerMode.OFF),
    "SetAltMode1": lambda b: b.camera.alt_modes.manual_shutter(True),
    "AbortRelays": lambda b: b.camera.relays and b.camera.relays.stop(),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_is_sent_again_after_a_failed_transfer_and_nothing_else(name: str) -> None:
    """After silence or another echo it may have been obeyed, and the camera is not well: an error it is."""
    command = next(command for command in p.COMMANDS.values() if command.name == name)
    assert command.kind is Kind.SETTING
    with bench() as b:
        for step in ("the answer, which is lost", "the command, which is lost"):
            b.forget()
            trip(b, step, command)
            SETTINGS[name](b)
            assert len(b.sent(command)) == 2
            assert len(set(b.sent(command))) == 1
        for fault, error in (
            ("silence", TimedOut),
            ("wrong-echo", ProtocolError),
            ("short-answer", TimedOut),
        ):
            b.forget()
            b.fault(f"{fault}:command={name}")
            with pytest.raises(error):
                SETTINGS[name](b)
            assert len(b.sent(command)) == 1
        SETTINGS[name](b)


def test_every_command_has_the_right_kind() -> None:
    """What starts something, or hands data over, is an order: sent twice, it could be done twice."""
    orders = {command.name for command in p.COMMANDS.values() if command.kind is Kind.ORDER}
    assert orders == {
        *("StartExposure", "StartExposureEx", "HSRExposure", "TransferImage", "GetAutoZero"),
        *("SetFilterWheel", "ActivateRelay"),
    }
    questions = {command.name for command in p.COMMANDS.values() if command.kind is Kind.QUESTION}
    assert all(name.startswith(("Get", "Is", "Can")) for name in questions - {"Init", "BurstBlock"})


def test_failed_transfers_and_silence_are_counted_apart() -> None:
    """A bad cable does not use up the patience with the camera."""
    with bench() as b:
        b.forget()
        b.channel.trips.append(Trip("write", failed_transfer, times=2, only=p.GET_SET_POINT.code))
        b.fault("silence:command=GetSetPoint,times=2")
        assert b.camera.set_point() == -10.0
        assert len(b.sent(p.GET_SET_POINT)) == 5


# --- orders: what became of them ---


@STEP
@pytest.mark.parametrize("model", ["683wsg", "583wsg"])
def test_an_exposure_is_started_once(step: str, model: str) -> None:
    with bench(model) as b:
        command = p.START_EXPOSURE_EX if model == "683wsg" else p.START_EXPOSURE
        geometry = b.window()
        trip(b, step, command)
        b.camera.start_exposure(Exposure(0.5, geometry))
        image = b.finish(geometry)
        assert len(b.events("expose")) == 1
        assert (image.pixels == b.sensor_held()).all()


def test_an_exposure_that_may_have_waited_for_its_trigger_is_not_started_again() -> None:
    """What became of it nobody can say: the trigger may have come, and the image may be there."""
    with bench() as b:
        b.camera.set_trigger(TriggerMode.LONG_WAIT)
        for step in ("the command, which is lost", "the answer, which is lost"):
            b.forget()
            trip(b, step, p.START_EXPOSURE_EX)
            with pytest.raises(TransferFailed):
                b.camera.start_exposure(Exposure(0.1, b.window()))
            assert len(b.sent(p.START_EXPOSURE_EX)) == 1
            b.time.advance(5.0)  # until it would be armed
            b.camera.set_trigger(TriggerMode.OFF)
            b.camera.abort_exposure()
            b.camera.set_trigger(TriggerMode.LONG_WAIT)
        b.camera.set_trigger(TriggerMode.OFF)
        b.check_picture()


def test_an_order_that_was_lost_twice_is_an_error() -> None:
    with bench() as b:
        b.forget()
        trip(b, "the command, which is lost", p.START_EXPOSURE_EX, times=2)
        with pytest.raises(TransferFailed):
            b.camera.start_exposure(Exposure(0.1, b.window()))
        assert len(b.sent(p.START_EXPOSURE_EX)) == 2
        assert b.events("expose") == []
        b.check_picture()


@STEP
@pytest.mark.parametrize("there", [False, True], ids=["away", "there already"])
@pytest.mark.parametrize("strange", [(), ("wheel-answers-at-once",)], ids=["after the move", "at once"])
def test_a_filter_wheel_is_sent_off_once(step: str, there: bool, strange: tuple[str, ...]) -> None:
    with bench(strange=strange) as b:
        wheel, target = b.camera.wheel, 0 if there else 3
        assert wheel is not None
        trip(b, step, p.SET_FILTER_WHEEL)
        wheel.move(target)
        while wheel.moving():
            b.time.advance(0.5)
        assert wheel.position() == target
        assert len(b.events("filter")) <= 1


@STEP
def test_a_pulse_is_given_once(step: str) -> None:
    with bench() as b:
        relays = b.camera.relays
        assert relays is not None
        trip(b, step, p.ACTIVATE_RELAY)
        relays.pulse(Direction.WEST, 20.0)
        assert not relays.done()
        assert len(b.events("relay")) == 1


def test_a_pulse_that_may_be_over_is_not_given_again() -> None:
    """It was lost or it is over, and nothing can tell: twice the pulse would be worse than none."""
    with Clock(), bench() as b:
        relays = b.camera.relays
        assert relays is not None
        b.forget()

        def late() -> TransferFailed:
            time.sleep(1.0)  # longer than the pulse
            return failed_transfer()

        b.channel.trips.append(Trip("write", late, only=p.ACTIVATE_RELAY.code))
        with pytest.raises(TransferFailed):
            relays.pulse(Direction.WEST, 0.5)
        assert len(b.sent(p.ACTIVATE_RELAY)) == 1


@pytest.mark.parametrize("outcome", [True, False, None])
def test_what_became_of_an_order_decides(outcome: bool | None) -> None:
    with bench() as b:
        b.forget()
        asked = []

        def carried_out() -> bool | None:
            asked.append(len(b.sent(p.SET_FILTER_WHEEL)))
            return outcome

        trip(b, "the answer, which is lost", p.SET_FILTER_WHEEL)
        link = b.camera._link
        if outcome is None:
            with pytest.raises(TransferFailed):
                link.order(p.SET_FILTER_WHEEL, p.Byte(1), carried_out)
        else:
            link.order(p.SET_FILTER_WHEEL, p.Byte(1), carried_out)
        assert asked == [1]
        assert len(b.sent(p.SET_FILTER_WHEEL)) == (2 if outcome is False else 1)


@pytest.mark.parametrize("fault", ["silence", "wrong-echo", "short-answer", "device-error"])
def test_an_order_that_did_not_fail_on_the_way_is_not_looked_after(fault: str) -> None:
    """A garbled answer or none says that the camera, and not the answer, went wrong."""
    with bench() as b:
        b.forget()
        b.fault(f"{fault}:command=SetFilterWheel")

        def carried_out() -> bool:
            raise AssertionError

        with pytest.raises(QsiError):
            b.camera._link.order(p.SET_FILTER_WHEEL, p.Byte(1), carried_out)
        assert len(b.sent(p.SET_FILTER_WHEEL)) == 1


# --- images ---


@pytest.mark.parametrize(
    "made",
    [
        Trip("write", failed_transfer, only=p.TRANSFER_IMAGE.code),
        Trip("read", failed_transfer, only=p.TRANSFER_IMAGE.code),
        Trip("read", failed_transfer, nth=3, only=p.TRANSFER_IMAGE.code),
        Trip("read", failed_transfer, nth=1, only=p.GET_AUTO_ZERO.code),
        Trip("read", failed_transfer, nth=3, reached=True, only=p.GET_AUTO_ZERO.code),
    ],
    ids=["asking", "the answer", "the pixels", "the overscan's answer", "the overscan"],
)
def test_an_image_that_breaks_ends_its_exposure_and_no_more(made: Trip) -> None:
    with bench() as b:
        geometry = b.window()
        b.camera.start_exposure(Exposure(0.05, geometry))
        b.channel.trips.append(Trip(made.call, failed_transfer, made.nth, 1, made.reached, made.only))
        with pytest.raises(TransferFailed):
            b.finish(geometry)
        assert not b.camera.image_ready()
        b.check_picture()


# --- the control requests of a channel ---


def test_a_chip_that_cannot_be_set_up_again_costs_a_line(caplog: pytest.LogCaptureFixture) -> None:
    with bench() as b:
        b.fault("silence:times=1")
        b.channel.trips.append(Trip("control", failed_transfer))
        assert b.camera.set_point() == -10.0
        assert "the USB chip could not be set up again" in caplog.text
        b.fault("silence:times=1")
        b.channel.trips.append(Trip("control", lambda: Disconnected("The camera left the USB")))
        with pytest.raises(Disconnected):
            b.camera.set_point()


@pytest.mark.parametrize("call", ["write", "read", "look", "control"])
def test_a_camera_that_left_is_not_asked_again(call: str) -> None:
    with bench() as b:
        b.forget()
        if call == "control":
            b.fault("silence:times=1")
        b.channel.trips.append(Trip(call, lambda: Disconnected("The camera left the USB"), times=99))
        with pytest.raises(Disconnected):
            b.camera.set_point()
        assert len(b.channel.sent) <= 1


# --- the errnos of the USB ---

HARMLESS = [errno.EIO, errno.EPROTO, errno.EOVERFLOW, errno.EPIPE, None]
KINDS = ["write", "read"]


def calls(b: UsbBench) -> list[Callable[[], object]]:
    """A question, a setting and an order."""
    return [
        b.camera.set_point,
        lambda: b.camera.cool_to(-5.0),
        lambda: b.camera.start_exposure(Exposure(0.05, b.window())),
    ]


@pytest.mark.parametrize("number", HARMLESS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", range(3), ids=["question", "setting", "order"])
def test_one_failed_transfer_is_survived(number: int | None, kind: str, what: int) -> None:
    with clocked_bench() as b:
        session = Session(FAST)  # whether one failure changes it is part of the test
        b.connect(session=session)
        heard: list[str] = []
        b.simulated.events.listeners.append(lambda name, facts: heard.append(name))
        b.backend.failing.append((kind, number))
        calls(b)[what]()
        assert b.backend.failing == []
        if what == 2:
            b.finish(b.window())
            assert heard.count("expose") == 1
        b.check_picture()
        assert session.timing is FAST  # one is an accident


@pytest.mark.parametrize("number", HARMLESS)
def test_a_failed_transfer_names_its_errno(number: int | None) -> None:
    with clocked_bench() as b:
        b.connect()
        b.backend.failing.extend([("write", number)] * TRANSFER_ATTEMPTS)
        with pytest.raises(TransferFailed) as caught:
            b.camera.set_point()
        assert caught.value.number == number
        assert "A USB transfer failed" in str(caught.value)
        b.check_picture()


@pytest.mark.parametrize("number", HARMLESS)
def test_a_failed_request_to_the_chip_is_made_again(number: int | None) -> None:
    with clocked_bench() as b:
        b.connect(session=Session(FAST))  # so that there is another one to change to
        b.backend.failing.extend([("control", number)] * (ftdi.CONTROL_ATTEMPTS - 1))
        b.camera.use_timing(VENDOR)
        assert b.backend.failing == []
        assert (0x40, ftdi.SIO_SET_LATENCY, VENDOR.latency_ms, 1) in b.backend.requests
        b.backend.failing.extend([("control", number)] * ftdi.CONTROL_ATTEMPTS)
        with pytest.raises(TransferFailed):
            b.camera.use_timing(FAST)
        b.check_picture()


@pytest.mark.parametrize("number", [errno.ENODEV, errno.ESHUTDOWN])
@pytest.mark.parametrize("kind", KINDS)
def test_a_device_that_left_is_told_at_once(number: int, kind: str) -> None:
    with clocked_bench() as b:
        b.connect()
        before = b.backend.transfers
        b.backend.failing.append((kind, number))
        with pytest.raises(Disconnected, match="left the USB"):
            b.camera.set_point()
        assert b.backend.transfers - before < 10


def test_a_device_that_is_found_gone_while_recovering_has_left() -> None:
    """The transfer failed with EIO, and the next request shows why."""
    with clocked_bench() as b:
        b.connect()
        b.backend.failing.extend([("read", errno.EIO), ("control", errno.ENODEV)])
        with pytest.raises(Disconnected):
            b.camera.set_point()


def test_a_chip_that_forgot_its_settings_is_set_up_again() -> None:
    with clocked_bench() as b:
        b.connect()
        b.backend.requests.clear()
        b.backend.failing.append(("read", errno.EIO))
        b.camera.set_point()
        assert not [request for request in b.backend.requests if request[0] == 0x40]  # it still knew them
        b.simulated.device.reset_bus()
        b.backend.failing.append(("read", errno.EIO))
        b.camera.set_point()
        requests = {request for _, request, _, _ in b.backend.requests}
        assert {ftdi.SIO_SET_BIT_MODE, ftdi.SIO_SET_LATENCY, ftdi.SIO_SET_FLOW_CONTROL} <= requests
        b.check_picture()


def test_the_pause_after_a_failure_is_the_hubs() -> None:
    """A hub needs some time to notice that a cable was pulled: the device is asked behind it."""
    with clocked_bench() as b:
        b.connect()
        began = time.monotonic()
        b.backend.failing.append(("read", errno.EIO))
        b.camera.set_point()
        assert time.monotonic() - began >= ftdi.FAILURE_PAUSE


# --- one failure at every transfer there is ---


def fail_at(b: UsbBench, index: int) -> None:
    """The transfer with this number fails with EIO, whichever it is."""

    def fail() -> None:
        raise usb_failure(errno.EIO)

    b.backend.transfers, b.backend.unplug_at, b.backend.unplug = 0, index, fail


@pytest.mark.parametrize("model", ["683wsg", "583wsg"])
@pytest.mark.parametrize("timing", TIMINGS.values(), ids=lambda timing: timing.name)
def test_one_failure_at_any_transfer_of_connect_does_not_matter(model: str, timing: Timing) -> None:
    with clocked_bench(model) as b:
        discovery.cameras(b.backend)
        listing = b.backend.transfers  # a camera that does not say its name is another matter
        b.connect(cache=KNOWN, session=Session(timing))
        expected = b.camera.identity, b.camera.capabilities, b.camera.settings, b.camera.can_abort
        b.camera.close()
        # How many transfers there are depends on how often the chip had nothing to give.
        for index in itertools.count(listing + 1):
            fail_at(b, index)
            b.connect(cache=KNOWN, session=Session(timing))
            found = b.camera.identity, b.camera.capabilities, b.camera.settings, b.camera.can_abort
            assert found == expected, index
            b.camera.close()
            if b.backend.transfers < index:
                break
        assert index > 100


def test_one_failure_at_any_transfer_of_an_exposure_costs_that_one_at_most() -> None:
    """Never a wrong picture, never a camera that is lost, and never two exposures for one."""
    with clocked_bench() as b:
        b.connect()
        started: list[str] = []
        b.simulated.events.listeners.append(lambda name, facts: name == "expose" and started.append(name))
        outcomes = set()
        for index in range(1, 1000):
            started.clear()
            b.camera.use_timing(TIMING)  # many failures make it careful
            fail_at(b, index)
            try:
                b.check_picture()
                outcomes.add("taken")
            except TransferFailed:
                outcomes.add("failed")
            assert len(started) == 1, index
            reached = b.backend.transfers >= index
            b.backend.unplug_at = None
            if not reached:
                break
            b.check_picture()
        assert not reached, "there are more transfers than were tried"
        # Whether one of these failures hits the few transfers of the image is a matter of timing.
        assert "taken" in outcomes


# --- many failures: the link begins with the fast timing, because only that one can become more careful ---


@contextlib.contextmanager
def fast_bench(model: str = "683wsg") -> Iterator[Bench]:
    with bench(model, connect=False) as b:
        b.connect(timing=FAST)
        yield b


def test_three_link_errors_within_five_minutes_change_the_timing() -> None:
    with fast_bench() as b:
        heard: list[str] = []
        b.camera.session.slowed = heard.append
        for number in range(1, CAREFUL_AFTER + 1):
            trip(b, "the answer, which is lost", p.GET_SET_POINT)
            b.camera.set_point()
            assert (b.camera.session.timing is VENDOR) == (number == CAREFUL_AFTER)
            time.sleep(CAREFUL_WITHIN / CAREFUL_AFTER)
        assert b.channel.timings == [VENDOR]
        assert len(heard) == 1 and "slower vendor timing" in heard[0]
        for _ in range(2 * CAREFUL_AFTER):  # it does not become more careful than that
            trip(b, "the answer, which is lost", p.GET_SET_POINT)
            b.camera.set_point()
        assert b.channel.timings == [VENDOR] and len(heard) == 1
        b.connect(timing=FAST)
        assert b.camera.session.timing is FAST


def test_seldom_errors_change_nothing() -> None:
    with fast_bench() as b:
        for _ in range(3 * CAREFUL_AFTER):
            trip(b, "the answer, which is lost", p.GET_SET_POINT)
            b.camera.set_point()
            time.sleep(CAREFUL_WITHIN / (CAREFUL_AFTER - 1) + 1.0)
        assert b.camera.session.timing is FAST and b.channel.timings == []


@pytest.mark.parametrize(
    ("fault", "count"), [("silence", 3), ("wrong-echo", 3), ("short-answer", 3), ("device-error:3", 0)]
)
def test_what_counts_as_an_error_of_the_link(fault: str, count: int) -> None:
    """A refusal comes over a link that is well."""
    with fast_bench() as b:
        name, _, argument = fault.partition(":")
        b.fault(f"{name}:{argument + ',' if argument else ''}command=GetSetPoint,times=3")
        with pytest.raises(QsiError):
            b.camera.set_point()
        assert (b.camera.session.timing is VENDOR) == (count >= CAREFUL_AFTER)


def test_a_probe_without_an_answer_is_no_error_of_the_link() -> None:
    with bench("583wsg", connect=False) as b:  # it leaves three of them unanswered, at each connect
        for _ in range(3):
            b.connect(timing=FAST)
            assert b.camera.session.timing is FAST
        assert b.camera.wheel is not None
        b.fault("silence:command=SetFilterTrim,times=0")
        b.fault("silence:command=GetTemperatureEx,times=0")
        b.camera.wheel.has_trims()
        assert b.camera.session.timing is FAST


def test_a_timing_that_cannot_be_set_costs_a_line(caplog: pytest.LogCaptureFixture) -> None:
    with fast_bench() as b:
        b.channel.trips.append(Trip("control", failed_transfer))
        for _ in range(CAREFUL_AFTER):
            trip(b, "the answer, which is lost", p.GET_SET_POINT)
            assert b.camera.set_point() == -10.0
        assert b.camera.session.timing is VENDOR
        assert "A USB transfer failed (test)" in caplog.text


def test_errors_on_a_usb_change_latency_and_reads() -> None:
    with clocked_bench() as b:
        b.connect(session=Session(FAST))
        b.backend.requests.clear()
        for _ in range(CAREFUL_AFTER):
            b.backend.failing.append(("read", errno.EIO))
            b.camera.set_point()
        assert (0x40, ftdi.SIO_SET_LATENCY, VENDOR.latency_ms, 1) in b.backend.requests
        b.backend.reads.clear()
        b.check_picture()
        assert set(b.backend.reads) == {ftdi.SMALL_BLOCK}


# --- a wish to stop ---


def test_nothing_is_sent_again_to_a_camera_that_shall_be_left() -> None:
    with bench() as b:
        b.forget()
        b.channel.trips.append(Trip("read", Interrupted, times=99))
        with pytest.raises(Interrupted):
            b.camera.set_point()
        assert len(b.channel.sent) == 1
        b.channel.trips.clear()
        assert b.camera.state().state == p.CameraState.IDLE  # the answer that was not waited for is dropped


def test_every_step_that_is_named_here_happens() -> None:
    """Otherwise the tests above would pass without a failure."""
    for step in STEPS:
        with bench() as b:
            trip(b, step, p.GET_SET_POINT)
            b.camera.set_point()
            assert all(made.times == 0 for made in b.channel.trips), step
