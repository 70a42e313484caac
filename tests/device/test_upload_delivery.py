# SPDX-License-Identifier: LGPL-2.1-or-later
"""The frame thread with files: aborted runs, failing disks, disks that hang."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from indi_qsi.device.delivery import DeliverySubject
from indi_qsi.device.geometry import LIGHT
from indi_qsi.device.run import Run
from indi_qsi.device.upload import DIRECTORY, PATH, Mode, UploadSubject
from indi_qsi.fits import Card
from indi_qsi.properties import Device, Hub, State
from indi_qsi.storage import Storage
from indi_qsi.wire.messages import Kind, NewVector
from tests.support.indi import RecordingLink, eventually, values
from usbproto.camera import Exposure, Image
from usbproto.errors import QsiError
from usbproto.frames import Geometry, ZeroAdjustment, decode

GEOMETRY = Geometry(0, 0, 30, 20)


class World:
    """An upload and a delivery with a link that records; the runs' ends are noted here."""

    def __init__(self, folder: Path, mode: Mode, limit: float = 60.0) -> None:
        self.device = Device("QSI CCD", Hub())
        self.link = RecordingLink()
        self.device.hub.attach(self.link)
        self.device.hub.add_device(self.device)
        self.storage = Storage()
        self.upload = UploadSubject(self.device, self.storage)
        self.upload.settings.set({DIRECTORY: str(folder)})
        self.upload._connected = True
        self.current: Run | None = None
        self.ends: list[str] = []
        self.hanging = threading.Event()
        self.hanging.set()
        self.delivery = DeliverySubject(self, self.upload, limit)
        self.device.add(*self.upload.vectors(), *self.delivery.vectors())
        self.choose(mode)
        self.link.take()

    def choose(self, mode: Mode) -> None:
        self.device.hub.dispatch(
            None, NewVector(Kind.SWITCH, "QSI CCD", "UPLOAD_MODE", ((mode.value, "On"),))
        )

    def cards(self, run: Run, image: Image) -> list[Card]:
        assert self.hanging.wait(20)
        return []

    def finished(self, run: Run, send: Callable[[], None]) -> None:
        if run is self.current:
            send()
            self.ends.append("ok")
        else:
            self.ends.append("ended otherwise")

    def fail(self, run: Run, reason: str) -> None:
        if run is self.current:
            self.ends.append(reason)

    def take(self) -> str:
        """Delivers a picture of a new run, and waits for its end."""
        number = len(self.ends) + 1
        self.deliver()
        return eventually(lambda: self.ends[number - 1 :], "the run ends")[0]

    def deliver(self, *, current: bool = True) -> None:
        exposure = Exposure(1.0, GEOMETRY, True)
        run = Run(self, exposure, LIGHT, self.upload.plan(), opened=0.0, opened_wall=0.0)
        with self.delivery.plate(run) as plate:
            plate.target[:] = bytes(GEOMETRY.bytes)
            image = Image(decode(plate.target, GEOMETRY), GEOMETRY, ZeroAdjustment(), 200)
            if current:
                self.current = run
            self.delivery.deliver(run, image, plate)

    def paths(self) -> list[tuple[str | None, str]]:
        updates = [
            m for m in self.link.take() if m.get("name") == "CCD_FILE_PATH" and m.tag.startswith("set")
        ]
        return [(m.get("state"), values(m)[PATH]) for m in updates]


@contextmanager
def world(folder: Path, mode: Mode, limit: float = 60.0) -> Iterator[World]:
    world = World(folder, mode, limit)
    try:
        yield world
    finally:
        world.hanging.set()
        world.delivery.stop()
        world.storage.close()


@pytest.mark.parametrize("mode", Mode)
def test_modes(tmp_path: Path, mode: Mode) -> None:
    with world(tmp_path, mode) as w:
        for number in (1, 2):
            assert w.take() == "ok"
            path = tmp_path / f"IMAGE_{number:03d}.fits"
            assert path.exists() is (mode is not Mode.CLIENT)
            assert w.paths() == ([] if mode is Mode.CLIENT else [("Ok", str(path))])
            assert len(w.link.blobs) == (0 if mode is Mode.LOCAL else number)
        if mode is Mode.BOTH:
            assert path.read_bytes() == w.link.blobs[-1].frame.buffer


def test_the_same_path_is_told_again(tmp_path: Path) -> None:
    with world(tmp_path, Mode.LOCAL) as w:
        for _ in range(2):
            assert w.take() == "ok"
            (told,) = w.paths()
            assert told == ("Ok", str(tmp_path / "IMAGE_001.fits"))
            Path(told[1]).unlink()  # as some clients do


@pytest.mark.parametrize("mode", [Mode.LOCAL, Mode.BOTH])
def test_a_run_that_ended_otherwise_leaves_no_file_and_no_word(tmp_path: Path, mode: Mode) -> None:
    with world(tmp_path, mode) as w:
        w.deliver(current=False)
        eventually(lambda: w.ends == ["ended otherwise"], "the picture is made")
        eventually(lambda: not list(tmp_path.iterdir()), "the file is gone")
        assert w.paths() == [] and not w.link.blobs


@pytest.mark.parametrize("mode", [Mode.LOCAL, Mode.BOTH])
def test_a_picture_that_cannot_be_saved_goes_to_the_clients(tmp_path: Path, mode: Mode) -> None:
    (tmp_path / "file").write_text("precious")
    with world(tmp_path / "file", mode) as w:
        with pytest.raises(QsiError, match="not a directory"):
            w.upload.plan().prepare()
        end = w.take()
        assert "not a directory" in end and "Choose another directory" in end and "sent to the clients" in end
        assert len(w.link.blobs) == 1
        assert w.paths() == []
        (tmp_path / "file").unlink()  # the user makes room ...
        w.upload.plan().prepare()
        assert w.take() == "ok"  # ... and it goes on


def test_a_disk_that_hangs_ends_its_runs_and_those_that_wait(tmp_path: Path) -> None:
    with world(tmp_path, Mode.BOTH, limit=0.3) as w:
        w.hanging.clear()
        for _ in range(3):
            assert not w.delivery.backlog
            assert "does the disk of UPLOAD_DIR answer?" in w.take()
        w.hanging.set()
        eventually(
            lambda: w.ends[-1] == "ended otherwise", "the disk is back, and the first picture too late"
        )
        assert w.take() == "ok"
        assert [path.name for path in tmp_path.iterdir()] == ["IMAGE_001.fits"]
        assert len(w.link.blobs) == 1


def test_the_file_path_comes_and_goes_with_the_mode(tmp_path: Path) -> None:
    with world(tmp_path, Mode.CLIENT) as w:

        def defined() -> list[str]:
            return [m.tag for m in w.link.take() if m.get("name") == "CCD_FILE_PATH"]

        w.choose(Mode.LOCAL)
        assert defined() == ["defTextVector"]
        w.choose(Mode.BOTH)
        w.choose(Mode.LOCAL)
        assert defined() == []
        w.choose(Mode.CLIENT)
        w.choose(Mode.CLIENT)
        assert defined() == ["delProperty"]
        w.choose(Mode.BOTH)
        w.upload.lost()
        assert w.upload.plan().mode is Mode.BOTH  # a loose cable changes nothing
        w.upload.disconnect()
        assert defined() == ["defTextVector", "delProperty"]
        w.choose(Mode.LOCAL)  # a request that comes just now
        assert defined() == []
        assert w.upload.mode.state is State.OK
