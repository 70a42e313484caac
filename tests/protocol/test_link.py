# SPDX-License-Identifier: LGPL-2.1-or-later
"""One exchange at a time: silence, nonsense, refusals and left-overs end in an error that says what happened.

Never in a crash, and never later than promised.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.faults.clock import Clock
from tests.protocol.bench import KNOWN, TIMING, ScriptedChannel, bench, script, scripted, usb_bench
from usbproto import link
from usbproto import packets as p
from usbproto.camera import Camera, Exposure
from usbproto.deadline import Deadline
from usbproto.errors import (
    DEVICE_ERRORS,
    Disconnected,
    LinkError,
    NotSupported,
    ProtocolError,
    QsiError,
    Refused,
    TimedOut,
)
from usbproto.link import ATTEMPTS, DRAIN_LIMIT, STALL_LIMIT, Link, WrongThread
from usbproto.models import POWER_UP_TIME, SERIES_500, SERIES_600
from usbproto.packets import ReplyTime
from usbproto.relays import Direction
from usbproto.session import Session
from usbproto.simulator.flash import Target
from usbproto.takeover import POWERED_UP
from usbproto.timing import VENDOR

# --- the longest that one exchange may take ---


def longest(command: p.Command[Any, Any]) -> float:
    attempts = ATTEMPTS if command.kind is p.Kind.QUESTION else 1
    return attempts * (command.reply_time.value + DRAIN_LIMIT + 1.0)


CONNECT_LIMIT = 33 * ATTEMPTS * ReplyTime.NORMAL.value


@pytest.fixture(autouse=True)
def clock() -> Iterator[None]:
    """A camera whose state is garbage may be busy for a while: that it is waited for costs nothing."""
    with Clock():
        yield


# --- every answer of a healthy camera, to be replaced one at a time ---


SENT, HEALTHY = script()


def connect_and_expose(channel: ScriptedChannel) -> None:
    camera = Camera(channel, SERIES_600, "00683001", session=Session(TIMING))
    geometry = camera.array.fit(0, 0, 16, 12)
    camera.start_exposure(Exposure(0.05, geometry))
    camera.image_ready()
    camera.read_image(memoryview(bytearray(geometry.bytes)))
    _ = camera.electrons_per_adu, camera.min_exposure, camera.identity.model, camera.sensor, camera.available
    camera.temperatures()


def test_the_script_is_a_healthy_camera() -> None:
    channel = ScriptedChannel(HEALTHY)
    connect_and_expose(channel)
    assert set(SENT) <= set(channel.sent)


KINDS = {packet[0]: packet for packet in SENT}


@pytest.mark.parametrize("code", KINDS, ids=lambda code: p.COMMANDS[code].name)
@settings(max_examples=12, deadline=None)
@given(garbage=st.binary(max_size=140), keep=st.integers(0, 3))
def test_garbage_at_any_step_is_an_error_in_time(code: int, garbage: bytes, keep: int) -> None:
    """Also garbage behind the beginning of the right answer."""

    def answer(packet: bytes) -> bytes:
        healthy = HEALTHY(packet)
        return healthy[:keep] + garbage if packet[0] == code else healthy

    channel = ScriptedChannel(answer)
    try:
        connect_and_expose(channel)
    except QsiError as error:
        assert str(error)
    assert channel.time < CONNECT_LIMIT


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=60))
def test_nothing_but_garbage(answers: list[bytes]) -> None:
    rest = list(answers)
    channel = ScriptedChannel(lambda packet: rest.pop(0) if rest else b"")
    with pytest.raises(QsiError):
        connect_and_expose(channel)
    assert channel.time < CONNECT_LIMIT
    assert channel.closed == 1


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_answers_of_the_right_form_with_any_content(data: st.DataObject) -> None:
    """Echo and length are right, the content is anything."""

    def answer(packet: bytes) -> bytes:
        command = p.COMMANDS[packet[0]]
        size = command.response.size() or (1 if command.response is p.Burst else 0)
        payload = data.draw(st.binary(min_size=size, max_size=size))
        tail = b"" if not command.data_follows else bytes(16 * 12 * 2)
        return bytes((packet[0], size + 1)) + payload + b"\0" + tail

    channel = ScriptedChannel(answer)
    try:
        connect_and_expose(channel)
    except QsiError as error:
        assert str(error)


def test_a_gain_without_a_name_is_no_crash() -> None:
    def answer(packet: bytes) -> bytes:
        healthy = HEALTHY(packet)
        if packet[0] == p.GET_DEFAULT_SETTINGS.code:
            return healthy[:9] + b"\x07" + healthy[10:]
        if packet[0] == p.GET_DEVICE_DETAILS.code:
            return healthy[:23] + b"583" + healthy[26:]
        return healthy if packet[0] != p.SET_SETTINGS.code else bytes.fromhex("4d0100")

    _, camera = scripted(answer, SERIES_500)
    assert camera.settings.gain == 7
    assert camera.electrons_per_adu == 0.5


def without(first: int, count: int) -> Callable[[bytes], bytes]:
    """A healthy camera that has zeros in these places of its details."""

    def answer(packet: bytes) -> bytes:
        healthy = HEALTHY(packet)
        if packet[0] != p.GET_DEVICE_DETAILS.code:
            return healthy
        return healthy[:first] + bytes(count) + healthy[first + count :]

    return answer


@pytest.mark.parametrize("first", [7, 9], ids=["columns", "rows"])
def test_a_sensor_of_nothing_is_refused(first: int) -> None:
    with pytest.raises(ProtocolError, match="describes a sensor of"):
        scripted(without(first, 2))


@pytest.mark.parametrize("first", [15, 16], ids=["x", "y"])
def test_a_camera_that_gives_no_binning_has_none(first: int) -> None:
    _, camera = scripted(without(first, 1))
    assert (camera.array.max_bin_x, camera.array.max_bin_y)[first - 15] == 1
    assert camera.session.oddities["binning"] == 1
    camera.array.fit(0, 0, 16, 12)


def test_a_camera_that_never_stops_sending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "DRAIN_LIMIT", 0.05)
    channel = ScriptedChannel(HEALTHY, babble=True)
    with pytest.raises(ProtocolError):
        Camera(channel, SERIES_600, session=Session(TIMING))
    wire = Link(ScriptedChannel(HEALTHY, babble=True), Session(TIMING))
    with pytest.raises(ProtocolError, match="does not stop sending"):
        wire.drain()


# --- silence ---


def test_a_question_is_asked_again_and_an_order_is_not() -> None:
    with bench() as b:
        b.forget()
        b.fault("silence:times=2")
        assert b.camera.set_point() == -10.0
        assert len(b.sent(p.GET_SET_POINT)) == 3
        b.fault("silence:times=1")
        with pytest.raises(TimedOut, match="SetTemperature"):
            b.camera.cool_to(-5.0)
        assert len(b.sent(p.SET_TEMPERATURE)) == 1
        assert b.camera.set_point() == -5.0  # it had been obeyed


def test_after_a_time_out_the_chip_is_set_up_again_and_the_camera_is_in_doubt() -> None:
    with bench() as b:
        assert not b.camera.silent and not b.camera.doubtful
        b.fault("silence:times=2")
        b.camera.set_point()
        assert b.channel.restarts == 2
        assert b.camera.doubtful and not b.camera.silent  # it may have started anew meanwhile
        b.camera.trust()
        b.fault("silence:times=3")
        with pytest.raises(TimedOut):
            b.camera.set_point()
        assert b.camera.silent
        b.camera.set_point()
        assert not b.camera.silent


def test_a_camera_that_refuses_is_not_silent() -> None:
    """Its answer carries a device error, and is an answer."""
    with bench() as b:
        b.fault("silence:command=GetSetPoint,times=3")
        with pytest.raises(TimedOut):
            b.camera.set_point()
        assert b.camera.silent
        b.fault("device-error:3,command=GetSetPoint")
        with pytest.raises(Refused):
            b.camera.set_point()
        assert not b.camera.silent


def test_a_probe_without_an_answer_says_nothing_about_the_link() -> None:
    with bench("583wsg") as b:  # it leaves three of them unanswered
        assert b.channel.restarts == 0
        assert not b.camera.silent and not b.camera.doubtful


def test_the_error_state_is_left_by_initialising() -> None:
    with bench() as b:
        b.fault("error-state")
        b.time.advance(0.1)
        assert b.camera.state().state == p.CameraState.ERROR
        b.forget()
        b.camera.initialise()
        assert b.camera.state().state == p.CameraState.IDLE
        assert len(b.sent(p.SET_SETTINGS)) == 1
        b.take()
        b.check_picture()


PHASES = {
    "Init": "initialising",
    "StartExposureEx": "flush and start of the exposure",
    "TransferImage": "asking for the image",
    "GetAutoZero": "asking for the overscan",
    "SetFilterWheel": "starting the filter wheel",
    "GetDeviceState": "GetDeviceState",
    "SetTemperature": "SetTemperature",
    "ActivateRelay": "ActivateRelay",
}


@pytest.mark.parametrize(("name", "phase"), PHASES.items())
def test_a_time_out_names_its_phase_and_the_next_exposure_works(name: str, phase: str) -> None:
    command = next(command for command in p.COMMANDS.values() if command.name == name)
    with bench() as b:
        times = ATTEMPTS + (name == "Init")  # the first Init is for a camera that is powering up
        b.fault(f"silence:command={name},times={times}")
        begun = b.time.now()
        with pytest.raises(TimedOut, match=f"did not answer within .* during {phase}") as caught:
            if name == "Init":
                b.connect()
            b.take()
            assert b.camera.wheel is not None
            b.camera.wheel.move(2)
            b.camera.cool_to(-1.0)
            assert b.camera.relays is not None
            b.camera.relays.pulse(Direction.EAST, 0.1)
        assert caught.value.phase == phase
        assert caught.value.seconds == command.reply_time.value
        assert "power the camera off and on" in caught.value.explain()
        assert b.time.now() - begun < longest(command) + 30
        b.simulated.firmware.tampering.clear()
        b.connect()
        b.check_picture()


def test_an_image_that_stalls_says_how_far_it_came() -> None:
    with bench() as b:
        b.fault("short-image:84")
        with pytest.raises(TimedOut) as caught:
            b.take()
        assert caught.value.phase == "the image transfer (300 of 384 bytes)"
        assert caught.value.seconds == STALL_LIMIT
        b.check_picture()


def test_an_image_may_pause() -> None:
    with bench() as b:
        b.fault("image-pause:4")
        b.check_picture()


# --- nonsense ---


@pytest.mark.parametrize(
    "fault",
    ["wrong-echo", "wrong-length", "short-answer", "garbage-before", "duplicate-answer", "long-answer"],
)
def test_a_question_survives_nonsense(fault: str) -> None:
    with bench() as b:
        b.fault(f"{fault}:command=GetSetPoint")
        assert b.camera.set_point() == -10.0
        b.check_picture()


def test_a_wrong_length_of_an_answer_is_an_error() -> None:
    with bench() as b:
        b.answers(p.GET_SET_POINT, bytes.fromhex("51020000"), times=3)
        with pytest.raises(ProtocolError, match=r"2 payload bytes instead of 3 \(51020000\)"):
            b.camera.set_point()
        b.answers(p.GET_SET_POINT, bytes.fromhex("5100"), times=3)
        with pytest.raises(ProtocolError, match=r"0 payload bytes instead of 3 \(5100\)"):
            b.camera.set_point()
        assert b.camera.set_point() == -10.0


def test_stray_bytes_are_dropped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    with bench() as b, caplog.at_level(logging.WARNING):
        b.fault("unasked:5")
        b.camera.cool_to(-5.0)  # an order: it would not be repeated
        assert "Dropped 5 stray bytes" in caplog.text
        assert b.simulated.hardware.cooler.set_point == -5.0


@pytest.mark.parametrize("model", ["683wsg", "583wsg"])
def test_stray_bytes_in_a_real_chip_do_not_spoil_an_order(model: str) -> None:
    """The chip's next packet was made, empty, before they came."""
    with usb_bench(model) as b:
        b.connect(cache=KNOWN)
        for n in range(4):
            b.pass_time(0.002)
            b.simulated.faults.arm("unasked:5")
            b.camera.cool_to(-5.0 - n)
        assert b.simulated.hardware.cooler.set_point == -8.0


