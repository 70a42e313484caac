# SPDX-License-Identifier: LGPL-2.1-or-later
"""The results of the fault matrix as a page: `python -m tests.faults.table > docs/fault-matrix.md`."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.faults.cells import FAULTS, NAMES, Cell, cells, run
from tests.faults.clock import Clock

KEPT = Path(__file__).resolve().parents[2] / "docs" / "fault-matrix.md"
HEAD = """# The fault matrix

Every fault of the [simulated camera](simulator.md) in every phase of the camera's use, through the whole driver,
from the client's XML to the bytes at the USB. This page is made by `python -m tests.faults.table`; the tests in
`tests/faults` run every cell.

- **goes on**: the client notices nothing; the operation ends well.
- **told**: the operation ends in Alert, with a message that names the phase.
- *connect again*: the camera could not be connected while it was out of order; it is not tried again unasked.

After each cell every vector is in a final state, no frame but a right one has been sent, no relay is closed, no
thread and no descriptor is left. The camera is then made well again as its user would (plugged in, supplied,
switched off and on where only that helps). What was lost is used again without a word from the user; settings,
set point, fan and filter names hold; and the next exposure is right, pixel by pixel.
"""
FOOT = """
What cannot be seen: a byte that arrives turned over among the pixels (`corrupt` in the transfer) and wrong
overscan pixels (`overscan-level`) are sent on as they came, because the protocol has no checksum.
"""


def reasons() -> dict[str, list[str]]:
    """Why cells say nothing -> the faults of those cells."""
    found: dict[str, list[str]] = {}
    for cell in cells():
        if cell.reason is not None and cell.fault not in found.setdefault(cell.reason, []):
            found[cell.reason].append(cell.fault)
    return found


def page(outcome: Callable[[Cell], str]) -> str:
    lines = [HEAD, "| fault | " + " | ".join(NAMES) + " |", "|---|" + "---|" * len(NAMES)]
    by_fault = {fault: [cell for cell in cells() if cell.fault == fault] for fault in FAULTS}
    for fault, row in by_fault.items():
        lines.append(f"| `{fault}` | " + " | ".join("-" if c.reason else outcome(c) for c in row) + " |")
    lines += ["", "Cells with a dash:", ""]
    lines += [f"- {reason}: {', '.join(faults)}" for reason, faults in reasons().items()]
    return "\n".join([*lines, FOOT.rstrip()])


def main() -> None:
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as home, Clock():
        numbers = iter(range(10**6))

        def outcome(cell: Cell) -> str:
            directory = Path(home) / str(next(numbers))
            directory.mkdir()
            return run(cell, directory)

        print(page(outcome))


if __name__ == "__main__":
    main()
