# SPDX-License-Identifier: LGPL-2.1-or-later
"""Captures of real sessions are imported, and give what the driver's own recorder noted of the same session."""

from __future__ import annotations

import contextlib
import errno
import gzip
import itertools
import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indi_qsi import replay_import
from indi_qsi.bus import Bus
from tests.protocol.bench import KNOWN, UsbBench, usb_bench
from tests.recording import captures as c
from tests.recording.captures import exchanges
from tests.support.rig import PROGRAMS
from usbproto import discovery, models, recording
from usbproto.camera import Exposure
from usbproto.captures import importing
from usbproto.captures.container import CaptureError
from usbproto.errors import QsiError
from usbproto.identity import Eeprom
from usbproto.models import FT245, FT2232H, SERIES_500, SERIES_600, VENDOR_ID, Address, Chip
from usbproto.recording import Recorder
from usbproto.recording_usb import recording_backend
from usbproto.simulator.bodies import CameraModel

# An FT2232H behind a hub of USB 1.1.
FULL_SPEED = replace(FT2232H, packet=FT245.packet)
MODELS = {"FT245": ("583wsg", FT245), "FT2232H": ("683wsg", FT2232H), "full speed": ("683wsg", FULL_SPEED)}

EXPOSURE = 0.3  # s, the shortest of the 500 Series; the camera's time passes faster

Lines = list[dict[str, Any]]


@dataclass(frozen=True)
class Session:
    """What passed, as the transfers and as the recorder's lines."""

    noted: list[c.Noted]
    lines: Lines
    product: int
    chip: Chip
    serial: str

    @property
    def plugged(self) -> list[c.Noted]:
        return c.plugged(self.noted, VENDOR_ID, self.product, self.chip)


def use(b: UsbBench) -> None:
    """What a program does with a camera: images of more than one transfer, and its serial number."""
    b.take(b.window(16, 12), EXPOSURE)
    b.camera.temperatures()
    assert Eeprom(b.camera._link).text(Address.HARDWARE_SERIAL) == b.simulated.serial
    image = b.take(b.window(200, 100), EXPOSURE)
    np.testing.assert_array_equal(image.pixels, b.sensor_held())
    b.camera.close()


def recorded(folder: Path, kind: str, mask: bool = True) -> Session:
    model, chip = MODELS[kind]
    body = CameraModel.parse(model)
    series = replace(body.series, chip=chip)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "SERIES", (SERIES_500 if series.name != "500" else series, series))
        with usb_bench(replace(body, series=series)) as b:  # type: ignore[arg-type]  # it takes both
            noting = c.NotingBackend(b.backend)
            path = folder / f"{kind}.jsonl"
            recorder = Recorder(path, mask=mask)
            b.camera = discovery.open_camera(backend=recording_backend(noting, recorder), cache=KNOWN)
            use(b)
            recorder.close()
            serial = b.simulated.serial
    return Session(noting.noted, list(recording.read(path)), series.product_id, chip, serial)


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Session]:
    folder = tmp_path_factory.mktemp("sessions")
    return {kind: recorded(folder, kind) for kind in MODELS}


def imported(path: Path, content: bytes, **options: Any) -> tuple[importing.Imported, Lines]:
    path.write_bytes(content)
    result = importing.read(path, **options)
    output = path.with_suffix(".jsonl")
    output.unlink(missing_ok=True)
    assert result.write(output)
    return result, list(recording.read(output))


