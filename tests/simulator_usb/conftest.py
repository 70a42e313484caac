# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulator_usb.bench import Bench


@pytest.fixture(params=["direct", "tcp", "unix"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """Every way to reach a simulated camera."""
    yield from _bench(request.param, tmp_path)


@pytest.fixture
def direct(tmp_path: Path) -> Iterator[Bench]:
    yield from _bench("direct", tmp_path)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Bench]:
    yield from _bench("tcp", tmp_path)


def _bench(over: str, folder: Path) -> Iterator[Bench]:
    before = set(threading.enumerate())
    bench = Bench(over, folder)
    yield bench
    bench.close()
    deadline = time.monotonic() + 5
    while left := set(threading.enumerate()) - before:
        assert time.monotonic() < deadline, f"threads left over: {left}"
        time.sleep(0.01)
