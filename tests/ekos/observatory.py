# SPDX-License-Identifier: LGPL-2.1-or-later
"""The simulated camera, our driver under indiserver, and KStars, as one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from tests.ekos.desktop import Desktop
from tests.ekos.ekos import Ekos
from tests.support.indi import eventually
from tests.support.rig import DEVICE, IndiClient, Server, Sim, under_indiserver
from usbproto.frames import adjust_zero, zero_adjustment
from usbproto.simulator.darkroom import Frame

FRAMES_KEPT = 5  # more than any test takes in a row

# What the camera's owner saved another night; the filter wheel is at its first position when it is switched on.
CONFIG = f"""\
<INDIDriver>
<newNumberVector device="{DEVICE}" name="CCD_FRAME">
  <oneNumber name="X">400</oneNumber>
  <oneNumber name="Y">300</oneNumber>
  <oneNumber name="WIDTH">200</oneNumber>
  <oneNumber name="HEIGHT">100</oneNumber>
</newNumberVector>
<newNumberVector device="{DEVICE}" name="CCD_BINNING">
  <oneNumber name="HOR_BIN">2</oneNumber>
  <oneNumber name="VER_BIN">2</oneNumber>
</newNumberVector>
<newNumberVector device="{DEVICE}" name="FILTER_SLOT">
  <oneNumber name="FILTER_SLOT_VALUE">1</oneNumber>
</newNumberVector>
</INDIDriver>
"""


class Camera(Sim):
    """It remembers its last frames, and cools down when told."""

    def __init__(self, directory: Path, model: str, **options: Any) -> None:
        self._frames: deque[Frame] = deque(maxlen=FRAMES_KEPT)
        super().__init__(directory, model, **options)

    def _note(self, name: str, facts: Mapping[str, Any]) -> None:
        super()._note(name, facts)
        frame = self.camera.firmware.imager.frame if name == "transfer" else None
        if frame is not None:
            self._frames.append(frame)

    def pictures(self, count: int) -> list[np.ndarray]:
        """The last frames that left for the host, as a client must get them: after auto-zero."""
        return [
            adjust_zero(frame.pixels.copy(), zero_adjustment(frame.overscan, frame.zero_level))
            for frame in list(self._frames)[-count:]
        ]

    def cool_down(self) -> None:
        """A quarter of an hour passes for the cooler alone."""
        timeline, cooler = self.camera.timeline, self.camera.hardware.cooler
        with timeline.lock:
            cooler.look(timeline.now())
            cooler.settle()

    def since(self, moment: int) -> list[dict[str, Any]]:
        """What happened after `len(happened)` was `moment`."""
        return self.happened[moment:]


@dataclass(frozen=True)
class Observatory:
    """`connecting` is what was said, and `happened` what the camera did, until the first connect was over."""

    camera: Camera
    server: Server
    ekos: Ekos
    connecting: list[Element]
    happened: list[dict[str, Any]]


@contextmanager
def observatory(folder: Path, model: str) -> Iterator[Observatory]:
    """Everything is started and connected."""
    desk, configs = folder / "desktop", folder / "home/.indi"
    desk.mkdir()
    configs.mkdir(parents=True)
    (configs / f"{DEVICE}_config.xml").write_text(CONFIG)
    with (
        Camera(folder, model) as camera,
        under_indiserver(folder, camera.environ) as server,
        Desktop(desk) as desktop,
    ):
        ekos = Ekos(desktop, server.port, DEVICE)
        # A second client: indiserver shows it also what Ekos sends.
        with IndiClient(server.address) as watcher:
            watcher.send("<getProperties version='1.7'/>")
            watcher.wait_for("defSwitchVector", name="CONFIG_PROCESS")
            ekos.start()
            # Ekos loads the configuration as soon as it sees the device connected.
            watcher.wait_for("setSwitchVector", name="CONFIG_PROCESS")
            eventually(lambda: ekos.number("CCD_BINNING", "HOR_BIN") == 2, "the configuration is applied")
            connecting = watcher.messages.copy()
        yield Observatory(camera, server, ekos, connecting, camera.happened.copy())