def test_a_late_answer_is_not_taken_for_another() -> None:
    with bench() as b:
        b.fault("late-answer:15.02,command=SetTemperature")
        with pytest.raises(TimedOut):
            b.camera.cool_to(-5.0)
        b.time.advance(1.0)
        assert b.camera.state().state == p.CameraState.IDLE
        b.fault("late-answer:15.02,command=GetDeviceState")
        assert b.camera.state().state == p.CameraState.IDLE
        b.check_picture()


# --- refusals ---


@pytest.mark.parametrize("code", [*DEVICE_ERRORS, 0x80, 0xFF])
def test_a_refusal_has_meaning_and_remedy(code: int) -> None:
    meaning, remedy = DEVICE_ERRORS.get(code, (f"device error {code}", "Power the camera off and on"))
    with bench() as b:
        b.fault(f"device-error:{code},command=StartExposureEx")
        with pytest.raises(Refused) as caught:
            b.take()
        assert (caught.value.code, caught.value.command) == (code, "StartExposureEx")
        assert meaning in str(caught.value)
        assert remedy in caught.value.explain()
        b.camera.abort_exposure()
        b.check_picture()


def test_a_refusal_is_not_asked_again() -> None:
    with bench() as b:
        b.forget()
        b.fault("device-error:3,command=GetSetPoint")
        with pytest.raises(Refused, match="supply voltage is too low"):
            b.camera.set_point()
        assert len(b.sent(p.GET_SET_POINT)) == 1


