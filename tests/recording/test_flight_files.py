# SPDX-License-Identifier: LGPL-2.1-or-later
"""The flight recorder's files: few, small, for their owner only, and never in the way of a camera."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.indi import PATIENCE, eventually
from usbproto import flightfiles
from usbproto.flight import FORMAT, KEPT, VERSION, FlightRecorder
from usbproto.flightfiles import (
    FIRST_KEPT,
    MAX_BYTES,
    MAX_FILE,
    MAX_FILES,
    PER_KIND,
    FlightFiles,
    NotAFlight,
    read,
)
from usbproto.recording import RecordingError

STATE, IDLE = b"\x42\0", bytes.fromhex("420407000000")


def recorder() -> FlightRecorder:
    made = FlightRecorder()
    made.facts["driver"] = "1.2"
    made.answered(STATE, IDLE, 0.0, 0.1)
    return made


def large() -> FlightRecorder:
    """More than fits into a file."""
    made = FlightRecorder()
    for number in range(KEPT):
        made.failed(STATE, number.to_bytes(32, "big"), "\U0001f52d" * 1000, float(number), 0.1)
    return made


def saved(files: FlightFiles, kind: str, what: FlightRecorder | None = None) -> Path:
    path = files.save(what or recorder(), kind, "a test")
    assert path is not None
    return eventually(lambda: path if path.exists() else None, f"{path} is written")


def planted(folder: Path, number: int, kind: str = "old", size: int = 100) -> Path:
    """A file of a former night."""
    at = datetime(2020, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
    path = folder / f"flight-{at:%Y%m%dT%H%M%S}.000Z-{kind}.jsonl"
    path.write_bytes(b"x" * size)
    return path


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flightfiles, "PAUSE", 0.0)


class Gate:
    """A disk that does not answer until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._opened, self.reached = threading.Event(), threading.Event()
        real = os.open

        def slow(path: Any, flags: int, *more: Any, **named: Any) -> int:
            if str(path).endswith(".part"):
                self.reached.set()
                self._opened.wait(PATIENCE)
            return real(path, flags, *more, **named)

        monkeypatch.setattr(os, "open", slow)

    def open(self) -> None:
        self._opened.set()


# --- a file ---


def test_a_file_is_written_and_can_be_read(tmp_path: Path) -> None:
    folder = tmp_path / "home" / ".indi" / flightfiles.FOLDER
    files = FlightFiles(folder)
    before = datetime.now(UTC)
    path = files.save(recorder(), "Link error", "The camera did not answer")
    files.close()
    assert path is not None and path.parent == folder
    assert [file.name for file in folder.iterdir()] == [path.name]
    assert path.stat().st_mode & 0o777 == 0o600
    heading, line = read(path)
    assert (heading[FORMAT], heading["driver"]) == (VERSION, "1.2")
    assert (heading["kind"], heading["reason"]) == ("link-error", "The camera did not answer")
    assert (line["sent"], line["got"]) == (STATE.hex(), IDLE.hex())
    (listed,) = flightfiles.files(folder)
    assert (listed.path, listed.kind, listed.size) == (path, "link-error", path.stat().st_size)
    assert abs(listed.at - before) < timedelta(seconds=PATIENCE)
    assert ":" not in path.name


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("", "other"),
        ("../../etc/passwd", "etc-passwd"),
        ("Ä" * 90, "other"),
        ("a" * 90, "a" * 24),
        ("..", "other"),
    ],
)
def test_a_kind_is_a_harmless_part_of_a_name(tmp_path: Path, kind: str, word: str) -> None:
    files = FlightFiles(tmp_path)
    assert saved(files, kind).name.endswith(f"Z-{word}.jsonl")
    files.close()
    assert [file.kind for file in flightfiles.files(tmp_path)] == [word]


def test_what_happens_after_the_call_is_not_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    files, camera = FlightFiles(tmp_path), recorder()
    path = files.save(camera, "odd", "")
    camera.answered(STATE, bytes(6), 1.0, 0.1)
    gate.open()
    files.close()
    assert path is not None and len(read(path)) == 2


def test_the_oldest_entries_of_too_large_a_file_are_left_out(tmp_path: Path) -> None:
    files, camera = FlightFiles(tmp_path), large()
    path = saved(files, "large", camera)
    files.close()
    assert MAX_FILE - 3000 < path.stat().st_size <= MAX_FILE
    assert read(path)[-1] == camera.lines()[-1]


# --- how often ---


