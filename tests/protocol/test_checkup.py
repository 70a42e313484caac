# SPDX-License-Identifier: LGPL-2.1-or-later
"""Asking a camera how it is, without changing anything of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.protocol.bench import TIMING, eventually
from usbproto import discovery, ftdi
from usbproto import packets as p
from usbproto.camera import Camera, Exposure
from usbproto.checkup import Checkup, examine
from usbproto.errors import Refused
from usbproto.frames import Geometry
from usbproto.packets import CameraState, CoolerState, Kind
from usbproto.session import Session
from usbproto.simulator.backend import SimulatorBackend
from usbproto.simulator.camera import SimulatedCamera

SPEED = 20.0


@contextmanager
def camera(model: str = "683wsg", **options: object) -> Iterator[tuple[SimulatedCamera, list[str]]]:
    """A camera, and the names of the commands that it got."""
    heard: list[str] = []

    def listen(name: str, facts: dict[str, object]) -> None:
        if name in ("command", "ignored"):
            heard.append(str(facts.get("command", facts)))

    with SimulatedCamera(model, listener=listen, speed=SPEED, **options) as simulated:
        yield simulated, heard


@contextmanager
def driver(simulated: SimulatedCamera) -> Iterator[Camera]:
    """Another program, which leaves the camera as it is."""
    backend = SimulatorBackend([simulated.device])
    opened = discovery.open_camera(backend=backend, session=Session(TIMING))
    yield opened
    opened.close()
    backend.close()


def check(simulated: SimulatedCamera) -> Checkup:
    backend = SimulatorBackend([simulated.device])
    try:
        (found,) = discovery.cameras(backend)
        return examine(ftdi.Channel(found.port, TIMING), found.series, found.serial or "")
    finally:
        backend.close()


@pytest.mark.parametrize("model", ["683wsg", "583wsg", "504s", "690i"])
def test_it_only_asks(model: str) -> None:
    with camera(model) as (simulated, heard):
        found = check(simulated)
    assert found.errors == [] and found.link_errors == []
    assert found.state == CameraState.IDLE and found.link_tested
    assert found.identity is not None and found.identity.model_number == model
    assert found.ccd is not None and found.cooler == CoolerState.OFF
    assert heard
    questions = {command.name for command in p.COMMANDS.values() if command.kind is Kind.QUESTION}
    assert set(heard) <= questions
    # Questions after which data follow, or that probe by starting something, are no part of it either.
    assert not set(heard) & {"TransferImage", "GetAutoZero", "StartExposureEx", "GetFeatures"}


@pytest.mark.parametrize(
    ("fault", "error"),
    [("voltage:10.5", 3), ("voltage:14.5", 4), ("brown-out", 3)],
)
def test_alarms_of_the_supply(fault: str, error: int) -> None:
    with camera() as (simulated, _):
        simulated.faults.arm(fault)
        found = check(simulated)
    assert found.errors == [error]
    assert found.link_tested and found.identity is not None  # it goes on


def test_a_wheel_that_jammed() -> None:
    """The camera tells it until it is powered off."""
    with camera() as (simulated, _):
        with driver(simulated) as other:
            simulated.faults.arm("wheel-jam")
            assert other.wheel is not None
            with pytest.raises(Refused):
                other.wheel.move(3)
                eventually(lambda: not other.wheel.moving(), "the wheel stops")
                other.wheel.position()
        found = check(simulated)
    assert found.errors == [5]
    assert found.link_tested


def test_a_camera_that_exposes_goes_on_exposing() -> None:
    with camera() as (simulated, heard):
        with driver(simulated) as other:
            other.start_exposure(Exposure(3000.0, Geometry(0, 0, 100, 100)))
        heard.clear()
        found = check(simulated)
        again = check(simulated)
    assert found.state == again.state == CameraState.EXPOSING
    assert found.identity is None and found.ccd is not None
    assert set(heard) == {"Init", "GetDeviceState", "GetTemperature"}


@pytest.mark.parametrize("fault", ["wrong-burst", "unplug@command#9"])
def test_a_bad_link_is_told(fault: str) -> None:
    with camera() as (simulated, _):
        simulated.faults.arm(fault)
        found = check(simulated)
    assert found.link_errors and not found.link_tested
