# SPDX-License-Identifier: LGPL-2.1-or-later
"""The elements of vectors: what never changes about them, and the value they start with."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from indi_qsi.wire.limits import MAX_NAME
from indi_qsi.wire.messages import State

# Characters a text element takes from a client unless it says otherwise: room for any usual path.
TEXT_LENGTH = 1024


class Permission(Enum):
    """What clients may do with a vector; the value is the word on the wire."""

    RO = "ro"
    WO = "wo"
    RW = "rw"


class Rule(Enum):
    """How many switches of a vector may be On at a time; the value is the word on the wire."""

    ONE_OF_MANY = "OneOfMany"
    AT_MOST_ONE = "AtMostOne"
    ANY_OF_MANY = "AnyOfMany"


class Level(Enum):
    """How important a message to the user is; the value goes in front of it, in brackets."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


def check_name(name: str) -> str:
    """Returns the name. Raises ValueError if INDI's C library could not hold it."""
    if not name or len(name) >= MAX_NAME or not name.isprintable():
        raise ValueError(f"{name!r} is no name of 1 to {MAX_NAME - 1} printable characters")
    return name


@dataclass(frozen=True, slots=True)
class NumberElement:
    """A number. A client may ask for minimum <= value <= maximum only, also when both are 0.

    `format` is how clients show it: printf, or INDI's sexagesimal '%<width>.<digits>m'.
    """

    name: str
    label: str
    value: float = 0.0
    format: str = "%.6g"
    minimum: float = 0.0
    maximum: float = 0.0
    step: float = 0.0


@dataclass(frozen=True, slots=True)
class TextElement:
    """A text of at most `max_length` characters, none of them a control character but the tab."""

    name: str
    label: str
    value: str = ""
    max_length: int = TEXT_LENGTH


@dataclass(frozen=True, slots=True)
class SwitchElement:
    """A switch."""

    name: str
    label: str
    on: bool = False


@dataclass(frozen=True, slots=True)
class LightElement:
    """A light, which shows a state."""

    name: str
    label: str
    state: State = State.IDLE


@dataclass(frozen=True, slots=True)
class BlobElement:
    """A place for frames. It has no value: a frame is sent and forgotten."""

    name: str
    label: str
