# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every strangeness on a 640wsg: see `table`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.first_contact.strangenesses import Row
from tests.first_contact.table import check, rows

MODEL = "640wsg"


@pytest.mark.parametrize("row", rows(MODEL))
def test_strange(row: Row, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    check(MODEL, row, tmp_path, caplog)
