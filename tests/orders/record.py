# SPDX-License-Identifier: LGPL-2.1-or-later
"""The record of one sequence: what was asked, told, and sent to the camera, in the order in which it happened."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SENSOR = (96, 64)  # pixels: small, but its transfer takes some time
# What may stay Busy for minutes.
LASTING = frozenset({"CCD_TEMPERATURE", "CCD_COOLER"})
FAULTS = frozenset({"unplug", "replug", "power_off", "power_on", "fail"})


@dataclass(slots=True)
class Event:
    """One entry of the record. `at` is the clock's.

    kind       name             data
    request    vector           the values that client `client` asked for; `end` is the index of `answered`
    answered   vector           the request was dispatched
    set, def   vector           state, values, message; `own`: sent while a request was dispatched, by it
    del        vector
    message                     message
    frame                       the records of its header, as far as they are looked at, and its size
    camera     event            facts, by the simulated camera
    step       fault or trigger
    """

    at: float
    kind: str
    name: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    state: str = ""
    message: str = ""
    own: bool = False
    client: int = 0
    end: int = 0


@dataclass
class Record:
    """What happened in one sequence. `before` is what held when it began: elements that are On, and numbers."""

    model: str
    steps: Sequence[str]
    before: dict[str, dict[str, str]] = field(default_factory=dict)
    states_before: dict[str, str] = field(default_factory=dict)
    cooling: tuple[bool, bool, float] = (False, False, 0.0)  # on, to ambient, set point
    wheel: int = 0
    camera_settings: dict[str, Any] = field(default_factory=dict)
    alt_mode: int = 0
    latency: float = 0.0
    events: list[Event] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)  # at the end
    after: dict[str, dict[str, str]] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    files: list[dict[str, str]] = field(default_factory=list)  # headers of the local files
    unlike: list[str] = field(default_factory=list)  # what clients saw differently
    kept: dict[str, dict[str, Any]] = field(default_factory=dict)  # by role: what the driver keeps for it
    probed: bool = False  # the last exposure is there to see that the camera can be used
    waiting: bool = False  # for a lost camera, although it is there


def parsed(text: str) -> tuple[str, dict[str, str]]:
    """Vector and values of a request's text, `VECTOR.ELEMENT=VALUE ELEMENT=VALUE`."""
    vector, _, rest = text.partition(".")
    values = {}
    for word in shlex.split(rest):
        name, _, value = word.partition("=")
        values[name] = value
    return vector, values
