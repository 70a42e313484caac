# SPDX-License-Identifier: LGPL-2.1-or-later
"""Files that are broken, from the future, or cannot be written: said clearly, nothing lost, the night goes on."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.indi import eventually, values
from tests.support.rig import DEVICE, Sim, stand_alone
from tests.support.workbench import Observer

CONFIG, MEMORY, CAPABILITIES = f"{DEVICE}_config.xml", "qsi-cameras.json", "qsi-capabilities.json"
SERIAL = "00683001"
SAVED = """<INDIDriver>
<newNumberVector device='QSI CCD' name='CCD_BINNING'><oneNumber name='HOR_BIN'>2</oneNumber>
<oneNumber name='VER_BIN'>2</oneNumber></newNumberVector>
"""
LATER = """<newTextVector device='QSI CCD' name='LATER'><oneText name='X'>y</oneText></newTextVector>
<newLaterVector device='QSI CCD' name='Z'/>
</INDIDriver>
"""


@contextmanager
def driver(tmp_path: Path, files: dict[str, str]) -> Iterator[tuple[Path, Observer]]:
    """A driver that finds these files, and its client, with the camera connected."""
    kept = tmp_path / "home" / ".indi"
    kept.mkdir(parents=True)
    for name, text in files.items():
        (kept / name).write_text(text)
    with Sim(tmp_path) as sim, stand_alone(tmp_path, sim.environ) as server:
        with Observer(server.address) as client:
            client.connect_camera()
            yield kept, client
        assert "Traceback" not in server.log
        for name in (name for name, text in files.items() if not text.rstrip().endswith((">", "}"))):
            assert name in server.log and ("is broken" in server.log or "cannot be read" in server.log)


def picture(client: Observer) -> None:
    client.blobs.clear()
    client.expose(0.05)
    client.picture()


def save(client: Observer) -> str:
    """CONFIG_SAVE; the state that it ends in, and the message."""
    before = len(client.updates("CONFIG_PROCESS"))
    client.new("Switch", "CONFIG_PROCESS", CONFIG_SAVE="On")
    client.until("CONFIG_PROCESS", "Ok", "Alert", after=before)
    last = client.updates("CONFIG_PROCESS")[-1]
    return f"{last.state} {last.message}"


def test_all_files_cut_in_half(tmp_path: Path) -> None:
    cut = {CONFIG: SAVED, MEMORY: '{"00683001": {"whe', CAPABILITIES: "[1, 2"}
    with driver(tmp_path, cut) as (kept, client):
        client.small_frame()
        picture(client)
        client.new("Text", "FILTER_NAME", FILTER_SLOT_NAME_1="Red")
        client.wait_for("setTextVector", name="FILTER_NAME", state="Ok")
        assert save(client).startswith("Ok")
        assert (kept / f"{CONFIG}.broken-1").read_text() == SAVED
        assert (kept / "qsi-cameras.broken.json").read_text() == cut[MEMORY]
        assert "Red" in (kept / MEMORY).read_text()
        json.loads((kept / CAPABILITIES).read_text())


def test_files_from_the_future(tmp_path: Path) -> None:
    future = {"later": {"x": 1}, SERIAL: {"later": {"y": [2]}}}
    with driver(tmp_path, {CONFIG: SAVED + LATER, MEMORY: json.dumps(future)}) as (kept, client):
        client.new("Switch", "CONFIG_PROCESS", CONFIG_LOAD="On")
        client.wait_for("setSwitchVector", name="CONFIG_PROCESS", state="Ok")
        # What is known of it holds ...
        binning = eventually(lambda: client.updates("CCD_BINNING"), "the binning is told")[-1]
        assert binning.number("HOR_BIN") == 2
        picture(client)
        client.new("Text", "FILTER_NAME", FILTER_SLOT_NAME_1="Red")
        client.wait_for("setTextVector", name="FILTER_NAME", state="Ok")
        assert save(client).startswith("Ok")
        # ... and what is not is kept.
        assert (kept / f"{CONFIG}.later").read_text() == SAVED + LATER
        assert "LATER" in (kept / CONFIG).read_text()
        memory = json.loads((kept / MEMORY).read_text())
        assert memory["later"] == future["later"]
        assert memory[SERIAL]["later"] == {"y": [2]}


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Root may write anywhere but on a disk that is read-only."""
    mounted = False
    if os.geteuid() == 0:
        command = ["mount", "-t", "tmpfs", "-o", "ro,size=64k", "tmpfs", str(folder)]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            pytest.skip(f"cannot mount: {result.stderr.strip()}")
        mounted = True
    else:
        folder.chmod(0o555)
    try:
        yield
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)
        else:
            folder.chmod(0o755)


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with read_only(home):
        with Sim(tmp_path) as sim, stand_alone(tmp_path, sim.environ) as server:
            with Observer(server.address) as client:
                client.connect_camera()
                client.small_frame()
                picture(client)
                answer = save(client)
                assert answer.startswith("Alert") and "cannot save" in answer
                # The filter has its name as long as the driver runs, and the user is told so.
                client.new("Text", "FILTER_NAME", FILTER_SLOT_NAME_1="Red")
                answered = client.wait_for("setTextVector", name="FILTER_NAME", state="Ok")
                assert values(answered)["FILTER_SLOT_NAME_1"] == "Red"
                assert "cannot be saved" in answered.get("message", "")
                # Saving into it is refused before the time of an exposure is spent; sending goes on.
                exposures = sim.count("expose")
                client.new("Switch", "UPLOAD_MODE", UPLOAD_BOTH="On")
                client.wait_for("setSwitchVector", name="UPLOAD_MODE", state="Ok")
                before = len(client.updates("CCD_EXPOSURE"))
                client.expose(0.05)
                refused = client.until("CCD_EXPOSURE", "Alert", after=before)[-1]
                assert "UPLOAD_DIR" in refused.message
                assert sim.count("expose") == exposures
                client.choose("UPLOAD_MODE", "UPLOAD_CLIENT")
                picture(client)
            assert "Traceback" not in server.log
