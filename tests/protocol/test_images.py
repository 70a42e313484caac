# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the host decodes is what the sensor held: every model, binning and window; and nothing else passes."""

from __future__ import annotations

import contextlib
import functools
import itertools
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.protocol.bench import KNOWN, Bench, bench, eventually, usb_bench
from usbproto import packets as p
from usbproto.camera import Exposure
from usbproto.errors import BadArgument, LinkError, NotSupported, ProtocolError, Refused, TimedOut
from usbproto.frames import OVERSCAN_USED, Array, Geometry, ZeroAdjustment, adjust_zero, zero_adjustment
from usbproto.simulator.bodies import list_models
from usbproto.simulator.darkroom import Frame

WIDEST = 24  # pixels of a test frame, either way


@pytest.fixture(scope="module")
def benches() -> Iterator[dict[str, Bench]]:
    """One connected camera a model, as they are asked for."""
    made: dict[str, Bench] = {}
    yield made
    for b in made.values():
        b.close()


@st.composite
def windows(draw: st.DrawFn, array: Array) -> tuple[int, int, int, int, int, int]:
    """Any binning of the camera, any place, small sizes; often at the far edges."""
    bin_y = draw(st.integers(1, array.max_bin_y))
    bin_x = bin_y
    if array.asymmetric_bin:
        bin_x = draw(st.integers(1, array.max_bin_x))
    elif bin_y == 2:
        bin_x = draw(st.sampled_from((1, 2)))

    def span(total: int, binning: int) -> tuple[int, int]:
        size = draw(st.integers(binning, WIDEST * binning))
        start = draw(st.one_of(st.integers(0, total - size), st.just(total - size)))
        return start, size

    x, width = span(array.columns, bin_x)
    y, height = span(array.rows, bin_y)
    return x, y, width, height, bin_x, bin_y


def last_frame(b: Bench) -> Frame:
    frame = b.simulated.firmware.imager.frame
    assert frame is not None
    return frame


@pytest.mark.parametrize("model", list_models())
def test_every_window_of_every_model_arrives(model: str, benches: dict[str, Bench]) -> None:
    b = benches.setdefault(model, Bench(model))

    @settings(max_examples=4, deadline=None)
    @given(windows(b.camera.array), st.booleans())
    def check(window: tuple[int, int, int, int, int, int], light: bool) -> None:
        geometry = b.camera.array.fit(*window)
        image = b.take(geometry, light=light)
        frame = last_frame(b)
        assert image.pixels.shape == geometry.shape == frame.pixels.shape
        np.testing.assert_array_equal(image.pixels, frame.pixels)
        assert image.adjustment == zero_adjustment(frame.overscan, frame.zero_level)
        assert image.zero_level == frame.zero_level
        # The camera read what was asked for, in unbinned pixels of the sensor.
        asked = b.events("expose")[-1]
        x, y, width, height, bin_x, bin_y = window
        assert (asked["bin_x"], asked["bin_y"]) == (bin_x, bin_y)
        assert x - bin_x < asked["x"] * bin_x <= x
        assert y - bin_y < asked["y"] * bin_y <= y
        assert width - bin_x < asked["columns"] * bin_x <= width
        assert height - bin_y < asked["rows"] * bin_y <= height
        b.happened.clear()
        b.forget()

    check()


def test_a_whole_frame_arrives() -> None:
    with bench("504i") as b:
        seen: list[int] = []
        geometry = b.window(*b.simulated.model.sensor.active)
        b.camera.start_exposure(Exposure(0.1, geometry))
        image = b.finish(geometry, seen.append)
        np.testing.assert_array_equal(image.pixels, b.sensor_held())
        assert seen[-1] == geometry.bytes
        assert seen == sorted(seen)


def test_auto_zero_brings_the_bias_to_the_zero_level() -> None:
    with bench("583ws") as b:
        image = b.take(b.window(64, 64), 0.0, light=False)
        assert abs(np.median(image.pixels) - 260) < 20
        adjusted = adjust_zero(image.pixels, image.adjustment)
        assert abs(np.median(adjusted) - image.zero_level) < 10
        assert image.zero_level == 200


