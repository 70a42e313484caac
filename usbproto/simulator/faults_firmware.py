# SPDX-License-Identifier: LGPL-2.1-or-later
"""Faults of answers, images, states and parts. What would pull the rug from under the running command is done
right behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from usbproto.packets import HEADER_BYTES, Burst, CameraState, Features
from usbproto.simulator.arguments import Arguments
from usbproto.simulator.faults import fault
from usbproto.simulator.fifo import Chunk
from usbproto.simulator.loader import HARDWARE
from usbproto.simulator.nature import Reply

if TYPE_CHECKING:
    from usbproto.simulator.camera import SimulatedCamera

_TEMPERATURE_CODES = frozenset({0x47, 0x5B})
_PIXEL_CODES = frozenset({0x45, 0x5F})
_OVERSCAN_CODES = frozenset({0x4E})
_VARYING = (Features, Burst)
_BURST_CODES = frozenset({0x65})

# --- answers ---


def _tamper(
    camera: SimulatedCamera,
    arguments: Arguments,
    change: Callable[[Reply], None],
    codes: frozenset[int] | None = None,
) -> None:
    """Change the next `times` answers to the wanted commands."""
    wanted = arguments.codes if codes is None else codes
    left = arguments.times
    tampering = camera.firmware.tampering

    def tamper(reply: Reply) -> None:
        nonlocal left
        if wanted and reply.command.code not in wanted:
            return
        change(reply)
        left -= 1
        if left == 0:
            tampering.remove(tamper)

    tampering.append(tamper)


@fault("silence", "the command is obeyed but not answered")
def _silence(camera: SimulatedCamera, arguments: Arguments) -> None:
    _tamper(camera, arguments, Reply.mute)


@fault("wrong-echo", "the answer repeats another command code (VALUE, default 0x7F)")
def _wrong_echo(camera: SimulatedCamera, arguments: Arguments) -> None:
    code = arguments.count(0x7F)
    _tamper(camera, arguments, lambda r: setattr(r, "packet", bytes((code,)) + r.packet[1:]))


@fault("wrong-length", "the answer's length byte is off by VALUE (default 2), its bytes are as ever")
def _wrong_length(camera: SimulatedCamera, arguments: Arguments) -> None:
    off = arguments.count(2)

    def change(reply: Reply) -> None:
        packet = reply.packet
        reply.packet = packet[:1] + bytes(((packet[1] + off) & 0xFF,)) + packet[2:]

    _tamper(camera, arguments, change)


@fault("short-answer", "the last VALUE bytes of the answer are missing (default 1)")
def _short_answer(camera: SimulatedCamera, arguments: Arguments) -> None:
    missing = arguments.count(1)
    _tamper(camera, arguments, lambda r: setattr(r, "packet", r.packet[:-missing]))


@fault("long-answer", "VALUE more bytes follow the answer (default 1)")
def _long_answer(camera: SimulatedCamera, arguments: Arguments) -> None:
    extra = bytes(arguments.count(1))
    _tamper(camera, arguments, lambda r: setattr(r, "packet", r.packet + extra))


@fault("device-error", "the answer carries device error VALUE (default 1)")
def _device_error(camera: SimulatedCamera, arguments: Arguments) -> None:
    error = arguments.count(1)

    def change(reply: Reply) -> None:
        layout = reply.command.response
        # The last byte of answers whose length varies; else where the layout has it, however long the answer.
        at = len(reply.packet) - 1 if layout in _VARYING else HEADER_BYTES + layout.size()
        reply.packet = reply.packet[:at] + bytes((error,)) + reply.packet[at + 1 :]
        reply.data = []

    _tamper(camera, arguments, change)


@fault("duplicate-answer", "the answer comes twice")
def _duplicate(camera: SimulatedCamera, arguments: Arguments) -> None:
    _tamper(camera, arguments, lambda r: setattr(r, "packet", r.packet * 2))


@fault("late-answer", "the answer comes VALUE s late (default 3)")
def _late(camera: SimulatedCamera, arguments: Arguments) -> None:
    delay = arguments.number(3.0)
    _tamper(camera, arguments, lambda r: setattr(r, "delay", delay))


@fault("garbage-before", "VALUE random bytes precede the answer (default 5)")
def _garbage_before(camera: SimulatedCamera, arguments: Arguments) -> None:
    garbage = _garbage(arguments.count(5))
    _tamper(camera, arguments, lambda r: setattr(r, "packet", garbage + r.packet))


@fault("unasked", "VALUE random bytes come without a question, now (default 5)")
def _unasked(camera: SimulatedCamera, arguments: Arguments) -> None:
    camera.firmware.say(_garbage(arguments.count(5)))


@fault("wrong-burst", "the link test's bytes are wrong")
def _wrong_burst(camera: SimulatedCamera, arguments: Arguments) -> None:
    def change(reply: Reply) -> None:
        middle = len(reply.packet) // 2
        reply.packet = reply.packet[:middle] + b"\xa5" + reply.packet[middle + 1 :]

    _tamper(camera, arguments, change, _BURST_CODES)


def _garbage(count: int) -> bytes:
    return np.random.default_rng(count).integers(0x80, 0x100, count, np.uint8).tobytes()


# --- images ---


def _cut(data: list[Chunk], missing: int) -> list[Chunk]:
    return [memoryview(data[0])[: max(0, len(data[0]) - missing)], *data[1:]] if data else []


@fault("short-image", "the last VALUE bytes of the next image are missing (default 1000)")
def _short_image(camera: SimulatedCamera, arguments: Arguments) -> None:
    missing = arguments.count(1000)
    _tamper(camera, arguments, lambda r: setattr(r, "data", _cut(r.data, missing)), _PIXEL_CODES)


@fault("long-image", "VALUE more bytes follow the next image (default 1000)")
def _long_image(camera: SimulatedCamera, arguments: Arguments) -> None:
    extra = bytes(arguments.count(1000))
    _tamper(camera, arguments, lambda r: setattr(r, "data", [*r.data, extra]), _PIXEL_CODES)


@fault("image-pause", "the next image stops in its middle for VALUE s (default 2)")
def _image_pause(camera: SimulatedCamera, arguments: Arguments) -> None:
    seconds = arguments.number(2.0)

    def change(reply: Reply) -> None:
        if not reply.data:
            return
        pixels = memoryview(reply.data[0])
        middle, rest = len(pixels) // 2, reply.data[1:]
        reply.data = [pixels[:middle]]

        def resume() -> None:
            for data in (pixels[middle:], *rest):
                camera.fifo.push(data)

        camera.timeline.after(reply.delay + seconds, resume)

    _tamper(camera, arguments, change, _PIXEL_CODES)


@fault("lost-image", "the image that waits, or the next one, is gone when the host asks for it")
def _lost_image(camera: SimulatedCamera, arguments: Arguments) -> None:
    imager = camera.firmware.imager
    if imager.ready:
        imager.ready = False
    else:
        camera.faults.arm("lost-image@idle")


@fault("short-overscan", "the last VALUE bytes of the overscan pixels are missing (default 100)")
def _short_overscan(camera: SimulatedCamera, arguments: Arguments) -> None:
    missing = arguments.count(100)
    _tamper(camera, arguments, lambda r: setattr(r, "data", _cut(r.data, missing)), _OVERSCAN_CODES)


@fault("overscan-level", "every overscan pixel is VALUE ADU (default 20000: saturated; 0: none)")
def _overscan_level(camera: SimulatedCamera, arguments: Arguments) -> None:
    level = arguments.count(20_000).to_bytes(2, "little")

    def change(reply: Reply) -> None:
        reply.data = [level * (len(data) // 2) for data in reply.data]

    _tamper(camera, arguments, change, _OVERSCAN_CODES)


# --- states that do not end ---


@fault("stuck", "STATE (flushing, exposing or reading; default reading) never ends, until abort or power-off")
def _stuck(camera: SimulatedCamera, arguments: Arguments) -> None:
    camera.firmware.imager.stuck.add(CameraState[arguments.word("reading").upper()])


@fault("error-state", "the camera's state becomes 0 (error), until Init or power-off")
def _error_state(camera: SimulatedCamera, arguments: Arguments) -> None:
    def fail() -> None:
        camera.firmware.imager.abort()
        camera.firmware.imager.state = CameraState.ERROR

    camera.timeline.after(0, fail)


@fault("hang", "the firmware serves nothing any more, until power-off")
def _hang(camera: SimulatedCamera, arguments: Arguments) -> None:
    camera.firmware.hung = True


@fault("restart", "the firmware starts anew, without leaving the USB: silent for 6 s, settings forgotten")
def _restart(camera: SimulatedCamera, arguments: Arguments) -> None:
    def restart() -> None:
        camera.firmware.power_off()
        camera.firmware.power_on()

    camera.timeline.after(0, restart)


# --- loader ---


@fault("no-loader", "the camera does not speak our loader's language, as no real one does")
def _no_loader(camera: SimulatedCamera, arguments: Arguments) -> None:
    loader = camera.firmware.loader
    loader.present = False
    loader.write_mark()


@fault("like-hardware", "the loader's mark says that the camera is not a simulated one")
def _like_hardware(camera: SimulatedCamera, arguments: Arguments) -> None:
    loader = camera.firmware.loader
    loader.kind = HARDWARE
    loader.write_mark()


@fault("flash-wear", "VALUE bytes (default 1) of the next loaded block keep wrong bits")
def _flash_wear(camera: SimulatedCamera, arguments: Arguments) -> None:
    camera.firmware.loader.worn = arguments.count(1)


# --- parts ---


@fault("wheel-jam", "the next filter move fails (device error 5), until power-off")
def _wheel_jam(camera: SimulatedCamera, arguments: Arguments) -> None:
    camera.hardware.wheel.jams = True


@fault("wheel-drags", "the next filter move takes VALUE s longer (default 1e6: it never arrives)")
def _wheel_drags(camera: SimulatedCamera, arguments: Arguments) -> None:
    camera.hardware.wheel.drags = arguments.number(1e6)


@fault("shutter-fail", "the shutter's next movement fails (device error 6), until power-off")
def _shutter_fail(camera: SimulatedCamera, arguments: Arguments) -> None:
    camera.hardware.shutter.jams = True


@fault("stuck-relay", "a relay that closes does not open again, until power-off")
def _stuck_relay(camera: SimulatedCamera, arguments: Arguments) -> None:
    camera.hardware.relays.stuck = True


@fault("fan-fail", "the fans stand still, until power-off: at high cooler power the heat sink gets too warm")
def _fan_fail(camera: SimulatedCamera, arguments: Arguments) -> None:
    camera.hardware.cooler.fan_failed = True


@fault("cooler-fail", "the cooler has no power and its state is 4 (no control), until power-off")
def _cooler_fail(camera: SimulatedCamera, arguments: Arguments) -> None:
    camera.hardware.cooler.no_control = True


@fault("temperature", "the CCD temperature reads VALUE degC (default -273.15) in the next answers")
def _temperature(camera: SimulatedCamera, arguments: Arguments) -> None:
    raw = round(arguments.number(-273.15) * 100).to_bytes(2, "big", signed=True)

    def change(reply: Reply) -> None:
        reply.packet = reply.packet[:3] + raw + reply.packet[5:]

    _tamper(camera, arguments, change, _TEMPERATURE_CODES)


@fault("blank-eeprom", "every EEPROM byte reads 255, from now on")
def _blank_eeprom(camera: SimulatedCamera, arguments: Arguments) -> None:
    memory = camera.hardware.eeprom
    memory[:] = b"\xff" * len(memory)
