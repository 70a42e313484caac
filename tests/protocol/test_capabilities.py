# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a firmware can do: found out once, remembered by serial number and firmware, forgotten without harm."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.protocol.bench import DETAILS, TIMING, Bench, SimulatedChannel, bench, script, scripted
from usbproto import packets as p
from usbproto.camera import Camera
from usbproto.capabilities import (
    AGREED,
    EXPOSURE_EX,
    FEATURES,
    NOTHING,
    TEMPERATURE_EX,
    Capabilities,
    FileCache,
    Learnt,
)
from usbproto.errors import DEVICE_ERRORS, Refused
from usbproto.models import SERIES_600, Address
from usbproto.packets import Feature
from usbproto.session import Session

PROBES = (p.GET_FEATURES, p.GET_TEMPERATURE_EX, p.START_EXPOSURE_EX)
OF_500 = Capabilities(p.Features(), False, False)
OF_683 = Capabilities(p.Features((0, 0, 0, 0, 1)), True, True)


def probes(b: Bench) -> int:
    return sum(len(b.sent(command)) for command in PROBES)


@pytest.fixture
def cache(tmp_path: Path) -> FileCache:
    return FileCache(tmp_path / "deep" / "capabilities.json")


@pytest.mark.parametrize(("model", "capabilities"), [("583wsg", OF_500), ("683wsg", OF_683)])
def test_without_a_cache_each_connect_asks(model: str, capabilities: Capabilities) -> None:
    with bench(model) as b:
        assert b.camera.capabilities == capabilities
        assert probes(b) == 3
        b.connect()
        assert probes(b) == 3


def test_a_missing_command_costs_one_second_and_no_more() -> None:
    with bench("583wsg") as b:
        cost = b.time.now()
        assert 3.0 < cost < 4.0


@pytest.mark.parametrize(
    ("model", "capabilities", "asking"), [("583wsg", OF_500, AGREED), ("683wsg", OF_683, 1)]
)
def test_what_is_there_is_asked_once_and_what_is_missing_until_three_agree(
    model: str, capabilities: Capabilities, asking: int, cache: FileCache
) -> None:
    with bench(model, connect=False) as b:
        for _ in range(asking):
            b.connect(cache)
            assert probes(b) == 3
            assert b.camera.capabilities == capabilities
        before = b.time.now()
        b.connect(cache)
        assert probes(b) == 0
        assert b.time.now() - before < 1.0
        assert b.camera.capabilities == capabilities
        b.check_picture()


@pytest.mark.parametrize("command", PROBES, ids=lambda command: command.name)
@pytest.mark.parametrize("accidents", [1, AGREED - 1])
def test_an_accident_is_not_believed_for_ever(
    command: p.Command[Any, Any], accidents: int, cache: FileCache
) -> None:
    """A probe that failed, on a camera that has the command: each further connect asks that one again."""
    with bench(connect=False) as b:
        for attempt in range(accidents):
            b.fault(f"silence:command={command.name},times=1")
            b.connect(cache)
            assert b.camera.capabilities != OF_683
            assert probes(b) == (3 if attempt == 0 else 1)
        b.connect(cache)
        assert b.camera.capabilities == OF_683
        assert probes(b) == 1 and b.sent(command)
        b.connect(cache)
        assert probes(b) == 0


def test_misses_count_in_a_row_only() -> None:
    found, missed = OF_683, replace(OF_683, exposure_ex=False)
    learnt = Learnt()
    for now in (missed, missed, found, missed, missed):
        learnt = learnt.after(now)
        assert not learnt.settled(EXPOSURE_EX) or now is found
    assert learnt.after(missed).settled(EXPOSURE_EX)
    assert learnt.after(missed).after(missed).missed == {EXPOSURE_EX: AGREED}  # it does not grow for ever


def test_without_a_firmware_revision_nothing_is_remembered(cache: FileCache, tmp_path: Path) -> None:
    """It could have changed meanwhile."""
    with bench(connect=False) as b:
        b.fault("blank-eeprom")
        for _ in range(2):
            b.connect(cache)
            assert probes(b) == 3
            assert b.camera.capabilities == OF_683
        assert list(tmp_path.iterdir()) == []


def test_another_firmware_and_another_camera_are_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "capabilities.json"
    for serial, firmware, asked in (
        ("00683001", "06.03.04", 3),
        ("00683001", "06.03.04", 0),
        ("00683001", "06.04.00", 3),
        ("00683002", "06.03.04", 3),
        ("00683001", "06.04.00", 0),
        ("00683001", "06.03.04", 3),  # what was known of the former firmware was forgotten
    ):
        with bench("683wsg", connect=False, serial=serial, firmware=firmware) as b:
            b.connect(FileCache(path))
            assert probes(b) == asked
    assert sorted(json.loads(path.read_text())) == ["00683001 06.03.04", "00683002 06.03.04"]


