# SPDX-License-Identifier: LGPL-2.1-or-later
"""What every language of a loader must be able to say. One file in `dialects` speaks each.

`recognise` is the only method that may be called with a camera of which nothing is known. It may read the
EEPROM, which is documented and harmless, and nothing else. The others are called only with a camera that it
recognised.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from qsi_tools.firmware.image import Target
from usbproto.link import Link

ReadEeprom = Callable[[int, int], bytes]  # address, count -> that many bytes


@dataclass(frozen=True, slots=True)
class Mark:
    """What a camera says by itself of its loader. `core` is the version of the FPGA's logic, None without."""

    dialect: str
    simulated: bool
    in_loader: bool
    core: str | None


@dataclass(frozen=True, slots=True)
class Region:
    """A part that can be written: its size in bytes, and whether something whole is in it."""

    size: int
    valid: bool


@dataclass(frozen=True, slots=True)
class Loader:
    """Who the loader says it is. `block` is the most bytes of one write or read."""

    base_type: str
    serial: str
    block: int
    regions: dict[Target, Region]


class Dialect(Protocol):
    """All methods may raise `LinkError`s and `LoaderError`."""

    name: str

    def recognise(self, eeprom: ReadEeprom) -> Mark | None:
        """What the camera says of itself, None when it does not speak this dialect. Harmless."""

    def enter(self, link: Link) -> None:
        """The firmware hands over to the loader. Nothing is erased."""

    def identify(self, link: Link) -> Loader: ...

    def erase(self, link: Link, target: Target) -> None: ...

    def write(self, link: Link, target: Target, address: int, data: bytes) -> None: ...

    def read(self, link: Link, target: Target, address: int, count: int) -> bytes: ...

    def validate(self, link: Link, target: Target, length: int, checksum: int) -> None:
        """The camera looks itself whether all is there. `checksum` is the CRC-32."""

    def restart(self, link: Link) -> None:
        """The camera starts anew, with its firmware if that is whole, else in the loader."""
