# SPDX-License-Identifier: LGPL-2.1-or-later
"""When an image is ready, when a camera takes the next exposure, and what is sent for it (sections 3.3 and 8)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.clock import Clock
from tests.protocol.bench import Bench, bench, clocked_bench
from usbproto import packets as p
from usbproto.camera import IDLE_DOUBT, Exposure
from usbproto.errors import Interrupted, ProtocolError
from usbproto.packets import CameraState
from usbproto.session import Session
from usbproto.simulator.bodies import list_models
from usbproto.takeover import SETTLE_INTERVAL, SETTLE_LIMIT
from usbproto.timing import FAST, VENDOR


@pytest.fixture(autouse=True)
def clock() -> Iterator[Clock]:
    """The driver's waiting costs nothing."""
    with Clock() as made:
        yield made


def states(b: Bench, *them: CameraState) -> None:
    """What the camera says next that it is doing, whatever it does."""
    left = list(them)

    def tamper(reply: Any) -> None:
        if reply.command is p.GET_DEVICE_STATE and left:
            reply.packet = p.encode_answer(p.GET_DEVICE_STATE, p.DeviceState(left.pop(0), False, False))

    b.simulated.firmware.tampering.append(tamper)


IDLE, BUSY, EXPOSING = CameraState.IDLE, CameraState.FLUSHING, CameraState.EXPOSING

# --- idle must be earned ---


@pytest.mark.parametrize("duration", [0.0, 0.05, 2.0, 100.0])
def test_idle_is_not_believed_before_the_exposure_can_be_over(duration: float, clock: Clock) -> None:
    """A camera may be idle for a moment after the start: an old image is not the new one."""
    with bench() as b:
        b.camera.start_exposure(Exposure(duration, b.window()))
        started = clock.monotonic()
        states(b, *[IDLE] * 1000)
        seen = []
        while not b.camera.image_ready():
            assert not b.camera.left_idle
            seen.append(clock.monotonic() - started)
            time.sleep((duration + IDLE_DOUBT) / 20)
        assert len(seen) >= 10
        assert clock.monotonic() - started >= duration + IDLE_DOUBT
        assert b.camera.left_idle


@pytest.mark.parametrize("state", [BUSY, EXPOSING, CameraState.READING, CameraState.FILTER_MOVING])
def test_idle_is_believed_as_soon_as_the_camera_was_seen_at_work(state: CameraState) -> None:
    with bench() as b:
        b.camera.start_exposure(Exposure(1000.0, b.window()))
        states(b, IDLE, state, IDLE)
        assert [b.camera.image_ready() for _ in range(3)] == [False, False, True]


def test_a_state_that_was_asked_in_between_counts() -> None:
    """By the program, which shows it."""
    with bench() as b:
        b.camera.start_exposure(Exposure(1000.0, b.window()))
        states(b, EXPOSING, IDLE)
        assert b.camera.state().state == EXPOSING
        assert b.camera.left_idle
        assert b.camera.image_ready()


def test_each_exposure_must_earn_its_own() -> None:
    with bench() as b:
        b.camera.start_exposure(Exposure(0.0, b.window()))
        states(b, EXPOSING, IDLE)
        assert [b.camera.image_ready() for _ in range(2)] == [False, True]
        b.time.advance(5.0)
        b.camera.start_exposure(Exposure(1000.0, b.window()))
        states(b, IDLE)
        assert not b.camera.image_ready()


def test_idle_without_an_exposure_is_no_image() -> None:
    with bench() as b:
        time.sleep(10.0)
        assert not b.camera.image_ready()
        b.take()
        assert not b.camera.image_ready()


def test_the_error_state_ends_an_exposure_at_once() -> None:
    with bench() as b:
        b.camera.start_exposure(Exposure(1000.0, b.window()))
        states(b, CameraState.ERROR)
        with pytest.raises(ProtocolError, match="error state"):
            b.camera.image_ready()


def test_a_bias_behind_a_real_chip_is_the_new_one() -> None:
    """It is over before its state can be asked for."""
    with clocked_bench(readout=0.0) as b:
        b.connect()
        for _ in range(5):
            b.take(seconds=0.0, light=False)
            b.check_picture()


# --- after an abort ---


def sent_between(b: Bench) -> list[str]:
    return [p.COMMANDS[packet[0]].name for packet in b.channel.sent]


