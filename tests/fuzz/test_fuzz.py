# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every target for a moment: its kept inputs, changes of its seeds, and plain noise."""

from __future__ import annotations

import random
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import fuzz
from tests.fuzz.__main__ import mutated

NAMES = fuzz.names()
KEPT = [(name, path) for name in NAMES for path in fuzz.kept(name)]
LARGE = 30_000  # bytes; byte by byte and traced, the fuzzers' own 100 kB take too long here
# The largest input's own structures; tracing makes it slow, so the time is generous too.
MEMORY = 20_000_000  # bytes
TIME = 10.0  # s


def test_there_are_targets() -> None:
    assert {"xml", "packets", "ftdi", "config", "header"} <= set(NAMES)


@pytest.mark.parametrize(("name", "path"), KEPT, ids=lambda value: getattr(value, "name", value))
def test_what_was_found_once(name: str, path: Path) -> None:
    assert path.stat().st_size <= fuzz.MAX_INPUT
    fuzz.target(name).one_input(path.read_bytes())


@pytest.mark.parametrize("name", NAMES)
def test_seeds_and_what_is_near_them(name: str) -> None:
    target = fuzz.target(name)
    for seed in target.SEEDS:
        target.one_input(seed)

    @settings(max_examples=60)
    @given(st.integers(0, 1 << 32))
    def near(number: int) -> None:
        target.one_input(mutated(random.Random(number), target.SEEDS))

    near()


@pytest.mark.parametrize("name", NAMES)
def test_noise(name: str) -> None:
    target = fuzz.target(name)

    @settings(max_examples=60)
    @given(st.binary(max_size=500))
    def noise(data: bytes) -> None:
        target.one_input(data)

    noise()


@pytest.mark.parametrize("name", NAMES)
def test_a_large_input_costs_little(name: str) -> None:
    target = fuzz.target(name)
    seed = max(target.SEEDS, key=len)
    large = seed[:2] + (seed[2:] * (LARGE // max(1, len(seed) - 2) + 1))
    target.one_input(seed)  # what is imported and kept for all inputs does not count
    tracemalloc.start()
    start = time.process_time()
    try:
        target.one_input(large[:LARGE])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert time.process_time() - start < TIME
    assert peak < MEMORY
