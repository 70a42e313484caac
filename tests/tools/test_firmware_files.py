# SPDX-License-Identifier: LGPL-2.1-or-later
"""Firmware files: what is taken is what was written; everything else is refused, with the line."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qsi_tools.firmware import archive, ihex, listing
from qsi_tools.firmware.errors import FileError, NoIdentity
from qsi_tools.firmware.ihex import HexFile, Kind, Record
from qsi_tools.firmware.image import HEADER, Target, image_of, read_image

from tests.fuzz.fuzz_hex import SEEDS, one_input
from tests.tools.firmware_files import foreign_hex, hex_file, hex_lines, image, record, text, zipped

KEPT = sorted((Path(__file__).parents[1] / "data" / "fuzz" / "hex").iterdir())
END = ":00000001FF"
A, B = record(0, 0, b"abcd"), record(0, 4, b"efgh")


# --- Intel HEX ---


def test_a_file_of_another_program() -> None:
    file = ihex.parse(hex_file(size=70_000))
    assert image_of(file).data == image(size=70_000)


@st.composite
def hex_files(draw: st.DrawFn) -> HexFile:
    """Any that is allowed, of whatever records."""
    base_kind = draw(st.sampled_from([Kind.SEGMENT_BASE, Kind.LINEAR_BASE]))
    unit, top = (16, 0xFFFF) if base_kind is Kind.SEGMENT_BASE else (1 << 16, (ihex.MAX_ADDRESS >> 16) - 1)
    records: list[Record] = []
    base = end = 0
    for data in draw(st.lists(st.binary(min_size=1, max_size=255), min_size=1, max_size=12)):
        if draw(st.booleans()):
            lowest = -(-end // unit)
            if lowest <= top:
                number = draw(st.integers(lowest, min(top, lowest + 3)))
                base = number * unit
                records.append(Record(base_kind, 0, number.to_bytes(2, "big")))
        start = max(end, base) + draw(st.integers(0, 40))
        if start - base + len(data) > ihex.SEGMENT or start + len(data) > ihex.MAX_ADDRESS:
            break
        records.append(Record(Kind.DATA, start - base, data))
        end = start + len(data)
    if not end:
        records.append(Record(Kind.DATA, 0, b"x"))
    if draw(st.booleans()):
        kind = draw(st.sampled_from([Kind.SEGMENT_START, Kind.LINEAR_START]))
        records.insert(
            draw(st.integers(0, len(records))), Record(kind, 0, draw(st.binary(min_size=4, max_size=4)))
        )
    return HexFile((*records, Record(Kind.END, 0, b"")), draw(st.sampled_from([b"\n", b"\r\n"])))


@given(hex_files())
def test_what_is_built_is_parsed_and_built_again(file: HexFile) -> None:
    written = ihex.build(file)
    assert ihex.parse(written) == file
    assert ihex.build(ihex.parse(written)) == written


@given(st.binary(min_size=1, max_size=3000), st.integers(1, 255))
def test_an_image_comes_back(data: bytes, width: int) -> None:
    file = ihex.parse(ihex.build(HexFile(ihex.records_of(data, width))))
    assert b"".join(piece for _, piece in file.pieces()) == data
    assert next(file.pieces())[0] == 0


WRONG = {
    "nothing": (b"", 0, "empty"),
    "no colon": (text(["x" + A[1:], END]), 1, "colon"),
    "an empty line": (text([A, "", END]), 2, "colon"),
    "blank behind": (text([A + " ", END]), 1, "digits 0 to 9"),
    "small letters": (text([A, record(0, 4, b"\xab").lower(), END]), 2, "digits 0 to 9"),
    "odd digits": (text([A[:-1], END]), 1, "cannot have"),
    "too short": (text([":00", END]), 1, "cannot have"),
    "checksum": (text([A, B[:-1] + ("0" if B[-1] != "0" else "1"), END]), 2, "checksum"),
    "length too small": (text([":03" + A[3:], END]), 1, "says 3"),
    "length too large": (text([A, ":05" + B[3:], END]), 2, "says 5"),
    "type 06": (text([record(6, 0, b"")]), 1, "no record type 06"),
    "data without data": (text([record(0, 0, b""), END]), 1, "without data"),
    "base of three bytes": (text([record(4, 0, b"abc"), END]), 1, "2 data bytes"),
    "base with an address": (text([record(4, 1, b"\0\0"), A, END]), 1, "address 0000"),
    "end with an address": (text([A, record(1, 5, b"")]), 2, "address 0000"),
    "order": (text([B, A, END]), 2, "out of order"),
    "overlap": (text([A, record(0, 3, b"x"), END]), 2, "overlaps"),
    "the same twice": (text([A, A, END]), 2, "overlaps"),
    "over 64 KiB": (text([record(0, 0xFFFE, b"abc"), END]), 1, "64 KiB"),
    "too high": (text([record(4, 0, b"\x00\x10"), A, END]), 2, "beyond"),
    "mixed bases": (text([record(2, 0, b"\0\0"), record(4, 0, b"\0\0"), A, END]), 2, "mixed"),
    "two starts": (text([record(3, 0, bytes(4)), A, record(5, 0, bytes(4)), END]), 3, "second start"),
    "no end": (text([A, B]), 2, "without an end record"),
    "no data": (text([END]), 0, "no data"),
    "two ends": (text([A, END, END]), 3, "second end record"),
    "data behind the end": (text([A, END, B]), 3, "follows the end"),
    "blank line at the end": (text([A, END, ""]), 3, "follows the end"),
    "rubbish behind the end": (text([A, END]) + b"rubbish", 3, "middle of a line"),
    "last line not ended": (text([A, END])[:-1], 2, "middle of a line"),
    "mixed line ends": (text([A]) + text([END], "\r\n"), 2, "ends otherwise"),
    "carriage returns only": (text([A, END], "\r"), 1, "middle of a line"),
    "a zero byte": (text([A]) + b"\0" + text([END]), 2, "colon"),
    "not a text": (bytes(range(256)), 1, "colon"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_with_its_line(name: str) -> None:
    data, line, words = WRONG[name]
    with pytest.raises(FileError, match=words) as caught:
        ihex.parse(data)
    assert caught.value.line == line


def test_a_huge_file_is_not_looked_at() -> None:
    with pytest.raises(FileError, match="4 MiB"):
        ihex.parse(b":" * (ihex.MAX_TEXT + 1))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_byte_turned_over_is_refused(end: str) -> None:
    """Each single bit, all bits, and to what matters in such a file."""
    good = text(hex_lines(image(size=75)), end)
    assert image_of(ihex.parse(good)).data == image(size=75)
    for at, byte in enumerate(good):
        others = {byte ^ (1 << bit) for bit in range(8)} | {byte ^ 0xFF, *b"\r\n :0Ff", 0} - {byte}
        for other in others:
            with pytest.raises(FileError):
                image_of(ihex.parse(good[:at] + bytes((other,)) + good[at + 1 :]))


def test_the_file_cut_anywhere_is_refused() -> None:
    good = hex_file(size=300)
    assert good.count(b"\n") > 15
    for length in range(len(good)):
        with pytest.raises(FileError):
            image_of(ihex.parse(good[:length]))


def test_a_line_that_is_missing_is_noticed() -> None:
    lines = hex_lines(image(size=300))
    for missing in range(len(lines)):
        with pytest.raises(FileError):
            image_of(ihex.parse(text(lines[:missing] + lines[missing + 1 :])))


# --- images ---


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"some other firmware" * 9, "neither for which model nor which version"),
        (image()[:20], "within its header"),
        (image()[:-1], "not whole"),
        (image() + b"\0", "not whole"),
        (image()[:-1] + b"\0", "damaged"),
        (image(kind="X"), "kind"),
        (image(base="999"), "999"),
        (image(version="6.3.05xx"), "version"),
    ],
)
def test_images_that_are_not(data: bytes, words: str) -> None:
    with pytest.raises(FileError, match=words):
        read_image(data)


def test_a_gap_is_no_whole_image() -> None:
    lines = hex_lines(image(size=64))
    with pytest.raises(FileError, match="gap"):
        image_of(ihex.parse(text([lines[0], *lines[2:]])))


@pytest.mark.parametrize(
    "lines",
    [
        hex_lines(b"some other firmware"),
        hex_lines(image())[1:],  # the header's line is missing
        [record(0, 0x100, image()[:64]), END],  # not from address 0
        [record(0, 0, b"QSIM"), END],
    ],
    ids=["another program's", "without the first line", "higher up", "short"],
)
def test_a_sound_file_that_does_not_say_what_it_is(lines: list[str]) -> None:
    data = text(lines)
    with pytest.raises(NoIdentity):
        image_of(ihex.parse(data))
    (found,) = archive.read("x.hex", data)
    assert found.image is None and found.file == ihex.parse(data)
    with pytest.raises(NoIdentity, match="the file says neither"):
        archive.load("x.hex", data)


def test_one_such_file_in_a_zip_is_named() -> None:
    data = zipped({"a.hex": hex_file(), "b.hex": foreign_hex()})
    assert [found.image is None for found in archive.read("x.zip", data)] == [False, True]
    with pytest.raises(NoIdentity, match=r"^b\.hex says neither"):
        archive.load("x.zip", data)


def test_ranges_and_how_they_are_told() -> None:
    (found,) = archive.read("x.hex", foreign_hex())
    assert found.file.ranges() == [range(100), range(0x10020, 0x1002D)]
    assert "113 bytes, at 00000000 to 00000063, 00010020 to 0001002C" in listing.lines([found])[1]
    scattered = [record(0, at, b"x") for at in range(0, 40, 2)]
    (found,) = archive.read("x.hex", text([*scattered, END]))
    assert listing.lines([found])[1].endswith("0000000E to 0000000E and 12 more ranges")
    assert len(listing.rows([found])[0]["ranges"]) == 20


def test_an_image() -> None:
    read = read_image(image("C", "690", "01.02.03"))
    assert (read.target, read.base_type, read.version) == (Target.CORE, "690", "01.02.03")
    assert HEADER.size == 28


# --- zip ---


def test_a_zip() -> None:
    data = zipped({"README.txt": b"hello", "a/qsi683.hex": hex_file(), "QSI583.HEX": hex_file(base="583")})
    found = archive.load("x.zip", data)
    assert [(one.name, one.image.base_type) for one in found] == [
        ("a/qsi683.hex", "683"),
        ("QSI583.HEX", "583"),
    ]
    chosen = archive.choose(found, "583", Target.FIRMWARE)
    assert chosen is not None and chosen.name == "QSI583.HEX"
    assert archive.choose(found, "690", Target.FIRMWARE) is None
    assert archive.choose(found, "683", Target.CORE) is None


def test_two_files_for_one_camera_are_a_question() -> None:
    found = archive.load("x.zip", zipped({"a.hex": hex_file(), "b.hex": hex_file(version="06.03.06")}))
    with pytest.raises(FileError, match=r"a\.hex, b\.hex"):
        archive.choose(found, "683", Target.FIRMWARE)


def odd_zip(
    name: str = "a.hex", mode: int = 0, method: int = zipfile.ZIP_DEFLATED, data: bytes = b""
) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        info = zipfile.ZipInfo("placeholder" if name.startswith("/") else name)
        info.filename, info.external_attr, info.compress_type = name, mode << 16, method
        file.writestr(info, data or hex_file())
    return out.getvalue()


def test_a_bomb_is_not_unpacked() -> None:
    bomb = zipped({"a.hex": b"0" * (archive.MAX_UNPACKED + 1)})
    assert len(bomb) < 50_000
    liar = bomb.replace(struct.pack("<I", archive.MAX_UNPACKED + 1), struct.pack("<I", 1000))
    for data, words in ((bomb, "16 MiB"), (liar, "says|damaged")):
        tracemalloc.start()
        with pytest.raises(FileError, match=words):
            archive.load("bomb.zip", data)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 10 << 20


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (odd_zip("../a.hex"), "bad name"),
        (odd_zip("x/../../a.hex"), "bad name"),
        (odd_zip("/etc/a.hex"), "bad name"),
        (odd_zip("c:a.hex"), "bad name"),
        (odd_zip("a\\b.hex"), "bad name"),
        (odd_zip("a\x1b[31m.hex"), "bad name"),
        (odd_zip(mode=0o120777), "is a link"),
        (odd_zip(method=zipfile.ZIP_LZMA), "method"),
        (odd_zip(method=zipfile.ZIP_BZIP2), "method"),
        (odd_zip("readme.txt"), "no .hex file"),
        (odd_zip(data=b"not hex"), "line 1"),
        (zipped({"a.hex": hex_file(), "A.HEX": hex_file()}), "two members"),
        (zipped({f"{n}.hex": b"" for n in range(archive.MAX_MEMBERS + 1)}), "members"),
        (zipped({"a.hex": hex_file()})[:-30], "damaged"),
        (b"PK", "damaged"),
        (b"PK\3\4" * 100, "damaged"),
        (b"PK" + bytes(archive.MAX_FILE), "4 MiB"),
    ],
)
def test_zips_that_are_refused(data: bytes, words: str) -> None:
    with pytest.raises(FileError, match=words):
        archive.load("x.zip", data)


def test_an_encrypted_member_is_refused() -> None:
    data = bytearray(zipped({"a.hex": hex_file()}))
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(signature) + flags] |= 1
    with pytest.raises(FileError, match="encrypted"):
        archive.load("x.zip", bytes(data))


def test_a_zip_with_any_byte_turned_over_never_gives_another_image() -> None:
    good = zipped({"a.hex": hex_file(size=60)})
    whole = image(size=60)
    refused = 0
    for at in range(len(good)):
        for other in (good[at] ^ 0xFF, good[at] ^ 1, good[at] ^ 0x20):
            try:
                found = archive.load("x.zip", good[:at] + bytes((other,)) + good[at + 1 :])
            except FileError:
                refused += 1
                continue
            assert [one.image.data for one in found] == [whole]  # a date, or the like
    assert refused > 1.5 * len(good)


# --- anything ---


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.name)
def test_inputs_that_are_kept(path: Path) -> None:
    one_input(path.read_bytes())


@given(st.one_of(st.binary(max_size=300), st.sampled_from(SEEDS).flatmap(
    lambda seed: st.tuples(st.integers(0, len(seed)), st.binary(max_size=6)).map(
        lambda cut: seed[: cut[0]] + cut[1] + seed[cut[0] + len(cut[1]) :]
    )
)))  # fmt: skip
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    one_input(data)