def test_without_an_abort_a_start_asks_nothing() -> None:
    with bench() as b:
        b.forget()
        b.camera.start_exposure(Exposure(0.1, b.window()))
        assert sent_between(b) == ["StartExposureEx"]


@pytest.mark.parametrize("busy", [0, 1, 7])
def test_a_start_after_an_abort_waits_until_the_camera_is_idle(busy: int, clock: Clock) -> None:
    with bench() as b:
        b.camera.start_exposure(Exposure(10.0, b.window()))
        b.camera.abort_exposure()
        b.forget()
        states(b, *[BUSY] * busy)
        begun = clock.monotonic()
        b.camera.start_exposure(Exposure(0.1, b.window()))
        assert sent_between(b) == ["GetDeviceState"] * (busy + 1) + ["StartExposureEx"]
        assert clock.monotonic() - begun >= busy * SETTLE_INTERVAL
        b.finish(b.window())
        b.forget()
        b.camera.start_exposure(Exposure(0.1, b.window()))
        assert sent_between(b) == ["StartExposureEx"]  # it was idle since


@pytest.mark.parametrize("state", [CameraState.FILTER_MOVING, CameraState.ERROR])
def test_a_state_that_does_not_come_of_the_abort_is_no_reason_to_wait(state: CameraState) -> None:
    with bench() as b:
        b.camera.abort_exposure()
        b.forget()
        states(b, state)
        b.camera.start_exposure(Exposure(0.1, b.window()))
        assert sent_between(b) == ["GetDeviceState", "StartExposureEx"]


def test_a_camera_that_stays_busy_after_an_abort_is_tried_all_the_same(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with bench() as b:
        b.camera.abort_exposure()
        states(b, *[BUSY] * 1000)
        begun = clock.monotonic()
        b.camera.start_exposure(Exposure(0.1, b.window()))
        assert clock.monotonic() - begun >= SETTLE_LIMIT
        assert "is not idle 15 s after an abort" in caplog.text
        b.simulated.firmware.tampering.clear()
        b.finish(b.window())


def test_a_connect_that_aborted_waits_too() -> None:
    with bench() as b:
        b.camera.start_exposure(Exposure(1000.0, b.window()))
        b.connect()
        assert b.sent(p.ABORT_EXPOSURE)
        b.forget()
        states(b, BUSY, BUSY)
        b.camera.start_exposure(Exposure(0.1, b.window()))
        assert sent_between(b) == ["GetDeviceState"] * 3 + ["StartExposureEx"]
        b.finish(b.window())


def test_waiting_after_an_abort_can_be_ended() -> None:
    with bench() as b:
        b.camera.abort_exposure()
        states(b, *[BUSY] * 1000)
        b.camera.session.stop.request()
        with pytest.raises(Interrupted):
            b.camera.start_exposure(Exposure(0.1, b.window()))
        assert b.events("expose") == []


# --- bodies without a shutter ---

BODIES = [name for name in list_models() if "-8" not in name and "c" not in name]


@pytest.mark.parametrize("model", BODIES)
@pytest.mark.parametrize("light", [True, False])
def test_a_body_without_a_shutter_is_told_to_open_it(model: str, light: bool) -> None:
    with bench(model) as b:
        b.take(seconds=0.5, light=light)
        starts = b.sent(p.START_EXPOSURE_EX) + b.sent(p.START_EXPOSURE)
        requests = [p.decode_request(packet)[1] for packet in starts]
        opened = [request.open_shutter for request in requests if not getattr(request, "probe", False)]
        assert opened == [light or not b.camera.details.has_shutter]


# --- what is estimated ---


def test_only_the_fast_timing_does_not_look_for_an_answer_for_a_while() -> None:
    """Flush and shutter take as long each time; with the vendor's timing nothing is taken for granted."""
    for timing, pauses in ((FAST, True), (VENDOR, False)):
        with clocked_bench() as b:
            session = Session(timing)
            b.connect(session=session)
            waited: list[float] = []
            pause = session.stop.pause

            def note(seconds: float, pause: object = pause, waited: list[float] = waited) -> None:
                waited.append(seconds)
                pause(seconds)  # type: ignore[operator]

            session.stop.pause = note  # type: ignore[method-assign]
            for _ in range(4):
                b.take(seconds=0.5)
            assert bool(waited) == pauses
