# SPDX-License-Identifier: LGPL-2.1-or-later
"""A recording as a camera: what it answers to what the driver sends, and where the two part.

Questions that a driver asks again and again (`POLLS`) depend on the moment: they are answered by what was
recorded at this stage, and how often they are asked is no difference. Everything else must come as it was
recorded. What belongs to different parts of a camera may change places, because their order is chance; what
belongs to one part may not.
"""

from __future__ import annotations

import base64
import threading
import time
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from usbproto import packets as p
from usbproto.recording import RecordingError

POLLS = frozenset(
    command.code
    for command in (
        p.GET_DEVICE_STATE,
        p.GET_TEMPERATURE,
        p.GET_TEMPERATURE_EX,
        p.GET_SET_POINT,
        p.IS_RELAY_DONE,
        p.GET_FILTER_POSITION,
    )
)
# The parts of a camera that work at the same time; a command of none of them keeps its place.
PARTS: dict[int, str] = {
    command.code: part
    for part, commands in {
        "exposure": (
            p.START_EXPOSURE,
            p.START_EXPOSURE_EX,
            p.ABORT_EXPOSURE,
            p.TRANSFER_IMAGE,
            p.GET_AUTO_ZERO,
            p.HSR_EXPOSURE,
            p.GET_LAST_EXPOSURE_TIME,
        ),
        "cooler": (p.SET_TEMPERATURE,),
        "wheel": (p.SET_FILTER_WHEEL, p.SET_FILTER_TRIM),
        "guide port": (p.ACTIVATE_RELAY, p.ABORT_RELAYS),
    }.items()
    for command in commands
}
AHEAD = 8  # exchanges that may wait while one behind them comes first


@dataclass(frozen=True)
class Difference:
    """Where the driver left the recording. `line` counts from 1."""

    text: str
    line: int | None = None

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line is not None else ""
        return where + self.text


@dataclass
class Exchange:
    """What the driver did, and what came of it until the next thing: (s afterwards, bytes or errno)."""

    line: int
    at: float
    sent: tuple[str, str]  # "write" and a packet in hexadecimal, or "control" and a request
    error: int | None
    came: list[tuple[float, bytes | int]] = field(default_factory=list)
    done: bool = False

    @property
    def code(self) -> int | None:
        kind, data = self.sent
        return int(data[:2], 16) if kind == "write" and len(data) >= 2 else None

    @property
    def poll(self) -> bool:
        failed = self.error is not None or any(isinstance(item, int) for _, item in self.came)
        return self.code in POLLS and not failed

    def describe(self) -> str:
        return describe(self.sent)


@dataclass
class Connection:
    """One claim of a camera, and all that happened until it was given back."""

    number: int
    line: int
    at: float
    product: int
    serial: str
    error: int | None
    exchanges: list[Exchange] = field(default_factory=list)


def describe(sent: tuple[str, str]) -> str:
    kind, data = sent
    if kind == "control":
        return f"control request {data}"
    code = int(data[:2], 16) if len(data) >= 2 else -1
    name = p.COMMANDS[code].name if code in p.COMMANDS else "unknown"
    return f"{name} ({data})"


def connections(lines: Iterable[Mapping[str, Any]]) -> list[Connection]:
    """The USB's side of a recording. Raises `RecordingError`."""
    found: dict[int, Connection] = {}
    number = 0
    try:
        for number, line in enumerate(lines, 1):
            _take(found, number, line)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise RecordingError(f"line {number} is not understood ({error!r})") from error
    return list(found.values())


def _take(found: dict[int, Connection], number: int, line: Mapping[str, Any]) -> None:
    event = line.get("e")
    if event == "claim":
        found[line["n"]] = Connection(
            line["n"], number, line["t"], int(line["product"], 16), line["serial"], line.get("error")
        )
    elif event in ("write", "control"):
        text = line["data"] if event == "write" else " ".join(str(part) for part in line["setup"])
        bytes.fromhex(line["data"] if event == "write" else "")
        exchange = Exchange(number, line["t"], (event, text), line.get("error"))
        found[line["n"]].exchanges.append(exchange)
    elif event in ("read", "fail"):
        exchanges = found[line["n"]].exchanges
        if not exchanges:  # before anything was asked: left over from another program
            exchanges.append(Exchange(number, found[line["n"]].at, ("", ""), None, done=True))
        last = exchanges[-1]
        item: bytes | int = line["error"] if event == "fail" else _received(line)
        last.came.append((line["t"] - last.at, item))


def _received(line: Mapping[str, Any]) -> bytes:
    """Pixels that were not kept are zeros."""
    answer = bytes.fromhex(line["data"])
    if "pixels" in line:
        return answer + zlib.decompress(base64.b64decode(line["pixels"]))
    return answer + bytes(line.get("length", 0))


