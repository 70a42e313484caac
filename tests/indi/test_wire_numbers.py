# SPDX-License-Identifier: LGPL-2.1-or-later
"""Numbers in and out."""

from __future__ import annotations

import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indi_qsi.wire.limits import MAX_NUMBER
from indi_qsi.wire.numbers import format_number, parse_number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1.0),
        (" \n 1.5\t", 1.5),
        ("+.5", 0.5),
        ("5.", 5.0),
        ("-1e-3", -0.001),
        ("1E3", 1000.0),
        ("12:30", 12.5),
        ("12:30:36", 12.51),
        ("12 30 36", 12.51),
        ("12;30;36.0", 12.51),
        ("-0:30", -0.5),
        ("-0 0 36", -0.01),
        ("+1:30", 1.5),
        (" -1 : 30 ", -1.5),
        ("59:59:60", 60.0),
        ("0.29999999999999998890", 0.3),
    ],
)
def test_what_clients_write(text: str, value: float) -> None:
    assert math.isclose(parse_number(text), value, rel_tol=1e-12)


GARBAGE = (
    "",
    *[
        " ",
        "nan",
        "inf",
        "-Infinity",
        "1e999",
        "1,5",
        "0x10",
        "1_000",
        "abc",
        "1e",
        "--1",
        "1:2:3:4",
        "1:-2",
        "1::2",
        "1:61",
        "12:",
        ":30",
        "1.5:30",
        "٣",
    ],
    "1" * (MAX_NUMBER + 1),
)


@pytest.mark.parametrize("text", GARBAGE)
def test_garbage_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_number(text)


def test_the_longest_number() -> None:
    for length in (MAX_NUMBER - 1, MAX_NUMBER):
        assert parse_number("7".zfill(length)) == 7
    with pytest.raises(ValueError):
        parse_number("7".zfill(MAX_NUMBER + 1))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_round_trip_is_exact(value: float) -> None:
    assert parse_number(format_number(value)) == value


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_cannot_be_sent(value: float) -> None:
    with pytest.raises(ValueError, match="cannot be sent"):
        format_number(value)


@given(st.text(max_size=80))
def test_only_value_errors(text: str) -> None:
    with suppress(ValueError):
        assert math.isfinite(parse_number(text))
