# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which camera a device stands for, and that this does not change while the camera is in use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from indi_qsi.bus import Bus
from indi_qsi.device.source import CameraSource
from usbproto.camera import Camera
from usbproto.errors import CameraInUse, NoCamera, QsiError
from usbproto.session import Session
from usbproto.simulator.backend import SimulatorBackend
from usbproto.simulator.camera import SimulatedCamera
from usbproto.timing import FAST, Timing

SERIALS = ("00640001", "00683001")


class Bench:
    """A bus with two cameras, and what was opened on it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.cameras = [SimulatedCamera(model) for model in ("640wsg", "683wsg")]
        self.bus = Bus()
        self.backend = SimulatorBackend([camera.device for camera in self.cameras])
        self.bus._backend = self.backend
        self.open_cameras: list[Camera] = []

    def source(self, serial: str | None = None, avoid: tuple[str, ...] = ()) -> CameraSource:
        return CameraSource(self.bus, self.directory, serial, lambda: avoid)

    def open(self, source: CameraSource, only: str | None = None) -> Camera:
        camera = source.open(Session(flight=source.flight), lambda serial: FAST, only)
        self.open_cameras.append(camera)
        return camera

    def close(self) -> None:
        for camera in self.open_cameras:
            camera.close()
        self.backend.close()
        for simulated in self.cameras:
            simulated.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def test_a_source_that_is_not_bound_takes_the_presumed_camera_first(bench: Bench) -> None:
    source = bench.source()
    source.presumed = SERIALS[1]
    assert bench.open(source).usb_serial == SERIALS[1]
    assert source.serial is None
    other = bench.source()
    other.presumed = SERIALS[1]
    assert bench.open(other).usb_serial == SERIALS[0]  # the presumed one is in use


def test_a_source_that_is_not_bound_leaves_the_cameras_of_others_alone(bench: Bench) -> None:
    assert bench.open(bench.source(avoid=SERIALS[:1])).usb_serial == SERIALS[1]
    with pytest.raises(CameraInUse):
        bench.open(bench.source(avoid=SERIALS[:1]))
    with pytest.raises(NoCamera, match=r"No other .*attached: 00640001, 00683001"):
        bench.open(bench.source(avoid=SERIALS))


def test_a_bound_source_opens_its_camera_only(bench: Bench) -> None:
    source = bench.source(SERIALS[1], avoid=SERIALS)
    camera = bench.open(source)
    assert camera.usb_serial == SERIALS[1]
    with pytest.raises(CameraInUse):
        bench.open(bench.source(SERIALS[1]))


def test_the_camera_does_not_change_while_it_is_open(bench: Bench) -> None:
    source = bench.source()
    camera = bench.open(source)
    with pytest.raises(QsiError, match="cannot be changed while it is connected"):
        source.bind(SERIALS[1])
    with pytest.raises(QsiError, match="cannot be changed while it is connected"):
        source.simulate = True
    source.simulate = False  # as it is
    source.bind(camera.usb_serial)  # the one that is open: no change
    assert (source.serial, source.simulate) == (SERIALS[0], False)
    with pytest.raises(QsiError):
        source.bind(SERIALS[1])
    camera.close()
    source.bind(SERIALS[1])
    assert bench.open(source).usb_serial == SERIALS[1]


def test_the_camera_does_not_change_while_it_is_being_opened(bench: Bench) -> None:
    source = bench.source()
    refused = []

    def timing(serial: str) -> Timing:
        for change in (lambda: source.bind(serial), lambda: setattr(source, "simulate", True)):
            with pytest.raises(QsiError) as caught:
                change()
            refused.append(caught.value.remedy)
        return FAST

    camera = source.open(Session(flight=source.flight), timing)
    bench.open_cameras.append(camera)
    assert refused == ["Disconnect it first"] * 2


def test_a_camera_that_could_not_be_opened_can_be_changed(bench: Bench) -> None:
    handle = bench.cameras[1].device.open()
    handle.claim(0)
    source = bench.source(SERIALS[1])
    with pytest.raises(CameraInUse):
        bench.open(source)
    source.bind(SERIALS[0])
    source.simulate = True
    source.simulate = False
    assert bench.open(source).usb_serial == SERIALS[0]


def test_a_simulated_camera_does_not_change_while_it_is_open(bench: Bench) -> None:
    source = bench.source()
    source.simulate = True
    camera = bench.open(source)
    for serial in SERIALS:  # one of them is its own, by chance
        with pytest.raises(QsiError):
            source.bind(serial)
    with pytest.raises(QsiError):
        source.simulate = False
    camera.close()
    source.simulate = False
    source.close()


@pytest.mark.parametrize("bound", [None, SERIALS[0]])
def test_only_the_lost_camera_is_opened_again(bench: Bench, bound: str | None) -> None:
    source = bench.source(bound)
    bench.cameras[1].device.unplug()
    with pytest.raises(NoCamera, match="00683001"):
        bench.open(source, only=SERIALS[1])
    bench.cameras[1].device.replug()
    assert bench.open(source, only=SERIALS[1]).usb_serial == SERIALS[1]


def test_only_the_lost_simulated_camera_is_opened_again(bench: Bench) -> None:
    source = bench.source()
    source.simulate = True
    with pytest.raises(NoCamera, match="00999999"):
        bench.open(source, only="00999999")
    assert bench.open(source, only=SERIALS[1]).usb_serial == SERIALS[1]
    bench.open_cameras.pop().close()
    source.close()


def test_another_camera_in_the_place_of_the_lost_one_is_let_go(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = bench.source()
    claim = bench.bus.claim
    monkeypatch.setattr(bench.bus, "claim", lambda serial: claim(SERIALS[0]))
    with pytest.raises(NoCamera, match=r"00683001 was not found, but 00640001"):
        bench.open(source, only=SERIALS[1])
    monkeypatch.undo()
    source.simulate = True  # nothing is open
    source.close()
    assert bench.open(bench.source(SERIALS[0])).usb_serial == SERIALS[0]
