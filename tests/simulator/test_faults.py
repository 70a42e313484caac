# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every fault can be armed, fires when it should, and does what its description says."""

from __future__ import annotations

import binascii
import errno
from collections.abc import Callable

import pytest

from tests.simulator.bench import Bench, bench
from usbproto import packets as p
from usbproto.errors import ProtocolError, Refused
from usbproto.simulator.faults import FAULTS
from usbproto.simulator.flash import Target
from usbproto.simulator.usbdevice import Handle, Setup, UsbFailure

SMALL = (20, 10)
IN, OUT = 0x81, 0x02
Check = Callable[[Bench], None]
CHECKS: dict[str, tuple[str, Check]] = {}


def check(fault: str) -> Callable[[Check], Check]:
    """Arm `fault`, then run the function."""

    def register(function: Check) -> Check:
        CHECKS[fault.split(":")[0].split("@")[0]] = (fault, function)
        return function

    return register


def refused(b: Bench, command: p.Command, request: p.Payload | None = None) -> int:
    with pytest.raises(Refused) as caught:
        b.ask(command, request)
    return caught.value.code


def confused(b: Bench) -> None:
    with pytest.raises(ProtocolError):
        b.ask(p.GET_SET_POINT)
    b.ask(p.GET_SET_POINT)  # once only


# --- answers ---


@check("silence:command=GetSetPoint,times=2")
def _(b: Bench) -> None:
    for _ in range(2):
        assert b.exchange(b"\x51\x00", 2) == b""
        assert b.exchange(b"\x49\x00") != b""
    b.ask(p.GET_SET_POINT)


@check("wrong-echo:0x47")
def _(b: Bench) -> None:
    assert b.exchange(b"\x51\x00")[0] == 0x47


@check("wrong-length")
def _(b: Bench) -> None:
    confused(b)


@check("short-answer")
def _(b: Bench) -> None:
    confused(b)


@check("long-answer:3")
def _(b: Bench) -> None:
    assert len(b.exchange(b"\x51\x00")) == 5 + 3


@check("device-error:6,command=51")
def _(b: Bench) -> None:
    assert refused(b, p.GET_SET_POINT) == 6


@check("duplicate-answer")
def _(b: Bench) -> None:
    answer = b.exchange(b"\x51\x00")
    assert answer[:5] * 2 == answer


@check("late-answer:3.5")
def _(b: Bench) -> None:
    assert b.exchange(b"\x51\x00", 3.4) == b""
    b.time.advance(0.2)
    assert b.read().hex() == "5103fc1800"


@check("garbage-before:7")
def _(b: Bench) -> None:
    assert b.exchange(b"\x51\x00")[7:].hex() == "5103fc1800"


@check("unasked:4")
def _(b: Bench) -> None:
    assert len(b.read()) == 4


@check("wrong-burst")
def _(b: Bench) -> None:
    assert b.ask(p.BURST_BLOCK, p.Byte(10)).data != bytes(range(10))


# --- images ---


def image(b: Bench) -> bytes:
    b.start(0.1, SMALL)
    b.wait_idle()
    return b.exchange(b"\x45\x00")


@check("short-image:100")
def _(b: Bench) -> None:
    assert len(image(b)) == 3 + 400 - 100


@check("long-image:100")
def _(b: Bench) -> None:
    assert len(image(b)) == 3 + 400 + 100


@check("image-pause:2")
def _(b: Bench) -> None:
    assert len(image(b)) == 3 + 200
    b.time.advance(2)
    assert len(b.read()) == 200


@check("lost-image")
def _(b: Bench) -> None:
    assert image(b)[-1] != 0
    assert len(image(b)) == 403


@check("short-overscan:10")
def _(b: Bench) -> None:
    image(b)
    assert len(b.exchange(b"\x4e\x00")) == 8 + 512 - 10


@check("overscan-level:20000")
def _(b: Bench) -> None:
    image(b)
    assert b.exchange(b"\x4e\x00")[8:] == (20_000).to_bytes(2, "little") * 256


