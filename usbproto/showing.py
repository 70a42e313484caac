# SPDX-License-Identifier: LGPL-2.1-or-later
"""A flight recorder's file, or a recording, as a table for people. Pure: values in, lines of text out.

Fields and the device error are taken from their offsets (wire protocol, section 2), so that an answer that is
too long is shown too.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from enum import Enum
from typing import Any

from usbproto import flight, recording
from usbproto.errors import DEVICE_ERRORS
from usbproto.packets import COMMANDS, HEADER_BYTES, Burst, Command, Empty, Features, Payload, packet_length
from usbproto.recording import RecordingError

Item = Mapping[str, Any]

# Answers of any length: all but the device error is their content.
_OPEN = (Features, Burst)
# What the heading shows first, and not among the facts.
_HEADING = (flight.FORMAT, "at", "t", "kind", "reason")
HEADER = f"{'time (s)':>12} {'count':>6}  {'took (ms)':>15}  what"
SHOWN_HEX = 80  # hexadecimal digits of one direction; more would fill the screen with GetDeviceDetails
NAME_WIDTH = max(len(command.name) for command in COMMANDS.values())
# Parts of a recording that have nothing to say beside their name and these.
_UNTOLD = frozenset({"t", "e", "n"})


def table(lines: Iterable[Item]) -> Iterator[str]:
    """The lines of `flightfiles.read` or `recording.read`, heading first, as text without control characters.

    Raises `RecordingError` when a line is not understood.
    """
    number = 0
    try:
        source = iter(lines)
        heading = next(source, {})
        number = 1
        if flight.FORMAT in heading:
            yield from map(_printable, _flight_heading(heading))
            items: Iterable[Item] = source
        else:
            yield _printable(f"recording: {_facts(heading, frozenset({recording.FORMAT}))}")
            items = merged(exchanges(source))
        yield HEADER
        for item in items:
            number += 1
            yield _printable(_row(item))
    except RecordingError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise RecordingError(f"entry {number} is not understood ({error!r})") from error


# --- a recording as the entries of a flight recorder ---


def exchanges(lines: Iterable[Item]) -> Iterator[dict[str, Any]]:
    """Each command with its answer as one entry, when it has ended. Connections may be mixed.

    `took` is missing where no answer came: the driver may have waited longer before it did something else.
    """
    waiting: dict[object, dict[str, Any]] = {}
    for line in lines:
        event, number = line.get("e"), line.get("n")
        if event == "read":
            entry = waiting.pop(number, None) or {"t": line["t"], "e": "exchange", "sent": ""}
            entry |= {"got": line["data"], "took": line["t"] - entry["t"]}
            yield entry
            if "length" in line:
                received = {"what": "pixels", "bytes": line["length"], "took": line.get("took", 0.0)}
                yield {"t": line["t"], "e": "received", **received}
            continue
        if number in waiting and event == "fail":
            entry = waiting.pop(number)
            yield entry | {"took": line["t"] - entry["t"], "error": _error(line)}
            continue
        if number in waiting:
            yield waiting.pop(number) | {"error": "no answer"}
        if event == "write" and "error" not in line:
            waiting[number] = {"t": line["t"], "e": "exchange", "sent": line["data"], "got": ""}
        elif event == "write":
            sent = {"sent": line["data"], "got": "", "error": _error(line)}
            yield {"t": line["t"], "e": "exchange", **sent}
        else:
            yield _told(line)
    for entry in waiting.values():
        yield entry | {"error": "no answer"}


def merged(items: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Equal exchanges in a row as one, as a flight recorder keeps them."""
    last: dict[str, Any] | None = None
    for item in items:
        if last is not None and "took" in last and "took" in item and _what(item) == _what(last):
            least = min(last.get("least", last["took"]), item["took"])
            most = max(last["took"], item["took"])
            last |= {"count": last.get("count", 1) + 1, "last": item["t"], "least": least, "took": most}
            continue
        if last is not None:
            yield last
        last = item
    if last is not None:
        yield last


def _what(item: Item) -> tuple[object, ...]:
    return tuple(item.get(key) for key in ("e", "sent", "got", "error", "what", "bytes"))


