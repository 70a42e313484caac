# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a camera answers: the decoder of every command, and the exchange around it.

The first byte chooses the command; the second how the rest is parted on its way: from 0, as one piece, to
portions of that many bytes. The answer to the first byte by byte must mean the same.
"""

from __future__ import annotations

from usbproto.deadline import Deadline
from usbproto.errors import BadArgument, LinkError, ProtocolError, QsiError, Refused
from usbproto.link import Link
from usbproto.packets import (
    COMMANDS,
    Kind,
    Payload,
    decode_answer,
    decode_request,
    encode_answer,
    encode_request,
)
from usbproto.timing import Timing

_ALL = [COMMANDS[code] for code in sorted(COMMANDS)]
# Every request can be made of zeros, so one stands for all here: it is the answer that is looked at.
_ASKED = {command.code: command.request.unpack(bytes(command.request.size())) for command in _ALL}

SEEDS = tuple(
    bytes((number, number % 5))
    + bytes((command.code, command.response.size() + 1))
    + bytes(range(1, 1 + command.response.size()))
    + b"\0"
    for number, command in enumerate(_ALL)
)


def one_input(data: bytes) -> None:
    _decode(data)
    if len(data) < 2:
        return
    command = _ALL[data[0] % len(_ALL)]
    asked, answer = _ASKED[command.code], data[2:]
    try:
        value = decode_answer(command, answer, asked)
    except (ProtocolError, Refused) as error:
        value = None
        assert error.explain().isprintable()
    else:
        # What was understood can be said again, and is understood the same way.
        try:
            again = encode_answer(command, value)
        except BadArgument:
            pass  # a field that answers leave as it is
        else:
            assert decode_answer(command, again, asked) == value
    results = [_exchange(data[0], answer, portion) for portion in (data[1], 1, len(answer))]
    assert results[0] == results[1] == results[2], results
    if value is not None:
        assert results[0] == value


def _decode(data: bytes) -> None:
    """As a simulated camera, or whoever reads a recording, does."""
    try:
        command, request = decode_request(data)
    except ProtocolError:
        return
    try:
        packet = encode_request(command, request)
    except BadArgument:
        return  # longer than a host may send
    assert decode_request(packet) == (command, request)


def _exchange(number: int, answer: bytes, portion: int) -> Payload | str:
    command = _ALL[number % len(_ALL)]
    link = Link(_Camera(answer, portion))
    try:
        # A limit of its own: it is not asked again.
        return link.exchange(command, _ASKED[command.code], seconds=1.0)
    except LinkError as error:
        # The same answer is refused for the same reason, however it was parted.
        return type(error).__name__
    except Refused as error:
        return f"Refused {error.code}"
    except QsiError as error:
        raise AssertionError(f"{error!r} is none of the errors of an exchange") from error
    finally:
        assert command.kind in Kind


class _Camera:
    """A channel on which this answer comes once, in portions; then silence."""

    def __init__(self, answer: bytes, portion: int) -> None:
        self._answer = answer
        self._portion = portion or len(answer)
        self._asked = False

    def write(self, data: bytes) -> None:
        self._asked = True

    def read_into(self, target: memoryview, deadline: Deadline) -> int:
        if not self._asked:
            return 0
        count = min(len(target), self._portion, len(self._answer))
        target[:count] = self._answer[:count]
        self._answer = self._answer[count:]
        return count

    def look(self) -> bytes:
        if not self._asked:
            return b""
        rest, self._answer = self._answer, b""
        return rest

    def restart(self) -> None:
        """It forgets nothing."""

    def use_timing(self, timing: Timing) -> None:
        """It has one speed."""

    def close(self) -> None:
        """Nothing to be given back."""