def test_real_refusals_of_parts() -> None:
    with bench() as b:
        assert b.camera.wheel is not None
        b.fault("wheel-jam")
        for position in (3, 1):  # it is said of the move that fails, and of each one after it
            with pytest.raises(Refused, match="filter wheel failed"):
                b.camera.wheel.move(position)
        b.fault("shutter-fail")
        with pytest.raises(Refused, match="shutter failed"):
            b.take()
        b.take()  # the camera goes on working without the shutter


# --- a program that was killed, and error states ---


def test_connecting_ends_an_exposure_that_was_left_running() -> None:
    with bench() as b:
        b.camera.start_exposure(Exposure(1000.0, b.window()))
        b.connect()
        assert b.events("abort") == [{"state": "EXPOSING"}]
        b.check_picture()


def test_connecting_leaves_a_moving_wheel_alone() -> None:
    with bench() as b:
        assert b.camera.wheel is not None
        b.camera.wheel.move(2)
        b.connect()
        assert b.sent(p.ABORT_EXPOSURE) == []
        b.check_picture()


def test_a_camera_that_waits_for_a_trigger_is_told_to_stop_waiting() -> None:
    """Nothing else may be sent to it."""
    with bench() as b:
        waiting = p.encode_answer(
            p.GET_DEVICE_STATE, p.DeviceState(p.CameraState.WAITING_FOR_TRIGGER, False, False)
        )
        b.answers(p.GET_DEVICE_STATE, waiting)
        b.connect()
        assert [packet.hex() for packet in b.channel.sent[:3]] == ["4b00", "4200", "710100"]
        assert b.sent(p.ABORT_EXPOSURE) == []
        b.check_picture()