def test_auto_zero_can_be_left_out() -> None:
    with bench() as b:
        b.camera.auto_zero = False
        image = b.check_picture()
        assert image.adjustment.offset == 0
        assert image.adjustment.mean is not None  # it is told all the same
        b.fault("overscan-level:20000")
        assert not b.take().adjustment.saturated
        b.camera.auto_zero = True
        b.fault("overscan-level:20000")
        assert b.take().adjustment.saturated


def test_without_overscan_there_is_no_adjustment() -> None:
    with bench() as b:
        b.answers(p.GET_AUTO_ZERO, bytes.fromhex("4e06000000000000"))
        image = b.take()
        assert image.adjustment.mean is None
        b.check_picture()


# --- pixel mask ---


@pytest.mark.parametrize(("binning", "x", "y"), [(1, 0, 0), (1, 90, 190), (2, 90, 190), (3, 91, 191)])
def test_masked_pixels_are_replaced_in_cut_and_binned_frames(binning: int, x: int, y: int) -> None:
    with bench() as b:
        bad = [(95, 196), (x, y), (3325, 2503)]
        b.camera.pixel_mask = tuple(bad)
        image = b.take(b.window(60, 45, x, y, binning))
        held = b.sensor_held().copy()
        for bad_x, bad_y in bad:
            column, row = bad_x // binning - x // binning, bad_y // binning - y // binning
            if 0 <= column < held.shape[1] and 0 <= row < held.shape[0]:
                held[row, column] = image.zero_level
        assert image.pixels[0, 0] == image.zero_level
        np.testing.assert_array_equal(image.pixels, held)


# --- overscan ---


@pytest.mark.parametrize("count", [OVERSCAN_USED, OVERSCAN_USED + 1, 65_535])
@pytest.mark.parametrize("sent", [True, False], ids=["sent", "not sent"])
def test_too_much_overscan_is_not_used(count: int, sent: bool, caplog: pytest.LogCaptureFixture) -> None:
    """The vendor reads none then; whether a camera sends it all the same is not known."""
    level = 300
    with bench() as b:

        def tamper(reply: Any) -> None:
            if reply.command is p.GET_AUTO_ZERO:
                reply.packet = p.encode_answer(p.GET_AUTO_ZERO, p.AutoZero(True, 200, count))
                reply.data = (
                    [np.full(count, level, "<u2").tobytes()] if sent or count <= OVERSCAN_USED else []
                )

        b.simulated.firmware.tampering.append(tamper)
        for _ in range(2):
            image = b.check_picture()  # the pixels are the sensor's, and the next exposure works
            if count <= OVERSCAN_USED:
                assert image.adjustment.mean == level
                assert "overscan" not in b.camera.session.oddities
            else:
                assert image.adjustment == ZeroAdjustment()
        assert caplog.text.count(f"announces {count} overscan pixels, over 8192") == (count > OVERSCAN_USED)
        assert "stray bytes" not in b.camera.session.oddities


# --- a byte too few, a byte too many ---


def offence(b: Bench, command: p.Command[Any, Any], at: float, extra: int) -> None:
    """One byte of the data behind the next answer is lost, or doubled: at this part of it."""

    def tamper(reply: Any) -> None:
        if reply.command is command:
            b.simulated.firmware.tampering.remove(tamper)
            data = b"".join(bytes(part) for part in reply.data)
            cut = min(int(at * len(data)), len(data) - 1)
            reply.data = [data[:cut] + (data[cut : cut + 1] * (1 + extra)) + data[cut + 1 :]]

    b.simulated.firmware.tampering.append(tamper)


