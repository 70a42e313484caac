# SPDX-License-Identifier: LGPL-2.1-or-later
"""LINK_TIMING: chosen, kept by serial number, changed by link errors; and what a slow camera does to a client."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from indi_qsi.device.link_timing import VARIABLE
from tests.faults.clock import Clock
from tests.faults.rig import FRAME, Rig
from usbproto.link import STALL_LIMIT
from usbproto.session import KEPT_IN

FAST, VENDOR = "TIMING_FAST", "TIMING_VENDOR"
LATENCY = {FAST: 0.001, VENDOR: 0.016}  # s


@contextmanager
def rig(directory: Path, *strange: str, model: str = "683wsg") -> Iterator[Rig]:
    directory.mkdir(exist_ok=True)
    with Clock():
        one = Rig(directory, model, strange)
        try:
            yield one
        finally:
            one.close()


@pytest.fixture(autouse=True)
def no_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of whoever runs the tests."""
    monkeypatch.delenv(VARIABLE, raising=False)


def connect(one: Rig) -> str:
    """The state of CONNECTION; a small frame is chosen then."""
    state = one.connect()
    one.client.new("Number", "CCD_FRAME", X=0, Y=0, WIDTH=FRAME[0], HEIGHT=FRAME[1])
    return state


def timing(one: Rig) -> str:
    """What is shown, and what the chip has been told: they must be the same."""
    (shown,) = [name for name in LATENCY if one.client.value("LINK_TIMING", name) == "On"]
    assert one.camera.device._channels[0].latency == LATENCY[shown]
    return shown


def test_it_is_chosen_and_kept_by_serial_number(tmp_path: Path) -> None:
    with rig(tmp_path) as one:
        assert connect(one) == "Ok" and timing(one) == FAST
        one.choose("LINK_TIMING", VENDOR)
        assert timing(one) == VENDOR
        assert one.expose() == "Ok"
        assert one.disconnect() == "Idle" and connect(one) == "Ok" and timing(one) == VENDOR
    with rig(tmp_path) as again:  # another process
        assert connect(again) == "Ok" and timing(again) == VENDOR
        again.choose("LINK_TIMING", FAST)
        assert timing(again) == FAST
    with rig(tmp_path, model="583wsg") as other:  # another camera
        assert connect(other) == "Ok" and timing(other) == FAST


def test_the_environment_decides_for_all_cameras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "vendor")
    with rig(tmp_path) as one:
        assert connect(one) == "Ok" and timing(one) == VENDOR


def test_an_unknown_name_in_the_environment_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(VARIABLE, "quick")
    with rig(tmp_path) as one:
        assert connect(one) == "Ok" and timing(one) == FAST
    assert "INDI_QSI_TIMING=quick is not understood: valid are Fast, Vendor" in caplog.text


def test_a_change_waits_for_the_end_of_an_exposure(tmp_path: Path) -> None:
    with rig(tmp_path) as one:
        client = one.client
        assert connect(one) == "Ok"
        client.new("Number", "CCD_EXPOSURE", CCD_EXPOSURE_VALUE=5)
        client.wait(lambda: one.count("exposure_start"), "the exposure begins")
        client.new("Switch", "LINK_TIMING", **{VENDOR: "On"})
        assert client.state("LINK_TIMING") == "Busy" and client.state("CCD_EXPOSURE") == "Busy"
        assert client.settled("LINK_TIMING") == "Ok" and client.state("CCD_EXPOSURE") == "Ok"
        assert timing(one) == VENDOR


def test_link_errors_change_it_until_the_next_connect(tmp_path: Path) -> None:
    with rig(tmp_path) as one:
        client = one.client
        assert connect(one) == "Ok"
        client.forget()
        one.camera.strange.add("transfer-errors:20")
        client.wait(lambda: client.value("LINK_TIMING", VENDOR) == "On", "it changes by itself")
        (said,) = client.said("LINK_TIMING")
        assert "vendor timing until the next connect" in said and "cable" in said
        one.camera.strange.clear()
        assert timing(one) == VENDOR and one.expose() == "Ok"
        assert one.disconnect() == "Idle" and connect(one) == "Ok" and timing(one) == FAST


# --- patience, and its end ---


def test_a_slow_init_is_reported_and_a_disconnect_ends_the_wait(tmp_path: Path) -> None:
    with rig(tmp_path, "slow-init:40") as one:
        client = one.client
        client.new("Switch", "CONNECTION", CONNECT="On")
        client.wait(lambda: any("has not answered yet" in text for text in client.said()), "a message")
        client.new("Switch", "CONNECTION", DISCONNECT="On")
        asked = time.monotonic()  # on the clock that skips waiting
        assert client.settled("CONNECTION") == "Idle"
        assert time.monotonic() - asked < 1.0
        assert client.value("CONNECTION", "DISCONNECT") == "On"
        assert any("as requested" in text for text in client.said("CONNECTION"))
        one.camera.strange.clear()
        assert connect(one) == "Ok" and one.expose() == "Ok"


def test_a_camera_that_is_busy_at_connect_is_waited_for(tmp_path: Path) -> None:
    with rig(tmp_path, "state-at-connect:flushing,12") as one:
        client = one.client
        assert connect(one) == "Ok"
        assert any("waiting up to 15 s for it to be ready" in text for text in client.said())
        assert not one.count("abort")


def test_a_disconnect_ends_the_wait_for_a_busy_camera(tmp_path: Path) -> None:
    with rig(tmp_path, "state-at-connect:error,30") as one:
        client = one.client
        client.new("Switch", "CONNECTION", CONNECT="On")
        client.wait(lambda: any("for it to be ready" in text for text in client.said()), "a message")
        client.new("Switch", "CONNECTION", DISCONNECT="On")
        asked = time.monotonic()
        assert client.settled("CONNECTION") == "Idle" and time.monotonic() - asked < 1.0


def test_connect_may_be_asked_for_again_at_once(tmp_path: Path) -> None:
    with rig(tmp_path, "slow-init:10") as one:
        client = one.client
        client.new("Switch", "CONNECTION", CONNECT="On")
        client.wait(lambda: any("has not answered yet" in text for text in client.said()), "a message")
        client.new("Switch", "CONNECTION", DISCONNECT="On")
        client.new("Switch", "CONNECTION", CONNECT="On")
        assert client.settled("CONNECTION") == "Ok"
        client.wait(lambda: client.state("CCD1"), "the properties are defined")
        assert one.disconnect() == "Idle"


def test_an_image_that_stalls_is_reported_then_ends_the_exposure(tmp_path: Path) -> None:
    with rig(tmp_path) as one:
        client = one.client
        assert connect(one) == "Ok"
        client.forget()
        one.camera.faults.arm(f"image-pause:{STALL_LIMIT - 2}")
        assert one.expose() == "Ok"
        (said,) = [text for text in client.said() if "No data for 5 s" in text]
        assert "waiting up to 15 s" in said
        client.forget()
        one.camera.faults.arm("image-pause:60")
        assert one.expose() == "Alert"
        (said,) = client.said("CCD_EXPOSURE")
        assert "within 15.0 s" in said
        (kept,) = [text for text in client.said() if KEPT_IN in text]
        file = Path(kept.rpartition(f"{KEPT_IN} ")[2])
        client.wait(file.exists, "the flight recorder's file is written")
        assert one.expose() == "Ok"