# --- loader ---

KNOCK = bytes.fromhex("2109") + b"QSILDR1" + bytes.fromhex("f67f")
MARK_AT = 0x0200


def mark(b: Bench) -> bytes:
    return bytes(b.ask(p.GET_EEPROM, p.EepromAddress(MARK_AT + n)).value for n in range(9))


@check("no-loader")
def _(b: Bench) -> None:
    assert mark(b) == b"\xff" * 9
    assert b.exchange(KNOCK, 2) == b""
    b.ask(p.GET_SET_POINT)


@check("like-hardware")
def _(b: Bench) -> None:
    assert mark(b) == b"QSILDR1HR"


@check("flash-wear:2")
def _(b: Bench) -> None:
    assert b.exchange(KNOCK)[:2] == b"\x21\x03"
    memory = b.hardware.flash.regions[Target.FIRMWARE]
    memory.erase()
    for address in (0, 8):
        body = bytes((0, 0, 0, 0, address)) + b"abcd"
        check = binascii.crc_hqx(b"\xa2" + body, 0xFFFF).to_bytes(2, "big")
        assert b.exchange(bytes((0xA2, len(body) + 2)) + body + check)[-1] == 0
    assert bytes(memory.data[:4]) == b"`ccd" and bytes(memory.data[8:12]) == b"abcd"


# --- states and parts ---


@check("stuck:exposing")
def _(b: Bench) -> None:
    b.start(1.0, SMALL)
    b.time.advance(100)
    assert b.state() is p.CameraState.EXPOSING
    b.ask(p.ABORT_EXPOSURE, p.Abort())
    assert len(image(b)) == 403


@check("error-state")
def _(b: Bench) -> None:
    b.time.advance(0)
    assert b.state() is p.CameraState.ERROR
    b.ask(p.INIT)
    assert b.state() is p.CameraState.IDLE


@check("hang")
def _(b: Bench) -> None:
    assert b.exchange(b"\x51\x00", 100) == b""
    b.camera.power_off()
    b.camera.power_on()
    b.time.advance(6)
    b.ask(p.GET_SET_POINT)


@check("restart")
def _(b: Bench) -> None:
    b.time.advance(0)
    assert b.camera.device.plugged
    assert b.exchange(b"\x51\x00", 5) == b""
    b.time.advance(1)
    b.ask(p.GET_SET_POINT)


@check("wheel-jam")
def _(b: Bench) -> None:
    assert refused(b, p.SET_FILTER_WHEEL, p.Byte(2)) == 5
    state = b.ask(p.GET_DEVICE_STATE)
    assert (state.state, state.filter_moving) == (p.CameraState.IDLE, False)
    assert refused(b, p.GET_FILTER_POSITION) == 5
    assert refused(b, p.SET_FILTER_WHEEL, p.Byte(1)) == 5
    assert b.camera.indicator.led == "red 1, yellow 5"
    assert len(image(b)) == 403  # it goes on without the wheel


@check("wheel-drags:10")
def _(b: Bench) -> None:
    move = p.encode_request(p.SET_FILTER_WHEEL, p.Byte(1))
    assert b.exchange(move, 10) == b""
    b.time.advance(2)
    assert b.read().hex() == "4a0100"
    assert b.ask(p.GET_FILTER_POSITION).value == 1


@check("shutter-fail")
def _(b: Bench) -> None:
    with pytest.raises(Refused) as caught:
        b.start(1.0, SMALL)
    assert caught.value.code == 6
    assert b.state() is p.CameraState.IDLE
    assert len(image(b)) == 403  # it goes on without the shutter
    assert refused(b, p.SET_SHUTTER, p.Flag(True)) == 6


@check("stuck-relay")
def _(b: Bench) -> None:
    b.ask(p.ACTIVATE_RELAY, p.Relays(10, 0))
    b.time.advance(10)
    assert not b.ask(p.IS_RELAY_DONE).value
    b.ask(p.ABORT_RELAYS)
    assert not b.ask(p.IS_RELAY_DONE).value