def test_the_error_state_ends_an_exposure() -> None:
    with bench() as b:
        geometry = b.window()
        b.camera.start_exposure(Exposure(1.0, geometry))
        b.fault("error-state")
        with pytest.raises(ProtocolError, match="error state"):
            b.finish(geometry)
        b.connect()
        b.check_picture()


@pytest.mark.parametrize("after", [0.0, 0.3, 1.02])
def test_abort_in_any_phase_leaves_the_camera_usable(after: float) -> None:
    with bench(readout=0.5) as b:
        b.camera.start_exposure(Exposure(0.5, b.window()))
        b.time.advance(after)
        b.camera.abort_exposure()
        assert not b.camera.image_ready()
        b.check_picture()
        b.camera.abort_exposure()  # harmless when nothing runs
        b.check_picture()


# --- the link itself ---


class Failing(ScriptedChannel):
    def __init__(self) -> None:
        super().__init__(HEALTHY)
        self.error: LinkError = Disconnected("gone")
        self.fails = False

    def read_into(self, target: memoryview, deadline: Deadline) -> int:
        if self.fails:
            raise self.error
        return super().read_into(target, deadline)


def test_a_question_is_not_repeated_to_a_camera_that_is_gone() -> None:
    channel = Failing()
    wire = Link(channel, Session(TIMING))
    channel.fails = True
    with pytest.raises(Disconnected):
        wire.exchange(p.INIT, p.Empty())
    assert len(channel.sent) == 1
    channel.error = ProtocolError("stalled")
    with pytest.raises(ProtocolError):
        wire.exchange(p.INIT, p.Empty())
    wire.close()
    assert channel.closed == 1


