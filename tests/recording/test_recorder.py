# SPDX-License-Identifier: LGPL-2.1-or-later
"""The recorder: what is in a recording, what is not, and that nothing of it can hurt an exposure."""

from __future__ import annotations

import base64
import hashlib
import os
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import usb.core
import usb.util

from indi_qsi.bus import Bus
from indi_qsi.recording import FILE_VARIABLE, MASK_VARIABLE, PIXELS_VARIABLE
from tests.protocol.bench import usb_bench
from tests.recording.make import expose
from tests.support.workbench import connected
from usbproto import discovery, models, recording
from usbproto.recording import Masks, Recorder, RecordingError
from usbproto.recording_usb import recording_backend
from usbproto.simulator.backend import SimulatorBackend
from usbproto.simulator.bodies import CameraModel

SERIAL = "00683001"
DETAILS = 104  # bytes of the answer to GetDeviceDetails


def lines(path: Path) -> list[dict[str, Any]]:
    return list(recording.read(path))


def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **environ: str) -> tuple[Path, bytes]:
    """One small picture, recorded; the recording and the pixels as they went over the wire."""
    path = tmp_path / "night.jsonl"
    monkeypatch.setenv("INDI_QSI_RECORD", str(path))
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with connected(tmp_path) as (sim, _, client):
        client.small_frame()
        client.new("Text", "UPLOAD_SETTINGS", UPLOAD_DIR="/home/galileo", UPLOAD_PREFIX="secret")
        client.new("Text", "FILTER_NAME", FILTER_SLOT_NAME_1="private")
        client.wait_for("setTextVector", name="UPLOAD_SETTINGS")
        expose(client, 0.05)
        frame = sim.camera.last_frame
        assert frame is not None
        return path, frame.astype("<u2").tobytes()


def test_what_is_told_and_what_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, pixels = record(tmp_path, monkeypatch)
    text = path.read_text()
    for private in (SERIAL, SERIAL.encode().hex(), "galileo", "secret", "private"):
        assert private not in text
    assert path.stat().st_mode & 0o077 == 0
    found = lines(path)
    assert found[0]["qsi-recording"] == recording.VERSION and found[0]["masked"]
    assert {line["e"] for line in found[1:]} <= set(recording.EVENTS)
    asked = [(line["name"], line["values"]) for line in found if line.get("e") == "request"]
    assert asked[0] == ("CONNECTION", [["CONNECT", "On"]])
    assert asked[-1] == ("CCD_EXPOSURE", [["CCD_EXPOSURE_VALUE", "0.05"]])
    sent = [line["data"] for line in found if line.get("e") == "write"]
    assert sent[0] == "4b00" and sent.count("4500") == 1
    (image,) = (line for line in found if "sha256" in line)
    assert image["data"] == "450100" and image["length"] == len(pixels) and "pixels" not in image
    assert image["sha256"] == hashlib.sha256(pixels).hexdigest()
    assert found[-1]["e"] == "release"


def test_serial_numbers_and_pixels_when_the_user_wants_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, pixels = record(tmp_path, monkeypatch, **{MASK_VARIABLE: "0", PIXELS_VARIABLE: "1"})
    assert SERIAL in path.read_text()
    (image,) = (line for line in lines(path) if "sha256" in line)
    assert zlib.decompress(base64.b64decode(image["pixels"])) == pixels


def test_masks_keep_lengths_and_tell_cameras_apart() -> None:
    masks = Masks()
    for serial in (SERIAL, "00583001", SERIAL):
        masks.add(serial)
    assert masks.text(f"{SERIAL} 00583001") == "00600001 00500002"
    assert masks.bytes(b"\0" + SERIAL.encode() + b"\0") == b"\x0000600001\0"
    masks.add("12")  # too short to be anybody's


def test_serial_numbers_are_masked_in_answers_that_have_them_in_pieces() -> None:
    """GetEEPROM fetches one character at a time, and GetDeviceDetails may have a number that USB does not show."""
    masks = Masks()
    masks.add(SERIAL)

    def digits(serial: str) -> str:
        asked = [bytes.fromhex(f"600200{0x10 + n:02x}") for n in range(len(serial))]
        answers = [bytes((0x60, 2, ord(digit), 0)) for digit in serial]
        shown = [recording.masked_answer(masks, *pair) for pair in zip(asked, answers, strict=True)]
        assert all((answer[:2], answer[3:]) == (b"\x60\x02", b"\0") for answer in shown)
        return "".join(chr(answer[2]) for answer in shown)

    assert digits(SERIAL) == masks.text(SERIAL) == "00600001"
    assert digits("\xff" * 8) == "\xff" * 8  # not initialised
    assert "77" not in digits("77777777")[3:]
    other = bytes.fromhex("6002002a"), b"\x60\x02\x36\x00"
    assert recording.masked_answer(masks, *other) == other[1]
    details = b"\x41\x66" + bytes(85) + b"00599123".ljust(16, b"\0") + b"\0"
    shown = recording.masked_answer(masks, b"\x41\0", details)
    assert shown[87:95] == b"00500002" and len(shown) == len(details)
    assert recording.masked_answer(None, b"\x41\0", details) == details