@pytest.mark.parametrize("at", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("extra", [-1, 1])
@pytest.mark.parametrize("command", [p.TRANSFER_IMAGE, p.GET_AUTO_ZERO], ids=lambda c: c.name)
def test_one_byte_too_few_or_too_many_is_no_picture(
    command: p.Command[Any, Any], extra: int, at: float
) -> None:
    with bench() as b:
        offence(b, command, at, extra)
        with pytest.raises(ProtocolError if extra > 0 else TimedOut) as caught:
            b.take()
        assert "transfer" in str(caught.value)
        b.check_picture()


@pytest.mark.parametrize("at", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("extra", [-1, 1])
def test_nor_is_it_one_of_high_speed(extra: int, at: float) -> None:
    with bench("690ws") as b:
        geometry = b.window()
        offence(b, p.HSR_EXPOSURE, at, extra)
        with pytest.raises(ProtocolError if extra > 0 else TimedOut, match="transfer"):
            b.camera.expose_hsr(Exposure(0.1, geometry), memoryview(bytearray(geometry.bytes)))
        assert not b.simulated.firmware.commands.exposure.hsr_mode
        b.check_picture()


@pytest.mark.parametrize("fault", ["drop:1", "insert:00", "insert:a55a"])
def test_bytes_lost_or_added_in_the_chip_are_no_picture(fault: str) -> None:
    with usb_bench() as b:
        b.connect()
        geometry = b.window(64, 48)
        b.camera.start_exposure(Exposure(0.1, geometry))
        b.simulated.faults.arm(f"{fault.replace(':', '@transfer:')}")
        # A lost byte is waited for 15 s; here its place is taken by the next thing that the camera says.
        if fault.startswith("drop"):
            b.simulated.faults.arm("unasked@transfer+5:1")
        with pytest.raises(LinkError):
            b.finish(geometry)
        # On a busy machine the rest of what came unasked may disturb one more exposure.
        with contextlib.suppress(ProtocolError):
            b.check_picture(geometry)
        b.check_picture(geometry)


def test_the_camera_refuses_a_second_transfer() -> None:
    with bench() as b:
        b.fault("lost-image")
        with pytest.raises(Refused, match="TransferImage"):
            b.take()
        b.check_picture()


# --- pieces ---


@pytest.mark.parametrize("model", ["683wsg", "583wsg"])
def test_any_pieces_and_pauses_give_the_same_picture(model: str) -> None:
    """The chip cuts what the camera sends wherever its latency timer runs out."""
    dice = random.Random(1)
    with usb_bench(model) as b:
        b.connect(cache=KNOWN)

        def tamper(reply: Any) -> None:
            if reply.command not in (p.TRANSFER_IMAGE, p.GET_AUTO_ZERO):
                return
            whole = reply.packet + b"".join(bytes(part) for part in reply.data)
            reply.packet, reply.data = b"", []
            cuts = sorted(dice.randint(0, len(whole)) for _ in range(dice.randint(0, 6)))
            when = b.simulated.timeline.now()
            for start, end in itertools.pairwise([0, *cuts, len(whole)]):
                b.simulated.timeline.at(when, functools.partial(b.simulated.fifo.push, whole[start:end]))
                when += dice.choice((0.0, 0.02, 0.06, 0.2))  # up to 4 ms of real time

        b.simulated.firmware.tampering.append(tamper)
        for _ in range(12):
            b.check_picture(b.window(dice.randint(1, 80), dice.randint(1, 60)))


# --- misuse ---


def test_an_image_is_read_once_and_into_a_buffer_of_its_size() -> None:
    with bench() as b:
        with pytest.raises(BadArgument, match="no exposure was started"):
            b.camera.read_image(memoryview(bytearray(10)))
        geometry = b.window()
        b.camera.start_exposure(Exposure(0.05, geometry))
        b.time.advance(5.0)
        with pytest.raises(ProtocolError, match=r"10 bytes instead of 384 \(16 x 12 pixels\)"):
            b.camera.read_image(memoryview(bytearray(10)))
        # Nothing was asked of the camera: the picture is still there. Its state was never seen to change,
        # so it is believed only when the exposure must be over.
        eventually(b.camera.image_ready, "the image is ready")
        b.finish(geometry)
        assert not b.camera.image_ready()
        with pytest.raises(BadArgument):
            b.camera.read_image(memoryview(bytearray(geometry.bytes)))


def test_the_geometry_of_a_pending_image_is_that_of_its_start() -> None:
    with bench() as b:
        first = b.window(20, 10, 50, 60)
        b.camera.start_exposure(Exposure(0.05, first))
        b.time.advance(5.0)
        with pytest.raises(BadArgument):
            b.camera.array.fit(0, 0, 0, 0)
        assert b.finish(first).geometry == first


@pytest.mark.parametrize("seconds", [-1.0, 0.0299, 14_400.5, float("nan"), float("inf")])
def test_durations_out_of_range_are_refused_with_the_range(seconds: float) -> None:
    with bench() as b:
        b.forget()
        with pytest.raises(BadArgument, match=r"outside 0\.03\.\.14400 s"):
            b.camera.start_exposure(Exposure(seconds, b.window()))
        assert b.channel.sent == []
        b.check_picture()


@pytest.mark.parametrize(
    ("model", "seconds", "sent"),
    [
        ("683ws", 0.0, 0.0),
        ("683ws", 0.0301, 0.0301),
        ("683ws", 14_400.0, 14_400.0),
        ("583ws", 0.034, 0.03),
        ("583ws", 1.2345, 1.23),
        ("583ws", 0.036, 0.04),
        ("540i", 0.0001, 0.01),  # never a bias
    ],
)
def test_durations_as_they_are_sent(model: str, seconds: float, sent: float) -> None:
    with bench(model) as b:
        if model == "540i":
            b.answers(
                p.GET_CCD_SPECS, p.encode_answer(p.GET_CCD_SPECS, p.CcdSpecs(65535, 0.8, 400, 0, 14_400))
            )
            b.camera.apply_settings(b.camera.settings)
        b.camera.start_exposure(Exposure(seconds, b.window()))
        assert b.events("expose")[-1]["seconds"] == pytest.approx(sent)
        b.camera.abort_exposure()


# --- high speed readout ---


def test_high_speed_readout() -> None:
    with bench("690wsg") as b:
        geometry = b.window(40, 30, 10, 20)
        seen: list[int] = []
        image = b.camera.expose_hsr(
            Exposure(0.2, geometry), memoryview(bytearray(geometry.bytes)), seen.append
        )
        np.testing.assert_array_equal(image.pixels, b.sensor_held())
        assert image.adjustment == zero_adjustment(last_frame(b).overscan, image.zero_level)
        assert seen[-1] == geometry.bytes
        assert [packet.hex() for packet in b.sent(p.SET_HSR_MODE)] == ["5e01ff", "5e0100"]
        with pytest.raises(BadArgument, match="less than 5 s"):
            b.camera.expose_hsr(Exposure(5.0, geometry), memoryview(bytearray(geometry.bytes)))
        b.check_picture()


def test_high_speed_readout_that_is_not_answered_says_so() -> None:
    with bench("690wsg") as b:
        b.fault("silence:command=HSRExposure")
        with pytest.raises(TimedOut) as caught:
            b.camera.expose_hsr(Exposure(0.2, Geometry(0, 0, 4, 4)), memoryview(bytearray(32)))
        assert (caught.value.phase, caught.value.seconds) == ("high speed exposure", 5.0)
        assert b.sent(p.SET_HSR_MODE)[-1].hex() == "5e0100"
        b.check_picture()


@pytest.mark.parametrize("model", ["583wsg", "683wsg", "540ws"])
def test_no_high_speed_readout_on_other_models(model: str) -> None:
    with bench(model) as b:
        b.forget()
        with pytest.raises(NotSupported, match="no high speed"):
            b.camera.expose_hsr(Exposure(0.1, b.window()), memoryview(bytearray(384)))
        assert b.channel.sent == []
