# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes the recordings of the simulated camera anew:  python -m tests.recording.make

Needed when the driver is meant to send something else from now on. Recordings of real cameras, which cannot be
made again, are left alone: a difference from those has to be explained.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from indi_qsi.recording import FILE_VARIABLE
from tests.support.workbench import Observer, Sim, connected, wait_event

RECORDINGS = Path(__file__).parents[1] / "data" / "recordings"
SLOW = 150_000.0  # bytes/s; an image of 128 kB is on its way for most of a second


def night(sim: Sim, client: Observer) -> None:
    """Cooling, a picture, a filter, a guide pulse, an aborted exposure, another picture."""
    client.small_frame()
    client.new("Number", "CCD_TEMPERATURE", CCD_TEMPERATURE_VALUE=-5)
    expose(client, 0.5)
    client.new("Number", "FILTER_SLOT", FILTER_SLOT_VALUE=3)
    client.until("FILTER_SLOT", "Ok")
    client.new("Number", "TELESCOPE_TIMED_GUIDE_NS", TIMED_GUIDE_N=120, TIMED_GUIDE_S=0)
    client.until("TELESCOPE_TIMED_GUIDE_NS", "Idle", "Ok")
    client.expose(30)
    wait_event(sim, "exposure_start", 2)
    time.sleep(0.5)  # in the middle of it
    client.new("Switch", "CCD_ABORT_EXPOSURE", ABORT="On")
    client.until("CCD_EXPOSURE", "Idle")
    expose(client, 0.2)
    client.disconnect_camera()


def unplugged(sim: Sim, client: Observer) -> None:
    """The cable is pulled while an image is on its way, and put in again."""
    client.small_frame()
    before = len(client.updates("CONNECTION"))
    sim.camera.faults.arm("unplug@transfer+0.3")
    expose(client, 0.2, "Alert")
    client.until("CONNECTION", "Alert", after=before)
    sim.camera.device.replug()
    client.until("CONNECTION", "Ok", after=before)
    expose(client, 0.2)
    client.disconnect_camera()


def too_warm(sim: Sim, client: Observer) -> None:
    """The camera refuses an exposure because it is too warm; the next one it takes."""
    client.small_frame()
    sim.camera.faults.arm("device-error:1,command=StartExposure")
    expose(client, 0.2, "Alert")
    expose(client, 0.2)
    client.disconnect_camera()


def expose(client: Observer, seconds: float, end: str = "Ok") -> None:
    before = len(client.updates("CCD_EXPOSURE"))
    client.expose(seconds)
    client.until("CCD_EXPOSURE", "Ok", "Alert", after=before)
    assert client.updates("CCD_EXPOSURE")[-1].state == end


SCENES: dict[str, tuple[str, float | None, Callable[[Sim, Observer], None]]] = {
    "683-night": ("683wsg", None, night),
    "683-unplugged-in-transfer": ("683wsg", SLOW, unplugged),
    "583-too-warm": ("583wsg", None, too_warm),
}


def make(name: str, path: Path, folder: Path) -> None:
    """Records one scene into `path`; `folder` is for what it needs besides."""
    model, rate, scene = SCENES[name]
    os.environ[FILE_VARIABLE] = str(path)
    try:
        with connected(folder, model, rate=rate) as (sim, server, client):
            scene(sim, client)
            assert "recording" in server.log
    finally:
        del os.environ[FILE_VARIABLE]


def main() -> None:
    for name in SCENES:
        path = RECORDINGS / f"{name}.jsonl"
        path.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            make(name, path, Path(folder))
        path.chmod(0o644)
        print(path)


if __name__ == "__main__":
    main()
