# SPDX-License-Identifier: LGPL-2.1-or-later
"""Long runs:  python -m tests.orders [--seed N] [--minutes M] [--count N] [--model 683wsg]

One sequence again:  python -m tests.orders --model 683wsg --steps 'c0 Gain.Low=On; wait 0.1; ...' [--show]
"""

from __future__ import annotations

import argparse
import itertools
import logging
import sys
import time

from tests.orders import bench
from tests.orders.record import Record

MODELS = ("683wsg", "640wsg")


def show(record: Record) -> None:
    """The record, a line for each event."""
    start = record.events[0].at if record.events else 0.0
    for event in record.events:
        if event.name in ("command", "answer") and event.data.get("command") is None:
            continue
        data = {name: value for name, value in event.data.items() if value not in ("Off", "")}
        own = " own" if event.own else ""
        print(
            f"{event.at - start:9.4f} {event.kind:8} {event.name:20} {event.state:6}{own} {data} {event.message}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.orders", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--count", type=int, help="sequences, instead of minutes")
    parser.add_argument("--model", choices=MODELS)
    parser.add_argument("--steps", help="one sequence, its steps separated by ;")
    parser.add_argument("--show", action="store_true", help="print what happened")
    parser.add_argument("--keep-going", action="store_true", help="do not end with the first failure")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if options.steps is not None:
        steps = [step.strip() for step in options.steps.split(";") if step.strip()]
        record, problems = bench.play(options.model or MODELS[0], steps)
        if options.show:
            show(record)
        print("\n".join(problems) or "all is right")
        return bool(problems)
    end = time.monotonic() + 60 * options.minutes
    seed, failures, played = options.seed, 0, 0
    models = itertools.cycle([options.model] if options.model else MODELS)
    begin = time.perf_counter()
    share = min(40, options.count or 40)
    while (played < options.count) if options.count else (time.monotonic() < end):
        for failure in bench.run(next(models), range(seed, seed + share)):
            played += 1
            if failure is None:
                continue
            failures += 1
            print(failure, flush=True)
            if not options.keep_going:
                return 1
        seed += share
    spent = time.perf_counter() - begin
    print(f"{played} sequences, {failures} failures, {1000 * spent / max(1, played):.0f} ms each")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
