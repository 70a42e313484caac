# SPDX-License-Identifier: LGPL-2.1-or-later
"""Strange buses: transfers that fail now and then, slow hubs, limits of host controllers and kernels."""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator

from usbproto.simulator.descriptors import FULL_SPEED, HIGH_SPEED
from usbproto.simulator.strange import Trait, strange
from usbproto.simulator.usbtransfer import IN, URB_BYTES, Mishap, Transfer

BETWEEN_ERRORS = 97  # transfers; a prime, so that the errors hit every step of what is repeated
# What a kernel reports of a transfer that failed on a device that is still there.
FAILURES = ("EPROTO", "EIO", "EILSEQ", "ETIME", "EOVERFLOW", "EPIPE", "ENOMEM", "ECOMM", "ENOSR")


@strange(
    "transfer-errors",
    "one bulk transfer in COMMANDS fails with ERRNO, and one in IMAGES while pixels are on their way "
    "(0: none; default 97,0,EPROTO); lose=1: what a failed read would have brought is lost; "
    "taken=1: the camera gets what a failed write sent",
)
def _transfer_errors(trait: Trait) -> None:
    arguments, camera = trait.arguments, trait.camera
    chance = random.Random(camera.hardware.seed)
    commands = _due(arguments.count(BETWEEN_ERRORS, 0, low=0), chance)
    images = _due(arguments.count(0, 1, low=0), chance)
    number = _errno(arguments.word("EPROTO", 2))
    lose, taken = arguments.flag("lose"), arguments.flag("taken")

    def judge(transfer: Transfer) -> Mishap | None:
        pixels = camera.firmware.transferring
        if not next(images if pixels else commands):
            return None
        reads = bool(transfer.endpoint & IN)
        camera.events.emit(
            "transfer_error",
            direction="in" if reads else "out",
            pixels=pixels,
            errno=errno.errorcode[number],
        )
        return Mishap(number, moves=lose if reads else taken)

    device = camera.device
    harmless = device.mishap
    device.mishap = judge
    trait.undo(lambda: setattr(device, "mishap", harmless))


def _due(every: int, chance: random.Random) -> Iterator[bool]:
    """True once in `every` times, at gaps of half to one and a half of it; never for 0."""
    while every:
        gap = every + chance.randint(-(every // 2), every // 2)
        for left in reversed(range(max(1, gap))):
            yield left == 0
    while True:
        yield False


def _errno(word: str) -> int:
    """Of a name like EPROTO, or of its number."""
    numbers = {name: getattr(errno, name) for name in FAILURES}
    names = {str(number): name for name, number in numbers.items()}
    name = names.get(word, word.upper())
    if name not in numbers:
        raise ValueError(f"{word!r} is not one of {', '.join(FAILURES)}")
    return int(numbers[name])


@strange("full-speed", "the chip runs at full speed, as behind an old hub: bulk packets of 64 bytes")
def _full_speed(trait: Trait) -> None:
    device = trait.camera.device
    trait.arguments.check_taken()  # before the device is enumerated again for nothing
    device.limit_speed(FULL_SPEED)
    trait.undo(lambda: device.limit_speed(HIGH_SPEED))


@strange(
    "no-scatter-gather",
    "a read above 16 KiB is a row of 16 KiB transfers; a short packet ends one of them, and the next has "
    "what follows (in the same process; over USB/IP it depends on the host)",
)
def _no_scatter_gather(trait: Trait) -> None:
    device = trait.camera.device
    device.scatter_gather = False
    trait.undo(lambda: setattr(device, "scatter_gather", True))


@strange("no-memory", "a read above 16 KiB fails with ENOMEM: the kernel's memory for USB is used up")
def _no_memory(trait: Trait) -> None:
    device = trait.camera.device
    device.longest_read = URB_BYTES
    trait.undo(lambda: setattr(device, "longest_read", None))