@check("fan-fail")
def _(b: Bench) -> None:
    b.ask(p.SET_TEMPERATURE, p.SetTemperature(True, False, -40.0))
    b.time.advance(1800)
    assert refused(b, p.GET_TEMPERATURE) == 1


@check("cooler-fail")
def _(b: Bench) -> None:
    b.ask(p.SET_TEMPERATURE, p.SetTemperature(True, False, -10.0))
    b.time.advance(60)
    reading = b.ask(p.GET_TEMPERATURE)
    assert (reading.cooler, reading.power) == (p.CoolerState.NO_CONTROL, 0)


@check("temperature:-273.15")
def _(b: Bench) -> None:
    assert b.ask(p.GET_TEMPERATURE).ccd == -273.15
    assert b.ask(p.GET_TEMPERATURE).ccd > 0


@check("blank-eeprom")
def _(b: Bench) -> None:
    assert b.ask(p.GET_EEPROM, p.EepromAddress(0x238)).value == 255


# --- supply and cable ---


@check("voltage:10.5")
def _(b: Bench) -> None:
    assert refused(b, p.GET_TEMPERATURE) == 3


@check("brown-out")
def _(b: Bench) -> None:
    b.ask(p.SET_TEMPERATURE, p.SetTemperature(True, False, -10.0))
    assert b.exchange(b"\x47\x00")[2] == p.CoolerState.BROWN_OUT


@check("power-off")
def _(b: Bench) -> None:
    b.time.advance(0)
    assert not b.camera.device.plugged


@check("power-cycle:2")
def _(b: Bench) -> None:
    b.time.advance(1.9)
    assert not b.camera.device.plugged
    b.time.advance(0.1)
    assert b.camera.device.plugged
    assert not b.firmware.ready
    b.time.advance(6)
    b.ask(p.GET_SET_POINT)


@check("unplug")
def _(b: Bench) -> None:
    assert not b.camera.device.plugged
    assert b.events("usb") == [{"plugged": False}]
    assert b.camera.indicator.led == "green flashing"


@check("replug:3")
def _(b: Bench) -> None:
    assert not b.camera.device.plugged
    b.time.advance(3)
    assert b.camera.device.plugged


def opened(b: Bench) -> Handle:
    handle = b.camera.device.open()
    handle.claim(0)
    return handle


def read(b: Bench, patience: float = 1.0) -> bytes:
    """What the host reads, without the status bytes; the first packets may be empty."""
    buffer, handle = memoryview(bytearray(512)), opened(b)
    for _ in range(5):
        data = bytes(buffer[2 : handle.bulk(IN, buffer, patience)])
        if data:
            return data
    return b""


def fails(number: int, call: Callable[[], object]) -> None:
    with pytest.raises(UsbFailure) as caught:
        call()
    assert caught.value.errno == number


@check("stall-in")
def _(b: Bench) -> None:
    fails(errno.EPIPE, lambda: read(b))


@check("stall-out")
def _(b: Bench) -> None:
    fails(errno.EPIPE, lambda: opened(b).bulk(OUT, memoryview(bytearray(b"\x51\0")), 1.0))


@check("silence-in:0.2")
def _(b: Bench) -> None:
    fails(errno.ETIMEDOUT, lambda: read(b, 0.1))


@check("silence-out:0.2")
def _(b: Bench) -> None:
    fails(errno.ETIMEDOUT, lambda: opened(b).bulk(OUT, memoryview(bytearray(b"\x51\0")), 0.1))


@check("drop:2")
def _(b: Bench) -> None:
    b.write(b"\x51\x00")
    assert read(b).hex() == "fc1800"


@check("insert:a55a")
def _(b: Bench) -> None:
    assert read(b).hex() == "a55a"


@check("corrupt:1")
def _(b: Bench) -> None:
    b.write(b"\x51\x00")
    assert read(b).hex() == "ae03fc1800"


@check("babble")
def _(b: Bench) -> None:
    fails(errno.EOVERFLOW, lambda: read(b))


