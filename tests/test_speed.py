# SPDX-License-Identifier: LGPL-2.1-or-later
"""Speed that must not get lost, as counts and as ratios with a wide margin; `tools/bench` measures it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import usb.core

from indi_qsi.device.plate import FITS, Plate
from indi_qsi.fits import BLOCK
from tests.bench.limits import copies
from tests.bench.report import median
from tests.support.workbench import connected, happened
from usbproto import discovery, ftdi
from usbproto.camera import Exposure, Image
from usbproto.capabilities import FileCache
from usbproto.frames import Geometry, ZeroAdjustment, decode
from usbproto.packets import GET_EEPROM
from usbproto.simulator.backend import SimulatorBackend
from usbproto.simulator.camera import SimulatedCamera
from usbproto.steady import Steady


def timed(work: Callable[[], object], times: int = 5) -> float:
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return median(taken)


def test_a_file_is_made_in_the_time_of_a_few_copies() -> None:
    geometry = Geometry(0, 0, 3326, 2504)

    def make() -> None:
        with Plate(geometry, BLOCK, FITS) as plate:
            image = Image(decode(plate.target, geometry), geometry, ZeroAdjustment(-60, mean=360.0), 300)
            plate.fits(image, [])[0].release()

    make()
    assert timed(make) < 2 * median(copies(geometry.bytes, 5))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many transfers were read since it was called last."""
    count = 0
    read = usb.core.Device.read

    def counted(*args: object, **kwargs: object) -> object:
        nonlocal count
        count += 1
        return read(*args, **kwargs)

    def since() -> int:
        nonlocal count
        before, count = count, 0
        return before

    monkeypatch.setattr(usb.core.Device, "read", counted)
    return since


def test_a_flush_is_waited_for_without_asking_the_chip_each_millisecond(reads: Callable[[], int]) -> None:
    exposure = Exposure(0.1, Geometry(0, 0, 100, 100))
    with SimulatedCamera("683wsg") as simulated:
        camera = discovery.open_camera(backend=SimulatorBackend([simulated.device]))
        asked = []
        for _ in range(3):
            reads()
            start = time.monotonic()
            camera.start_exposure(exposure)
            took = time.monotonic() - start
            asked.append(reads())
            camera.abort_exposure()
        camera.close()
    assert took > 0.2, "the simulated flush has become too short to tell anything"
    assert max(asked) < 0.6 * took * 1000
    assert asked[2] < 0.15 * took * 1000, "it takes as long each time, and that is known by now"


@pytest.mark.parametrize("times", [(), (0.5,), (0.2, 0.5), (0.5, 0.2, 0.5)])
def test_what_is_not_known_to_take_as_long_each_time_is_asked_after(times: tuple[float, ...]) -> None:
    steady = Steady()
    for seconds in times:
        steady.took("flush", seconds)
    assert steady.sure("flush") == 0


@pytest.mark.parametrize("times", [(0.5, 0.53), (0.53, 0.5, 0.54), (0.5, 0.53, 0.53, 0.53)])
def test_what_differs_is_asked_after_the_earlier(times: tuple[float, ...]) -> None:
    steady = Steady()
    for seconds in times:
        steady.took("flush", seconds)
    assert 0.45 < steady.sure("flush") < 0.47


def test_what_takes_as_long_each_time_is_left_alone_meanwhile() -> None:
    steady = Steady()
    for seconds in (0.3, 0.5, 0.502, 0.501, 0.7):  # the first is forgotten, the last was noticed late
        steady.took("flush", seconds)
    assert 0.49 < steady.sure("flush") < 0.498
    assert steady.sure("another flush") == 0


def test_what_was_noticed_late_is_asked_after_earlier() -> None:
    readouts = Steady(0.9, 0.01)
    readouts.took("all rows", 0.41)
    assert readouts.sure("all rows") == pytest.approx(0.36)
    readouts.took("all rows", 0.402)
    assert 0.38 < readouts.sure("all rows") < 0.392
    readouts.took("all rows", 0.2)
    assert readouts.sure("all rows") == pytest.approx(0.9 * 0.19)


def test_a_known_readout_is_not_asked_after_all_the_time(tmp_path: Path) -> None:
    with connected(tmp_path, readout=1.0) as (sim, _, client):
        client.small_frame()
        asked = []
        for number in (1, 2):
            before = len(questions(happened(sim, "command")))
            client.expose(0.1)
            client.picture(number)
            client.until("CCD_EXPOSURE", "Ok")
            asked.append(len(questions(happened(sim, "command"))) - before)
    assert asked[1] < asked[0] / 2


def questions(commands: list[dict[str, object]]) -> list[dict[str, object]]:
    return [command for command in commands if command["command"] == "GetDeviceState"]


def test_nothing_heavy_is_imported_before_the_first_definitions() -> None:
    script = "import sys, indi_qsi.main, indi_qsi.links.stdio; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    heavy = {
        "numpy",
        "usb",
        "erfa",
        "astropy",
        "subprocess",
        "shutil",
        "hashlib",
        "random",
        "argparse",
        "asyncio",
    }
    # What starts with the interpreter is not ours (coverage, editable installations).
    before = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    assert not heavy & (set(done.stdout.split()) - set(before.stdout.split()))


def test_a_known_camera_is_asked_for_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []
    write = ftdi.Channel.write

    def noted(channel: ftdi.Channel, data: bytes) -> None:
        asked.append(data)
        write(channel, data)

    monkeypatch.setattr(ftdi.Channel, "write", noted)
    with SimulatedCamera("683wsg") as simulated:
        for _ in range(2):
            asked.clear()
            backend = SimulatorBackend([simulated.device])
            discovery.open_camera(backend=backend, cache=FileCache(tmp_path / "cache")).close()
    assert len(asked) < 45
    addresses = [data for data in asked if data[0] == GET_EEPROM.code]
    assert len(addresses) == len(set(addresses))
