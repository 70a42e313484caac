# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where the firmware of a strange camera differs from the notes: hooks around the execution of a command.

A fault is over some time; what is in here stays. The loader speaks its own language and has none of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from usbproto.packets import Command, Payload
from usbproto.simulator.answers import Answer
from usbproto.simulator.fifo import Chunk


@dataclass
class Reply:
    """An answer on its way out, as bytes: `packet`, then `data`, after `delay` seconds.

    `request` is what the host asked; None in the loader.
    """

    command: Command[Any, Any]
    packet: bytes
    data: list[Chunk] = field(default_factory=list)
    delay: float = 0.0
    request: Payload | None = None

    def mute(self) -> None:
        """Nothing of it reaches the host."""
        self.packet, self.data = b"", []


Instead = Callable[[Command[Any, Any], Payload], Answer | None]
Change = Callable[[Command[Any, Any], Payload, Answer], Answer]
Tamper = Callable[[Reply], None]


@dataclass
class Nature:
    """`instead` of executing a command, its answer, or None to execute it; the first answer counts.

    `changes` are made to answers before they become bytes, `tampering` is done to the bytes. Hooks are called
    in the order in which they were added; each is written such that it works behind any other.
    """

    instead: list[Instead] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    tampering: list[Tamper] = field(default_factory=list)

    def answer_instead(self, command: Command[Any, Any], request: Payload) -> Answer | None:
        """All are asked, because some only watch."""
        answers = [instead(command, request) for instead in self.instead]
        return next((answer for answer in answers if answer is not None), None)

    def changed(self, command: Command[Any, Any], request: Payload, answer: Answer) -> Answer:
        for change in self.changes:
            answer = change(command, request, answer)
        return answer

    def tamper(self, reply: Reply) -> None:
        for tamper in self.tampering:
            tamper(reply)