def test_a_failed_connect_closes_the_channel() -> None:
    channel = ScriptedChannel(lambda packet: b"")
    with pytest.raises(TimedOut, match="initialising"):
        Camera(channel, SERIES_600, session=Session(TIMING))
    assert channel.closed == 1
    assert len(channel.sent) == ATTEMPTS + 1
    # The vendor's patience, and before it the time of a power-up.
    waited = POWERED_UP + ATTEMPTS * ReplyTime.NORMAL.value
    assert waited <= channel.time < waited + ATTEMPTS + 1


def test_a_silent_camera_is_told_with_everything_that_may_help() -> None:
    with bench() as b:
        b.fault("hang")
        with pytest.raises(TimedOut, match="did not answer") as later:
            b.camera.state()
        assert "firmware" not in later.value.explain()
        with pytest.raises(TimedOut, match="did not answer") as first:
            b.connect()
        assert "Unplug it" in first.value.explain() and "qsi-firmware recover" in first.value.explain()
        assert {packet.hex() for packet in b.channel.sent} == {"4b00"}


def test_a_camera_in_its_loader_is_told_by_its_silence_alone() -> None:
    """An update was cut: Init and the state are answered, and that is all. It is sent what any camera is sent."""
    with bench(connect=False) as b:
        b.simulated.hardware.flash.regions[Target.FIRMWARE].erase()
        b.simulated.power_off()
        b.simulated.power_on()
        b.time.advance(POWER_UP_TIME)
        assert b.simulated.firmware.loader.active
        with pytest.raises(TimedOut, match="did not answer") as caught:
            b.connect()
        assert "qsi-firmware recover" in caught.value.explain()
        # It says that it is busy, which may pass: it is asked again until that has taken too long.
        sent = [packet.hex() for packet in b.channel.sent]
        assert [packet for packet, _ in itertools.groupby(sent)] == ["4b00", "4200", "44020000"]
        assert sent.count("44020000") == 1
        assert b.channel.closed == 1


def test_a_camera_that_was_just_switched_on_is_waited_for() -> None:
    with bench(connect=False, starting=True) as b:
        b.connect()
        b.check_picture()


@pytest.mark.parametrize("count", [1, 100, 124])
def test_link_test(count: int) -> None:
    with bench() as b:
        b.camera.test_link(count)
        assert b.sent(p.BURST_BLOCK)[-1] == bytes((0x65, 1, count))


