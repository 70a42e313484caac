# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a command of a simulated camera answers, now or later, and the numbers with which it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from usbproto.packets import Empty, Payload
from usbproto.simulator.fifo import Chunk

EMPTY = Empty()

# Refusals. BasicHWTrigger is known to answer 0x80; the others are assumptions.
NOT_ON_THIS_MODEL = 0x80
BAD_ARGUMENT = 0x81
NO_IMAGE = 0x82
NOT_NOW = 0x83
TRIGGER_TIMED_OUT = 0x84


@dataclass(frozen=True, slots=True)
class Answer:
    """`error` is the device error; `data` follows the packet at once. `refused`: an empty payload.

    `seconds`: the firmware is busy that long before it answers.
    """

    payload: Payload = EMPTY
    error: int = 0
    data: tuple[Chunk, ...] = ()
    refused: bool = False
    seconds: float = 0.0


OK = Answer()


def refusal(error: int) -> Answer:
    """Nothing but the device error."""
    return Answer(error=error, refused=True)


class Later:
    """An answer that is still to come. `then` is called with it, at once when it is already here."""

    def __init__(self) -> None:
        self._answer: Answer | None = None
        self._then: Callable[[Answer], None] | None = None

    def resolve(self, answer: Answer) -> None:
        self._answer = answer
        if self._then is not None:
            self._then(answer)

    def then(self, callback: Callable[[Answer], None]) -> None:
        self._then = callback
        if self._answer is not None:
            callback(self._answer)


Handler = Callable[[Any], Answer | Later]
