# SPDX-License-Identifier: LGPL-2.1-or-later
"""500 random sequences of requests and faults with a 683wsg; tests of one file run in one process."""

from __future__ import annotations

import pytest

from tests.orders import bench

SHARE = 50


@pytest.mark.parametrize("first", range(0, 500, SHARE))
def test_every_request_is_answered_in_its_order(first: int) -> None:
    bench.check("683wsg", first, SHARE)
