# SPDX-License-Identifier: LGPL-2.1-or-later
"""The fault matrix: faults of the supply, the cable and the USB chip.

A file of its own, so that both halves run at the same time.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.cells import FAULTS, Cell, cells, run
from tests.faults.clock import Clock

CELLS = [
    cell
    for cell in cells()
    if cell.reason is None and FAULTS[cell.fault].action.__module__.endswith("faults_usb")
]


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: f"{cell.fault}-{cell.phase.name}")
def test_cell(cell: Cell, tmp_path: Path) -> None:
    with Clock():
        run(cell, tmp_path)
