# SPDX-License-Identifier: LGPL-2.1-or-later
"""The disk of local files answers late or never: clients are served all the same."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from indi_qsi.device import files
from tests.faults.cells import prepare
from tests.faults.clock import Clock
from tests.faults.rig import Rig


class Disk:
    """Stands between the driver and the directory: each look at it waits for `answers`."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.asked = threading.Event()
        self._prepare = files.prepare

    def prepare(self, folder: Path) -> None:
        self.asked.set()
        self.answers.wait()
        self._prepare(folder)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    with Clock():
        disk = Disk()
        monkeypatch.setattr(files, "prepare", disk.prepare)
        yield disk
        disk.answers.set()


@pytest.fixture
def rig(disk: Disk, tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    prepare(rig)
    rig.client.new("Text", "UPLOAD_SETTINGS", UPLOAD_DIR=tmp_path / "pictures", UPLOAD_PREFIX="P_XXX")
    rig.choose("UPLOAD_MODE", "UPLOAD_BOTH")
    rig.client.forget()
    yield rig
    rig.close()


def begin(rig: Rig, disk: Disk) -> None:
    rig.client.new("Number", "CCD_EXPOSURE", CCD_EXPOSURE_VALUE=0.5)
    assert disk.asked.wait(10)
    assert rig.client.state("CCD_EXPOSURE") == "Busy"
    assert not rig.count("expose")


def test_late(rig: Rig, disk: Disk, tmp_path: Path) -> None:
    begin(rig, disk)
    rig.client.new("Number", "POLLING_PERIOD", PERIOD_MS=700)
    assert rig.client.settled("POLLING_PERIOD") == "Ok"  # others are served meanwhile
    disk.answers.set()
    assert rig.client.settled("CCD_EXPOSURE") == "Ok"
    np.testing.assert_array_equal(rig.client.frames[-1][1], rig.picture())
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["P_001.fits"]


def test_never(rig: Rig, disk: Disk) -> None:
    begin(rig, disk)
    assert rig.client.settled("CCD_EXPOSURE") == "Alert"
    assert "UPLOAD_DIR does not answer" in rig.client.said("CCD_EXPOSURE")[-1]
    assert not rig.count("expose")
    rig.choose("UPLOAD_MODE", "UPLOAD_CLIENT")
    assert rig.expose() == "Ok"
    disk.answers.set()
    rig.timeline_pause(5)
    assert rig.count("expose") == 1  # nothing starts behind the user's back


def test_an_abort_meanwhile(rig: Rig, disk: Disk) -> None:
    begin(rig, disk)
    rig.client.new("Switch", "CCD_ABORT_EXPOSURE", ABORT="On")
    assert rig.client.settled("CCD_EXPOSURE") == "Idle"
    disk.answers.set()
    rig.timeline_pause(5)
    assert not rig.count("expose")
    assert rig.expose() == "Ok"


def test_a_loss_meanwhile(rig: Rig, disk: Disk) -> None:
    begin(rig, disk)
    rig.camera.faults.arm("unplug")
    assert rig.client.settled("CCD_EXPOSURE") == "Alert"
    rig.client.wait(lambda: rig.client.state("CONNECTION") == "Alert", "the loss is told")
    disk.answers.set()
    rig.cure()
    rig.client.wait(lambda: rig.client.state("CONNECTION") == "Ok", "it is used again")
    assert not rig.count("expose")
    assert rig.expose() == "Ok"
