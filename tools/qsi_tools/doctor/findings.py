# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the doctor says: findings, and how bad they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    """In the order in which a report shows them."""

    PROBLEM = "problem"  # pictures are not possible, or in danger
    WARNING = "warning"  # it works now, and is likely to spoil a night
    UNKNOWN = "unknown"  # could not be looked at
    NOTE = "note"  # worth knowing
    OK = "ok"


# The exit status: of the worst finding. Notes are no reason for a script to stop.
STATUS = {
    Severity.PROBLEM: 2,
    Severity.WARNING: 1,
    Severity.UNKNOWN: 3,
    Severity.NOTE: 0,
    Severity.OK: 0,
}
COULD_NOT_LOOK = 3  # also for arguments that are not understood


@dataclass(frozen=True, slots=True)
class Finding:
    """`about` is the subject in a word or two, `seen` what was found, `remedy` what to do (or empty)."""

    severity: Severity
    about: str
    seen: str
    remedy: str = ""


def ok(about: str, seen: str) -> Finding:
    return Finding(Severity.OK, about, seen)


def note(about: str, seen: str, remedy: str = "") -> Finding:
    return Finding(Severity.NOTE, about, seen, remedy)


def unknown(about: str, seen: str, remedy: str = "") -> Finding:
    return Finding(Severity.UNKNOWN, about, seen, remedy)


def warning(about: str, seen: str, remedy: str) -> Finding:
    return Finding(Severity.WARNING, about, seen, remedy)


def problem(about: str, seen: str, remedy: str) -> Finding:
    return Finding(Severity.PROBLEM, about, seen, remedy)


def worst(findings: Iterable[Finding]) -> Severity:
    """The severity of the worst finding; OK without any."""
    order = list(Severity)
    return min((finding.severity for finding in findings), key=order.index, default=Severity.OK)