def test_one_kind_gets_one_file_in_a_while_and_another_kind_its_own(tmp_path: Path) -> None:
    files, camera = FlightFiles(tmp_path), recorder()
    first = files.save(camera, "link", "1")
    assert first is not None
    assert [files.save(camera, "link", str(number)) for number in range(100)] == [first] * 100
    other = files.save(camera, "state", "")
    files.close()
    assert {path.name for path in tmp_path.iterdir()} == {first.name, other.name if other else ""}
    assert read(first)[0]["reason"] == "1"


def test_a_long_night_with_a_bad_cable_has_few_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, skipped = time.monotonic, 0.0
    monkeypatch.setattr(time, "monotonic", lambda: real() + skipped)
    files, camera = FlightFiles(tmp_path), recorder()
    told: set[Path | None] = set()
    for _ in range(10 * 3600):  # one failure a second
        path = files.save(camera, "link", "")
        if path not in told and path is not None:
            eventually(path.exists, "the file is written")
        told.add(path)
        skipped += 1.0
    assert 10 < len(told - {None}) < 25
    assert len(flightfiles.files(tmp_path)) == PER_KIND
    skipped += 8 * 3600.0
    assert saved(files, "link", camera) not in told
    skipped += 11.0  # the second file of a new night does not wait for an hour
    assert saved(files, "link", camera) not in told
    files.close()


def test_two_cameras_have_a_file_each(tmp_path: Path) -> None:
    files = FlightFiles(tmp_path)
    first, second = recorder(), recorder()
    paths = {files.save(camera, "link", "") for camera in (first, second)}
    files.close()
    assert set(tmp_path.iterdir()) == paths and len(paths) == 2


@pytest.mark.usefixtures("no_pause")
def test_the_first_files_of_a_kind_stay_and_the_newest(tmp_path: Path) -> None:
    files = FlightFiles(tmp_path)
    other = saved(files, "odd")
    paths = [saved(files, "link") for _ in range(3 * PER_KIND)]
    files.close()
    newest = PER_KIND - FIRST_KEPT
    assert set(tmp_path.iterdir()) == {other, *paths[:FIRST_KEPT], *paths[-newest:]}


# --- how much ---


def test_no_more_files_than_the_limit(tmp_path: Path) -> None:
    old = [planted(tmp_path, number) for number in range(MAX_FILES + 5)]
    files = FlightFiles(tmp_path)
    new = saved(files, "new")
    files.close()
    assert set(tmp_path.iterdir()) == {new, *old[-(MAX_FILES - 1) :]}


