# SPDX-License-Identifier: LGPL-2.1-or-later
"""The simulated camera's loader, byte by byte as docs/firmware-loader.md has it, without the tool."""

from __future__ import annotations

import binascii
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulator.bench import Bench, bench
from usbproto import packets as p
from usbproto.simulator.flash import Target, factory_image

PAGE = Path(__file__).parents[2] / "docs" / "firmware-loader.md"
KNOCK = (0x21, b"QSILDR1")


@pytest.fixture
def b() -> Iterator[Bench]:
    with bench("683wsg") as made:
        yield made


def say(b: Bench, code: int, body: bytes = b"", damage: int = 0) -> tuple[int, bytes]:
    """Error and body of the answer, whose checksum is right."""
    check = binascii.crc_hqx(bytes((code,)) + body, 0xFFFF) ^ damage
    answer = b.exchange(bytes((code, len(body) + 2)) + body + check.to_bytes(2, "big"))
    assert answer[0] == code and len(answer) == 2 + answer[1]
    data = answer[2:-3]
    assert int.from_bytes(answer[-3:-1], "big") == binascii.crc_hqx(bytes((code,)) + data, 0xFFFF)
    return answer[-1], data


def load(b: Bench, target: int, image: bytes) -> int:
    assert say(b, 0xA1, bytes((target,)))[0] == 0
    for at in range(0, len(image), 64):
        assert say(b, 0xA2, struct.pack(">BI", target, at) + image[at : at + 64])[0] == 0
    assert say(b, 0xA3, struct.pack(">BIB", target, 64, 32)) == (0, image[64:96])
    return say(b, 0xA4, struct.pack(">BII", target, len(image), zlib.crc32(image)))[0]


def eeprom(b: Bench, address: int, count: int) -> bytes:
    return bytes(b.ask(p.GET_EEPROM, p.EepromAddress(address + n)).value for n in range(count))


@pytest.mark.parametrize("target", Target)
def test_the_dialogue(b: Bench, target: Target) -> None:
    image = factory_image(target, "683", "07.08.09")[:]
    assert eeprom(b, 0x200, 17) == b"QSILDR1SR01.00.02"
    assert say(b, *KNOCK) == (0, b"")
    assert eeprom(b, 0x200, 9) == b"QSILDR1SL"
    error, identity = say(b, 0xA0)
    assert error == 0
    assert identity == b"68300683001\x40" + bytes.fromhex("00 00010000 01 01 00020000 01")
    assert load(b, target, image) == 0
    assert say(b, 0xA5) == (0, b"")
    b.time.advance(10.0)
    assert eeprom(b, 0x20 if target is Target.FIRMWARE else 0x209, 8) == b"07.08.09"
    assert b.state() is p.CameraState.IDLE


def test_a_500_has_no_core() -> None:
    with bench("583ws") as b:
        assert eeprom(b, 0x200, 17) == b"QSILDR1SR" + b"\xff" * 8
        say(b, *KNOCK)
        assert say(b, 0xA0)[1] == b"58300583001\x40" + bytes.fromhex("00 00010000 01")
        assert say(b, 0xA1, b"\x01")[0] == 0x91


def test_what_the_loader_refuses(b: Bench) -> None:
    say(b, *KNOCK)
    assert say(b, 0xA0, damage=1)[0] == 0x90
    assert say(b, 0xA1, b"\x05")[0] == 0x91
    assert say(b, 0xA1, b"")[0] == 0x91
    assert say(b, 0xA2, struct.pack(">BI", 0, 0xFFFF) + b"ab")[0] == 0x91
    assert say(b, 0xA2, struct.pack(">BI", 0, 0) + bytes(65))[0] == 0x91
    assert say(b, 0xA2, struct.pack(">BI", 0, 0) + b"ab")[0] == 0x92
    assert say(b, 0xA3, struct.pack(">BIB", 0, 0x10000, 1))[0] == 0x91
    assert b.hardware.flash.whole
    for image in (
        factory_image(Target.CORE, "683", "01.00.00"),
        factory_image(Target.FIRMWARE, "583", "01.00.00"),
    ):
        assert load(b, 0, image) == 0x93
        assert not b.hardware.flash.whole


def test_half_written_it_comes_up_in_its_loader(b: Bench) -> None:
    say(b, *KNOCK)
    say(b, 0xA1, b"\0")
    b.camera.power_off()
    b.camera.power_on()
    b.time.advance(10.0)
    assert eeprom(b, 0x200, 9) == b"QSILDR1SL" and eeprom(b, 0x20, 8) == b"\xff" * 8
    assert b.ask(p.GET_DEVICE_STATE).state is p.CameraState.FLUSHING
    assert b.exchange(b"\x41\x00", 2) == b"", "only the loader runs"
    assert b.camera.indicator.led == "yellow flashing fast"
    assert load(b, 0, factory_image(Target.FIRMWARE, "683", "06.03.04")) == 0
    say(b, 0xA5)
    b.time.advance(10.0)
    assert b.state() is p.CameraState.IDLE and b.camera.indicator.led == "green"


def test_garbage_does_not_stop_the_loader(b: Bench) -> None:
    say(b, *KNOCK)
    assert b.exchange(bytes(range(0x80, 0xA0)) + b"\x4b\x00") == b"\x4b\x01\x00"


def test_the_page_has_what_the_loader_speaks() -> None:
    text = PAGE.read_text()
    for word in (
        "`QSILDR1`",
        "`QSIMAGE1`",
        "0200",
        "21",
        "A0",
        "A1",
        "A2",
        "A3",
        "A4",
        "A5",
        "90",
        "91",
        "92",
        "93",
    ):
        assert word in text, word
