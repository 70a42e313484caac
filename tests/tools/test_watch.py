# SPDX-License-Identifier: LGPL-2.1-or-later
"""`qsi-watch` against real servers: what it shows is true, its log is whole, and it outlives the server."""

from __future__ import annotations

import csv
import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.support.indi import eventually, free_port
from tests.support.rig import PROGRAMS, IndiClient, Server, Sim, stand_alone
from tests.tools.running import Running, Terminal, run, run_unread

SPEED = 100.0  # of the camera: a cool-down takes seconds
BOUNDED = ("--duration", "100")  # should the test fail, nothing goes on watching


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sim]:
    with Sim(tmp_path_factory.mktemp("sim"), speed=SPEED) as sim:
        yield sim


@pytest.fixture(scope="module")
def server(sim: Sim, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with stand_alone(tmp_path_factory.mktemp("server"), sim.environ) as server:
        yield server


def rows(log: Path) -> list[dict[str, str]]:
    with log.open(newline="") as file:
        return list(csv.DictReader(file))


def test_once(server: Server, tmp_path: Path) -> None:
    server.set("CONNECTION.DISCONNECT=On")
    server.wait_state("CONNECTION", 0)
    ended = run(tmp_path, "qsi-watch", "--server", server.address, "--once")
    assert (ended.code, ended.out[8:]) == (0, " QSI CCD: not connected\n")
    server.connect()
    server.set("FILTER_SLOT.FILTER_SLOT_VALUE=2")
    server.wait_state("FILTER_SLOT", 1)
    ended = run(tmp_path, "qsi-watch", "--server", server.address, "--once", "--json")
    told = json.loads(ended.out)
    assert (told["device"], told["model"], told["connected"], told["filter"], told["phase"]) == (
        *("QSI CCD", "683wsg", True, "Green", "idle"),
    )
    assert told["temperature"] == pytest.approx(
        float(server.get("CCD_TEMPERATURE.CCD_TEMPERATURE_VALUE")), abs=3
    )


def test_lines_that_nobody_reads_end_it(server: Server, tmp_path: Path) -> None:
    ended = run_unread(tmp_path, "qsi-watch", "--server", server.address, "--interval", "0.1")
    assert (ended.code, ended.err) == (0, "")


def test_a_night_is_logged_and_drawn(sim: Sim, server: Server, tmp_path: Path) -> None:
    server.connect()
    log = tmp_path / "night.csv"
    arguments = ("--server", server.address, "--csv", "night.csv", "--interval", "0.2")
    watching = Running(tmp_path, "qsi-watch", *arguments, *BOUNDED)
    eventually(lambda: log.exists() and rows(log), "the log begins")
    with IndiClient(server.address) as client:
        client.send("<getProperties version='1.7'/>")
        client.wait_for("defNumberVector", name="TELESCOPE_TIMED_GUIDE_NS")
        client.new("Number", "TELESCOPE_TIMED_GUIDE_NS", TIMED_GUIDE_N=30, TIMED_GUIDE_S=0)
        client.wait_for("setNumberVector", name="TELESCOPE_TIMED_GUIDE_NS", state="Idle")
        client.new("Number", "TELESCOPE_TIMED_GUIDE_NS", TIMED_GUIDE_N=0, TIMED_GUIDE_S=40)
        client.new("Number", "CCD_TEMPERATURE", CCD_TEMPERATURE_VALUE=0)
        client.new("Number", "CCD_EXPOSURE", CCD_EXPOSURE_VALUE=1.5)
    # Lines are in the file while it goes on.
    eventually(
        lambda: [row for row in rows(log) if row["temperature_c"] and float(row["temperature_c"]) < 0.5],
        "it is cold, and logged",
        60,
    )
    eventually(lambda: rows(log)[-1]["phase"] == "idle", "the exposure is over, and logged")
    watching.process.send_signal(signal.SIGTERM)
    ended = watching.ended()
    assert ended.code == 0, ended
    night = rows(log)
    assert {row["device"] for row in night} == {"QSI CCD"}
    assert {"idle", "exposing"} <= {row["phase"] for row in night}
    assert any(float(row["power_percent"]) > 50 for row in night)
    assert night[-1]["guide_pulses"] == "2" and night[0]["guide_pulses"] == "0"
    assert "filter" in ended.out and "exposing" in ended.out

    # The power fails in the middle of a line; the next night goes on behind it.
    log.write_bytes(log.read_bytes()[:-20])
    assert run(tmp_path, "qsi-watch", *arguments, "--duration", "1").code == 0
    assert len(rows(log)) > len(night)
    assert log.read_text().count("temperature_c") == 1

    ended = run(tmp_path, "qsi-watch", "--csv", "night.csv", "--plot", "night.png")
    assert (ended.code, ended.out) == (0, "night.png\n"), ended
    with Image.open(tmp_path / "night.png") as shown:
        assert (shown.format, shown.size) == ("PNG", (900, 500))
        shades = shown.convert("L").getextrema()
        assert shades[0] < 50 and shades[1] > 250
    assert sorted(path.name for path in tmp_path.iterdir()) == ["night.csv", "night.png"]


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "time,device"])
def test_other_files_are_left_alone(text: str, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text(text)
    ended = run(tmp_path, "qsi-watch", "--csv", "other.csv", "--plot", "x.png")
    assert ended.code == 1 and "is no log of qsi-watch" in ended.err
    if text:
        ended = run(tmp_path, "qsi-watch", "--csv", "other.csv")
        assert ended.code == 1 and "choose another name" in ended.err
    assert other.read_text() == text and not (tmp_path / "x.png").exists()


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(
        "time,device,temperature_c,power_percent,phase,seconds_left,filter,guide_pulses,alarms\n"
        "2026-01-01T00:00:00+00:00,QSI CCD,warm,0,idle,,,0,\n"
    )
    ended = run(tmp_path, "qsi-watch", "--csv", "log.csv", "--plot", "x.png")
    assert ended.code == 1 and "log.csv, line 2" in ended.err
    assert run(tmp_path, "qsi-watch", "--plot", "x.png").code == 2
    ended = run(tmp_path, "qsi-watch", "--csv", "none.csv", "--plot", "x.png")
    assert (ended.code, ended.err) == (1, "qsi-watch: none.csv: No such file or directory\n")


def test_without_matplotlib_the_remedy_is_told(tmp_path: Path) -> None:
    (tmp_path / "lacks" / "matplotlib").mkdir(parents=True)
    (tmp_path / "lacks" / "matplotlib" / "__init__.py").write_text("raise ImportError\n")
    environ = {"PYTHONPATH": str(tmp_path / "lacks")}
    ended = run(tmp_path, "qsi-watch", "--csv", "x.csv", "--plot", "x.png", environ=environ)
    assert ended.code == 1 and "apt install python3-matplotlib" in ended.err


def test_it_outlives_the_server(tmp_path: Path) -> None:
    with Sim(tmp_path) as sim:
        listen = f"127.0.0.1:{free_port()}"
        with stand_alone(tmp_path, sim.environ, listen=listen) as server:
            patient = Running(
                tmp_path, "qsi-watch", "--server", listen, "--csv", "log.csv", "--interval", "0.2", *BOUNDED
            )
            hasty = Running(tmp_path, "qsi-watch", "--server", listen, "--patience", "0")
            limited = Running(
                tmp_path, "qsi-watch", "--server", listen, "--patience", "0.02", "--csv", "limited.csv"
            )
            for log in ("log.csv", "limited.csv"):
                eventually(lambda log=log: (tmp_path / log).exists() and rows(tmp_path / log), "it watches")
            assert hasty.process.stdout is not None and hasty.process.stdout.readline()
            server.process.kill()
            ended = hasty.ended()
            assert ended.code == 3 and f"The INDI server at {listen} is gone" in ended.err
            ended = limited.ended()
            assert ended.code == 3 and "is gone" in ended.err
        before = len(rows(tmp_path / "log.csv"))
        with stand_alone(tmp_path, sim.environ, listen=listen) as server:
            server.connect()
            eventually(
                lambda: [row for row in rows(tmp_path / "log.csv")[before:] if row["temperature_c"]],
                "it goes on",
            )
            patient.process.send_signal(signal.SIGINT)
            ended = patient.ended()
        assert ended.code == 0 and "is there again" in ended.err


def test_what_is_not_there_is_said(server: Server, tmp_path: Path) -> None:
    ended = run(tmp_path, "qsi-watch", "--server", f"localhost:{free_port()}")
    assert ended.code == 3 and "No INDI server answers" in ended.err
    ended = run(tmp_path, "qsi-watch", "--server", server.address, "--once", "--device", "Other")
    assert ended.code == 4 and "has no Other; it has QSI CCD" in ended.err


def test_a_terminal_gets_a_screen(server: Server, tmp_path: Path) -> None:
    server.connect()
    command = ["env", "--default-signal=INT", PROGRAMS / "qsi-watch", "--server", server.address]
    terminal = Terminal(tmp_path, command)
    eventually(
        lambda: "683wsg" in terminal.text and "°C, of 0 minutes" in terminal.text, "the screen is drawn"
    )
    server.set("CCD_TEMPERATURE.CCD_TEMPERATURE_VALUE=100")  # is refused, which every client is told
    eventually(lambda: "CCD_TEMPERATURE_VALUE" in terminal.text, "the message is shown")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.wait() == 0
    for text in ("temperature", "power", "filter", "guiding", "messages of"):
        assert text in terminal.text
    assert re.search(r"QSI CCD: +-?\d+\.\d °C", terminal.text), "the last state stays to be read"
