# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a capture teaches about a camera: lengths and times of real answers, and everything that is not known.

The layouts are those of `usbproto.packets` (wire protocol, section 3). How long real answers are is not known
for any command, so an answer of another length is a finding, and never an error.
"""

from __future__ import annotations

import errno
import struct
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from usbproto import packets as p
from usbproto.captures.events import Kind
from usbproto.captures.requests import (
    CHIP_REQUESTS,
    LASTING_COMMANDS,
    LASTING_REQUESTS,
    SET_LATENCY,
    masked_request,
)
from usbproto.captures.session import SHOWN, Exchange
from usbproto.captures.urbs import Transfer
from usbproto.recording import Masks, masked_answer

# Examples that are kept of each oddity. The first ones show what it is.
MAX_EXAMPLES = 4
# Different values that are kept of one request to the chip. A program uses a handful.
MAX_VALUES = 16
# Kinds of requests and failures that are kept apart; a camera has some ten, a broken capture has any number.
MAX_KINDS = 256

# Answers without a fixed layout: one byte for each feature, and as many bytes as were asked for.
_VARIABLE = frozenset({p.GET_FEATURES.code, p.BURST_BLOCK.code})
_MILLISECONDS = 1000.0
_BYTES_PER_PIXEL = 2
# Overscan pixels that are read at most; if a camera announces more, none are read (wire protocol, section 4).
_MAX_OVERSCAN = 8192


@dataclass(slots=True)
class Range:
    """The smallest and the largest of some numbers."""

    least: float | None = None
    most: float | None = None

    def add(self, value: float) -> None:
        self.least = value if self.least is None else min(self.least, value)
        self.most = value if self.most is None else max(self.most, value)

    def as_list(self, digits: int | None = None) -> list[float] | None:
        if self.least is None or self.most is None:
            return None
        return [round(self.least, digits), round(self.most, digits)]


@dataclass(slots=True)
class CommandFacts:
    """What was seen of a command of the table. Lengths count payload bytes, with the device error."""

    command: p.Command[Any, Any]
    count: int = 0
    answered: int = 0
    unanswered: int = 0
    failed: int = 0
    lengths: Range = field(default_factory=Range)
    data: Range = field(default_factory=Range)  # bytes behind the answer
    first_byte: Range = field(default_factory=Range)  # s from the command to the answer
    errors: Counter[int] = field(default_factory=Counter)
    odd: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def layout(self) -> int | None:
        """Payload bytes by the layout; None where it has no fixed length."""
        return None if self.command.code in _VARIABLE else int(self.command.response.size()) + 1

    def note_odd(self, what: str, answer: bytes) -> None:
        self.odd[what] += 1
        kept = self.examples.setdefault(what, [])
        if len(kept) < MAX_EXAMPLES and (text := answer[:SHOWN].hex()) not in kept:
            kept.append(text)


@dataclass(slots=True)
class UnknownFacts:
    """Bytes to the camera that are not a command of the table, by their first byte."""

    code: int
    count: int = 0
    sizes: Range = field(default_factory=Range)
    examples: list[dict[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class ControlFacts:
    """Vendor requests to the chip, by type and request. `values` has (value, index)."""

    count: int = 0
    failed: int = 0
    values: Counter[tuple[int, int]] = field(default_factory=Counter)


class Findings:
    """Collects; a `Listener` of a session. `masks` is None when serial numbers stay."""

    def __init__(self, masks: Masks | None) -> None:
        self._masks = masks
        self.commands: dict[int, CommandFacts] = {}
        self.unknown: dict[int, UnknownFacts] = {}
        self.controls: dict[tuple[int, int], ControlFacts] = {}
        self.failures: Counter[tuple[str, str]] = Counter()  # (endpoint, name of the errno)
        self.serial = self.model = ""  # of GetDeviceDetails
        self._expected = 0  # bytes of the image that was ordered last

    # --- what a session has ---

    def exchange(self, exchange: Exchange) -> None:
        command = exchange.command
        if command is None:
            self._take_unknown(exchange)
            return
        facts = self.commands.setdefault(command.code, CommandFacts(command))
        facts.count += 1
        facts.failed += exchange.failed
        self._remember_geometry(command, exchange.request)
        if exchange.came:
            self._take_answer(facts, exchange)
        elif not exchange.failed:
            facts.unanswered += 1

    def control(self, transfer: Transfer) -> None:
        type_, request, value, index = struct.unpack_from("<BBHH", transfer.setup)
        if len(self.controls) >= MAX_KINDS and (type_, request) not in self.controls:
            return
        facts = self.controls.setdefault((type_, request), ControlFacts())
        facts.count += 1
        facts.failed += bool(transfer.error)
        if len(facts.values) < MAX_VALUES or (value, index) in facts.values:
            facts.values[value, index] += 1

    def failed(self, transfer: Transfer) -> None:
        where = "control" if transfer.kind is Kind.CONTROL else f"{transfer.endpoint:#04x}"
        name = errno.errorcode.get(transfer.error, str(transfer.error))
        if len(self.failures) < MAX_KINDS or (where, name) in self.failures:
            self.failures[where, name] += 1

    # --- what they mean ---

    def _take_unknown(self, exchange: Exchange) -> None:
        request = exchange.request
        facts = self.unknown.setdefault(request[0], UnknownFacts(request[0]))
        facts.count += 1
        facts.sizes.add(exchange.size)
        answer = bytes(exchange.answer[:SHOWN])
        example = {
            "data": masked_request(self._masks, request[:SHOWN]).hex(),
            "size": exchange.size,
            "answer": masked_answer(self._masks, request, answer).hex(),
            "answer_size": exchange.came,
        }
        if len(facts.examples) < MAX_EXAMPLES and example not in facts.examples:
            facts.examples.append(example)

    def _take_answer(self, facts: CommandFacts, exchange: Exchange) -> None:
        command = facts.command
        if command is p.GET_DEVICE_DETAILS:
            self._learn_identity(command, exchange)
        answer = masked_answer(self._masks, exchange.request, bytes(exchange.answer))
        if exchange.first is not None:
            facts.first_byte.add(max(0.0, exchange.first - exchange.at))
        if len(answer) < p.HEADER_BYTES:
            facts.note_odd("cut by the capture" if exchange.lost else "cut short", answer)
            return
        if answer[0] != command.code:
            facts.note_odd("other echo", answer)
            return
        length = answer[1]
        behind = exchange.came - p.packet_length(answer)
        if behind < 0:
            facts.note_odd("cut short", answer)
            return
        facts.answered += 1
        facts.lengths.add(length)
        layout = facts.layout
        if layout is not None and length != layout:
            facts.note_odd("longer than the layout" if length > layout else "shorter than the layout", answer)
        at = p.HEADER_BYTES + (layout if layout is not None else length) - 1
        if p.HEADER_BYTES <= at < min(len(answer), p.packet_length(answer)) and answer[at]:
            facts.errors[answer[at]] += 1
        expected = self._expected_behind(command, answer)
        if behind or expected:
            facts.data.add(behind)
        if behind != expected:
            facts.note_odd("surplus bytes" if not command.data_follows else "data of another length", answer)

    def _learn_identity(self, command: p.Command[Any, Any], exchange: Exchange) -> None:
        payload = bytes(exchange.answer)[p.HEADER_BYTES :][: command.response.size()]
        if exchange.answer[:1] == bytes((command.code,)) and len(payload) == command.response.size():
            details = p.DeviceDetails.unpack(payload)
            self.serial = self.serial or details.serial
            self.model = self.model or details.model_number

    def _remember_geometry(self, command: p.Command[Any, Any], request: bytes) -> None:
        if command not in (p.START_EXPOSURE, p.START_EXPOSURE_EX, p.HSR_EXPOSURE):
            return
        order = command.request.unpack(request[p.HEADER_BYTES :])
        if not getattr(order, "probe", False):
            self._expected = order.columns * order.rows * _BYTES_PER_PIXEL

    def _expected_behind(self, command: p.Command[Any, Any], answer: bytes) -> int:
        """Bytes that follow an answer by the layout."""
        if command is p.TRANSFER_IMAGE:
            refused = len(answer) > p.HEADER_BYTES and answer[p.HEADER_BYTES]
            return 0 if refused else self._expected
        if command in (p.GET_AUTO_ZERO, p.HSR_EXPOSURE):
            image = self._expected if command is p.HSR_EXPOSURE else 0
            size = p.AutoZero.size()
            payload = answer[p.HEADER_BYTES : p.HEADER_BYTES + size]
            if len(payload) == size:
                zero = p.AutoZero.unpack(payload)
                count = zero.count if zero.enabled and zero.count <= _MAX_OVERSCAN else 0
                return image + count * _BYTES_PER_PIXEL
        return 0

    # --- the result ---

    @property
    def understood(self) -> bool:
        """Whether all of it is as the driver knows it."""
        known = all(key in CHIP_REQUESTS and key not in LASTING_REQUESTS for key in self.controls)
        return known and not self.unknown and not any(facts.odd for facts in self.commands.values())

    def as_dict(self) -> dict[str, Any]:
        """For JSON. Times in ms, lengths in bytes."""
        return {
            "commands": [_command(facts) for _, facts in sorted(self.commands.items())],
            "unknown_commands": [
                {
                    "code": f"{facts.code:#04x}",
                    "name": LASTING_COMMANDS.get(facts.code, "")
                    or (p.COMMANDS[facts.code].name if facts.code in p.COMMANDS else ""),
                    "changes_for_good": facts.code in LASTING_COMMANDS,
                    "count": facts.count,
                    "sizes": facts.sizes.as_list(),
                    "examples": facts.examples,
                }
                for _, facts in sorted(self.unknown.items())
            ],
            "chip_requests": [
                {
                    "type": f"{key[0]:#04x}",
                    "request": f"{key[1]:#04x}",
                    "name": CHIP_REQUESTS.get(key, ""),
                    "changes_for_good": key in LASTING_REQUESTS,
                    "count": facts.count,
                    "failed": facts.failed,
                    "values": [[f"{value:#06x}", f"{index:#06x}"] for value, index in facts.values],
                }
                for key, facts in sorted(self.controls.items())
            ],
            "latency_timer_ms": sorted(
                {value for value, _ in self.controls.get(SET_LATENCY, ControlFacts()).values}
            ),
            "failed_transfers": [
                {"endpoint": where, "error": name, "count": count}
                for (where, name), count in sorted(self.failures.items())
            ],
        }


def _command(facts: CommandFacts) -> dict[str, Any]:
    times = facts.first_byte
    return {
        "code": f"{facts.command.code:#04x}",
        "name": facts.command.name,
        "count": facts.count,
        "answered": facts.answered,
        "unanswered": facts.unanswered,
        "failed": facts.failed,
        "layout": facts.layout,
        "lengths": facts.lengths.as_list(),
        "data": facts.data.as_list(),
        "slowest_ms": round(times.most * _MILLISECONDS, 1) if times.most is not None else None,
        "device_errors": {str(code): count for code, count in sorted(facts.errors.items())},
        "odd": [
            {"what": what, "count": count, "examples": facts.examples[what]}
            for what, count in sorted(facts.odd.items())
        ],
    }
