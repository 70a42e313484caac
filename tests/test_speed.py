# SPDX-License-Identifier: LGPL-2.1-or-later
"""Speed that must not get lost, as counts and as ratios with a wide margin; `tools/bench` measures it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import usb.core

from indi_qsi.device.delivery import fits_frame
from tests.bench.limits import copies
from tests.bench.report import median
from tests.end_to_end.workbench import connected, happened
from usbproto import discovery
from usbproto.camera import Exposure, Image
from usbproto.frames import Geometry, ZeroAdjustment
from usbproto.simulator.backend import SimulatorBackend
from usbproto.simulator.camera import SimulatedCamera


def timed(work: Callable[[], object], times: int = 5) -> float:
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return median(taken)


def test_a_file_is_made_in_the_time_of_a_few_copies() -> None:
    geometry = Geometry(0, 0, 3326, 2504)
    pixels = np.full(geometry.shape, 1000, np.uint16)
    image = Image(pixels, geometry, ZeroAdjustment(-60, mean=360.0), 300)
    fits_frame(image, []).release()  # imports astropy
    assert timed(lambda: fits_frame(image, []).release()) < 5 * median(copies(geometry.bytes, 5))


def test_a_flush_is_waited_for_without_asking_the_chip_each_millisecond(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reads = 0
    read = usb.core.Device.read

    def counted(*args: object, **kwargs: object) -> object:
        nonlocal reads
        reads += 1
        return read(*args, **kwargs)

    with SimulatedCamera("683wsg") as simulated:
        camera = discovery.open_camera(backend=SimulatorBackend([simulated.device]))
        monkeypatch.setattr(usb.core.Device, "read", counted)
        start = time.monotonic()
        camera.start_exposure(Exposure(0.1, Geometry(0, 0, 100, 100)))
        took = time.monotonic() - start
        camera.close()
    assert took > 0.2, "the simulated flush has become too short to tell anything"
    assert reads < 0.6 * took * 1000


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
