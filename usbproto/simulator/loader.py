# SPDX-License-Identifier: LGPL-2.1-or-later
"""The loader of a simulated camera, as docs/firmware-loader.md describes it.

Real cameras have a bootloader whose language nobody has published; this one is our own. The firmware hands
over to it when it hears the right knock, and a camera without whole firmware starts in it.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Callable

from usbproto import packets as p
from usbproto.errors import ProtocolError
from usbproto.models import Address
from usbproto.packets import HEADER_BYTES
from usbproto.simulator.flash import SIZE, Target
from usbproto.simulator.hardware import Hardware

# The mark in the EEPROM, where the notes name no address: name and version of the dialect, what kind of
# camera it is (S simulated, H not), what runs (R firmware, L loader), the version of the core.
MARK_AT = 0x0200
NAME = b"QSILDR1"
MARK = struct.Struct(">7scc8s")
SIMULATED, HARDWARE = b"S", b"H"
RUNNING, LOADING = b"R", b"L"
NO_TEXT = b"\xff" * 8

BLOCK = 64  # bytes of one write or read
CHECKSUM_BYTES = 2
# s of the camera's time
ERASE_TIME = 1.0
WRITE_TIME = 0.001
VERIFY_TIME = 2.0
RESTART_PAUSE = 1.0  # for the answer to leave

# Errors, in the last byte of an answer.
BAD_CHECKSUM = 0x90
NO_SUCH_PLACE = 0x91
NOT_ERASED = 0x92
NOT_VALID = 0x93

_RAW = (p.Burst, p.Burst)
ENTER = p.Command(0x21, "StartBootloader", *_RAW, p.Kind.ORDER)
IDENTIFY = p.Command(0xA0, "LoaderIdentify", *_RAW, p.Kind.QUESTION)
ERASE = p.Command(0xA1, "LoaderErase", *_RAW, p.Kind.ORDER)
WRITE = p.Command(0xA2, "LoaderWrite", *_RAW, p.Kind.ORDER)
READ = p.Command(0xA3, "LoaderRead", *_RAW, p.Kind.QUESTION)
VERIFY = p.Command(0xA4, "LoaderVerify", *_RAW, p.Kind.ORDER)
RESTART = p.Command(0xA5, "LoaderRestart", *_RAW, p.Kind.ORDER)
COMMANDS = {c.code: c for c in (IDENTIFY, ERASE, WRITE, READ, VERIFY, RESTART)}

_KNOWN = frozenset(COMMANDS) | {p.INIT.code, p.GET_DEVICE_STATE.code, p.GET_EEPROM.code}

_ADDRESS = struct.Struct(">BI")
_RANGE = struct.Struct(">BIB")
_VALIDATION = struct.Struct(">BII")
_IDENTITY = struct.Struct(">3s8sB")
_REGION = struct.Struct(">BI?")

Send = Callable[["p.Command[p.Burst, p.Burst]", bytes], None]


def checksum(code: int, body: bytes) -> bytes:
    """CRC-16 (CCITT, from FFFF) of the code and the body."""
    return binascii.crc_hqx(bytes((code,)) + body, 0xFFFF).to_bytes(CHECKSUM_BYTES, "big")


class Loader:
    """`active`: it has taken over from the firmware. `present` False: the camera has none of this kind.

    `send` lets an answer go; `restart` starts the camera anew.
    """

    def __init__(self, hardware: Hardware, send: Send, restart: Callable[[], None]) -> None:
        self.active = False
        self.validating = False
        self.present = True
        self.kind = SIMULATED
        self.worn = 0  # bytes of the next block that will not be what was sent
        self._hardware = hardware
        self._flash = hardware.flash
        self._timeline = hardware.timeline
        self._send = send
        self._restart = restart
        self._data = bytearray()
        self._busy = False
        self._life = 0  # counts starts: what an earlier one began does not go on
        self.write_mark()

    # --- start and end ---

    def knocks(self, packet: bytes) -> bool:
        """Whether this StartBootloader is meant for this loader."""
        wanted = NAME + checksum(ENTER.code, NAME)
        return self.present and packet == bytes((ENTER.code, len(wanted))) + wanted

    def enter(self) -> None:
        self.active = True
        self.write_mark()
        self._hardware.log.emit("loader", step="enter")

    def power_off(self) -> None:
        self.active = self.validating = self._busy = False
        self._life += 1
        self._data.clear()
        self.write_mark()

    def write_mark(self) -> None:
        """What the EEPROM says of the loader and of the versions."""
        hardware, regions = self._hardware, self._flash.regions
        firmware = regions[Target.FIRMWARE].version
        if firmware is not None:
            hardware.firmware = firmware
        core = regions[Target.CORE].version if Target.CORE in regions else None
        runs = LOADING if self.active else RUNNING
        mark = MARK.pack(NAME, self.kind, runs, _text(core))
        if not self.present:
            mark = b"\xff" * MARK.size
        hardware.eeprom[MARK_AT : MARK_AT + MARK.size] = mark
        at = Address.FIRMWARE_REVISION
        hardware.eeprom[at : at + len(NO_TEXT)] = _text(firmware)

    # --- packets ---

    def heard(self, data: bytes) -> None:
        self._data += data
        self._serve()

    def _serve(self) -> None:
        """Packets from the queue until one takes time. Bytes that begin none are skipped."""
        while self.active and not self._busy and self._data:
            if self._data[0] not in _KNOWN:
                del self._data[0]
                continue
            if len(self._data) < HEADER_BYTES:
                return
            length = p.packet_length(bytes(self._data[:HEADER_BYTES]))
            if len(self._data) < length:
                return
            packet = bytes(self._data[:length])
            del self._data[:length]
            self._begin(packet)

    def _begin(self, packet: bytes) -> None:
        code, payload = packet[0], packet[HEADER_BYTES:]
        if code not in COMMANDS:
            self._documented(packet)
        elif payload[-CHECKSUM_BYTES:] != checksum(code, payload[:-CHECKSUM_BYTES]):
            self._answer(COMMANDS[code], error=BAD_CHECKSUM)
        else:
            step = COMMANDS[code].name.removeprefix("Loader").lower()
            self._hardware.log.emit("loader", step=step)
            try:
                _STEPS[code](self, payload[:-CHECKSUM_BYTES])
            except (struct.error, ValueError, KeyError):
                self._answer(COMMANDS[code], error=NO_SUCH_PLACE)

    def _documented(self, packet: bytes) -> None:
        """So that the same harmless questions find out what this is, whatever runs."""
        try:
            command, request = p.decode_request(packet)
        except ProtocolError:
            self._hardware.log.emit("ignored", why="not a packet", bytes=packet.hex())
            return
        answer: p.Payload = p.Empty()
        if command is p.GET_DEVICE_STATE:
            answer = p.DeviceState(p.CameraState.FLUSHING, False, False)  # which also means busy
        if isinstance(request, p.EepromAddress):
            memory = self._hardware.eeprom
            answer = p.Byte(memory[request.address] if request.address < len(memory) else 0xFF)
        self._send(command, p.encode_answer(command, answer))

    def _answer(self, command: p.Command[p.Burst, p.Burst], body: bytes = b"", error: int = 0) -> None:
        self._send(command, p.encode_answer(command, p.Burst(body + checksum(command.code, body)), error))

    def _later(self, seconds: float, finish: Callable[[], None]) -> None:
        self._busy, life = True, self._life

        def then() -> None:
            if life == self._life:
                self._busy = False
                finish()
                self._serve()

        self._timeline.after(seconds, then)

    def answer_enter(self) -> None:
        self._answer(ENTER)

    # --- steps ---

    def _identify(self, body: bytes) -> None:
        model, serial = self._hardware.model.base.encode(), self._hardware.serial.encode()[:8]
        regions = b"".join(
            _REGION.pack(target, len(region.data), region.version is not None)
            for target, region in self._flash.regions.items()
        )
        self._answer(IDENTIFY, _IDENTITY.pack(model, serial, BLOCK) + regions)

    def _erase(self, body: bytes) -> None:
        (target,) = struct.unpack(">B", body)
        self._flash.regions[Target(target)].erase()
        self.write_mark()
        self._later(ERASE_TIME, lambda: self._answer(ERASE))

    def _write(self, body: bytes) -> None:
        target, address = _ADDRESS.unpack_from(body)
        data = body[_ADDRESS.size :]
        place = self._place(target, address, len(data))
        memory = self._flash.regions[Target(target)].data
        if any(cell != 0xFF for cell in memory[place]):
            self._answer(WRITE, error=NOT_ERASED)
            return
        memory[place] = bytes(byte ^ 1 for byte in data[: self.worn]) + data[self.worn :]
        self.worn = 0
        self._later(WRITE_TIME, lambda: self._answer(WRITE))

    def _read(self, body: bytes) -> None:
        target, address, count = _RANGE.unpack(body)
        place = self._place(target, address, count)
        self._answer(READ, bytes(self._flash.regions[Target(target)].data[place]))

    def _verify(self, body: bytes) -> None:
        target, length, checksum_32 = _VALIDATION.unpack(body)
        self._place(target, 0, length, longest=length)
        self.validating = True
        self._hardware.log.emit("loader", step="validate")

        def finish() -> None:
            self.validating = False
            valid = self._flash.validate(Target(target), length, checksum_32)
            self.write_mark()
            self._hardware.log.emit("loader", step="validated", valid=valid)
            self._answer(VERIFY, error=0 if valid else NOT_VALID)

        self._later(VERIFY_TIME, finish)

    def _restart_camera(self, body: bytes) -> None:
        self._answer(RESTART)
        self._later(RESTART_PAUSE, self._restart)

    @staticmethod
    def _place(target: int, address: int, count: int, longest: int = BLOCK) -> slice:
        if not 0 < count <= longest or address + count > SIZE[Target(target)]:
            raise ValueError("outside the memory")
        return slice(address, address + count)


_STEPS: dict[int, Callable[[Loader, bytes], None]] = {
    IDENTIFY.code: Loader._identify,
    ERASE.code: Loader._erase,
    WRITE.code: Loader._write,
    READ.code: Loader._read,
    VERIFY.code: Loader._verify,
    RESTART.code: Loader._restart_camera,
}


def _text(version: str | None) -> bytes:
    return NO_TEXT if version is None else version.encode("ascii")[:8].ljust(8, b"\0")