FORMS: dict[str, Callable[[list[c.Noted]], bytes]] = {
    "usbmon-pcap": lambda noted: c.pcap(c.USBMON_MAPPED, c.usbmon(noted)),
    "usbmon-pcapng": lambda noted: c.pcapng(c.USBMON_MAPPED, c.usbmon(noted)),
    "usbmon-48-big-endian-ns": lambda noted: c.pcap(
        c.USBMON, c.usbmon(noted, ">", c.USBMON), ">", nanoseconds=True
    ),
    "usbmon-pcapng-big-endian": lambda noted: c.pcapng(c.USBMON_MAPPED, c.usbmon(noted, ">"), ">"),
    "usbpcap-pcap": lambda noted: c.pcap(c.USBPCAP, c.usbpcap(noted)),
    "usbpcap-pcapng-old": lambda noted: c.pcapng(c.USBPCAP, c.usbpcap(noted, old=True)),
    "usbpcap-in-a-big-endian-file": lambda noted: c.pcap(c.USBPCAP, c.usbpcap(noted), ">"),
    "gzip": lambda noted: gzip.compress(c.pcap(c.USBMON_MAPPED, c.usbmon(noted)), 1),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", MODELS)
def test_an_import_has_the_exchanges_of_the_recorder(
    tmp_path: Path, sessions: dict[str, Session], kind: str, form: str
) -> None:
    session = sessions[kind]
    result, lines = imported(tmp_path / "capture", FORMS[form](session.plugged))
    assert lines[0]["masked"] and lines[0]["from"] == result.capture.format
    assert exchanges(lines) == exchanges(session.lines)
    assert sum("sha256" in line for line in lines) == 1
    assert result.complete and result.findings.understood
    facts = result.as_dict()
    assert facts["camera"]["found_by"] == "descriptor"
    assert facts["camera"]["packet"] == session.chip.packet
    assert facts["camera"]["packet_by"] == "descriptor"


@pytest.mark.parametrize("kind", MODELS)
def test_a_capture_from_the_middle_of_a_session(
    tmp_path: Path, sessions: dict[str, Session], kind: str
) -> None:
    """Without descriptors: the camera and the size of its packets are found by what is in the transfers."""
    session = sessions[kind]
    middle = session.noted[len(session.noted) // 3 :]
    result, lines = imported(tmp_path / "capture", c.pcap(c.USBMON_MAPPED, c.usbmon(middle)[1:]))
    camera = result.as_dict()["camera"]
    assert (camera["found_by"], camera["packet"]) == ("traffic", session.chip.packet)
    image = next(line for line in session.lines if "sha256" in line)
    assert [line["sha256"] for line in lines if "sha256" in line] == [image["sha256"]]


@pytest.mark.parametrize("kind", MODELS)
def test_the_series_of_a_camera_without_a_descriptor(
    tmp_path: Path, sessions: dict[str, Session], kind: str
) -> None:
    """Bulk transfers alone: an FT2232H at full speed is known by the model that the camera reports."""
    session = sessions[kind]
    bulk = [noted for noted in session.noted if noted.kind == c.BULK]
    result, lines = imported(tmp_path / "capture", c.pcap(c.USBPCAP, c.usbpcap(bulk)))
    claim = next(line for line in lines if line.get("e") == "claim")
    assert int(claim["product"], 16) == session.product
    assert claim["serial"] == result.serial == session.serial[:3] + "00001"


def test_what_is_learned_of_the_commands(tmp_path: Path, sessions: dict[str, Session]) -> None:
    result, _ = imported(tmp_path / "capture", FORMS["usbmon-pcap"](sessions["FT2232H"].plugged))
    facts = result.as_dict()
    commands = {command["name"]: command for command in facts["commands"]}
    assert (
        commands["GetDeviceDetails"]["lengths"] == [102, 102]
        and commands["GetDeviceDetails"]["layout"] == 102
    )
    assert commands["TransferImage"]["count"] == 2
    assert commands["TransferImage"]["data"] == [16 * 12 * 2, 200 * 100 * 2]
    assert commands["GetEEPROM"]["count"] > 8 and commands["GetEEPROM"]["odd"] == []
    assert commands["Init"]["slowest_ms"] > 0
    assert facts["latency_timer_ms"] == [1]
    assert {request["name"] for request in facts["chip_requests"]} == {
        "reset", "set bit mode", "set flow control", "set latency timer",
    }  # fmt: skip
    assert facts["failed_transfers"] == [] and facts["unknown_commands"] == []
    json.dumps(facts)


def test_serial_numbers_are_masked_wherever_they_are(tmp_path: Path, sessions: dict[str, Session]) -> None:
    session = sessions["FT2232H"]
    content = FORMS["usbmon-pcap"](session.plugged)
    result, lines = imported(tmp_path / "capture", content)
    for text in (json.dumps(lines), json.dumps(session.lines), json.dumps(result.as_dict())):
        assert session.serial not in text and session.serial.encode().hex() not in text
    for found in (lines, session.lines):
        assert eeprom_serial(found) == result.serial == "00600001"
    result, lines = imported(tmp_path / "capture", content, mask=False)
    assert eeprom_serial(lines) == result.serial == session.serial
    assert not lines[0]["masked"]


def test_a_serial_number_that_the_updater_writes_is_masked(
    tmp_path: Path, sessions: dict[str, Session]
) -> None:
    session = sessions["FT2232H"]
    noted = list(session.plugged)
    for number, digit in enumerate(b"00683479"):
        noted += said(session, bytes((0x61, 3, 0, 0x10 + number, digit)), b"\x61\x01\x00")
    noted += said(session, bytes((0x61, 10, 0, 0x10)) + b"00683479", b"\x61\x01\x00")
    _, lines = imported(tmp_path / "capture", c.pcap(c.USBMON_MAPPED, c.usbmon(noted)))
    written = [bytes.fromhex(line["data"])[4:] for line in lines if line.get("e") == "unknown"]
    assert b"".join(written[:8]) == written[8] == b"00600000"


def eeprom_serial(lines: Lines) -> str:
    """The serial number as it was read byte by byte."""
    text = ""
    for sent, came in itertools.pairwise(lines):
        if sent.get("e") == "write" and sent["data"].startswith("6002001") and came["e"] == "read":
            text += chr(bytes.fromhex(came["data"])[2]) if sent["data"][-2:] < "18" else ""
    return text


def test_an_import_is_the_camera_of_a_program(tmp_path: Path, sessions: dict[str, Session]) -> None:
    imported(tmp_path / "capture", FORMS["usbmon-pcap"](sessions["FT2232H"].plugged))
    bus = Bus(f"replay:{tmp_path / 'capture.jsonl'}")
    backend = bus.backend()
    camera = discovery.open_camera(backend=backend, cache=KNOWN)
    geometry = camera.array.fit(0, 0, 16, 12, 1, 1)
    camera.start_exposure(Exposure(EXPOSURE, geometry, True))
    assert camera.identity.model_number == "683wsg"
    assert backend.replay.difference is None
    camera.close()
    bus.close()


# --- which device ---


def other_device(first: c.Noted, address: int) -> list[c.Noted]:
    """A mouse, a disk and a webcam at once."""
    at = first.began
    return [
        c.Noted(c.INTERRUPT, address, 0x81, b"\0\1\2\3", at, at),
        c.Noted(c.ISOCHRONOUS, address, 0x82, bytes(3000), at, at),
        c.Noted(c.BULK, address, 0x81, b"USBS" + bytes(9), at, at),
        c.Noted(c.BULK, address, 0x02, b"USBC" + bytes(27), at, at),
        c.Noted(c.CONTROL, address, 0x80, bytes(4), at, at, bytes.fromhex("a101000100000400")),
        c.Noted(c.BULK, address, 0x81, b"", at, at, error=71),
    ]


def test_other_devices_are_passed_over(tmp_path: Path, sessions: dict[str, Session]) -> None:
    session = sessions["FT2232H"]
    noted = [*other_device(session.noted[0], 99), *session.plugged, *other_device(session.noted[-1], 99)]
    for form in FORMS.values():
        result, lines = imported(tmp_path / "capture", form(noted))
        assert exchanges(lines) == exchanges(session.lines)
        assert result.as_dict()["failed_transfers"] == []


def test_requests_of_windows_that_are_no_transfers(tmp_path: Path, sessions: dict[str, Session]) -> None:
    """USBPcap notes them with a kind of its own; nothing of the camera is missing."""
    session = sessions["FT2232H"]
    packets = c.usbpcap(session.plugged)
    other = bytearray(packets[0][1])
    other[22] = 0xFE
    result, lines = imported(
        tmp_path / "capture", c.pcap(c.USBPCAP, [(packets[0][0], bytes(other)), *packets])
    )
    assert result.complete and exchanges(lines) == exchanges(session.lines)
    short = (packets[0][0], packets[0][1][:20])
    result, _ = imported(tmp_path / "capture", c.pcap(c.USBPCAP, [short, *packets]))
    assert not result.complete and result.tally.unreadable == 1


def test_two_cameras_are_listed_and_one_is_chosen(tmp_path: Path, sessions: dict[str, Session]) -> None:
    one, two = sessions["FT2232H"], sessions["FT245"]
    moved = [replace(noted, device=77) for noted in two.plugged]
    content = FORMS["usbpcap-pcapng-old"]([*one.plugged, *moved])
    path = tmp_path / "capture"
    path.write_bytes(content)
    with pytest.raises(CaptureError, match=r"--device: 1\.\d+ \(0403:eb49, .*1\.77 \(0403:eb48"):
        importing.read(path)
    _, lines = imported(path, content, device="1.77")
    assert exchanges(lines) == exchanges(two.lines)
    with pytest.raises(CaptureError, match=r"no device 3\.4"):
        importing.read(path, device="3.4")


def test_a_camera_that_was_plugged_in_again_is_one_camera(
    tmp_path: Path, sessions: dict[str, Session]
) -> None:
    session = sessions["FT2232H"]
    again = [replace(noted, device=78) for noted in session.plugged]
    result, lines = imported(tmp_path / "capture", FORMS["usbmon-pcap"]([*session.plugged, *again]))
    assert len(result.choice.devices) == 2
    second = [{**line, "n": 2} for line in exchanges(session.lines)]
    assert exchanges(lines) == [*exchanges(session.lines), *second]


def test_a_program_that_opens_the_camera_twice(tmp_path: Path, sessions: dict[str, Session]) -> None:
    session = sessions["FT245"]
    result, lines = imported(tmp_path / "capture", FORMS["usbmon-pcap"]([*session.plugged, *session.noted]))
    assert [line["n"] for line in lines if line.get("e") == "claim"] == [1, 2]
    assert result.complete


# --- what is not known ---


def said(session: Session, data: bytes, *answers: bytes) -> list[c.Noted]:
    """What another program sends at the end, and what comes."""
    last = session.noted[-1]
    status = b"\x32\x60"
    out = c.Noted(c.BULK, last.device, 0x02, data, last.at + 0.1, last.at + 0.1)
    return [out, *(replace(out, endpoint=0x81, data=status + answer) for answer in answers)]


@pytest.fixture
def strange(sessions: dict[str, Session]) -> list[c.Noted]:
    """The vendor's Updater, and a firmware with longer and shorter answers."""
    session = sessions["FT2232H"]
    last = session.noted[-1]
    setup = bytes.fromhex("c090000001000200")
    return [
        *session.plugged,
        *said(session, bytes.fromhex("2100"), bytes.fromhex("210100")),
        *said(session, b"\x22\x00"),
        *said(session, bytes.fromhex("6103001041"), bytes.fromhex("610100")),
        *said(session, bytes.fromhex("6400")),
        *said(session, b"firmware" * 100, b"\x06"),
        *said(session, bytes.fromhex("4200"), bytes.fromhex("4206070000000909")),  # longer
        *said(session, bytes.fromhex("5700"), bytes.fromhex("570103")),  # shorter
        *said(session, bytes.fromhex("4200"), bytes.fromhex("570103")),  # of another command
        *said(session, bytes.fromhex("4b00"), bytes.fromhex("4b0100") + b"more"),
        *said(session, bytes.fromhex("4b00"), bytes.fromhex("4b0103")),
        *said(session, bytes.fromhex("4b00"), bytes.fromhex("4b")),
        c.Noted(c.CONTROL, last.device, 0xC0, b"\1\2", last.at + 0.2, last.at + 0.2, setup),
        replace(said(session, b"")[0], endpoint=0x81, error=71, at=last.at + 0.3, began=last.at + 0.3),
        replace(said(session, b"")[0], endpoint=0x81, error=71, at=last.at + 0.3, began=last.at + 0.3),
        replace(said(session, b"")[0], endpoint=0x81, error=2, at=last.at + 0.4, began=last.at + 0.4),
    ]


@pytest.mark.parametrize("form", FORMS)
def test_what_is_not_known_is_listed_and_never_played(
    tmp_path: Path, strange: list[c.Noted], sessions: dict[str, Session], form: str
) -> None:
    result, lines = imported(tmp_path / "capture", FORMS[form](strange))
    assert not result.findings.understood
    facts = result.as_dict()
    unknown = {command["code"]: command for command in facts["unknown_commands"]}
    assert list(unknown) == ["0x21", "0x22", "0x61", "0x64", "0x66"]
    assert [entry["changes_for_good"] for entry in unknown.values()] == [True] * 4 + [False]
    assert unknown["0x21"]["name"] == "StartBootloader"
    assert unknown["0x21"]["examples"] == [{"data": "2100", "size": 2, "answer": "210100", "answer_size": 3}]
    assert unknown["0x66"]["sizes"] == [800, 800] and len(unknown["0x66"]["examples"][0]["data"]) == 64
    sent = [line["data"][:2] for line in lines if line.get("e") == "write"]
    assert not set(sent) & {"21", "22", "61", "64", "66"}
    evidence = [line for line in lines if line.get("e") == "unknown"]
    assert [line["data"][:2] for line in evidence] == ["21", "22", "61", "64", "66"]
    assert evidence[0]["answer"] == "210100" and all(len(line["data"]) <= 64 for line in evidence)
    odd = {(command["name"], odd["what"]) for command in facts["commands"] for odd in command["odd"]}
    assert odd == {
        ("GetDeviceState", "longer than the layout"),
        ("GetFilterPosition", "shorter than the layout"),
        ("GetDeviceState", "other echo"),
        ("Init", "surplus bytes"),
        ("Init", "cut short"),
    }
    init = next(command for command in facts["commands"] if command["name"] == "Init")
    assert init["device_errors"] == {"3": 1}
    assert "read chip EEPROM" in {request["name"] for request in facts["chip_requests"]}
    assert facts["failed_transfers"] == [{"endpoint": "0x81", "error": "EPROTO", "count": 2}]
    assert [line["error"] for line in lines if line.get("e") == "fail"] == [5]


def test_a_capture_that_kept_only_the_beginnings(tmp_path: Path, sessions: dict[str, Session]) -> None:
    """Lengths stay right; hashes of pixels that were not captured are left out."""
    session = sessions["FT2232H"]
    content = c.pcap(c.USBMON_MAPPED, c.usbmon(session.plugged, cut=600))
    result, lines = imported(tmp_path / "capture", content)
    assert not result.complete and result.as_dict()["capture"]["cut"] > 0
    image = [line for line in lines if "length" in line][-1]
    assert image["length"] == 200 * 100 * 2 and image["lost"] > 0 and "sha256" not in image
    commands = {command["name"]: command for command in result.as_dict()["commands"]}
    assert commands["TransferImage"]["data"] == [16 * 12 * 2, 200 * 100 * 2]
    assert commands["TransferImage"]["odd"] == []


def test_lost_packets_leave_the_rest(tmp_path: Path, sessions: dict[str, Session]) -> None:
    session = sessions["FT2232H"]
    packets = [packet for at, packet in enumerate(c.usbmon(session.plugged)) if at % 17]
    result, lines = imported(tmp_path / "capture", c.pcap(c.USBMON_MAPPED, packets))
    assert result.tally.without_begin > 0 and result.tally.without_end > 0
    whole = [line["data"] for line in session.lines if line.get("e") == "write"]
    kept = [line["data"] for line in lines if line.get("e") == "write"]
    assert len(whole) * 0.7 < len(kept) < len(whole)


@pytest.mark.parametrize("form", ["usbmon-pcap", "usbpcap-pcap"])
def test_failures_are_those_of_the_recorder(tmp_path: Path, form: str) -> None:
    """Stalled endpoints, a refused request, and a cable that is pulled."""
    recorder = Recorder(tmp_path / "r.jsonl")
    with usb_bench("683wsg") as b:
        noting = c.NotingBackend(b.backend)
        b.camera = discovery.open_camera(backend=recording_backend(noting, recorder), cache=KNOWN)
        device = b.simulated.device
        for harm in (
            lambda: device.halt(0x81),
            lambda: device.halt(0x02),
            device.refuse_control,
            device.unplug,
        ):
            harm()
            with contextlib.suppress(QsiError):
                b.camera.temperatures()
            with contextlib.suppress(QsiError):
                b.camera.state()
        b.camera.close()
    recorder.close()
    wanted = list(recording.read(recorder.path))
    noted = c.plugged(noting.noted, VENDOR_ID, SERIES_600.product_id, FT2232H)
    result, lines = imported(tmp_path / "capture", FORMS[form](noted))
    assert exchanges(lines) == exchanges(wanted)
    errors = {line["error"] for line in lines if "error" in line}
    assert {errno.EPIPE, errno.ENODEV} <= errors
    assert {failure["error"] for failure in result.as_dict()["failed_transfers"]} >= {"EPIPE", "ENODEV"}


# --- files that are none ---


@pytest.mark.parametrize("content", [b"", b"\n", bytes(100), b"\x1f\x8b\x08broken", b"{}\n"])
def test_what_is_no_capture(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "capture"
    path.write_bytes(content)
    with pytest.raises(CaptureError):
        importing.read(path)


def test_a_capture_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    path.write_bytes(c.pcap(1, [(0.0, bytes(60))]))
    with pytest.raises(CaptureError, match="link types: 1"):
        importing.read(path)
    with pytest.raises(CaptureError, match="regular file"):
        importing.read(tmp_path)


def test_a_cut_file_gives_what_it_has(tmp_path: Path, sessions: dict[str, Session]) -> None:
    whole = FORMS["usbmon-pcap"](sessions["FT2232H"].plugged)
    result, lines = imported(tmp_path / "capture", whole[: len(whole) // 2])
    assert "in the middle of the record" in (result.capture.damage or "") and not result.complete
    assert 20 < len(lines) < len(sessions["FT2232H"].lines)


# --- the program ---


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAMS / "qsi-replay", *arguments], capture_output=True, text=True, timeout=100)


def test_the_program_prints_and_writes(
    tmp_path: Path, sessions: dict[str, Session], strange: list[c.Noted]
) -> None:
    path, output = tmp_path / "capture.pcap", tmp_path / "other.jsonl"
    path.write_bytes(FORMS["usbmon-pcap"](sessions["FT2232H"].plugged))
    result = run("import", path, "-o", output)
    assert (result.returncode, result.stderr) == (replay_import.UNDERSTOOD, ""), result
    assert "600 Series (0403:eb49), serial 00600001" in result.stdout
    assert output.stat().st_mode & 0o077 == 0
    again = run("import", path, "-o", output)
    assert again.returncode == replay_import.UNUSABLE and "exists already" in again.stderr
    played = run("play", output)
    assert played.returncode == 2 and "INDI_QSI_USB=replay:" in played.stderr

    path.write_bytes(FORMS["usbpcap-pcap"](strange))
    result = run("import", path)
    assert result.returncode == replay_import.PARTLY
    assert "unknown command 0x21 StartBootloader (changes the camera for good), 1 times" in result.stdout
    assert "GetDeviceState: longer than the layout, 1 times: 4206070000000909" in result.stdout
    facts = json.loads(run("import", "--json", path).stdout)
    assert facts["camera"]["series"] == "600"

    path.write_bytes(b"nonsense")
    result = run("import", path)
    assert (result.returncode, result.stdout) == (replay_import.UNUSABLE, "")
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("qsi-replay: ")
