# SPDX-License-Identifier: LGPL-2.1-or-later
"""The kept table of the fault matrix is about the faults and phases that there are."""

from __future__ import annotations

import re

from tests.faults import table
from tests.faults.cells import FAULTS, NAMES, cells


def rows() -> list[list[str]]:
    lines = [line for line in table.KEPT.read_text().splitlines() if line.startswith("|")]
    return [[field.strip() for field in line.strip("|").split("|")] for line in lines]


def test_the_kept_table_has_a_row_for_each_fault_and_a_column_for_each_phase() -> None:
    head, _, *body = rows()
    assert head == ["fault", *NAMES]
    assert [row[0].strip("`") for row in body] == list(FAULTS)
    outcomes = re.compile(r"(goes on|told)(; connect again)?")
    for row, fault in zip(body, FAULTS, strict=True):
        expected = [cell.reason is None for cell in cells() if cell.fault == fault]
        assert [field != "-" for field in row[1:]] == expected, f"{fault}: make the table anew"
        assert all(outcomes.fullmatch(field) for field in row[1:] if field != "-"), row


def test_the_dashes_are_explained() -> None:
    text = table.KEPT.read_text()
    for reason, faults in table.reasons().items():
        assert f"- {reason}: {', '.join(faults)}\n" in text


def test_most_of_the_matrix_is_run() -> None:
    assert sum(cell.reason is None for cell in cells()) > 250
