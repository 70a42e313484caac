# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whatever goes into a header, astropy finds no fault with it and reads back what was meant."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import example, given
from hypothesis import strategies as st

from indi_qsi.fits import BLOCK, COMMENTARY, Card, printable, render_header
from tests.support.rig import opened


def header_of(cards: Iterable[Card]) -> fits.Header:
    data = render_header((2, 2), cards)
    assert len(data) % BLOCK == 0
    header, pixels = opened(data + bytes(BLOCK))
    assert pixels.dtype == np.uint16
    return header


TAKEN = {"SIMPLE", "BITPIX", "NAXIS", "EXTEND", "BZERO", "BSCALE", "END", "CONTINUE", "HIERARCH", "XTENSION"}
KEYWORDS = st.from_regex("[A-Z0-9_-]{1,8}", fullmatch=True).filter(
    lambda name: (
        name not in TAKEN | COMMENTARY and not name.startswith(("NAXIS", "BLANK", "PCOUNT", "GROUPS"))
    )
)
TEXTS = st.text(max_size=300) | st.text("'& /ab", max_size=300)


@given(KEYWORDS, TEXTS, st.text(max_size=100))
@example("0", "'/", "")
@example("0", "'" * 68, "x")
@example("0", "a" * 67 + "''", "it's / one")
def test_any_text(keyword: str, text: str, comment: str) -> None:
    header = header_of([Card(keyword, text, comment)])
    meant = printable(text).rstrip()
    if not meant:
        assert keyword not in header
        return
    if "/" in meant:
        meant = meant.replace("'", '"')
    # An ampersand at the very end is what says that a text goes on, and astropy 5 makes one of two quotes.
    quotes = re.compile("'+")
    assert quotes.sub("'", header[keyword].rstrip("&")) == quotes.sub("'", meant.rstrip("&"))
    assert printable(comment).strip().startswith(header.comments[keyword]) or len(meant) > 60


@given(KEYWORDS, st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.floats(), st.text(max_size=100))
def test_any_number(keyword: str, value: float, comment: str) -> None:
    header = header_of([Card(keyword, value, comment)])
    if isinstance(value, float):
        assert (keyword in header) is math.isfinite(value)
        if math.isfinite(value):
            assert header[keyword] == pytest.approx(value, rel=1e-10, abs=0)
    else:
        assert header[keyword] == value
        assert type(header[keyword]) is type(value)


@given(st.sampled_from(sorted(COMMENTARY)), TEXTS)
def test_any_commentary(keyword: str, text: str) -> None:
    header = header_of([Card(keyword, text), Card("AFTER", 1)])
    assert "".join(line.ljust(72) for line in header.get(keyword, "")).rstrip() == printable(text).rstrip()
    assert header["AFTER"] == 1


def test_long_texts_go_on() -> None:
    text = "It's a long story. " * 20
    data = render_header((2, 2), [Card("NOTE", text, "about")])
    assert data.count(b"CONTINUE  '") == 5
    assert header_of([Card("NOTE", text, "about")])["NOTE"] == text.rstrip()


def test_nothing_is_left_out_silently_but_what_says_nothing() -> None:
    header = header_of(
        [Card("A", None), Card("B", math.nan), Card("C", math.inf), Card("D", " "), Card("E", 0)]
    )
    assert [name for name in "ABCDE" if name in header] == ["E"]


@pytest.mark.parametrize("keyword", ["toolong99", "", "lower", "A B", "Ä", "A.B"])
def test_an_illegal_keyword_is_a_mistake_of_ours(keyword: str) -> None:
    with pytest.raises(ValueError, match="cannot be a FITS keyword"):
        render_header((2, 2), [Card(keyword, 1)])


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Größe", "Grosse"),
        ("Hα 3 nm", "Halpha 3 nm"),
        ("µm", "um"),
        ("Ångström", "Angstrom"),
        ("Łódź", "Lodz"),
        ("ΔE", "DeltaE"),
        ("−20 °C", "-20 degC"),
        ("M 31\u00a0–\u2009“core”", 'M 31 - "core"'),
        ("猫🐈", "??"),
        ("a\tb\nc", "a b?c"),
        ("", ""),
    ],
)
def test_spelling(text: str, plain: str) -> None:
    assert printable(text) == plain