def _told(line: Item) -> dict[str, Any]:
    """Everything that is no exchange: requests to the USB chip and of clients, states, connections."""
    event = str(line.get("e"))
    if event == "control":
        kind, request, value, index = line["setup"]
        text = f"request {request:#04x} to the USB chip, value {value:#06x}, index {index:#06x} ({kind:#04x})"
    elif event == "request":
        values = ", ".join(f"{name}={value}" for name, value in line["values"])
        text = f"{line['device']}.{line['name']}: {values}"
    elif event == "state":
        text = f"{line['device']}.{line['name']} is {line['state']}"
    else:
        text = _facts(line, _UNTOLD | {"error"})
    if "error" in line:
        text = f"{text}: {_error(line)}".lstrip(": ")
    return {"t": line.get("t"), "e": "note", "kind": event, "text": text}


def _error(line: Item) -> str:
    number = line.get("error")
    return f"USB error {errno.errorcode.get(number, number) if isinstance(number, int) else number}"


# --- text ---


def _flight_heading(heading: Item) -> Iterator[str]:
    yield f"{heading['kind']}: {heading['reason']}"
    yield f"saved at {heading['at']}, which is {heading['t']:.3f} s in this table"
    facts = _facts(heading, frozenset(_HEADING))
    if facts:
        yield facts


def _facts(line: Item, without: frozenset[str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in line.items() if name not in without)


def _row(item: Item) -> str:
    event, began = item.get("e"), item.get("t")
    time = f"{began:12.6f}" if began is not None else " " * 12
    count, took = "", ""
    if "took" in item:
        count = f"x{item['count']}" if item.get("count", 1) > 1 else ""
        most, least = item["took"] * 1000, item.get("least", item["took"]) * 1000
        took = f"{most:.1f}" if f"{least:.1f}" == f"{most:.1f}" else f"{least:.1f}..{most:.1f}"
    if event == "exchange":
        what = _exchange(item)
    elif event == "received":
        what = f"{item['what']}: {item['bytes']} bytes"
    else:
        what = f"-- {item.get('kind', event)}: {item.get('text', '')}".rstrip(": ")
    return f"{time} {count:>6}  {took:>15}  {what}"


def _exchange(item: Item) -> str:
    sent, got = bytes.fromhex(item["sent"]), bytes.fromhex(item["got"])
    length = item.get("got_length", len(got))
    parts = [f"{_name(sent):<{NAME_WIDTH}}", f"{_hex(sent)} -> {_hex(got, length)}"]
    command = COMMANDS.get(sent[0]) if sent else None
    if item.get("hidden"):
        parts.append("a byte of the serial number, hidden")
    elif command is not None and len(got) == length:
        parts.append(_decoded(command, sent, got))
    if "error" in item:
        parts.append(f"FAILED: {item['error']}")
    return "  ".join(part for part in parts if part)


def _name(sent: bytes) -> str:
    if not sent:
        return "(nothing sent)"
    command = COMMANDS.get(sent[0])
    return command.name if command is not None else f"unknown command {sent[0]:#04x}"


def _hex(data: bytes, length: int = 0) -> str:
    text = data.hex()
    if len(text) > SHOWN_HEX or len(data) < length:
        return f"{text[:SHOWN_HEX]}... ({max(length, len(data))} bytes)"
    return text or "nothing"


def _decoded(command: Command[Any, Any], sent: bytes, got: bytes) -> str:
    """The fields of both directions and the device error, as far as they are complete."""
    parts = [_fields(command.request, sent[HEADER_BYTES:])]
    if len(got) >= HEADER_BYTES and got[0] == command.code and len(got) >= packet_length(got):
        payload = got[HEADER_BYTES : packet_length(got)]
        response = command.response
        size = max(len(payload) - 1, 0) if response in _OPEN else response.size()
        if len(payload) > size:
            parts.append(_fields(response, payload[:size]))
            parts.append(_device_error(payload[size]))
        extra = len(got) - HEADER_BYTES - size - 1
        if len(payload) <= size:
            parts.append("answer shorter than its layout")
        elif extra > 0:
            parts.append(f"{extra} bytes more than the layout")
    return "; ".join(part for part in parts if part)


def _fields(kind: type[Payload], data: bytes) -> str:
    if kind is Empty or (kind not in _OPEN and len(data) < kind.size()):
        return ""
    payload = kind.unpack(data if kind in _OPEN else data[: kind.size()])
    names = (field.name for field in fields(payload))
    return ", ".join(f"{name}={_value(getattr(payload, name))}" for name in names)


def _value(value: object) -> str:
    if isinstance(value, Enum):
        return value.name or str(value.value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _device_error(code: int) -> str:
    if code == 0:
        return ""
    meaning, _ = DEVICE_ERRORS.get(code, ("not described", ""))
    return f"device error {code} ({meaning})"


def _printable(text: str) -> str:
    """A file from elsewhere must not control the terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)