def test_no_more_bytes_than_the_limit(tmp_path: Path) -> None:
    old = [planted(tmp_path, number, size=MAX_BYTES // 5) for number in range(6)]
    files = FlightFiles(tmp_path)
    new = saved(files, "new", large())
    files.close()
    assert set(tmp_path.iterdir()) == {new, *old[-3:]}
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= MAX_BYTES


def test_what_a_crash_left_half_written_is_removed_in_its_turn(tmp_path: Path) -> None:
    left = planted(tmp_path, 0)
    left = left.rename(tmp_path / f".{left.name}.part")
    assert flightfiles.files(tmp_path) == []
    for number in range(1, MAX_FILES):
        planted(tmp_path, number)
    files = FlightFiles(tmp_path)
    saved(files, "new")
    files.close()
    assert not left.exists()


def test_files_that_are_not_ours_are_neither_counted_nor_removed(tmp_path: Path) -> None:
    target = tmp_path / "picture.fits"
    target.write_text("pixels")
    names = [f"flight-20210101T00000{number}.000Z-old.jsonl" for number in range(3)]
    (tmp_path / names[0]).symlink_to(target)
    os.mkfifo(tmp_path / names[1])
    (tmp_path / names[2]).mkdir()
    (tmp_path / "flight-20209999T000000.000Z-old.jsonl").write_text("no such day")
    (tmp_path / "flight-plan.jsonl").write_text("of the user")
    before = set(tmp_path.iterdir())
    ours = [planted(tmp_path, 60 + number) for number in range(MAX_FILES)]
    files = FlightFiles(tmp_path)
    new = saved(files, "new")
    files.close()
    assert set(tmp_path.iterdir()) == before | {new, *ours[1:]}
    assert target.read_text() == "pixels"


@pytest.mark.parametrize("thing", ["symlink", "fifo", "folder"])
def test_what_has_taken_the_name_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, thing: str
) -> None:
    gate = Gate(monkeypatch)
    target = tmp_path / "target"
    folder = tmp_path / "flights"
    files = FlightFiles(folder)
    path = files.save(recorder(), "odd", "")
    assert path is not None and gate.reached.wait(PATIENCE)
    if thing == "symlink":
        path.symlink_to(target)
    elif thing == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    gate.open()
    files.close()
    assert not target.exists() and not path.is_file()
    assert [entry.name for entry in folder.iterdir()] == [path.name]
    assert len(warnings(caplog)) == 1 and "exists" in warnings(caplog)[0]


# --- a bad disk ---


@pytest.mark.usefixtures("no_pause")
def test_a_folder_that_cannot_be_used_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "flights"
    place.write_text("a file in its place")
    files = FlightFiles(place)
    assert files.save(recorder(), "first", "") is not None  # nobody knows yet
    eventually(lambda: warnings(caplog), "a warning")
    assert files.save(recorder(), "second", "") is None
    assert place.read_text() == "a file in its place"
    place.unlink()
    files.save(recorder(), "third", "")
    eventually(lambda: place.exists() and flightfiles.files(place), "the disk is well again")
    assert eventually(lambda: files.save(recorder(), "third", "")) is not None
    files.close()
    assert len(warnings(caplog)) == 1 and "The camera is not affected" in warnings(caplog)[0]


FULL = """
import logging, resource, sys
from pathlib import Path
from usbproto import flightfiles
from usbproto.flight import FlightRecorder
from usbproto.flightfiles import FlightFiles
logging.basicConfig(format="%(levelname)s %(message)s")
resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))
flightfiles.PAUSE = 0.0
files = FlightFiles(Path(sys.argv[1]))
recorder = FlightRecorder()
for kind in ("one", "two", "three"):
    recorder.note("note", "n" * 100)
    files.save(recorder, kind, "")
files.close()
print("the camera goes on", files.save(recorder, "four", ""))
"""


def test_a_full_disk_is_one_warning_and_leaves_nothing(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, timeout=5 * PATIENCE
    )
    assert result.stdout == "the camera goes on None\n", result.stderr
    assert result.stderr.count("WARNING") == 1 and "File too large" in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_pause")
def test_a_disk_that_hangs_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flightfiles, "CLOSE_TIME", 0.1)
    gate = Gate(monkeypatch)
    files = FlightFiles(tmp_path)
    # If one of these waited for the disk, the test would wait for PATIENCE and find a file.
    paths = [files.save(recorder(), "hangs", "") for _ in range(3 * flightfiles.MAX_WAITING)]
    assert gate.reached.wait(PATIENCE)
    assert paths[0] is not None and paths[-1] is None
    files.close()
    assert list(tmp_path.iterdir()) == []
    gate.open()
    # What had a place in the queue is still written.
    eventually(lambda: len(flightfiles.files(tmp_path)) == PER_KIND, "the disk answers again")


def test_without_another_thread_nothing_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of a process, for example."""

    def refuses(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    files = FlightFiles(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuses)
        assert files.save(recorder(), "odd", "") is None
    saved(files, "odd")
    files.close()


def test_nothing_is_saved_after_the_end(tmp_path: Path) -> None:
    files = FlightFiles(tmp_path / "flights")
    files.close()
    assert files.save(recorder(), "late", "") is None
    assert not (tmp_path / "flights").exists()


# --- reading ---


def heading(**more: object) -> str:
    return json.dumps({FORMAT: VERSION, **more})


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("", NotAFlight, "not a flight recorder's file"),
        ("\0\xff", NotAFlight, "not a flight recorder's file"),
        ("[1]", NotAFlight, "not an object"),
        ("[" * 100_000, NotAFlight, "not a flight recorder's file"),
        ('{"qsi-recording":1}', NotAFlight, "version 1"),
        (json.dumps({FORMAT: VERSION + 1}), NotAFlight, "version 1"),
        (heading() + "\n{}\nnonsense\n", RecordingError, "line 3"),
        (heading() + "\n[]\n", RecordingError, "line 2: not an object"),
        (heading() + "\n" + "{}\n" * MAX_FILE, RecordingError, "more than"),
    ],
)
def test_what_is_not_such_a_file_is_a_clear_error(
    tmp_path: Path, text: str, error: type[Exception], words: str
) -> None:
    path = tmp_path / "file"
    path.write_text(text)
    with pytest.raises(error, match=words) as raised:
        read(path)
    assert str(path) in str(raised.value)


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(RecordingError, match="not a regular file"):
        read(tmp_path / "fifo")
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        read(tmp_path)


def test_no_folder_has_no_files(tmp_path: Path) -> None:
    assert flightfiles.files(tmp_path / "missing") == []
