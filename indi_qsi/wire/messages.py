# SPDX-License-Identifier: LGPL-2.1-or-later
"""What can arrive on a link, as immutable values, and the words of the protocol."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """The five kinds of vectors; the value is the word inside the tag names."""

    TEXT = "Text"
    NUMBER = "Number"
    SWITCH = "Switch"
    LIGHT = "Light"
    BLOB = "BLOB"


class State(Enum):
    """The state of a vector or of a light; the value is the word on the wire."""

    IDLE = "Idle"
    OK = "Ok"
    BUSY = "Busy"
    ALERT = "Alert"


class BlobPolicy(Enum):
    """What a client wants to have: everything but BLOBs, everything, or BLOBs only."""

    NEVER = "Never"
    ALSO = "Also"
    ONLY = "Only"


class Severity(Enum):
    """How bad a `Problem` is."""

    NOTE = "note"  # well-formed, but nothing we know
    REFUSED = "refused"  # well-formed so far, but over a limit or not allowed
    BROKEN = "broken"  # not XML, or not INDI's order of elements


@dataclass(frozen=True, slots=True)
class GetProperties:
    """A peer asks for definitions: of everything, of one device, or of one vector."""

    device: str | None = None
    name: str | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class NewVector:
    """A client asks for new values. `values` are pairs of element name and text, white space
    around the text removed; nothing is checked yet but the limits."""

    kind: Kind
    device: str
    name: str
    values: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class EnableBlob:
    """A client says which BLOBs it wants; `name` is None for all of the device."""

    device: str
    name: str | None
    policy: BlobPolicy


@dataclass(frozen=True, slots=True)
class PingRequest:
    """The peer wants a reply with the same uid."""

    uid: str


@dataclass(frozen=True, slots=True)
class PingReply:
    """The peer has read everything up to our request with this uid."""

    uid: str


@dataclass(frozen=True, slots=True)
class SnoopedVector:
    """Another driver's definition (`define`) or update. `state` is None if it sent none."""

    kind: Kind
    define: bool
    device: str
    name: str
    state: State | None
    values: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class DelProperty:
    """Another driver took back a vector, or its whole device when `name` is None."""

    device: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """Input that was dropped, and why, in one line fit for a log.

    `target` is the device and vector that a refused request was for, as far as that was read.
    """

    reason: str
    severity: Severity
    target: tuple[str, str] | None = None


Message = GetProperties | NewVector | EnableBlob | PingRequest | PingReply | SnoopedVector | DelProperty
