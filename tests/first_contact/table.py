# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every strangeness on a model; the test files have a model each, so that they run at the same time."""

from __future__ import annotations

import logging
import re
from functools import cache
from pathlib import Path

import pytest

from indi_qsi.device.link_timing import from_environment
from tests.faults.clock import Clock
from tests.faults.rig import Rig
from tests.first_contact.life import live
from tests.first_contact.strangenesses import ROWS, UNKNOWN, Row
from usbproto.timing import VENDOR

TRANSFERS = "transfer-errors"
TRIES = 6  # a frame has some dozen transfers that cannot be repeated
CONNECTIONS = 2  # in a life; each may say it once


def rows(model: str) -> list[object]:
    """Those that can show on this model, and with the timing that the tests run with."""
    shown = [row for row in ROWS if row.series in (None, series_of(model))]
    if from_environment() is VENDOR:
        shown = [row for row in shown if not row.large_reads]
    return [pytest.param(row, id=row.strange) for row in shown]


def series_of(model: str) -> str:
    return "500" if model.startswith("5") else "600"


def rig(directory: Path, model: str, *strange: str) -> Rig:
    """A driver and a camera that is strange."""
    if model == UNKNOWN:
        return Rig(directory, "683wsg", (f"unknown-model:{UNKNOWN}", *strange))
    return Rig(directory, model, strange)


@cache
def usual(model: str, folder: str) -> frozenset[str]:
    """The properties of a camera that is not strange."""
    directory = Path(folder) / "usual"
    directory.mkdir()
    with Clock():
        one = rig(directory, model)
        try:
            return live(one)
        finally:
            one.close()


def check(model: str, row: Row, directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is served, or one feature is missing with its line in the log."""
    expected = usual(model, str(directory))
    caplog.clear()
    with caplog.at_level(logging.INFO), Clock():
        one = rig(directory, model, row.strange)
        try:
            there = live(one, TRIES if row.name == TRANSFERS else 1)
        finally:
            one.close()
    assert expected - there <= row.missing, expected - there
    assert there - expected <= row.more, there - expected
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert row.line is None or any(re.search(row.line, line) for line in lines), lines
    said = [line for line in lines if row.line is not None and re.search(row.line, line)]
    if row.name != TRANSFERS:  # of those, each is a line of its own
        assert len(said) <= CONNECTIONS * len(set(said)), said