@check("refuse-control")
def _(b: Bench) -> None:
    reset, nothing = Setup(0x40, 0, 1, 1), memoryview(bytearray())
    handle = opened(b)
    fails(errno.EPIPE, lambda: handle.control(reset, nothing, 1.0))
    handle.control(reset, nothing, 1.0)


@check("reset-bus@command")
def _(b: Bench) -> None:
    b.write(b"\x51\x00")
    assert b.camera.faults.fired == ["reset-bus@command"]


@check("deny-open:eacces")
def _(b: Bench) -> None:
    fails(errno.EACCES, b.camera.device.open)
    b.camera.faults.arm("deny-open:none")
    b.camera.device.open()


@check("no-strings")
def _(b: Bench) -> None:
    ask = Setup(0x80, 6, 0x0303, 0x0409, 255)
    fails(errno.EPIPE, lambda: opened(b).control(ask, memoryview(bytearray(255)), 1.0))


@check("short-serial:4")
def _(b: Bench) -> None:
    ask = Setup(0x80, 6, 0x0303, 0x0409, 255)
    buffer = memoryview(bytearray(255))
    count = opened(b).control(ask, buffer, 1.0)
    assert bytes(buffer[2:count]).decode("utf-16-le") == "0058"


@pytest.mark.parametrize("name", FAULTS)
def test_fault(name: str) -> None:
    text, function = CHECKS[name]
    with bench("583wsg", readout=0.0) as b:
        b.camera.faults.arm(text)
        function(b)
        assert text in b.camera.faults.fired
        assert name in [facts["fault"] for facts in b.events("fault")]


def test_there_are_many() -> None:
    assert len(FAULTS) >= 30
    assert all(fault.description for fault in FAULTS.values())


def test_arming_for_an_event() -> None:
    with bench("583wsg", readout=0.0) as b:
        b.camera.faults.arm("unplug@exposure_start#2+0.5")
        image(b)
        assert b.camera.faults.armed == ["unplug@exposure_start#2+0.5"]
        b.start(2.0, SMALL)
        b.time.advance(0.4)
        assert b.camera.device.plugged
        b.time.advance(0.2)
        assert not b.camera.device.plugged


def test_power_may_fail_at_any_event() -> None:
    for event in (
        "command",
        "expose",
        "exposure_start",
        "exposure_end",
        "idle",
        "transfer",
        "shutter",
        "answer",
    ):
        for fault in ("power-cycle", "restart", "hang", "unplug", "error-state"):
            with bench("583wsg", readout=0.0) as b:
                b.camera.faults.arm(f"{fault}@{event}")
                b.write(p.encode_request(p.START_EXPOSURE, p.StartExposure(10, 0, 0, *SMALL, 1, 1, True)))
                b.time.advance(2)
                b.exchange(b"\x45\x00")
                b.time.advance(10)
                b.camera.power_off()
                b.camera.power_on()
                b.time.advance(10)
                b.read()
                assert len(image(b)) == 403, (event, fault)


@pytest.mark.parametrize(
    "text", ["", "nothing", "silence@never", "silence@", "unplug@expose#x", "short-image:x"]
)
def test_nonsense_is_refused(text: str) -> None:
    with bench() as b, pytest.raises(ValueError):
        b.camera.faults.arm(text)


def test_wrong_arguments_of_a_later_fault_do_no_harm() -> None:
    with bench("583wsg", readout=0.0) as b:
        b.camera.faults.arm("short-image@expose:many")
        assert len(image(b)) == 403
        assert "many" in b.events("fault")[-1]["error"]


def test_an_exposure_that_failed_underway_is_answered() -> None:
    with bench("583wsg", readout=0.0, strange=("wheel-answers-at-once",)) as b:
        b.ask(p.SET_FILTER_WHEEL, p.Byte(2))
        b.camera.faults.arm("error-state@expose")
        with pytest.raises(Refused):
            b.start(0.1, SMALL)
        b.ask(p.INIT)
        assert len(image(b)) == 403
