# SPDX-License-Identifier: LGPL-2.1-or-later
"""A picture goes all the way: simulated camera, USB, driver, server, real clients, FITS file."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from tests.support.indi import PATIENCE, eventually
from tests.support.rig import (
    DEVICE,
    IndiClient,
    Server,
    Sim,
    opened,
    stand_alone,
    under_indiserver,
)

SERVERS = pytest.mark.parametrize("server_kind", [under_indiserver, stand_alone])
CLIENTS = Path(__file__).parent


def take_with_indi_tools(server: Server, folder: Path, seconds: float) -> bytes:
    """One exposure with nothing but INDI's own command-line programs."""
    folder.mkdir()
    # The BLOB is waited for before it is asked for.
    getter = subprocess.Popen(
        ["indi_getprop", "-p", str(server.port), "-t", str(PATIENCE), f"{DEVICE}.CCD1.CCD1"],
        cwd=folder,
        env=server.environ,
        stdout=subprocess.PIPE,
    )
    try:
        server.get("CCD_EXPOSURE._STATE")  # by then the getter, started before, has subscribed
        time.sleep(0.5)
        server.set(f"CCD_EXPOSURE.CCD_EXPOSURE_VALUE={seconds}")
        getter.communicate(timeout=2 * PATIENCE)
    finally:
        getter.kill()
        getter.communicate()
    server.wait_state("CCD_EXPOSURE", 1)
    (file,) = folder.iterdir()
    assert file.name == f"{DEVICE}.CCD1.CCD1.fits"
    return file.read_bytes()


@SERVERS
@pytest.mark.parametrize("model", ["583wsg", "683wsg"])
def test_indi_tools_take_a_picture(server_kind, model: str, tmp_path: Path) -> None:
    with Sim(tmp_path, model) as sim, server_kind(tmp_path, sim.environ) as server:
        server.connect()
        header, pixels = opened(take_with_indi_tools(server, tmp_path / "full", 0.3))
        assert pixels.shape == (2504, 3326)
        np.testing.assert_array_equal(pixels, sim.picture())
        assert pixels.std() > 5  # a real picture, not a flat nothing

        server.tool("indi_setprop", f"{DEVICE}.CCD_BINNING.HOR_BIN;VER_BIN=2;2")
        server.tool("indi_setprop", f"{DEVICE}.CCD_FRAME.X;Y;WIDTH;HEIGHT=101;200;301;151")
        server.wait_state("CCD_FRAME", 1)
        header, pixels = opened(take_with_indi_tools(server, tmp_path / "part", 0.1234))
        assert pixels.shape == (75, 150)
        np.testing.assert_array_equal(pixels, sim.picture())
        assert (header["XBINNING"], header["XORGSUBF"], header["YORGSUBF"]) == (2, 50, 100)
        assert header["EXPTIME"] == pytest.approx(0.1234)
        assert header["IMAGETYP"] == "Light Frame"
        assert header["XPIXSZ"] == pytest.approx(10.8)


def run_client(script: str, server: Server, out: Path) -> bytes:
    result = subprocess.run(
        [sys.executable, str(CLIENTS / script), str(server.port), str(out)],
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
        env=server.environ,
    )
    assert result.returncode == 0, (result, server.log)
    return out.read_bytes()


@SERVERS
@pytest.mark.parametrize("script", ["pyindi_capture.py", "indipyclient_capture.py"])
def test_python_clients_take_a_picture(server_kind, script: str, tmp_path: Path) -> None:
    if script == "pyindi_capture.py":
        pytest.importorskip("PyIndi", reason="pyindi-client has no wheel for this Python")
    with Sim(tmp_path) as sim, server_kind(tmp_path, sim.environ) as server:
        header, pixels = opened(run_client(script, server, tmp_path / "picture.fits"))
        np.testing.assert_array_equal(pixels, sim.picture())
        assert header["EXPTIME"] == 0.5


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_our_own_server_delivers_inline_and_attached(unix: bool, tmp_path: Path) -> None:
    with Sim(tmp_path) as sim:
        path = str(tmp_path / "indi.sock")
        with stand_alone(tmp_path, sim.environ, "--listen", path) as server:
            with IndiClient(path if unix else server.address) as client:
                client.connect_camera()
                client.expose(0.1)
                _, pixels = client.picture()
                np.testing.assert_array_equal(pixels, sim.picture())


def test_the_picture_is_the_same_in_process_and_over_usbip(tmp_path: Path) -> None:
    def pictures(environ: dict[str, str], folder: Path) -> list[np.ndarray]:
        folder.mkdir()
        with stand_alone(folder, environ) as server, IndiClient(server.address) as client:
            client.connect_camera()
            client.new("Number", "CCD_FRAME", X=1000, Y=1000, WIDTH=640, HEIGHT=480)
            client.expose(0.5)
            client.picture()
            client.new("Switch", "CCD_FRAME_TYPE", FRAME_BIAS="On")
            client.expose(0)
            client.picture(2)
            return [opened(blob)[1] for blob in client.blobs]

    with Sim(tmp_path, "683wsg", seed=0) as sim:
        over_usbip = pictures(sim.environ, tmp_path / "usbip")
    in_process = pictures({"INDI_QSI_USB": "sim:683wsg"}, tmp_path / "process")
    for one, other in zip(over_usbip, in_process, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(in_process[0], in_process[1])


def test_date_obs_is_the_opening_of_the_shutter(tmp_path: Path) -> None:
    with Sim(tmp_path) as sim, under_indiserver(tmp_path, sim.environ) as server:
        with IndiClient(server.address) as client:
            client.connect_camera()
            client.expose(0.2)
            header, _ = client.picture()
    (opening,) = sim.times("exposure_start")
    stamped = datetime.fromisoformat(header["DATE-OBS"]).replace(tzinfo=UTC).timestamp()
    # The way of the camera's answer takes some ms; a busy machine adds to it, but not the flush's half second.
    assert opening - 0.002 < stamped < opening + 0.15


def test_definitions_come_before_anything_heavy_is_loaded(tmp_path: Path) -> None:
    """What makes the first definitions fast: no numpy, no usb, no astropy before a camera is opened."""
    code = (
        "import sys; from pathlib import Path; import indi_qsi.main; from indi_qsi.properties import Hub\n"
        "from indi_qsi.fleet import Fleet; from indi_qsi.bus import Bus\n"
        "import indi_qsi.links.stdio, indi_qsi.links.server\n"
        "Fleet(Hub(), Bus(), 'x', Path(sys.argv[1]))\n"
        "print([n for n in ('numpy', 'usb', 'astropy', 'asyncio') if n in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert result.stdout.strip() == "[]", result


def test_first_definitions(tmp_path: Path) -> None:
    with Sim(tmp_path) as sim, under_indiserver(tmp_path, sim.environ) as server:
        with IndiClient(server.address) as client:
            client.send("<getProperties version='1.7'/>")
            info = client.wait_for("defTextVector", name="DRIVER_INFO")
            # indiserver itself answers nothing: order is the driver's.
            names = [m.attrib["name"] for m in client.messages if m.tag.startswith("def")]
            assert names[:2] == ["CONNECTION", "DRIVER_INFO"]
            assert {element.get("name"): (element.text or "").strip() for element in info}[
                "DRIVER_INTERFACE"
            ] == "22"
            eventually(
                lambda: any(m.get("name") == "POLLING_PERIOD" for m in client.messages), "all definitions"
            )