def test_packets_are_of_the_size_that_the_descriptor_has(tmp_path: Path) -> None:
    """The product is that of a chip with packets of 512 bytes; behind a hub of USB 1.1 they have 64."""
    chip = replace(models.FT2232H, packet=models.FT245.packet)
    body = CameraModel.parse("683wsg")
    recorder = Recorder(tmp_path / "r.jsonl")
    with usb_bench(replace(body, series=replace(body.series, chip=chip))) as b:  # type: ignore[arg-type]
        device = usb.core.find(backend=recording_backend(b.backend, recorder), idVendor=models.VENDOR_ID)
        device.set_configuration(1)
        for mode in (0x00FF, 0x40FF):
            device.ctrl_transfer(0x40, 0x0B, mode, 1)
        device.write(0x02, bytes.fromhex("4100"))
        came = 0
        while came < DETAILS:
            block = device.read(0x81, 4096)
            came += sum(max(0, len(block[at : at + 64]) - 2) for at in range(0, len(block), 64))
        usb.util.dispose_resources(device)
    recorder.close()
    (answer,) = (bytes.fromhex(line["data"]) for line in lines(recorder.path) if line.get("e") == "read")
    assert len(answer) == DETAILS and answer[23:29] == b"683wsg"


def test_a_recording_is_never_overwritten(tmp_path: Path) -> None:
    for name in ("r.jsonl", "r-2.jsonl", "r-3.jsonl"):
        recorder = Recorder(tmp_path / "r.jsonl")
        recorder.close()
        assert recorder.path.name == name


def test_a_place_where_no_file_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FILE_VARIABLE, str(tmp_path / "missing" / "r.jsonl"))
    with connected(tmp_path) as (_, server, client):
        client.small_frame()
        expose(client, 0.05)
        assert "nothing is recorded" in server.log and "No such file" in server.log


def test_a_disk_that_is_full_ends_the_recording_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recording, "_create", lambda path: (path, os.open("/dev/full", os.O_WRONLY)))
    recorder = Recorder(tmp_path / "r.jsonl")
    with usb_bench() as b:
        b.camera = discovery.open_camera(backend=recording_backend(b.backend, recorder))
        b.check_picture()
        assert not recorder.recording
        b.check_picture()
        b.camera.close()
    recorder.close()
    assert [record.levelname for record in caplog.records if "ends here" in record.message] == ["ERROR"]
    assert "No space left" in caplog.text


def test_a_recording_has_a_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "MAX_FILE", 3000)
    recorder = Recorder(tmp_path / "r.jsonl")
    for number in range(200):
        recorder.note("write", n=1, data=f"{number:04x}")
    recorder.close()
    assert lines(tmp_path / "r.jsonl")[-1]["e"] == "end"
    assert (tmp_path / "r.jsonl").stat().st_size < 3200


def test_a_disk_that_hangs_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    monkeypatch.setattr(recording, "_create", lambda path: (path, os.open(tmp_path / "fifo", os.O_WRONLY)))
    monkeypatch.setattr(recording, "CLOSE_TIME", 0.1)
    recorder = Recorder(tmp_path / "r.jsonl")
    for _ in range(2 * recording.MAX_WAITING):  # more than a pipe holds: nobody reads it
        recorder.note("write", n=1, data="00" * 100)
    assert not recorder.recording
    recorder.close()
    os.close(reader)


def test_what_is_not_wanted_is_not_there() -> None:
    """Without the variable there is no recorder in the way."""
    assert Bus().backend() is None
    bus = Bus("sim")
    assert type(bus.backend()) is SimulatorBackend
    bus.close()


def test_a_line_that_was_cut_by_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    recorder = Recorder(path)
    recorder.note("write", n=1, data="4b00")
    recorder.close()
    whole = path.read_text()
    path.write_text(whole[:-5])
    assert len(lines(path)) == 1
    path.write_text(whole[:-5] + "\n" + whole)
    with pytest.raises(RecordingError, match="line 2"):
        lines(path)


@pytest.mark.parametrize("text", ["", "[]\n", "{}\n", '{"qsi-recording": 99}\n', "\0\n", "x"])
def test_what_is_no_recording(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(text)
    with pytest.raises(RecordingError):
        lines(path)
