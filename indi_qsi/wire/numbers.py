# SPDX-License-Identifier: LGPL-2.1-or-later
"""Numbers as INDI writes them: decimal, or sexagesimal as in '-0:30' or '12 34 56.7'."""

from __future__ import annotations

import re
from math import isfinite

from indi_qsi.wire.limits import MAX_NUMBER

_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)

# Degrees or hours, minutes, and perhaps seconds; only the last part may have a fraction. One
# separator, with blanks around it: ' 1 : 2' is written by programs that pad to a width.
_SEPARATOR = r"(?:\s*[:;]\s*|\s+)"
_SEXAGESIMAL = re.compile(rf"([+-]?)\s*(\d+){_SEPARATOR}(?:(\d+){_SEPARATOR})?(\d+\.?\d*)", re.ASCII)

# Sixty itself is what a careless formatter makes of 59.9999; more is no time and no angle.
_LARGEST_PART = 60.0


def parse_number(text: str) -> float:
    """The value of a decimal or sexagesimal number; white space around it is ignored.

    Raises ValueError for anything else: empty, too long, not a number, infinite.
    """
    text = text.strip()
    if len(text) > MAX_NUMBER:
        raise ValueError(f"number longer than {MAX_NUMBER} characters")
    if _DECIMAL.fullmatch(text):
        value = float(text)
        if not isfinite(value):
            raise ValueError(f"{text!r} is too large")
        return value
    match = _SEXAGESIMAL.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a number")
    sign, whole, middle, last = match.groups()
    minutes, seconds = (float(last), 0.0) if middle is None else (float(middle), float(last))
    if minutes > _LARGEST_PART or seconds > _LARGEST_PART:
        raise ValueError(f"{text!r} has more than 60 minutes or seconds")
    # The sign is taken from the text, because -0 degrees 30 minutes is not 0 degrees 30 minutes.
    value = float(whole) + minutes / 60 + seconds / 3600
    return -value if sign == "-" else value


def format_number(value: float) -> str:
    """The shortest text that reads back as the same float. Raises ValueError for nan and inf."""
    if not isfinite(value):
        raise ValueError(f"{value!r} cannot be sent")
    return repr(float(value))
