# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every check that docs/reliability.md names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS = [
    line
    for line in (ROOT / "docs" / "reliability.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| promise")
]


def names_in(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("row", ROWS)
def test_a_promise_is_held_by_checks_that_exist(row: str) -> None:
    checks = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
    assert checks, "a promise without a check"
    for file, name in checks:
        assert name.startswith("test_") and name in names_in(ROOT / file), f"{file}::{name}"


def test_there_are_promises() -> None:
    assert len(ROWS) > 20
