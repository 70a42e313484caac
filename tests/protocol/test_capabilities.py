# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a firmware can do: found out once, remembered by serial number and firmware, forgotten without harm."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.protocol.bench import DETAILS, Bench, SimulatedChannel, bench, script, scripted
from usbproto import packets as p
from usbproto.camera import Camera
from usbproto.capabilities import Capabilities, FileCache
from usbproto.errors import DEVICE_ERRORS, Refused
from usbproto.models import SERIES_600
from usbproto.packets import Feature

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


@pytest.mark.parametrize(("model", "capabilities"), [("583wsg", OF_500), ("683wsg", OF_683)])
def test_the_second_connect_asks_nothing(model: str, capabilities: Capabilities, cache: FileCache) -> None:
    with bench(model, connect=False) as b:
        b.connect(cache)
        assert probes(b) == 3
        before = b.time.now()
        b.connect(cache)
        assert probes(b) == 0
        assert b.time.now() - before < 1.0
        assert b.camera.capabilities == capabilities
        b.check_picture()


def test_another_firmware_and_another_camera_are_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "capabilities.json"
    for serial, firmware, asked in (
        ("00683001", "06.03.04", 3),
        ("00683001", "06.03.04", 0),
        ("00683001", "06.04.00", 3),
        ("00683002", "06.03.04", 3),
        ("00683001", "06.03.04", 0),
    ):
        with bench("683wsg", connect=False, serial=serial, firmware=firmware) as b:
            b.connect(FileCache(path))
            assert probes(b) == asked
    assert len(json.loads(path.read_text())) == 3


def test_without_a_serial_number_nothing_is_remembered() -> None:
    class Never:
        def get(self, key: str) -> Capabilities | None:
            raise AssertionError

        def put(self, key: str, capabilities: Capabilities) -> None:
            raise AssertionError

    with bench() as b:
        camera = Camera(SimulatedChannel(b.simulated), SERIES_600, "", Never())
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
    ],
    ids=range(14),
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


@pytest.mark.parametrize("code", DEVICE_ERRORS)
def test_a_probe_that_is_answered_with_a_device_error_is_answered(code: int) -> None:
    with bench(connect=False) as b:
        b.fault(f"device-error:{code},command=GetTemperatureEx")
        b.fault(f"device-error:{code},command=StartExposureEx")
        b.connect()
        assert b.camera.capabilities == OF_683


def test_a_probe_that_is_refused_for_an_unknown_reason_is_a_refusal() -> None:
    with bench(connect=False) as b:
        b.fault("device-error:0x80,command=GetTemperatureEx")
        with pytest.raises(Refused, match="device error 128"):
            b.connect()
        assert b.channel.closed == 1
        b.connect()


# --- identity ---


@pytest.mark.parametrize(
    ("model", "marketing", "sensor"),
    [("683wsg", "683ws", "KAF-8300"), ("540ci", "540ci", "KAI-04022"), ("660s", "660s", "ICX694")],
)
def test_identity(model: str, marketing: str, sensor: str) -> None:
    with bench(model) as b:
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
