# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the user reads: text for a terminal at night, or JSON for programs and bug reports."""

from __future__ import annotations

import json
import textwrap
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from indi_qsi.version import VERSION
from qsi_tools.doctor.checks import Result
from qsi_tools.doctor.facts import Facts
from qsi_tools.doctor.findings import STATUS, Severity, worst

SCHEMA = 1  # grows when a key of the JSON changes its meaning or goes away

# On a terminal: red, yellow, magenta; a dim one for what is fine. Red keeps the eyes dark-adapted.
COLOURS = {Severity.PROBLEM: "31;1", Severity.WARNING: "33", Severity.UNKNOWN: "35", Severity.OK: "2"}
MARK = 9  # columns for the severity
LEAST_WIDTH = 50


def text(results: Sequence[Result], width: int, *, colour: bool, quiet: bool = False) -> str:
    """The worst last, where the prompt comes: nobody has to scroll. `quiet` leaves out what is fine."""
    order = list(Severity)
    lines = []
    for result in sorted(results, key=lambda result: -order.index(result.finding.severity)):
        finding = result.finding
        if quiet and finding.severity in (Severity.OK, Severity.NOTE):
            continue
        mark = f"{finding.severity.value:<{MARK}}"
        if colour and finding.severity in COLOURS:
            mark = f"\033[{COLOURS[finding.severity]}m{mark}\033[0m"
        body = _wrapped(f"{finding.about}: {finding.seen}", width)
        lines.append(mark + body.lstrip())
        if finding.remedy:
            lines.append(_wrapped(f"-> {finding.remedy}", width))
    lines.append(summary(results))
    return "\n".join(lines) + "\n"


def _wrapped(line: str, width: int) -> str:
    """Commands stay whole where they can: no breaks in words and at hyphens."""
    indent = " " * MARK
    return textwrap.fill(
        line,
        max(width, LEAST_WIDTH),
        initial_indent=indent,
        subsequent_indent=indent + ("   " if line.startswith("->") else ""),
        break_long_words=False,
        break_on_hyphens=False,
    )


def summary(results: Sequence[Result]) -> str:
    counts = Counter(result.finding.severity for result in results)
    bad = [
        f"{counts[severity]} {word if counts[severity] == 1 else words}"
        for severity, word, words in (
            (Severity.PROBLEM, "problem", "problems"),
            (Severity.WARNING, "warning", "warnings"),
            (Severity.UNKNOWN, "question open", "questions open"),
        )
        if counts[severity]
    ]
    return f"{', '.join(bad)}." if bad else "Everything is fine."


def as_json(results: Sequence[Result], facts: Facts) -> str:
    severity = worst(result.finding for result in results)
    tree = {
        "schema": SCHEMA,
        "version": VERSION,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "severity": severity.value,
        "status": STATUS[severity],
        "findings": [
            {
                "check": result.check,
                "severity": result.finding.severity.value,
                "about": result.finding.about,
                "seen": result.finding.seen,
                "remedy": result.finding.remedy,
            }
            for result in results
        ],
        "facts": asdict(facts),
    }
    return json.dumps(tree, indent=1, ensure_ascii=False) + "\n"