def test_without_a_serial_number_nothing_is_remembered() -> None:
    class Never:
        def get(self, serial: str, firmware: str) -> Learnt | None:
            raise AssertionError

        def put(self, serial: str, firmware: str, learnt: Learnt) -> None:
            raise AssertionError

    with bench() as b:
        camera = Camera(SimulatedChannel(b.simulated), SERIES_600, "", Never(), Session(TIMING))
        assert camera.identity.serial == "00683001"  # the camera's own


def entry(**changes: Any) -> str:
    whole = {"features": "0000000001", "temperature_ex": True, "exposure_ex": True, **changes}
    return json.dumps({"00683001 06.03.04": {k: v for k, v in whole.items() if v is not None}})


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[1, 2]",
        "null",
        '"text"',
        "\x00\xff",
        "[" * 100_000,
        '{"00683001 06.03.04": 3}',
        '{"00683001 06.03.04": "x"}',
        '{"00683001 06.03.04": []}',
        entry(features=None),
        entry(features="xyz"),
        entry(features=7),
        entry(exposure_ex=None),
        entry(missed={"features": "x"}),
        entry(missed={"features": []}),
        entry(missed={"features": math.nan}),
        entry(missed={"features": math.inf}),
    ],
    ids=range(18),
)
def test_a_broken_file_costs_the_probes_and_is_replaced(content: str, tmp_path: Path) -> None:
    path = tmp_path / "capabilities.json"
    path.write_bytes(content.encode("latin-1"))
    with bench(connect=False) as b:
        b.connect(FileCache(path))
        assert probes(b) == 3
        assert b.camera.capabilities == OF_683
        b.connect(FileCache(path))
        assert probes(b) == 0


def test_a_file_from_the_future_is_read_as_far_as_it_is_understood(tmp_path: Path) -> None:
    path = tmp_path / "capabilities.json"
    path.write_text(entry(features="00000000010203", pixel_shift=True))
    with bench(connect=False) as b:
        b.connect(FileCache(path))
        assert probes(b) == 0
        assert Feature.BASIC_HW_TRIGGER in b.camera.capabilities.features


def test_a_file_of_an_older_driver_is_read(tmp_path: Path) -> None:
    """It has no counts: what it lacks was missed once, by the connect that wrote it."""
    path = tmp_path / "capabilities.json"
    path.write_text(entry(features="", exposure_ex=False))
    cache = FileCache(path)
    learnt = cache.get("00683001", "06.03.04")
    assert learnt == Learnt(Capabilities(p.Features(), True, False), {FEATURES: 1, EXPOSURE_EX: 1})
    with bench(connect=False) as b:
        b.connect(cache)
        assert probes(b) == 2 and not b.sent(p.GET_TEMPERATURE_EX)
        assert b.camera.capabilities == OF_683
        b.connect(cache)
        assert probes(b) == 0


@pytest.mark.parametrize("capabilities", [OF_500, OF_683, NOTHING])
def test_an_older_driver_can_read_our_file(capabilities: Capabilities, tmp_path: Path) -> None:
    """It looks for these keys, of these types, and passes over what it does not know."""
    path = tmp_path / "capabilities.json"
    FileCache(path).put("00683001", "06.03.04", Learnt().after(capabilities))
    found = json.loads(path.read_text())["00683001 06.03.04"]
    assert bytes.fromhex(found[FEATURES]) == bytes(capabilities.features.flags)
    assert found[TEMPERATURE_EX] is capabilities.temperature_ex
    assert found[EXPOSURE_EX] is capabilities.exposure_ex


def test_a_file_that_cannot_be_written_is_told_and_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    folder = tmp_path / "folder"
    folder.mkdir()
    with bench(connect=False) as b, caplog.at_level(logging.WARNING):
        for path in (in_the_way / "capabilities.json", folder):
            caplog.clear()
            b.connect(FileCache(path))
            assert probes(b) == 3
            assert "cannot remember" in caplog.text
            b.check_picture()


# --- features ---


def test_old_firmware_sends_a_byte_too_many_and_has_no_features() -> None:
    with bench("690ws", firmware="06.01.07") as b:
        assert b.camera.capabilities.features == p.Features()
        assert b.camera.capabilities.exposure_ex
        assert not b.camera.available.hsr
        assert not b.camera.available.trigger
        assert b.sent(p.BASIC_HW_TRIGGER) == []
        b.check_picture()
    with bench("690ws", firmware="06.01.08") as b:
        assert b.camera.available.hsr
        assert b.camera.available.trigger
        assert [packet.hex() for packet in b.sent(p.BASIC_HW_TRIGGER)] == ["710100"]


