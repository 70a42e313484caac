# SPDX-License-Identifier: LGPL-2.1-or-later
"""`qsi-snap` against real servers: the right pixels, and the right end whatever happens."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.indi import PATIENCE, eventually, free_port
from tests.support.rig import (
    PROGRAMS,
    IndiClient,
    Process,
    Server,
    Sim,
    answers,
    opened,
    stand_alone,
    under_indiserver,
)
from tests.support.workbench import wait_event
from tests.tools.running import Running, Terminal, run, run_unread

PART = ("--frame", "100,200,640,480")
# Without what takes long.
SMALL = (*PART, "--no-stars")
SPEED = 100.0  # of the camera: its cooler and wheel are quick


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sim]:
    with Sim(tmp_path_factory.mktemp("sim"), speed=SPEED) as sim:
        yield sim


@pytest.fixture(scope="module")
def server(sim: Sim, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with stand_alone(folder, sim.environ, "--listen", str(folder / "indi.sock")) as server:
        yield server


def picture(path: Path) -> tuple[dict[str, object], np.ndarray]:
    header, pixels = opened(path.read_bytes())
    return dict(header), pixels


@pytest.mark.parametrize("way", ["tcp", "unix"])
def test_the_picture_is_the_cameras(sim: Sim, server: Server, way: str, tmp_path: Path) -> None:
    address = server.address if way == "tcp" else str(server.home.parent / "indi.sock")
    ended = run(tmp_path, "qsi-snap", "--server", address, "0.5", *PART, "--bin", "1", "--json")
    assert ended.code == 0, ended.err
    result = ended.json
    (told,) = result["pictures"]
    assert (result["ok"], result["error"], result["device"]) == (True, None, "QSI CCD")
    assert told["file"] == "QSI_CCD_light_001.fits"
    header, pixels = picture(tmp_path / told["file"])
    np.testing.assert_array_equal(pixels, sim.picture())
    assert (header["EXPTIME"], header["IMAGETYP"]) == (0.5, "Light Frame")
    assert (told["width"], told["height"]) == (640, 480)
    assert told["median"] == pytest.approx(np.median(pixels), abs=3)
    assert told["maximum"] == pixels.max()
    with Image.open(tmp_path / told["preview"]) as shown:
        assert (shown.format, shown.mode, shown.size) == ("PNG", "L", (640, 480))
        levels = np.asarray(shown)
        assert levels.min() < 20 and levels.max() > 225 and 15 < np.median(levels) < 80
    assert sorted(path.name for path in tmp_path.iterdir()) == [told["file"], told["preview"]]


def test_a_full_frame_through_indiserver(tmp_path: Path) -> None:
    with Sim(tmp_path, speed=SPEED) as sim, under_indiserver(tmp_path, sim.environ) as server:
        arguments = (
            "--type",
            "dark",
            "--bin",
            "2",
            "--frame",
            "full",
            "-o",
            "{type}-{binning}-{seconds}.fits",
        )
        ended = run(tmp_path / "out", "qsi-snap", "--server", server.address, "0.2", *arguments)
        assert ended.code == 0, ended.err
        _, pixels = picture(tmp_path / "out" / "dark-2x2-0.2.fits")
        np.testing.assert_array_equal(pixels, sim.picture())
        assert pixels.shape == (1252, 1663)
        assert "stars" not in ended.out and "median" in ended.out


def test_filter_temperature_settings_and_type_come_first(sim: Sim, server: Server, tmp_path: Path) -> None:
    sim.happened.clear()
    ended = run(
        tmp_path,
        *("qsi-snap", "--server", server.address, "0.2", *SMALL, "--no-preview", "--json"),
        *(
            "--filter",
            "green",
            "--temperature",
            "4",
            "--tolerance",
            "0.4",
            "--set",
            "READOUT_QUALITY.QUALITY_LOW=On",
        ),
        *("--type", "flat", "--count", "2", "-o", "{filter}/{temperature}_{index}"),
    )
    assert ended.code == 0, ended.err
    names = [told["file"] for told in ended.json["pictures"]]
    assert names == ["Green/4_001.fits", "Green/4_002.fits"]
    for name in names:
        header, _ = picture(tmp_path / name)
        assert (header["FILTER"], header["IMAGETYP"], header["READOUTM"]) == ("Green", "Flat Frame", "Fast")
        assert header["CCD-TEMP"] == pytest.approx(4, abs=0.6)
    order = [
        event["e"] for event in sim.happened if event["e"] in ("filter", "temperature", "exposure_start")
    ]
    assert order[-2:] == ["exposure_start"] * 2 and {"filter", "temperature"} <= set(order[:-2])
    assert ended.err.index("cooling") < ended.err.index("exposing")


def test_ctrl_c_aborts_the_exposure_in_the_camera(sim: Sim, server: Server, tmp_path: Path) -> None:
    with Sim(tmp_path) as slow, stand_alone(tmp_path, slow.environ) as server:
        running = Running(tmp_path / "out", "qsi-snap", "--server", server.address, "300", "--json")
        wait_event(slow, "exposure_start")
        running.process.send_signal(signal.SIGINT)
        ended = running.ended()
        assert ended.code == 130
        assert ended.json["exit"] == 130 and "the exposure was aborted" in ended.json["error"]
        wait_event(slow, "abort")
        assert server.get("CCD_EXPOSURE._STATE") == "Idle"
        assert list((tmp_path / "out").iterdir()) == []


def test_cooling_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    with Sim(tmp_path) as sim, stand_alone(tmp_path, sim.environ) as server:
        arguments = ("--temperature", "-30", "--cooling-limit", "0.05")
        ended = run(tmp_path / "out", "qsi-snap", "--server", server.address, "1", *arguments)
        assert ended.code == 6
        assert "has not reached -30 °C within 3 s" in ended.err and "--cooling-limit" in ended.err
        assert sim.count("exposure_start") == 0


def test_a_camera_that_is_disconnected_while_it_is_cooled(tmp_path: Path) -> None:
    with Sim(tmp_path) as sim, stand_alone(tmp_path, sim.environ) as server:
        running = Running(
            tmp_path / "out", "qsi-snap", "--server", server.address, "1", "--temperature", "-30"
        )
        wait_event(sim, "temperature")
        server.set("CONNECTION.DISCONNECT=On")
        ended = running.ended()
        assert ended.code == 5 and "was disconnected while it was cooled" in ended.err


def test_results_that_nobody_reads_end_no_series(server: Server, tmp_path: Path) -> None:
    arguments = ("--server", server.address, "0.1", *SMALL, "--no-preview", "--count", "2")
    for more in ((), ("--json",)):
        ended = run_unread(tmp_path / "out", "qsi-snap", *arguments, *more, "--quiet")
        assert (ended.code, ended.err) == (0, "")
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_a_server_that_is_killed_and_a_camera_that_is_unplugged(tmp_path: Path) -> None:
    with Sim(tmp_path) as sim, stand_alone(tmp_path, sim.environ) as server:
        running = Running(tmp_path / "out", "qsi-snap", "--server", server.address, "200", "--json")
        wait_event(sim, "exposure_start")
        sim.camera.device.unplug()
        ended = running.ended()
        assert ended.code == 5, ended
        assert "QSI CCD failed" in ended.json["error"]
    again = tmp_path / "again"
    again.mkdir()
    with Sim(again) as sim, stand_alone(again, sim.environ) as server:
        running = Running(again / "out", "qsi-snap", "--server", server.address, "200")
        wait_event(sim, "exposure_start")
        server.process.kill()
        ended = running.ended()
        assert ended.code == 3
        assert f"The INDI server at {server.address} is gone" in ended.err
        assert list((again / "out").iterdir()) == []


def test_nobody_else_s_exposure_is_ended(tmp_path: Path) -> None:
    with Sim(tmp_path) as sim, stand_alone(tmp_path, sim.environ) as server:
        with IndiClient(server.address) as client:
            client.connect_camera()
            client.expose(100)
            wait_event(sim, "exposure_start")
            ended = run(tmp_path / "out", "qsi-snap", "--server", server.address, "1")
            assert ended.code == 5 and "for somebody else" in ended.err
            assert client.states("CCD_EXPOSURE")[-1] == "Busy" and sim.count("abort") == 0


def test_what_is_not_there_is_said(server: Server, tmp_path: Path) -> None:
    def fails(code: int, text: str, *arguments: str) -> None:
        ended = run(tmp_path, "qsi-snap", "--server", server.address, *arguments)
        assert (ended.code, text in ended.err) == (code, True), ended

    fails(4, "has no filter 'Purple'; it has Red, Green, Blue, Luminance", "--filter", "Purple")
    fails(4, "QSI CCD has no property GAIN", "--set", "GAIN.GAIN=3")
    fails(5, "cannot expose for 80000 s; valid range 0.03..14400", "80000")
    fails(5, "refuses CCD_FRAME", "--frame", "3000,0,3000,10")
    fails(2, "is no binning", "--bin", "0")
    fails(2, "is none of device, type", "-o", "{object}")
    fails(2, "is no address", "--server", "host:port")
    assert list(tmp_path.iterdir()) == []
    ended = run(tmp_path, "qsi-snap", "--server", f"localhost:{free_port()}", "--json")
    assert (ended.code, ended.json["exit"], ended.json["ok"]) == (3, 3, False)
    assert "No INDI server answers" in ended.json["error"]


def test_several_cameras_want_a_choice(tmp_path: Path) -> None:
    with Sim(tmp_path, more=["583wsg"]) as sim:
        environ = {**sim.environ, "INDIDEV": "Main"}
        with stand_alone(tmp_path, environ, "--connect") as server, IndiClient(server.address) as client:
            client.send("<getProperties version='1.7'/>")
            eventually(lambda: len(exposing(client)) == 2, "both cameras are connected")
            ended = run(tmp_path / "out", "qsi-snap", "--server", server.address, "0.1")
            assert ended.code == 4 and "choose one by --device: Main, " in ended.err
            arguments = ("--device", "Main", *SMALL)
            assert run(tmp_path / "out", "qsi-snap", "--server", server.address, "0.1", *arguments).code == 0


def exposing(client: IndiClient) -> set[str]:
    """The devices that can expose."""
    return {m.attrib["device"] for m in list(client.messages) if m.get("name") == "CCD_EXPOSURE"}


def test_pictures_that_the_driver_was_to_keep_come_too(server: Server, tmp_path: Path) -> None:
    server.set("UPLOAD_MODE.UPLOAD_LOCAL=On")
    server.set("CCD_TRANSFER_FORMAT.FORMAT_NATIVE=On")
    ended = run(tmp_path, "qsi-snap", "--server", server.address, "0.1", *SMALL)
    assert ended.code == 0, ended.err
    assert picture(tmp_path / "QSI_CCD_light_001.fits")[1].shape == (480, 640)
    assert server.get("UPLOAD_MODE.UPLOAD_LOCAL") == "On"
    assert server.get("CCD_TRANSFER_FORMAT.FORMAT_NATIVE") == "On"
    server.set("UPLOAD_MODE.UPLOAD_CLIENT=On")
    server.set("CCD_TRANSFER_FORMAT.FORMAT_FITS=On")


def test_a_terminal_gets_a_bar(server: Server, tmp_path: Path) -> None:
    command = ["env", "--default-signal=INT", PROGRAMS / "qsi-snap", "--server", server.address, "1", *SMALL]
    terminal = Terminal(tmp_path, command)
    assert terminal.wait() == 0, terminal.text
    for text in ("exposing", "measuring", "━", "QSI_CCD_light_001.fits", "median"):
        assert text in terminal.text


@pytest.mark.parametrize(
    ("library", "text"),
    [
        ("photutils", "no stars and no FWHM: photutils not installed"),
        ("PIL", "no preview: PIL not installed"),
    ],
)
def test_without_a_library_the_rest_goes_on(library: str, text: str, server: Server, tmp_path: Path) -> None:
    (tmp_path / "lacks" / library).mkdir(parents=True)
    (tmp_path / "lacks" / library / "__init__.py").write_text("raise ImportError\n")
    environ = {"PYTHONPATH": str(tmp_path / "lacks")}
    ended = run(tmp_path / "out", "qsi-snap", "--server", server.address, "0.1", *PART, environ=environ)
    assert ended.code == 0, ended
    assert text in ended.err and "apt install python3-" in ended.err
    assert (tmp_path / "out" / "QSI_CCD_light_001.fits").exists()
    assert (tmp_path / "out" / "QSI_CCD_light_001.png").exists() == (library != "PIL")


def test_two_at_once_take_nothing_from_each_other(tmp_path: Path) -> None:
    out = tmp_path / "out"
    running = []
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    with Sim(folders[0]) as one, stand_alone(folders[0], one.environ) as first:
        with Sim(folders[1], seed=1) as two, stand_alone(folders[1], two.environ) as second:
            for server in (first, second):
                arguments = ("0.1", *SMALL, "--count", "3", "--no-preview", "--json")
                running.append(Running(out, "qsi-snap", "--server", server.address, *arguments))
            ends = [program.ended() for program in running]
    assert [ended.code for ended in ends] == [0, 0], ends
    names = [told["file"] for ended in ends for told in ended.json["pictures"]]
    assert sorted(names) == [f"QSI_CCD_light_{index:03}.fits" for index in range(1, 7)]
    assert sorted(names) == sorted(path.name for path in out.iterdir())
    assert len({(out / name).read_bytes() for name in names}) == 6


def test_another_driver(tmp_path: Path) -> None:
    port = free_port()
    command = [
        "indiserver",
        "-r",
        "0",
        "-p",
        str(port),
        "-u",
        str(tmp_path / "indi.sock"),
        "indi_simulator_ccd",
    ]
    process = Process(tmp_path, command, {})
    try:
        eventually(lambda: answers(port), "indiserver listens")
        arguments = ("--frame", "0,0,400,300", "--type", "dark", "--bin", "1", "--json")
        ended = run(tmp_path / "out", "qsi-snap", "--server", f"localhost:{port}", "0.5", *arguments)
        assert ended.code == 0, (ended, process.log)
        (told,) = ended.json["pictures"]
        assert told["file"] == "CCD_Simulator_dark_001.fits"
        _, pixels = picture(tmp_path / "out" / told["file"])
        assert pixels.shape == (300, 400) and told["maximum"] == pixels.max()
    finally:
        process.close()
    assert process.process.wait(PATIENCE) is not None
