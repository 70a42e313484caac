# SPDX-License-Identifier: LGPL-2.1-or-later
"""`qsi-replay show`: a flight recorder's file and a recording as tables."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.recording.make import RECORDINGS
from tests.tools.running import Ended, run, run_unread
from usbproto import packets as p
from usbproto import recording, showing
from usbproto.flight import FlightRecorder
from usbproto.flightfiles import FlightFiles
from usbproto.recording import RecordingError

ALL = sorted(RECORDINGS.glob("*.jsonl"))
STATE = p.encode_request(p.GET_DEVICE_STATE, p.Empty())
IDLE = p.encode_answer(p.GET_DEVICE_STATE, p.DeviceState(p.CameraState.IDLE, False, True))


def shown(recorder: FlightRecorder) -> list[str]:
    """The rows of the table, without what stands above it."""
    lines = list(showing.table(recorder.lines("a reason", "odd")))
    return lines[lines.index(showing.HEADER) + 1 :]


def row(sent: bytes, got: bytes, error: str = "") -> str:
    recorder = FlightRecorder()
    if error:
        recorder.failed(sent, got, error, 0.0, 0.0012)
    else:
        recorder.answered(sent, got, 0.0, 0.0012)
    (line,) = shown(recorder)
    return line


# --- a flight recorder's entries ---


def test_the_heading_has_reason_time_and_facts() -> None:
    recorder = FlightRecorder()
    recorder.facts |= {"model": "683wsg", "firmware": "6.3.4"}
    first, second, third, last = showing.table(recorder.lines("The camera left", "lost"))
    assert first == "lost: The camera left"
    assert second.startswith("saved at 20") and "s in this table" in second
    assert third == "model 683wsg, firmware 6.3.4"
    assert last == showing.HEADER


def test_a_row_has_name_bytes_fields_and_duration() -> None:
    line = row(STATE, IDLE)
    for part in ("1.2", "GetDeviceState", f"4200 -> {IDLE.hex()}", "state=IDLE", "filter_moving=yes"):
        assert part in line
    assert " x" not in line and "FAILED" not in line


def test_equal_exchanges_show_their_number_and_their_durations() -> None:
    recorder = FlightRecorder()
    for seconds in (0.001, 0.015, 0.002):
        recorder.answered(STATE, IDLE, 0.0, seconds)
    (line,) = shown(recorder)
    assert "x3" in line and "1.0..15.0" in line


def test_what_was_asked_is_decoded_too() -> None:
    request = p.SetTemperature(cooler_on=True, go_to_ambient=False, set_point=-12.5)
    line = row(p.encode_request(p.SET_TEMPERATURE, request), bytes.fromhex("460100"))
    assert "cooler_on=yes" in line and "set_point=-12.5" in line


@pytest.mark.parametrize(
    ("sent", "got", "words", "without"),
    [
        (STATE, IDLE[:-1] + b"\3", ("state=IDLE", "device error 3", "below 11 V"), ()),
        (STATE, IDLE[:-1] + b"\x63", ("device error 99 (not described)",), ()),
        (STATE, bytes.fromhex("420607000000aabb"), ("state=IDLE", "2 bytes more"), ("device error",)),
        (STATE, IDLE + b"\xaa", ("state=IDLE", "1 bytes more"), ("device error",)),
        (STATE, bytes.fromhex("42020700"), ("shorter than its layout",), ("state=",)),
        (STATE, IDLE[:4], (IDLE[:4].hex(),), ("state=", "shorter")),
        (STATE, b"\x47" + IDLE[1:], ("47040700",), ("state=",)),
        (STATE, b"", ("-> nothing",), ("state=",)),
        (b"", IDLE, ("(nothing sent)", IDLE.hex()), ("state=",)),
        (b"\xee\0", b"\xee\1\0", ("unknown command 0xee", "ee00 -> ee0100"), ()),
        (b"\x43\1\1", b"\x43\1\0", ("StartExposure ", "430101"), ("duration",)),
        (b"\x5c\0", bytes.fromhex("5c06000000000100"), ("flags=(0, 0, 0, 0, 1)",), ("device error",)),
        (b"\x65\1\2", bytes.fromhex("6503000100"), ("value=2", "data=2 bytes"), ("device error",)),
        (b"\x4d\0", b"\x4d\0", ("SetAdvSettings", "shorter than its layout"), ()),
    ],
)
def test_answers_of_every_shape(
    sent: bytes, got: bytes, words: tuple[str, ...], without: tuple[str, ...]
) -> None:
    line = row(sent, got)
    assert all(word in line for word in words), line
    assert not any(word in line for word in without), line


def test_a_failure_is_in_its_row() -> None:
    line = row(STATE, IDLE[:2], "The camera did not answer")
    assert "4200 -> 4204" in line and line.endswith("FAILED: The camera did not answer")


def test_an_answer_of_which_only_the_beginning_is_kept_is_not_decoded() -> None:
    line = row(b"\x41\0", b"\x41\x66" + bytes(102))
    assert "... (104 bytes)" in line and "columns" not in line


def test_a_byte_of_the_serial_number_is_not_shown_as_a_value() -> None:
    line = row(bytes.fromhex("60020010"), bytes.fromhex("60023000"))
    assert "hidden" in line and "value=" not in line


def test_every_command_with_a_full_answer_shows_its_fields() -> None:
    for command in p.COMMANDS.values():
        got = p.encode_refusal(command, 5)
        line = row(bytes((command.code, 0)), got)
        assert command.name in line and ("filter wheel failed" in line or len(got) > 32)


def test_notes_and_pixels_stand_between_the_exchanges() -> None:
    recorder = FlightRecorder()
    recorder.note("phase", "exposing")
    recorder.received("pixels", 17_000_000, time.monotonic() + 100.0, 0.5)
    first, second = shown(recorder)
    assert first.endswith("-- phase: exposing")
    assert second.endswith("pixels: 17000000 bytes") and "500.0" in second


def test_a_file_cannot_control_the_terminal() -> None:
    recorder = FlightRecorder()
    recorder.note("\33[2J", "\r\n\x9b31m")
    recorder.facts["model\33"] = "\33]0;title\7"
    text = "".join(showing.table(recorder.lines("\33[1m")))
    assert text.isprintable()


# --- a recording ---


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_all_packets_of_a_recording_are_shown(path: Path) -> None:
    lines = list(recording.read(path))
    rows = list(showing.table(lines))
    assert rows[0].startswith("recording: driver 0.1.0")
    sent = sum(line["e"] == "write" for line in lines[1:])
    named = [row for row in rows if any(command.name in row for command in p.COMMANDS.values())]
    counts = [int(found[1:]) for row in named for found in row.split()[1:2] if found.startswith("x")]
    assert sum(counts) + len(named) - len(counts) == sent
    assert any("GetDeviceState" in row and "state=IDLE" in row for row in named)
    assert any("CCD_EXPOSURE_VALUE" in row for row in rows)


def test_a_recorded_transfer_that_failed_is_shown_with_its_error() -> None:
    rows = list(showing.table(recording.read(RECORDINGS / "683-unplugged-in-transfer.jsonl")))
    assert [row for row in rows if "TransferImage" in row and "FAILED: USB error ENODEV" in row]


def exchanges(*lines: dict[str, Any]) -> list[tuple[Any, ...]]:
    found = showing.merged(showing.exchanges(lines))
    return [tuple(item.get(key) for key in ("sent", "got", "error", "count")) for item in found]


def test_answers_belong_to_the_command_of_their_connection() -> None:
    write = {"e": "write", "t": 0.0}
    read = {"e": "read", "t": 1.0}
    assert exchanges(
        {**write, "n": 1, "data": "4200"},
        {**write, "n": 2, "data": "4700"},
        {**read, "n": 1, "data": "42"},
        {**read, "n": 2, "data": "47"},
        {**read, "n": 2, "data": "ff"},
        {**write, "n": 1, "data": "4100"},
        {**write, "n": 1, "data": "4b00", "error": 5},
        {**write, "n": 1, "data": "4b00"},
    ) == [
        ("4200", "42", None, None),
        ("4700", "47", None, None),
        ("", "ff", None, None),
        ("4100", "", "no answer", None),
        ("4b00", "", "USB error EIO", None),
        ("4b00", "", "no answer", None),
    ]


# --- the program ---


def show(folder: Path, path: Path) -> Ended:
    return run(folder, "qsi-replay", "show", str(path))


def flight(folder: Path) -> Path:
    recorder = FlightRecorder()
    recorder.answered(STATE, IDLE, 0.0, 0.1)
    recorder.note("phase", "-10 °C")
    files = FlightFiles(folder)
    path = files.save(recorder, "odd", "The CCD is cold")
    files.close()
    assert path is not None
    return path


def test_the_program_shows_both_kinds(tmp_path: Path) -> None:
    ended = show(tmp_path, flight(tmp_path))
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("odd: The CCD is cold\n") and "state=IDLE" in ended.out
    ended = show(tmp_path, ALL[0])
    assert (ended.code, ended.err) == (0, "") and ended.out.startswith("recording: ")


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    for path in (flight(tmp_path), ALL[-1]):
        ended = run_unread(tmp_path, "qsi-replay", "show", str(path))
        assert (ended.code, ended.err) == (0, "")


def test_a_terminal_without_the_degree_sign(tmp_path: Path) -> None:
    environ = {"PYTHONIOENCODING": "ascii"}
    ended = run(tmp_path, "qsi-replay", "show", str(flight(tmp_path)), environ=environ)
    assert (ended.code, ended.err) == (0, "") and "-10 ?C" in ended.out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("nonsense", "line 1"),
        ('{"some": "json"}', "no recording"),
        ('{"qsi-flight": 1}\n', "not understood"),
        ('{"qsi-flight": 1, "at": "", "t": 0, "kind": "", "reason": ""}\n{"e":"exchange","sent":"x"}\n',
         "entry 2 is not understood"),
        ('{"qsi-recording": 1}\n{"e":"write","n":1}\n', "not understood"),
        ('{"qsi-recording": 1}\n{"e":"control","n":1,"setup":[]}\n', "not understood"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_shown_is_a_clear_error(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "file.jsonl"
    path.write_text(text)
    ended = show(tmp_path, path)
    assert ended.code == 2 and words in ended.err and ended.err.startswith("qsi-replay: ")
    assert "Traceback" not in ended.err


def test_files_that_are_not_there_or_never_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "missing", tmp_path / "fifo", tmp_path):
        ended = show(tmp_path, path)
        assert ended.code == 2 and ended.err.startswith("qsi-replay: ") and str(path) in ended.err


def test_lines_of_any_content_are_shown_or_refused() -> None:
    heading = FlightRecorder().lines()[0]
    for value in (None, 1, -1e300, "x", [], {}, "00", "4200"):
        for key in ("t", "e", "sent", "got", "took", "count", "least", "got_length", "error", "kind", "what"):
            line = {"t": 0, "e": "exchange", "sent": "4200", "got": "", "took": 0.1, key: value}
            text = json.loads(json.dumps(line))
            try:
                assert all(row.isprintable() for row in showing.table([heading, text]))
            except RecordingError as error:
                assert "entry 2" in str(error)
