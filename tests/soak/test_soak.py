# SPDX-License-Identifier: LGPL-2.1-or-later
"""The short run, and that its bookkeeping can fail."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.soak import GROWTH, KEPT_FRAMES, Report, Sample, Soak


def test_no_exposure_is_lost_and_nothing_piles_up(tmp_path: Path) -> None:
    report = Soak(tmp_path, exposures=60, seed=7).run()
    report.check()
    assert report.requested == 60
    assert {"unplugs", "aborts", "reconnects", "filter moves", "guide pulses"} <= set(report.happened)


def test_the_books_can_be_wrong() -> None:
    good = Report(10, 7, 3, samples=[Sample(50 << 20, 20, 12)] * 6)
    good.check()
    piles = [Sample((50 << 20) + number * GROWTH, 20, 12) for number in range(6)]
    for bad in (
        replace(good, delivered=8),
        replace(good, delivered=6),
        replace(good, samples=piles),
        replace(good, samples=[*good.samples, Sample(50 << 20, 21, 12)]),
        replace(good, samples=[*good.samples, Sample(50 << 20, 20, 13)]),
        replace(good, samples=[*good.samples, Sample(50 << 20, 20, 12, frames=KEPT_FRAMES + 1)]),
    ):
        with pytest.raises(AssertionError):
            bad.check()
