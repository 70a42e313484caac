# SPDX-License-Identifier: LGPL-2.1-or-later
"""What host and device exchange: transfers, the setup bytes of control requests, and how they fail."""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass

IN = 0x80  # direction bit of an endpoint's address and of a request's type

# The largest read that Linux carries in one piece where the host controller does not do scatter-gather (wire
# protocol, section 1.1).
URB_BYTES = 16 * 1024

_SETUP = struct.Struct("<BBHHH")


class UsbFailure(Exception):
    """A transfer or call failed with `errno` (positive, as in the Linux kernel)."""

    def __init__(self, number: int) -> None:
        super().__init__(f"{errno.errorcode.get(number, number)}: {os.strerror(number)}")
        self.errno = number


@dataclass(frozen=True, slots=True)
class Setup:
    """The eight bytes that begin a control transfer."""

    request_type: int
    request: int
    value: int = 0
    index: int = 0
    length: int = 0

    @classmethod
    def parse(cls, data: bytes) -> Setup:
        return cls(*_SETUP.unpack(data))

    def pack(self) -> bytes:
        return _SETUP.pack(self.request_type, self.request, self.value, self.index, self.length)

    @property
    def is_in(self) -> bool:
        return bool(self.request_type & IN)

    @property
    def is_vendor(self) -> bool:
        return self.request_type & 0x60 == 0x40


@dataclass(frozen=True, slots=True)
class Mishap:
    """How a transfer fails on a bus that is otherwise well. `moves`: its data move all the same."""

    errno: int
    moves: bool = False


class Transfer:
    """One transfer. `buffer` holds what is sent or takes what is received, `actual` counts moved bytes."""

    __slots__ = ("actual", "buffer", "cancelled", "complete", "endpoint", "setup")

    def __init__(self, endpoint: int, buffer: memoryview, setup: Setup | None = None) -> None:
        self.endpoint = endpoint
        self.buffer = buffer
        self.setup = setup
        self.actual = 0
        self.complete = False
        self.cancelled = False
