# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every recording is played back and must come out the same; changed ones must not."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from indi_qsi.bus import Bus
from tests.recording.make import RECORDINGS, SCENES
from tests.support.rig import PROGRAMS, stand_alone
from tests.support.workbench import Observer
from usbproto.errors import BadArgument
from usbproto.simulator.replay import Connection, Exchange, Replay

ALL = sorted(RECORDINGS.glob("*.jsonl"))
SHORTEST = RECORDINGS / "583-too-warm.jsonl"
Lines = list[dict[str, Any]]


def played(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAMS / "qsi-replay", path], capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_the_driver_does_what_was_recorded(path: Path) -> None:
    result = played(path)
    assert (result.returncode, result.stdout) == (0, "same\n"), result


def test_every_scene_is_recorded() -> None:
    assert set(SCENES) <= {path.stem for path in ALL}


def first(lines: Lines, event: str, start: str = "") -> int:
    return next(
        i for i, line in enumerate(lines) if line.get("e") == event and start in line.get("data", start)
    )


def other_exposure(lines: Lines) -> None:
    at = first(lines, "write", "43")
    lines[at]["data"] = lines[at]["data"][:-2] + "77"


def no_settings(lines: Lines) -> None:
    at = first(lines, "write", "4d")
    del lines[at : at + 2]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (other_exposure, "the driver sent StartExposure"),
        (no_settings, "the driver sent SetAdvSettings"),
    ],
)
def test_the_first_difference_is_told(tmp_path: Path, change: Callable[[Lines], None], says: str) -> None:
    lines = [json.loads(line) for line in SHORTEST.read_text().splitlines()]
    change(lines)
    path = tmp_path / "changed.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = played(path)
    assert result.returncode == 1, result
    assert "different: line " in result.stdout and says in result.stdout


@pytest.mark.parametrize("text", ["", "nonsense", '{"qsi-recording": 2}\n', '{"qsi-recording": 1}\n'])
def test_what_cannot_be_played(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(text)
    result = played(path)
    assert (result.returncode, result.stdout) == (2, ""), result
    assert result.stderr.startswith("qsi-replay: ") and "Traceback" not in result.stderr


def test_a_missing_file(tmp_path: Path) -> None:
    assert played(tmp_path / "none").returncode == 2


@pytest.mark.parametrize("line", ['{"e":"read","n":1}', '{"e":"claim"}', '{"e":"write","n":7,"data":"zz"}'])
def test_a_line_that_makes_no_sense(tmp_path: Path, line: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"qsi-recording":1}\n' + line + "\n")
    with pytest.raises(BadArgument, match="line 2"):
        Bus(f"replay:{path}").backend()


def test_a_recording_as_the_camera_of_an_ordinary_driver(tmp_path: Path) -> None:
    """Whoever has the recording can look at what the camera said with a client of his own."""
    environ = {"INDI_QSI_USB": f"replay:{SHORTEST}"}
    with stand_alone(tmp_path, environ) as server, Observer(server.address) as client:
        client.connect_camera()
        assert client.messages_with("QSI 583wsg, serial 00500001")


# --- the order of things, without a driver ---


def exchange(line: int, data: str, *came: str) -> Exchange:
    return Exchange(line, 0.0, ("write", data), None, [(0.0, bytes.fromhex(item)) for item in came])


def replay(*exchanges: Exchange) -> tuple[Replay, Callable[[str], bytes | int | None]]:
    made = Replay([Connection(1, 1, 0.0, 0xEB49, "00600001", None, list(exchanges))])
    camera = made.claim("00600001")
    assert not isinstance(camera, int)

    def ask(data: str) -> bytes | int | None:
        error = camera.did("write", data)
        return error if error is not None else camera.due()

    return made, ask


def test_polls_are_answered_by_the_stage() -> None:
    made, ask = replay(
        exchange(2, "4200", "01"),
        exchange(3, "43aa", "02"),
        exchange(4, "4200", "03"),
        exchange(5, "4200", "04"),
        exchange(6, "4500", "05"),
        exchange(7, "4200", "06"),
    )
    assert [ask("4200") for _ in range(3)] == [b"\1"] * 3
    assert ask("43aa") == b"\2"
    assert [ask("4200") for _ in range(4)] == [b"\3", b"\4", b"\4", b"\4"]
    assert ask("4500") == b"\5"
    assert ask("4200") == b"\6"
    assert made.difference is None and made.missing() is None


def test_parts_of_a_camera_may_change_places_and_nothing_else() -> None:
    made, ask = replay(exchange(2, "43aa", "01"), exchange(3, "46bb", "02"), exchange(4, "4500", "03"))
    assert ask("46bb") == b"\2"
    assert ask("43aa") == b"\1"
    assert made.difference is None
    made, ask = replay(exchange(2, "43aa", "01"), exchange(3, "46bb", "02"), exchange(4, "4500", "03"))
    ask("4500")
    assert "sent TransferImage (4500), recorded is StartExposure (43aa)" in str(made.difference)
    made, ask = replay(exchange(2, "4d00", "01"), exchange(3, "46bb", "02"))
    ask("46bb")  # settings have no part, and keep their place
    assert str(made.difference).startswith("line 2: ")


def test_what_is_left_over_and_what_is_too_much() -> None:
    made, ask = replay(exchange(2, "43aa", "01"), exchange(3, "4200", "02"))
    assert "did not send StartExposure" in str(made.missing())
    assert not made.reached(3)
    ask("43aa")
    assert made.reached(99) and made.missing() is None  # a poll that was not made is none
    ask("4500")
    assert "nothing more" in str(made.difference)
    assert ask("4200") == 19  # what follows is no difference of its own
    made, ask = replay(exchange(2, "43aa", "01"))
    ask("4700")
    assert "never asked" in str(made.difference)
    made.release("00600001")
    assert made.claim("00600001") == 19
