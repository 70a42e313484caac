# SPDX-License-Identifier: LGPL-2.1-or-later
"""Two or three strangenesses at the same time. The test files have a model each, as those of `table`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.faults.clock import Clock
from tests.first_contact.life import live
from tests.first_contact.strangenesses import ROWS, Row
from tests.first_contact.table import TRANSFERS, TRIES, rig, series_of, usual

COUNT = 55  # for each model: over 200 in all
Combination = list[Row]


def combinations(model: str) -> st.SearchStrategy[Combination]:
    """Those that can show on this model, each name once."""
    shown = [row for row in ROWS if row.series in (None, series_of(model)) and row.pairs]
    return st.lists(st.sampled_from(shown), min_size=2, max_size=3, unique_by=lambda row: row.name)


def check_pairs(model: str) -> Callable[[], None]:
    """A test: whatever is combined, the camera is served, or lacks what its strangenesses cost."""

    # The same ones each time, so that a failure is the fault of a change.
    @settings(max_examples=COUNT, derandomize=True, database=None)
    @given(combination=combinations(model))
    def test(combination: Combination) -> None:
        with TemporaryDirectory() as name:
            _check(model, combination, Path(name))

    return test


def _check(model: str, combination: Combination, directory: Path) -> None:
    expected = usual(model, str(directory))
    with Clock():
        one = rig(directory, model, *(row.strange for row in combination))
        try:
            there = live(one, TRIES if any(row.name == TRANSFERS for row in combination) else 1)
        finally:
            one.close()
    missing = frozenset().union(*(row.missing for row in combination))
    more = frozenset().union(*(row.more for row in combination))
    assert expected - there <= missing, expected - there
    assert there - expected <= more, there - expected