@pytest.mark.parametrize(("wire", "features"), [("5c020000", ()), ("5c0100", ()), ("5c03010000", (0,))])
def test_features_of_any_number(wire: str, features: tuple[int, ...]) -> None:
    with bench(connect=False) as b:
        b.answers(p.GET_FEATURES, bytes.fromhex(wire))
        b.connect()
        assert b.camera.available.hsr == (features == (0,))
        assert not b.camera.available.trigger


@pytest.mark.parametrize("fault", ["voltage:10.5", "brown-out", "voltage:14.5"])
def test_a_bad_supply_is_no_missing_command(fault: str, cache: FileCache) -> None:
    """The camera goes on working with such an error (section 5); one without the command would be silent."""
    with bench(connect=False) as b:
        b.fault(fault)
        b.connect(cache)
        assert b.camera.capabilities == OF_683
        with pytest.raises(Refused, match="supply voltage is too"):
            b.camera.temperatures()
        b.check_picture()
        b.connect(cache)
        assert probes(b) == 0  # what was learnt is true, and remembered
        b.simulated.set_environment(voltage=12.0)
        assert b.camera.temperatures().pcb is not None


@pytest.mark.parametrize("code", [*DEVICE_ERRORS, 0x80, 0xFF])
def test_what_a_device_error_says_of_a_probe(code: int, caplog: pytest.LogCaptureFixture) -> None:
    """Any answer shows that GetTemperatureEx is there; any failure, that StartExposureEx is not (3.3)."""
    with bench(connect=False) as b:
        b.fault(f"device-error:{code},command=GetTemperatureEx")
        b.fault(f"device-error:{code},command=StartExposureEx")
        b.connect()
        assert b.camera.capabilities == replace(OF_683, exposure_ex=False)
        assert [r.message for r in caplog.records if "StartExposureEx" in r.message] == [
            f"{Refused('StartExposureEx', code)}: continuing without StartExposureEx"
        ]
        b.take(seconds=0.5)  # with the older command
        assert b.sent(p.START_EXPOSURE)


# --- identity ---


@pytest.mark.parametrize(
    ("model", "grade", "microlens", "marketing", "sensor"),
    [
        ("683wsg", 0xFF, 0xFF, "683ws", "KAF-8300"),
        ("683wsg", 3, 2, "683ws-1", "KAF-8300"),
        ("532ws", 4, 3, "532ws-M2", "KAF-3200ME"),
        ("540ci", 1, 2, "540ci", "KAI-04022"),
        ("660i", 0, 3, "660x", "ICX694"),
        ("660s", 5, 3, "660s-ME", "ICX694"),
    ],
)
def test_identity(model: str, grade: int, microlens: int, marketing: str, sensor: str) -> None:
    with bench(model, connect=False) as b:
        b.simulated.hardware.eeprom[Address.SENSOR_CLASS] = grade
        b.simulated.hardware.eeprom[Address.MICROLENS] = microlens
        b.connect()
        identity = b.camera.identity
        assert (identity.model, identity.model_number, identity.marketing_model) == (model, model, marketing)
        assert identity.base_type == model[:3]
        assert identity.serial == f"00{model[:3]}001"
        assert identity.firmware == b.simulated.hardware.firmware
        assert identity.manufactured == "20110715"
        assert b.camera.sensor is not None
        assert b.camera.sensor.name == sensor


def test_a_camera_that_was_never_programmed() -> None:
    with bench(connect=False) as b:
        b.fault("blank-eeprom")
        blank = replace(DETAILS, has_filter_wheel=False, model_number="", model_name="", serial="")
        b.answers(p.GET_DEVICE_DETAILS, p.encode_answer(p.GET_DEVICE_DETAILS, blank))
        b.connect()
        identity = b.camera.identity
        assert (identity.firmware, identity.hardware, identity.manufactured) == ("", "", "")
        assert identity.marketing_model is None
        assert identity.model == "600 Series"
        assert identity.model_name == "QSI 600 Series Camera"
        assert identity.serial == "00683001"  # the USB's
        assert b.camera.sensor is None
        assert b.camera.wheel is None
        assert not b.camera.available.host_timed
        b.check_picture()


def test_identity_is_printable_whatever_the_eeprom_holds() -> None:
    _, healthy = script()

    def answer(packet: bytes) -> bytes:
        return healthy(packet) if packet[0] != 0x60 else bytes((0x60, 2, packet[3] ^ 0x93, 0))

    _, camera = scripted(answer)
    for text in (camera.identity.firmware, camera.identity.hardware, camera.identity.manufactured):
        assert text.isascii()
        assert text.isprintable()
