# SPDX-License-Identifier: LGPL-2.1-or-later
"""A driver and its camera on a clock that skips waiting."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.clock import Clock
from tests.faults.rig import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with Clock():
        rig = Rig(tmp_path)
        yield rig
        rig.close()
