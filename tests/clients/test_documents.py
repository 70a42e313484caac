# SPDX-License-Identifier: LGPL-2.1-or-later
"""The how-tos and the examples of the properties: taken out of the Markdown and run, unchanged but for the port.

The commands of the other documents run in tests/docs, which also sees that none is forgotten.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from indi_qsi.propertydocs import DEVICE, MODELS, REVEALING
from tests.clients.bench import POLLING, Witness
from tests.docs import pages
from tests.docs.pages import ROOT
from tests.docs.shell import BASH, CLIENTS, wrap
from tests.support.indi import PATIENCE, eventually, values
from tests.support.rig import Server, Sim, opened, stand_alone

PORT = "7624"
COLOUR = "620cws"
# One simulated camera whose cooler and wheel are quick.
SPEED = 200.0


def blocks(document: str, language: str) -> list[str]:
    return [block.text for block in pages.blocks(f"docs/{document}", language)]


def examples() -> dict[str, str]:
    """The shell block of each property of docs/properties.md."""
    sections = re.split(r"^### ", (ROOT / "docs/properties.md").read_text(), flags=re.MULTILINE)[1:]
    found = {}
    for section in sections:
        name = section.partition("\n")[0]
        if block := re.search(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL):
            found[name] = block[1]
    return found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    yield from serve(tmp_path, MODELS[0])


def serve(folder: Path, model: str) -> Iterator[Server]:
    """INDI's programs in front of the path speak to this server's port."""
    with Sim(folder, model, speed=SPEED, readout=0.05) as sim, stand_alone(folder, sim.environ) as server:
        programs = wrap(folder, server.port, CLIENTS)
        server.set(f"POLLING_PERIOD.PERIOD_MS={POLLING}")
        server.environ["PATH"] = f"{programs}{os.pathsep}{server.environ['PATH']}"
        yield server


def shell(server: Server, script: str, folder: Path) -> str:
    result = subprocess.run(
        [*BASH, script],
        cwd=folder,
        env=server.environ,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
    )
    assert result.returncode == 0, (script, result, server.log)
    return result.stdout


def test_the_scripts_how_to(server: Server, tmp_path: Path) -> None:
    outputs = [shell(server, block, tmp_path) for block in blocks("howto-scripts.md", "sh")]
    assert len(outputs) == 7
    _, _, _, picture, local, filters, everything = outputs
    assert picture.strip().endswith("Ok")
    assert opened((tmp_path / f"{DEVICE}.CCD1.CCD1.fits").read_bytes())[1].shape == (240, 320)
    assert Path(local.strip()) == server.home / "pictures" / "M31_001.fits"
    assert opened(Path(local.strip()).read_bytes())[1].shape == (240, 320)
    assert float(filters) == 3
    assert f"{DEVICE}.CCD_INFO.CCD_MAX_X=3326" in everything


@pytest.mark.parametrize("number", [0, 1], ids=["pyindi-client", "indipyclient"])
def test_the_python_programs_of_the_how_to(server: Server, tmp_path: Path, number: int) -> None:
    programs = blocks("howto-scripts.md", "python")
    assert len(programs) == 2
    pytest.importorskip(("PyIndi", "indipyclient")[number], reason="has no wheel for this Python")
    folder = tmp_path / "work"
    folder.mkdir()
    assert PORT in programs[number]
    result = subprocess.run(
        [sys.executable, "-c", programs[number].replace(PORT, str(server.port))],
        cwd=folder,
        env=server.environ,
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
    )
    assert result.returncode == 0, (result, server.log)
    assert opened((folder / "picture.fits").read_bytes())[0]["EXPTIME"] == 0.5


def test_the_phd2_how_to(server: Server, tmp_path: Path) -> None:
    server.connect()
    for block in blocks("howto-phd2.md", "sh"):
        shell(server, block, tmp_path)
    with Witness(server.address) as client:
        client.send("<getProperties version='1.7'/>")
        client.wait_for("defSwitchVector", name="CONNECTION", device=f"{DEVICE} Guider")
        eventually(
            lambda: values(client.definition("READOUT_QUALITY"))["QUALITY_LOW"] == "On", "it reads fast"
        )
    assert "GUIDER_DEVICE" in (server.home / ".indi" / f"{DEVICE}_config.xml").read_text()


def test_every_example_of_the_properties(tmp_path: Path) -> None:
    """In their order, each on the first of these models that has the property; none ends in Alert."""
    left = examples()
    assert len(left) == len(blocks("properties.md", "sh")) > 50  # one a property: none is left out
    for model in ("683wsg", "660i", COLOUR):
        folder = tmp_path / model
        folder.mkdir()
        for server in serve(folder, model):
            with Witness(server.address) as client:
                client.connect()
                for name in list(left):
                    if can_run(client, name, left[name]):
                        mark = client.mark
                        shell(server, left.pop(name), folder)
                        told = [client.definition(name), *client.after(mark, name)]
                        assert not [(name, m.get("message")) for m in told if m.get("state") == "Alert"]
                    if name == "SIMULATION":  # its example has disconnected the camera
                        client.put("Switch", "SIMULATION", DISABLE="On")
                        client.put("Switch", "CONNECTION", CONNECT="On")
                        client.definition("CCD1")
    assert not left


def can_run(client: Witness, name: str, example: str) -> bool:
    """Whether the model has the property, or the example makes it appear."""
    appears = any(f"{DEVICE}.{vector}.{switch}" in example for vector, switch in REVEALING)
    return appears or name in [m.get("name") for m in client.after(0, tag="def")]
