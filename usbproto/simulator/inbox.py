# SPDX-License-Identifier: LGPL-2.1-or-later
"""Bytes from the host -> packets. Whatever is not a packet is skipped byte by byte until one begins.

A packet begins with a known command code and the length that this command has. There is no other framing, so
garbage that looks like a command is one: as with a real camera.
"""

from __future__ import annotations

from usbproto.packets import COMMANDS, HEADER_BYTES

# Commands that change a camera for good: known by name only, with payloads of any length.
FORBIDDEN = {0x21: "StartBootloader", 0x22: "ForceBootloader", 0x61: "SetEEPROM", 0x64: "CameraReset"}
STALE = 0.5  # s after which a packet that was begun is given up; assumed
LONGEST_FORBIDDEN = 124


class Inbox:
    """`garbage` is what was skipped since `take_garbage`."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._garbage = bytearray()
        self._touched = 0.0

    def __len__(self) -> int:
        return len(self._data)

    def add(self, data: bytes, now: float) -> None:
        if self._data and now - self._touched > STALE and not self._complete():
            self._garbage += self._data
            self._data.clear()
        self._touched = now
        self._data += data

    def clear(self) -> None:
        self._data.clear()
        self._garbage.clear()

    def take_garbage(self) -> bytes:
        garbage = bytes(self._garbage)
        self._garbage.clear()
        return garbage

    def next(self) -> bytes | None:
        """The oldest packet, or None when there is no complete one."""
        while self._data and not self._may_begin():
            self._garbage.append(self._data.pop(0))
        if not self._complete():
            return None
        length = HEADER_BYTES + self._data[1]
        packet = bytes(self._data[:length])
        del self._data[:length]
        return packet

    def _may_begin(self) -> bool:
        """Whether the first byte may be that of a packet."""
        code = self._data[0]
        if code in FORBIDDEN:
            return len(self._data) < HEADER_BYTES or self._data[1] <= LONGEST_FORBIDDEN
        command = COMMANDS.get(code)
        if command is None:
            return False
        return len(self._data) < HEADER_BYTES or self._data[1] == command.request.size()

    def _complete(self) -> bool:
        return len(self._data) >= HEADER_BYTES and len(self._data) >= HEADER_BYTES + self._data[1]
