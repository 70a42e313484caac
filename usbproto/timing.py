# SPDX-License-Identifier: LGPL-2.1-or-later
"""How fast, and how carefully, the host talks to a camera. Pure.

`FAST` is what was measured to be best with the chips' data sheets in hand. `VENDOR` is as slow and as careful
as the vendor's library (wire protocol, sections 1.1 and 2), for a camera, a hub or a cable that does not
stand more.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """`latency_ms`: the chip's latency timer. `large_reads`: more than 16 KiB at a time, where the host
    controller carries it in one URB. `merged_looks`: bytes that nobody asked for are looked for once between
    two exchanges; otherwise after each answer and before each command. `estimates`: a camera is not asked
    while what it does cannot be over yet.
    """

    name: str
    latency_ms: int
    large_reads: bool
    merged_looks: bool
    estimates: bool


FAST = Timing("Fast", latency_ms=1, large_reads=True, merged_looks=True, estimates=True)
VENDOR = Timing("Vendor", latency_ms=16, large_reads=False, merged_looks=False, estimates=False)
TIMINGS = {timing.name: timing for timing in (FAST, VENDOR)}