def test_link_test_finds_a_bad_link() -> None:
    with bench() as b:
        b.fault("wrong-burst")
        with pytest.raises(ProtocolError, match="link test of 100 bytes"):
            b.camera.test_link(100)
        for count in (0, 125, 255):
            with pytest.raises(QsiError, match=r"outside 1\.\.124"):
                b.camera.test_link(count)


def test_what_the_camera_cannot_do_is_said() -> None:
    with bench("683wsg", connect=False) as b:
        details = p.decode_answer(p.GET_DEVICE_DETAILS, HEALTHY(bytes.fromhex("4100")))
        bare = replace(details, has_temperature_regulation=False, has_relays=False)
        b.answers(p.GET_DEVICE_DETAILS, p.encode_answer(p.GET_DEVICE_DETAILS, bare))
        b.connect()
        with pytest.raises(NotSupported, match="cannot regulate"):
            b.camera.cool_to(-5.0)
        assert b.camera.relays is None
        with pytest.raises(NotSupported, match="no guide port"):
            b.camera.alt_modes.shutter_output(True)


# --- the thread of a link ---


def in_another_thread(work: Callable[[Link], object], wire: Link) -> BaseException | None:
    """What `work` raises there."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work(wire)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, name="stranger")
    thread.start()
    thread.join()
    return raised[0] if raised else None


# Every public method of a link that uses the channel.
USES: dict[str, Callable[[Link], object]] = {
    "exchange": lambda wire: wire.exchange(p.GET_DEVICE_STATE, p.Empty()),
    "order": lambda wire: wire.order(p.ABORT_EXPOSURE, p.Abort(), lambda: True),
    "use_timing": lambda wire: wire.use_timing(VENDOR),
    "read_data": lambda wire: wire.read_data(memoryview(bytearray(4)), "test"),
    "left_over": lambda wire: wire.left_over(),
    "expect_silence": lambda wire: wire.expect_silence("test"),
    "drop_rest": lambda wire: wire.drop_rest(),
    "drain": lambda wire: wire.drain(),
    "close": lambda wire: wire.close(),
}
# Those that do not use it, and `optional`, which runs what its caller gives it.
HARMLESS = {"optional", "silent"}


def test_every_method_of_a_link_is_tried() -> None:
    assert {name for name in vars(Link) if not name.startswith("_")} == USES.keys() | HARMLESS


@pytest.mark.parametrize("use", USES)
def test_a_link_refuses_every_other_thread(use: str) -> None:
    channel = ScriptedChannel(HEALTHY)
    wire = Link(channel, Session(TIMING))
    error = in_another_thread(USES[use], wire)
    assert isinstance(error, WrongThread) and not isinstance(error, QsiError)
    assert "'stranger'" in str(error) and f"'{threading.current_thread().name}'" in str(error)
    assert not channel.sent and not channel.closed and not hasattr(channel, "timing")
    assert wire.session.timing is TIMING
    wire.exchange(p.GET_DEVICE_STATE, p.Empty())  # it still works in its own thread
    assert not wire.silent


def test_a_thread_with_the_number_of_one_that_ended_is_another_thread() -> None:
    """The system uses the numbers of threads that have ended again."""
    made: list[Link] = []
    maker = threading.Thread(target=lambda: made.append(Link(ScriptedChannel(HEALTHY), Session(TIMING))))
    maker.start()
    maker.join()
    for _ in range(3):
        assert isinstance(in_another_thread(USES["exchange"], made[0]), WrongThread)


def test_a_camera_belongs_to_the_thread_of_its_link() -> None:
    with bench() as b:
        assert isinstance(in_another_thread(lambda _: b.camera.temperatures(), b.camera._link), WrongThread)
        assert isinstance(in_another_thread(lambda _: b.camera.close(), b.camera._link), WrongThread)
        b.check_picture()
