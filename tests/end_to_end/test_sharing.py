# SPDX-License-Identifier: LGPL-2.1-or-later
"""Two of everything: servers on one port, drivers and cameras; a look at the bus while the camera is ours."""

from __future__ import annotations

import json
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.indi import PATIENCE, eventually
from tests.support.rig import DEVICE, PROGRAMS, IndiClient, Server, Sim, stand_alone

LOW, HIGH = "00640001", "00683001"


def test_two_servers_on_one_port(tmp_path: Path) -> None:
    with Sim(tmp_path) as sim, stand_alone(tmp_path, sim.environ) as server:
        command = [str(PROGRAMS / "indi-qsi"), "serve", "--listen", server.address]
        late = subprocess.run(
            command, env=server.environ, capture_output=True, text=True, timeout=2 * PATIENCE
        )
        assert late.returncode == 1
        assert server.address in late.stderr and "Traceback" not in late.stderr
        with IndiClient(server.address) as client:  # the first one does not mind
            client.connect_camera()
            client.expose(0.1)
            client.picture()


def test_our_own_camera_is_not_in_use_by_another_program(tmp_path: Path) -> None:
    """It is opened before the first look at the bus."""
    with Sim(tmp_path) as sim, stand_alone(tmp_path, sim.environ) as server:
        with IndiClient(server.address) as client:
            client.connect_camera()
            eventually(lambda: "there is a camera 00683001" in server.log, "the bus is looked at")
            assert "in use by another program" not in server.log


class Driver:
    """A driver process with a client, which both end with `stack`."""

    def __init__(self, stack: ExitStack, directory: Path, sim: Sim, home: Path | None = None) -> None:
        directory.mkdir()
        environ = sim.environ if home is None else {**sim.environ, "HOME": str(home)}
        self.server: Server = stack.enter_context(stand_alone(directory, environ))
        self.client: IndiClient = IndiClient(self.server.address)
        stack.callback(self.client.close)
        self.client.send("<getProperties version='1.7'/>")

    def names(self) -> set[str]:
        """The devices that clients have."""
        found = set()
        for message in list(self.client.messages):
            if message.tag.startswith("def"):
                found.add(message.attrib["device"])
            elif message.tag == "delProperty" and "name" not in message.attrib:
                found.discard(message.attrib["device"])
        return found

    def wait_for(self, *names: str) -> None:
        eventually(lambda: self.names() == set(names), f"{names}; {self.server.log}")

    def connect(self, device: str = DEVICE) -> str:
        """The serial number of the camera that the device has got."""
        self.client.send(
            f"<newSwitchVector device='{device}' name='CONNECTION'>"
            "<oneSwitch name='CONNECT'>On</oneSwitch></newSwitchVector>"
        )
        told = self.client.wait_for("setSwitchVector", name="CONNECTION", device=device, state="Ok")
        return told.attrib["message"].split("serial ")[1].split(",")[0]


def memory(home: Path) -> dict[str, str]:
    (section,) = json.loads((home / ".indi" / "qsi-cameras.json").read_text())["first camera"].values()
    return dict(section)


@pytest.mark.parametrize("same_home", [False, True])
@pytest.mark.parametrize("faster", [0, 1])
def test_two_drivers_that_start_together_get_a_camera_each(
    tmp_path: Path, same_home: bool, faster: int
) -> None:
    """Each sees both cameras before one of them is opened."""
    home = tmp_path / "home" if same_home else None
    with ExitStack() as stack:
        sim = stack.enter_context(Sim(tmp_path, "683wsg", more=("640wsg",)))
        drivers = [Driver(stack, tmp_path / name, sim, home) for name in ("one", "two")]
        for driver in drivers:
            # Over USB/IP a look makes the camera busy for a moment: one may find the other camera first.
            eventually(lambda driver=driver: len(driver.names()) == 2, "both cameras are seen")
        got = {number: drivers[number].connect() for number in (faster, 1 - faster)}
        assert sorted(got.values()) == [LOW, HIGH]
        for number, driver in enumerate(drivers):
            driver.wait_for(DEVICE, f"{DEVICE} {got[1 - number]}")
            driver.client.new("Number", "CCD_FRAME", X=0, Y=0, WIDTH=64, HEIGHT=64)
            driver.client.send(f"<enableBLOB device='{DEVICE}'>Also</enableBLOB>")
            driver.client.expose(0.1)
            driver.client.picture()
        homes = [home or driver.server.home for driver in drivers]
        # With one home for both, the camera that was opened first keeps the plain name.
        assert [memory(h)["serial"] for h in homes] == [got[faster if same_home else n] for n in (0, 1)]


def test_the_names_of_two_drivers_stay(tmp_path: Path) -> None:
    with Sim(tmp_path, "683wsg", more=("640wsg",)) as sim:
        got = []
        for attempt in range(2):
            with ExitStack() as stack:
                drivers = []
                for name in ("one", "two"):
                    home = tmp_path / f"home-{name}"
                    drivers.append(Driver(stack, tmp_path / f"{name}-{attempt}", sim, home))
                for driver in drivers:
                    eventually(lambda driver=driver: len(driver.names()) == 2, "both cameras are seen")
                order = drivers if attempt == 0 else drivers[::-1]
                got.append({drivers.index(driver): driver.connect() for driver in order})
        assert got[0] == got[1] and sorted(got[0].values()) == [LOW, HIGH]
