# SPDX-License-Identifier: LGPL-2.1-or-later
"""Captures that are broken in any way end in a result or in one clear error, in little memory."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indi_qsi import replay_import
from tests.recording import captures as c
from usbproto import recording
from usbproto.captures import importing, urbs
from usbproto.captures.container import MAX_RECORD, Capture, CaptureError
from usbproto.captures.urbs import MAX_IN_FLIGHT, Tally, transfers
from usbproto.models import FT2232H, SERIES_600, VENDOR_ID

STATUS = b"\x32\x60"
# The files are small, and the folder may be shared by all examples: each overwrites the file of the last.
HOSTILE = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def session() -> list[c.Noted]:
    """Some commands of each kind, by hand: no camera is needed for what follows."""
    noted = []
    at = c.EPOCH
    for sent, came in (
        ("4b00", "4b0100"),
        ("600200 13".replace(" ", ""), "60023200"),
        ("4100", "4166" + "00" * 85 + b"00683001".hex() + "00" * 9),
        ("4300", ""),
        ("4e00", "4e06ff00c800020001020304"),
        ("2100", "210100"),
    ):
        out = c.Noted(c.BULK, 5, 0x02, bytes.fromhex(sent), at, at + 0.001)
        noted += [out, c.Noted(c.BULK, 5, 0x81, STATUS + bytes.fromhex(came), at, at + 0.002)]
        at += 0.01
    return c.plugged(noted, VENDOR_ID, SERIES_600.product_id, FT2232H)


FILES = {
    "usbmon": c.pcap(c.USBMON_MAPPED, c.usbmon(session())),
    "usbmon-pcapng": c.pcapng(c.USBMON_MAPPED, c.usbmon(session())),
    "usbpcap": c.pcap(c.USBPCAP, c.usbpcap(session(), old=True)),
    "usbpcap-pcapng": c.pcapng(c.USBPCAP, c.usbpcap(session()), ">"),
}


def ends_well(folder: Path, content: bytes, capsys: pytest.CaptureFixture[str]) -> int:
    path, output = folder / "capture", folder / "out.jsonl"
    path.write_bytes(content)
    output.unlink(missing_ok=True)
    status = replay_import.main([str(path), "-o", str(output)])
    printed = capsys.readouterr()
    if status == replay_import.UNUSABLE:
        assert printed.out == ""
        assert printed.err.startswith("qsi-replay: ") and printed.err.count("\n") == 1
    else:
        assert printed.out.startswith("camera: ") and printed.err == ""
        assert list(recording.read(output))
    return status


@pytest.mark.parametrize("name", FILES)
def test_the_files_are_good_before_they_are_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert ends_well(tmp_path, FILES[name], capsys) == replay_import.PARTLY  # 0x21 is in them


@pytest.mark.parametrize("name", FILES)
@HOSTILE
@given(data=st.data())
def test_changed_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, data: st.DataObject
) -> None:
    content = bytearray(FILES[name])
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.sampled_from((0, 1, 0x7F, 0x80, 0xFF, content[at] ^ 0x10)))
    ends_well(tmp_path, bytes(content), capsys)


@pytest.mark.parametrize("name", FILES)
@HOSTILE
@given(data=st.data())
def test_pieces_that_are_missing_or_doubled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, data: st.DataObject
) -> None:
    content = FILES[name]
    one, two = sorted(data.draw(st.tuples(*(st.integers(0, len(content)),) * 2)))
    changed = data.draw(
        st.sampled_from((content[:one], content[:one] + content[two:], content[:two] + content[one:]))
    )
    if data.draw(st.booleans()):
        packed = gzip.compress(changed, 1)
        changed = packed[: data.draw(st.integers(2, len(packed)))]
    ends_well(tmp_path, changed, capsys)


@HOSTILE
@given(
    link=st.sampled_from((c.USBMON, c.USBMON_MAPPED, c.USBPCAP)),
    packets=st.lists(st.binary(max_size=100), max_size=20),
)
def test_packets_of_random_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], link: int, packets: list[bytes]
) -> None:
    ends_well(tmp_path, c.pcap(link, [(c.EPOCH, packet) for packet in packets]), capsys)


@HOSTILE
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from((c.BULK, c.CONTROL)),
            st.sampled_from((0x02, 0x81, 0x80, 0x00)),
            st.binary(max_size=80),
            st.binary(min_size=8, max_size=8),
            st.sampled_from((0, 0, 0, 2, 32, 71, 19, 255)),
            st.floats(0, 1),
        ),
        max_size=30,
    )
)
def test_transfers_that_no_camera_would_make(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], steps: list[tuple[int, int, bytes, bytes, int, float]]
) -> None:
    noted = session()
    at = noted[-1].at
    for kind, endpoint, data, setup, error, seconds in steps:
        noted.append(c.Noted(kind, 5, endpoint, data, at, at + seconds, setup, error))
        at += seconds
    status = ends_well(tmp_path, c.pcap(c.USBMON_MAPPED, c.usbmon(noted)), capsys)
    assert status == replay_import.PARTLY
    ends_well(tmp_path, c.pcap(c.USBPCAP, c.usbpcap(noted)), capsys)


@pytest.mark.parametrize("size", [MAX_RECORD + 1, 0xFFFFFFFF])
def test_a_record_that_claims_too_much(tmp_path: Path, size: int) -> None:
    path = tmp_path / "capture"
    path.write_bytes(FILES["usbmon"] + struct.pack("<IIII", 0, 0, size, size) + bytes(100))
    result = importing.read(path)
    assert f"claims {size} bytes" in (result.capture.damage or "") and not result.complete
    path.write_bytes(FILES["usbmon-pcapng"] + struct.pack("<II", 6, size - size % 4) + bytes(100))
    assert importing.read(path).capture.damage


def test_transfers_that_never_end_are_forgotten(tmp_path: Path) -> None:
    one = c.Noted(c.BULK, 5, 0x02, b"\x4b\x00", c.EPOCH, c.EPOCH)
    begins = c.usbmon([one] * (2 * MAX_IN_FLIGHT + 1))[::2]
    path = tmp_path / "capture"
    path.write_bytes(c.pcap(c.USBMON_MAPPED, begins))
    tally = Tally()
    pairs = urbs.Pairs(tally)
    for record in Capture(path).records():
        event = urbs.usbmon.event(record.link, record.order, record.at, record.data)
        assert event is not None and pairs.take(event) is None
        assert len(pairs._begun) <= MAX_IN_FLIGHT
    assert tally.without_end == MAX_IN_FLIGHT + 1
    assert list(transfers(Capture(path), Tally())) == []


def test_a_large_capture_takes_little_memory(tmp_path: Path) -> None:
    """An image of 32 MB passes through a tenth of that."""
    noted = session()
    last = noted[-1]
    block = STATUS.join((b"", *(bytes(510),) * 32))  # as the chip sends 16 KiB
    image = [c.Noted(c.BULK, 5, 0x81, block, last.at, last.at)] * 2000
    path = tmp_path / "capture"
    sent = c.Noted(c.BULK, 5, 0x02, b"\x45\x00", last.at, last.at)
    came = c.Noted(c.BULK, 5, 0x81, STATUS + b"\x45\x01\x00", last.at, last.at)
    with path.open("wb") as file:
        file.write(FILES["usbmon"])
        for part in ([sent, came], *(image[at : at + 100] for at in range(0, len(image), 100))):
            file.write(c.pcap(c.USBMON_MAPPED, c.usbmon(part))[24:])
    assert path.stat().st_size > 32e6
    tracemalloc.start()
    try:
        result = importing.read(path)
        result.write(tmp_path / "out.jsonl")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3.2e6
    (line,) = (line for line in recording.read(tmp_path / "out.jsonl") if "sha256" in line)
    assert line["length"] == 2000 * 32 * 510


def test_an_interface_that_is_not_described(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    section = FILES["usbmon-pcapng"][:28]
    path.write_bytes(section + struct.pack("<IIIIIIII", 6, 32, 7, 0, 0, 0, 0, 32))
    with pytest.raises(CaptureError):
        importing.read(path)
