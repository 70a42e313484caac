# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a server has told about its devices: vectors with their values and states, texts, pictures."""

from __future__ import annotations

import zlib
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from indi_qsi.wire.messages import Kind, State
from indi_qsi.wire.numbers import parse_number
from qsi_tools.indi.reader import MAX_MESSAGE, Member, Message

_KINDS = {kind.value: kind for kind in Kind}
_STATES = {state.value: state for state in State}
# libindi's own compression of BLOBs; `size` is the length before it.
_DEFLATED = ".z"


@dataclass(slots=True)
class Vector:
    """One property. `updates` counts how often the server has told its values or state."""

    kind: Kind
    device: str
    name: str
    label: str
    permission: str
    state: State
    values: dict[str, str]
    labels: dict[str, str] = field(default_factory=dict)
    limits: dict[str, tuple[float, float]] = field(default_factory=dict)
    message: str = ""  # what came with the last update
    updates: int = 0

    def number(self, element: str) -> float | None:
        """A number's value; None if it is not there or no number."""
        try:
            return parse_number(self.values[element])
        except (KeyError, ValueError):
            return None

    def on(self, element: str) -> bool:
        """Whether a switch is on."""
        return self.values.get(element) == "On"

    @property
    def selected(self) -> str | None:
        """The switch that is on, if there is one."""
        return next((name for name, value in self.values.items() if value == "On"), None)


@dataclass(frozen=True, slots=True)
class Blob:
    """A picture, or another file: `format` is its extension, such as '.fits'."""

    device: str
    vector: str
    element: str
    format: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """A text for the user. `device` is empty when it comes from the server."""

    device: str
    text: str


Listener = Callable[[Vector], None]


class Model:
    """Takes messages, and keeps what they say. `on_vector`, `on_note` and `on_blob` are told what is new.

    `attached` gives the content of a BLOB that came as a file descriptor, of so many bytes.
    """

    def __init__(self, attached: Callable[[int], bytes]) -> None:
        self.devices: dict[str, dict[str, Vector]] = {}
        self.on_vector: list[Listener] = []
        self.on_note: list[Callable[[Note], None]] = []
        self.on_blob: list[Callable[[Blob], None]] = []
        self._attached = attached

    def vector(self, device: str, name: str) -> Vector | None:
        """A vector as it is now; None while it is not defined."""
        return self.devices.get(device, {}).get(name)

    def take(self, message: Message) -> None:
        """Acts on a message. What makes no sense is passed over: the server has many drivers."""
        tag, attributes = message.tag, message.attributes
        device, name, text = (attributes.get(key, "") for key in ("device", "name", "message"))
        if tag.startswith("def") and tag.endswith("Vector") and device and name:
            self._define(tag[3:-6], message)
        elif tag.startswith("set") and tag.endswith("Vector"):
            self._update(message)
        elif tag == "delProperty":
            if name:
                self.devices.get(device, {}).pop(name, None)
            else:
                self.devices.pop(device, None)
        if text:
            self._tell(Note(device, text))

    def _tell(self, note: Note) -> None:
        for listener in self.on_note:
            listener(note)

    def _define(self, kind: str, message: Message) -> None:
        if kind not in _KINDS:
            return
        attributes, members = message.attributes, message.members
        named = {member.attributes.get("name", ""): member for member in members}
        vector = Vector(
            _KINDS[kind],
            attributes["device"],
            attributes["name"],
            attributes.get("label") or attributes["name"],
            attributes.get("perm", "ro"),
            _STATES.get(attributes.get("state", ""), State.IDLE),
            {name: member.text for name, member in named.items()},
            {name: member.attributes.get("label") or name for name, member in named.items()},
            {name: limits for name, member in named.items() if (limits := _limits(member)) is not None},
        )
        before = self.vector(vector.device, vector.name)
        vector.updates = before.updates + 1 if before is not None else 0
        self.devices.setdefault(vector.device, {})[vector.name] = vector
        self._changed(vector)

    def _update(self, message: Message) -> None:
        attributes = message.attributes
        vector = self.vector(attributes.get("device", ""), attributes.get("name", ""))
        if vector is None:
            self._pass_over(message)
            return
        blobs = []
        for member in message.members:
            name = member.attributes.get("name", "")
            if vector.kind is Kind.BLOB:
                blobs.append(member)
            elif name in vector.values:
                vector.values[name] = member.text
        vector.state = _STATES.get(attributes.get("state", ""), vector.state)
        vector.message = attributes.get("message", "")
        vector.updates += 1
        for member in blobs:
            self._picture(vector, member)
        self._changed(vector)

    def _pass_over(self, message: Message) -> None:
        """Of a vector that is not defined. What is attached goes too, or the next picture would get it."""
        for member in message.members:
            if member.attributes.get("attached") == "true":
                with suppress(OSError, ValueError):
                    self._attached(0)

    def _changed(self, vector: Vector) -> None:
        for listener in self.on_vector:
            listener(vector)

    def _picture(self, vector: Vector, member: Member) -> None:
        format = member.attributes.get("format", "")
        try:
            if member.attributes.get("attached") == "true":
                data = self._attached(int(member.attributes["size"]))
            else:
                data = b64decode(member.text)
            if format.endswith(_DEFLATED):
                data, format = _inflated(data), format.removesuffix(_DEFLATED)
        except (Base64Error, KeyError, ValueError, zlib.error, OSError) as error:
            self._tell(Note(vector.device, f"{vector.name}: what came is broken: {error}"))
            return
        if data:
            blob = Blob(vector.device, vector.name, member.attributes.get("name", ""), format, data)
            for listener in self.on_blob:
                listener(blob)


def _inflated(data: bytes) -> bytes:
    """Raises `zlib.error`, ValueError: for no more than a server may send in any other way."""
    inflate = zlib.decompressobj()
    content = inflate.decompress(data, MAX_MESSAGE)
    if not inflate.eof:
        raise ValueError("it is cut, or too large")
    return content


def _limits(member: Member) -> tuple[float, float] | None:
    try:
        return parse_number(member.attributes["min"]), parse_number(member.attributes["max"])
    except (KeyError, ValueError):
        return None