class Replay:
    """All connections of a recording; one driver uses them in their order. Any thread."""

    def __init__(self, found: Iterable[Connection]) -> None:
        self.waiting = list(found)
        self.difference: Difference | None = None
        self.current: dict[str, Played] = {}
        self.lock = threading.RLock()
        self.over = False  # the driver is on its own from here on: nothing is compared any more

    @property
    def serials(self) -> dict[str, int]:
        """The cameras and their USB products, as long as there is more to come of them."""
        with self.lock:
            played = {played.connection.serial: played.connection.product for played in self.current.values()}
            return played | {connection.serial: connection.product for connection in reversed(self.waiting)}

    def claim(self, serial: str) -> Played | int:
        """The next connection of this camera, or the errno that the claim ends with."""
        with self.lock:
            following = next((found for found in self.waiting if found.serial == serial), None)
            if following is None:
                self.differ("the driver opened the camera once more than it was recorded")
                return 19
            self.waiting.remove(following)
            if following.error is not None:
                return following.error
            played = self.current[serial] = Played(self, following)
            return played

    def release(self, serial: str) -> None:
        with self.lock:
            self.current.pop(serial, None)

    def differ(self, text: str, line: int | None = None) -> None:
        """Notes the first difference; what follows from it is none of its own."""
        if self.difference is None and not self.over:
            self.difference = Difference(text, line)

    def reached(self, line: int) -> bool:
        """Whether all that was recorded above this line has happened."""
        with self.lock:
            if any(found.line < line for found in self.waiting):
                return False
            return not any(
                exchange.line < line and not exchange.done and not exchange.poll
                for played in self.current.values()
                for exchange in played.connection.exchanges
            )

    def missing(self) -> Difference | None:
        """The first thing that was recorded and has not been done."""
        with self.lock:
            for played in self.current.values():
                for exchange in played.connection.exchanges:
                    if not exchange.done and not exchange.poll:
                        return Difference(f"the driver did not send {exchange.describe()}", exchange.line)
            for found in self.waiting:
                return Difference("the driver did not open the camera", found.line)
        return None


class Played:
    """One connection while it is played: what the driver does goes in, what comes of it waits in a queue."""

    def __init__(self, replay: Replay, connection: Connection) -> None:
        self.connection = connection
        self._replay = replay
        self._position = 0  # behind the last exchange that was no poll
        self._last: dict[str, int] = {}  # poll -> which of its answers was given last
        self._coming: list[tuple[float, bytes | int]] = []  # monotonic time
        self._began = time.monotonic() - connection.at  # when the recording's time was 0
        first = connection.exchanges[:1]
        if first and first[0].sent == ("", ""):
            self._schedule(first[0])

    def did(self, kind: str, data: str) -> int | None:
        """The driver wrote a packet or made a request. Returns the errno that it fails with."""
        with self._replay.lock:
            if self._replay.over or self._replay.difference is not None:
                return 19
            exchange = self._match((kind, data))
            if exchange is None:
                return 19
            if exchange.error is None:
                self._schedule(exchange)
            return exchange.error

    def due(self) -> bytes | int | None:
        """The next bytes that have come by now, or the errno of a failure; they are taken away."""
        with self._replay.lock:
            if self._replay.over or self._replay.difference is not None:
                return 19
            if self._coming and self._coming[0][0] <= time.monotonic():
                return self._coming.pop(0)[1]
        return None

    def _schedule(self, exchange: Exchange) -> None:
        now = time.monotonic()
        self._coming += [(now + max(0.0, delay), item) for delay, item in exchange.came]

    def _match(self, sent: tuple[str, str]) -> Exchange | None:
        exchanges = self.connection.exchanges
        open_ones = [e for e in exchanges[self._position :] if not e.done and not e.poll]
        passed: list[Exchange] = []
        for exchange in open_ones[:AHEAD]:
            if exchange.sent == sent and self._its_turn(exchange, passed):
                self._finish(exchange)
                return exchange
            passed.append(exchange)
        kind, data = sent
        if kind == "write" and data and int(data[:2], 16) in POLLS:
            return self._poll(sent)
        if open_ones:
            expected = open_ones[0]
            self._replay.differ(
                f"the driver sent {describe(sent)}, recorded is {expected.describe()}", expected.line
            )
        else:
            self._replay.differ(f"the driver sent {describe(sent)}, recorded is nothing more")
        return None

    def _its_turn(self, exchange: Exchange, passed: list[Exchange]) -> bool:
        """Whether it may come before those, which were recorded earlier and are still to come."""
        if exchange.code in POLLS:  # one that failed: not before its time
            return not passed and time.monotonic() - self._began >= exchange.at
        part = PARTS.get(exchange.code or 0)
        parts = [PARTS.get(other.code or 0) for other in passed]
        return not passed or (part is not None and all(other not in (part, None) for other in parts))

    def _finish(self, exchange: Exchange) -> None:
        exchange.done = True
        exchanges = self.connection.exchanges
        self._began = max(self._began, time.monotonic() - exchange.at)
        while self._position < len(exchanges) and (
            exchanges[self._position].done or exchanges[self._position].poll
        ):
            self._position += 1

    def _poll(self, sent: tuple[str, str]) -> Exchange | None:
        """The next answer of this stage; the last one again when they are used up."""
        exchanges = self.connection.exchanges
        answers = [index for index, e in enumerate(exchanges) if e.sent == sent and e.poll]
        last = self._last.get(sent[1], -1)
        behind = max((i for i, e in enumerate(exchanges) if e.done), default=-1)
        fresh = [index for index in answers if max(last, behind) < index < self._position]
        spoken = [index for index in answers if exchanges[index].came]
        if fresh:
            chosen = fresh[0]
        elif earlier := [index for index in spoken if index < max(self._position, last + 1)]:
            chosen = earlier[-1]
        elif answers:
            chosen = answers[0]
        else:
            self._replay.differ(f"the driver sent {describe(sent)}, which was never asked in this connection")
            return None
        self._last[sent[1]] = max(last, chosen)
        return exchanges[chosen]
