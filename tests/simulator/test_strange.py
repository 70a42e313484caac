# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every strangeness does on the wire what its description says, on both series, and stays until it is cleared.

Those of the USB are in tests/simulator_usb/test_strange_usb.py.
"""

from __future__ import annotations

import binascii
import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tests.simulator.bench import Bench
from usbproto import packets as p
from usbproto.errors import Refused
from usbproto.models import Address
from usbproto.packets import CameraState
from usbproto.simulator.strange import STRANGENESSES
from usbproto.simulator.strange_behaviour import SPOILT_SHIFT


class StrangeBench(Bench):
    def start_small(self, seconds: float = 0.1) -> None:
        self.start(seconds, SMALL)

    def power_cycle(self) -> None:
        self.camera.power_off()
        self.camera.power_on()
        self.time.advance(6)


MODELS = ("583wsg", "683wsg")
USB = {"transfer-errors", "full-speed", "no-scatter-gather", "no-memory"}
SMALL = (20, 10)
SET_POINT = b"\x51\x00"
Check = Callable[[StrangeBench], None]
CHECKS: dict[str, list[tuple[str, Check]]] = {}


def check(text: str) -> Callable[[Check], Check]:
    """Make the camera strange, then run the function."""

    def register(function: Check) -> Check:
        CHECKS.setdefault(text.split(":")[0], []).append((text, function))
        return function

    return register


def raw(b: Bench, command: p.Command, request: p.Payload | None = None, patience: float = 20.0) -> bytes:
    return b.exchange(p.encode_request(command, request or p.Empty()), patience)


def start_raw(b: Bench) -> bytes:
    """The answer to an order for an exposure of a second."""
    window = {
        "column_offset": 0,
        "row_offset": 0,
        "columns": SMALL[0],
        "rows": SMALL[1],
        "bin_x": 1,
        "bin_y": 1,
    }
    if b.camera.model.extended:
        return raw(b, p.START_EXPOSURE_EX, p.StartExposureEx(100, open_shutter=True, **window))
    return raw(b, p.START_EXPOSURE, p.StartExposure(100, open_shutter=True, **window))


def refused(b: Bench, command: p.Command, request: p.Payload | None = None) -> int:
    """The device error."""
    answer = raw(b, command, request)
    assert answer[:2] == bytes((command.code, len(answer) - 2))
    return answer[-1]


def extended(b: Bench) -> bool:
    return b.camera.model.extended


@contextlib.contextmanager
def strange(model: str, *texts: str) -> Iterator[StrangeBench]:
    b = StrangeBench(model, readout=0.0, strange=texts)
    try:
        yield b
    finally:
        b.camera.close()


# --- longer answers ---


@check("longer-answers")
def _(b: StrangeBench) -> None:
    assert raw(b, p.GET_SET_POINT).hex() == "5104fc1800a5"
    assert raw(b, p.INIT).hex() == "4b0200a5"
    assert len(raw(b, p.GET_DEVICE_DETAILS)) == 104 + 1


@check("longer-answers:3,0,command=GetSetPoint")
def _(b: StrangeBench) -> None:
    assert raw(b, p.GET_SET_POINT).hex() == "5106fc1800000000"
    assert raw(b, p.INIT).hex() == "4b0100"


@check("longer-answers:200")
def _(b: StrangeBench) -> None:
    """The length is one byte."""
    answer = raw(b, p.GET_DEVICE_DETAILS)
    assert (answer[1], len(answer)) == (255, 257)


@check("surplus-bytes:2")
def _(b: StrangeBench) -> None:
    assert raw(b, p.GET_SET_POINT).hex() == "5103fc1800a5a5"
    assert start_raw(b)[1:].hex() == "0100a5a5"
    b.wait_idle()
    assert len(raw(b, p.TRANSFER_IMAGE)) == 3 + 400  # pixels follow: no surplus


# --- refused and missing ones ---


@check("eeprom-silent")
def _(b: StrangeBench) -> None:
    assert raw(b, p.GET_EEPROM, p.EepromAddress(0), 2.0) == b""
    b.ask(p.GET_SET_POINT)


@check("eeprom-refused:0x81")
def _(b: StrangeBench) -> None:
    assert refused(b, p.GET_EEPROM, p.EepromAddress(0)) == 0x81


@check("can-abort-silent")
def _(b: StrangeBench) -> None:
    assert raw(b, p.CAN_ABORT_EXPOSURE, None, 2.0) == b""
    b.ask(p.CAN_STOP_EXPOSURE)


@check("shutter-state-silent")
def _(b: StrangeBench) -> None:
    assert raw(b, p.GET_SHUTTER_STATE, None, 2.0) == b""


@check("set-point-refused")
def _(b: StrangeBench) -> None:
    assert refused(b, p.GET_SET_POINT) == 0x80


@check("pcb-refused:3")
def _(b: StrangeBench) -> None:
    assert refused(b, p.GET_TEMPERATURE_EX) == 3
    b.ask(p.GET_TEMPERATURE)


@check("alt-mode-refused")
def _(b: StrangeBench) -> None:
    assert refused(b, p.SET_ALT_MODE, p.AltModes(p.AltMode.SHUTTER_OUTPUT)) == 0x80
    assert b.firmware.settings.alt_mode == 0
    assert refused(b, p.GET_ALT_MODE) == 0x80


@check("trigger-off-refused")
def _(b: StrangeBench) -> None:
    assert refused(b, p.BASIC_HW_TRIGGER, p.Trigger(p.TriggerMode.OFF)) == 0x80
    if extended(b):
        b.ask(p.BASIC_HW_TRIGGER, p.Trigger(p.TriggerMode.LONG_WAIT))


# --- probes ---

PROBES: tuple[tuple[p.Command, p.Payload], ...] = (
    (p.GET_FEATURES, p.Empty()),
    (p.GET_TEMPERATURE_EX, p.Empty()),
    (p.START_EXPOSURE_EX, p.StartExposureEx(probe=True)),
    (p.SET_FILTER_TRIM, p.Trim(0)),
)


@check("probe-late:1.2")
def _(b: StrangeBench) -> None:
    for command, request in PROBES:
        assert raw(b, command, request, 1.1) == b""
        b.time.advance(0.2)
        answer = b.read()
        assert (answer[0], answer[-1]) == (command.code, 0 if extended(b) else 0x80)
    assert raw(b, p.GET_SET_POINT, None, 0.01) != b""


@check("probe-error:0x85")
def _(b: StrangeBench) -> None:
    for command, request in PROBES:
        assert refused(b, command, request) == 0x85
    trim = raw(b, p.SET_FILTER_TRIM, p.Trim(5), 1.0)
    assert trim == (b"\x5a\x01\x00" if extended(b) else b"")


@check("probe-error:command=GetFeatures")
def _(b: StrangeBench) -> None:
    assert refused(b, p.GET_FEATURES) == 0x80
    assert bool(raw(b, p.GET_TEMPERATURE_EX, None, 1.0)) == extended(b)


@check("probe-echo:0x47")
def _(b: StrangeBench) -> None:
    for command, request in PROBES:
        assert raw(b, command, request)[0] == 0x47
    assert raw(b, p.GET_SET_POINT)[0] == 0x51


# --- features, which 500 Series cameras do not know ---


def features(b: Bench) -> str:
    return raw(b, p.GET_FEATURES, None, 2.0).hex()


@check("features-extra-byte")
def _(b: StrangeBench) -> None:
    assert features(b) == ("5c06000000000100a5" if extended(b) else "")


@check("features-status-outside")
def _(b: StrangeBench) -> None:
    assert features(b) == ("5c05000000000100" if extended(b) else "")


@check("features-none")
def _(b: StrangeBench) -> None:
    assert features(b) == ("5c020000" if extended(b) else "")


@check("features-short")
def _(b: StrangeBench) -> None:
    assert features(b) == ("5c0100" if extended(b) else "")


@check("features-ff")
def _(b: StrangeBench) -> None:
    assert features(b) == ("5c02ff00" if extended(b) else "")


# --- readings and contents ---


@check("power-while-off")
def _(b: StrangeBench) -> None:
    assert b.ask(p.GET_TEMPERATURE).power == pytest.approx(655.35)
    if extended(b):
        assert b.ask(p.GET_TEMPERATURE_EX).power == pytest.approx(655.35)
    b.ask(p.SET_TEMPERATURE, p.SetTemperature(True, False, 0.0))
    b.time.advance(5)
    assert b.ask(p.GET_TEMPERATURE).power == 100


@check("odd-first-readings:1")
def _(b: StrangeBench) -> None:
    for _ in range(2):
        odd, good = b.ask(p.GET_TEMPERATURE), b.ask(p.GET_TEMPERATURE)
        assert (odd.ccd, odd.power) == (pytest.approx(327.67), pytest.approx(655.35))
        assert (abs(good.ccd) < 100, good.power) == (True, 0)
        b.ask(p.INIT)


@check("odd-defaults")
def _(b: StrangeBench) -> None:
    given = b.ask(p.GET_DEFAULT_SETTINGS)
    odd = (given.fan, given.gain, given.shutter_priority, given.anti_blooming, given.flush)
    assert odd == (7, 5, 6, 3, 9)
    rest = (given.show_progress, given.fast_readout)
    b.ask(p.SET_SETTINGS, p.Settings(given.led, given.sound, *odd, *rest))
    assert refused(b, p.SET_SETTINGS, p.Settings(given.led, given.sound, 6, *odd[1:], *rest)) == 0x81
    b.ask(p.SET_SETTINGS, p.Settings(given.led, given.sound, p.Fan.QUIET, *odd[1:], *rest))
    b.picture(0.1, SMALL)
    b.power_cycle()
    b.picture(0.1, SMALL)
    assert b.firmware.settings.current.flush == 9


@check("odd-defaults:8")
def _(b: StrangeBench) -> None:
    given = b.ask(p.GET_DEFAULT_SETTINGS)
    assert {given.fan, given.gain, given.shutter_priority, given.anti_blooming, given.flush} == {8}


def eeprom(b: Bench, address: int, count: int = 1) -> bytes:
    return bytes(b.ask(p.GET_EEPROM, p.EepromAddress(address + n)).value for n in range(count))


@check("odd-feature-bytes")
def _(b: StrangeBench) -> None:
    for address in (Address.FAMILY, Address.SENSOR_TYPE, Address.SHUTTER, Address.SENSOR_CLASS):
        assert eeprom(b, address) == b"\x77"
    assert eeprom(b, Address.MODEL, 6) == b.camera.model.name.encode()


@check("rs-600")
def _(b: StrangeBench) -> None:
    assert eeprom(b, Address.FAMILY) == b"\x05"


@check("unknown-model:812xy")
def _(b: StrangeBench) -> None:
    assert b.ask(p.GET_DEVICE_DETAILS).model_number == "812xy"
    assert eeprom(b, Address.MODEL, 8) == b"812xy\0\0\0"


# --- behaviour ---


@check("slow-init:3")
def _(b: StrangeBench) -> None:
    for _ in range(2):
        b.write(b"\x4b\x00" + SET_POINT)
        b.time.advance(2.9)
        assert b.read() == b""
        b.time.advance(0.2)
        assert b.read().hex() == "4b01005103fc1800"


@check("wheel-answers-at-once")
def _(b: StrangeBench) -> None:
    b.ask(p.SET_FILTER_WHEEL, p.Byte(1))
    state = b.ask(p.GET_DEVICE_STATE)
    assert (state.state, state.filter_moving) == (CameraState.FILTER_MOVING, True)
    b.time.advance(1)
    assert b.ask(p.GET_FILTER_POSITION).value == 1


@check("state-at-connect:error,2")
def _(b: StrangeBench) -> None:
    assert b.state() is CameraState.IDLE  # it was on before
    b.ask(p.INIT)
    for _ in range(2):
        assert b.state() is CameraState.ERROR
        with pytest.raises(Refused):
            b.start_small()
        b.time.advance(2)
        assert b.state() is CameraState.IDLE
        b.ask(p.INIT)
        assert b.state() is CameraState.IDLE  # the same connection
        b.power_cycle()


@check("state-at-connect")
def _(b: StrangeBench) -> None:
    """Each program that claims the device begins a connection."""
    for _ in range(2):
        handle = b.camera.device.open()
        handle.claim(0)
        b.ask(p.INIT)
        assert b.state() is CameraState.FLUSHING
        b.time.advance(3)
        assert b.state() is CameraState.IDLE
        handle.close()


@check("late-busy:0.5")
def _(b: StrangeBench) -> None:
    old = b.picture(1.0, SMALL)
    b.start_small(1.0)
    started = b.time.now()
    assert b.state() is CameraState.IDLE
    assert (b.transfer().reshape(old.shape) == old).all()
    assert b.events("transfer")[-1]["n"] == 1
    b.time.advance(started + 0.5 - b.time.now())
    assert b.state() is CameraState.EXPOSING
    assert refused(b, p.TRANSFER_IMAGE) == 0x83
    b.wait_idle()
    b.transfer()
    assert b.events("transfer")[-1]["n"] == 2


@check("slow-abort:2")
def _(b: StrangeBench) -> None:
    b.ask(p.ABORT_EXPOSURE, p.Abort())
    assert b.state() is CameraState.IDLE  # nothing was aborted
    b.start_small(10.0)
    b.ask(p.ABORT_EXPOSURE, p.Abort())
    assert b.state() is CameraState.FLUSHING
    with pytest.raises(Refused) as caught:
        b.start_small()
    assert caught.value.code == 0x83
    b.time.advance(2)
    assert b.state() is CameraState.IDLE
    b.picture(0.1, SMALL)


@check("fragile-readout")
def _(b: StrangeBench) -> None:
    for disturbance in (None, p.GET_SET_POINT, p.GET_TEMPERATURE):
        b.start_small()
        b.ask(p.GET_TEMPERATURE)  # it exposes, or has not ended: no harm
        while b.firmware.imager.state is CameraState.EXPOSING:
            b.time.advance(0.05)
        b.ask(p.GET_DEVICE_STATE)
        b.ask(p.ACTIVATE_RELAY, p.Relays(1, 0))
        b.ask(p.ABORT_RELAYS)
        spoilt = len(b.events("spoilt"))
        if disturbance is not None:
            b.ask(disturbance)
        b.wait_idle()
        pixels, frame = b.transfer(), b.camera.last_frame
        assert frame is not None
        if disturbance is None:
            assert (pixels == frame.reshape(-1)).all()
            assert not spoilt and not b.events("spoilt")
        else:
            assert (pixels == np.roll(frame, SPOILT_SHIFT).reshape(-1)).all()
            assert [e["command"] for e in b.events("spoilt")[spoilt:]] == [disturbance.name]
        raw(b, p.GET_AUTO_ZERO)


# --- all of them ---


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", [name for name in STRANGENESSES if name not in USB])
def test_strangeness(name: str, model: str) -> None:
    for text, function in CHECKS[name]:
        with strange(model, text) as b:
            assert b.camera.strange.active == [text]
            function(b)
            assert b.events("strange")[0]["strange"] == name


@pytest.mark.parametrize("name", STRANGENESSES)
def test_it_can_be_cleared(name: str) -> None:
    """A camera that was strange answers as one that never was."""
    with strange("683wsg") as normal, strange("683wsg", name) as b:
        b.camera.strange.add("none")
        assert b.camera.strange.active == []
        for command in (
            p.INIT,
            p.GET_DEVICE_DETAILS,
            p.GET_DEVICE_STATE,
            p.GET_FEATURES,
            p.GET_TEMPERATURE_EX,
        ):
            assert raw(b, command) == raw(normal, command)
        for address in (Address.FAMILY, Address.MODEL):
            assert eeprom(b, address) == eeprom(normal, address)
        assert b.ask(p.GET_DEFAULT_SETTINGS) == normal.ask(p.GET_DEFAULT_SETTINGS)
        assert b.camera.device.speed == normal.camera.device.speed
        assert b.camera.device.scatter_gather and b.camera.device.longest_read is None
        nature = b.firmware.nature
        assert not (nature.instead or nature.changes or nature.tampering)


@pytest.mark.parametrize("model", MODELS)
def test_all_at_once(model: str) -> None:
    """The strangenesses of GetFeatures exclude each other: one of them is in."""
    texts = [name for name in STRANGENESSES if not name.startswith("features-")]
    with strange(model, *texts, "features-extra-byte", "probe-late:0.5", "state-at-connect:0,5") as b:
        assert raw(b, p.INIT).hex() == "4b0200a5a5"
        assert b.time.now() >= 12
        assert raw(b, p.GET_DEVICE_STATE)[2] == CameraState.ERROR
        b.time.advance(5)
        assert raw(b, p.GET_DEVICE_DETAILS)[23:29] == b"799wsg"
        probe = raw(b, p.GET_TEMPERATURE_EX)
        assert (probe[0], probe[11]) == (0x7F, 0x80)
        assert start_raw(b)[1:].hex() == "0200a5a5"
        assert raw(b, p.GET_DEVICE_STATE)[2] == CameraState.IDLE
        b.wait_idle()
        assert raw(b, p.TRANSFER_IMAGE)[:4].hex() == "450200a5"


def test_strangenesses_of_two_kinds_work_together() -> None:
    texts = ("longer-answers", "surplus-bytes", "eeprom-refused:0x85", "unknown-model", "rs-600")
    with strange("540ws", *texts) as b:
        assert raw(b, p.GET_EEPROM, p.EepromAddress(Address.FAMILY)).hex() == "60030085a5a5"
        b.camera.strange.add("eeprom-silent")
        assert raw(b, p.GET_EEPROM, p.EepromAddress(0), 2.0) == b""


def test_faults_come_on_top() -> None:
    with strange("583wsg", "longer-answers") as b:
        b.camera.faults.arm("device-error:6")
        assert raw(b, p.GET_SET_POINT).hex() == "5104fc1806a5"  # where the layout has it
        b.camera.faults.arm("silence")
        assert raw(b, p.GET_SET_POINT, None, 2.0) == b""


def test_it_survives_the_loss_of_power_and_the_cable() -> None:
    with strange("683wsg", "longer-answers", "slow-init:3") as b:
        b.power_cycle()
        b.camera.device.unplug()
        b.camera.device.replug()
        begin = b.time.now()
        assert raw(b, p.INIT).hex() == "4b0200a5"
        assert b.time.now() - begin >= 3


def test_the_same_name_again_replaces_the_arguments() -> None:
    with strange("683wsg", "longer-answers:3", "late-busy") as b:
        b.camera.strange.add("longer-answers:1,7")
        assert raw(b, p.INIT).hex() == "4b020007"
        assert b.camera.strange.active == ["late-busy", "longer-answers:1,7"]
        with pytest.raises(ValueError, match="longer-answers:0: 0 is not in 1"):
            b.camera.strange.add("longer-answers:0")
        assert raw(b, p.INIT).hex() == "4b020007"  # as before


def test_the_loader_speaks_its_own_language() -> None:
    knock = bytes.fromhex("2109") + b"QSILDR1" + bytes.fromhex("f67f")
    identify = bytes((0xA0, 2)) + binascii.crc_hqx(b"\xa0", 0xFFFF).to_bytes(2, "big")
    with strange("683wsg") as normal, strange("683wsg", "longer-answers", "surplus-bytes", "slow-init") as b:
        for question in (knock, identify, b"\x4b\x00", b"\x42\x00", b"\x60\x02\x00\x00"):
            assert b.exchange(question) == normal.exchange(question) != b""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no such strangeness"),
        ("nothing", "no such strangeness"),
        ("rs-600:1", "1: not an argument"),
        ("slow-init:-1", "-1 is not in 0..inf"),
        ("slow-init:nan", "nan is not in 0..inf"),
        ("longer-answers:many", "'many' is not a whole number"),
        ("longer-answers:1,256", "256 is not in 0..255"),
        ("longer-answers:comand=Init", "comand: not an argument"),
        ("longer-answers:command=Inti", "'Inti' is neither the name nor the code of a command"),
        ("transfer-errors:10,0,ENODEV", "'ENODEV' is not one of EPROTO"),
        ("transfer-errors:lose=2", "2 is not in 0..1"),
        ("state-at-connect:idle", "'idle' is neither error nor flushing"),
        ("unknown-model:" + "9" * 33, "at most 32"),
    ],
)
def test_nonsense_is_refused_in_one_line(text: str, why: str) -> None:
    with strange("683wsg") as b:
        with pytest.raises(ValueError) as caught:
            b.camera.strange.add(text)
        assert why in str(caught.value) and "\n" not in str(caught.value)
        assert b.camera.strange.active == []
        nature = b.firmware.nature
        assert not (nature.instead or nature.changes or nature.tampering)


def test_nonsense_makes_no_camera() -> None:
    with pytest.raises(ValueError, match="no such strangeness"):
        Bench("683wsg", strange=("nothing",))
