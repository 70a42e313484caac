# SPDX-License-Identifier: LGPL-2.1-or-later
"""Plays sequences one after the other, with one driver as long as that is in order, and reports what fails."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.faults.clock import Clock
from tests.orders import sequences
from tests.orders.model import Judge
from tests.orders.play import Player
from tests.orders.record import FAULTS, Record

AGAIN = 3  # runs in which a sequence must fail once, to count as failing when it is made shorter
BLOCKED = 0.2  # real s of doing nothing: a thread waits for a lock that another one keeps while it waits
REUSE = 40  # sequences with one driver


@dataclass
class Failure:
    """A sequence that fails. `reproduced`: also with a driver of its own."""

    seed: int | None
    model: str
    steps: Sequence[str]
    problems: Sequence[str]
    reproduced: bool = True

    def __str__(self) -> str:
        program = shlex.quote("; ".join(self.steps))
        found = "\n".join(f"  {problem}" for problem in self.problems)
        note = "" if self.reproduced else "\n(it did not fail again with a driver of its own)"
        return (
            f"seed {self.seed}:\n{found}\npython -m tests.orders --model {self.model} --steps {program}{note}"
        )


@contextmanager
def player(model: str) -> Iterator[Player]:
    """A driver of its own, on a clock that skips waiting. The disk is as slow as a sequence wants it."""
    folder = Path(tempfile.mkdtemp(prefix="qsi-orders-"))
    fsync, home = os.fsync, os.environ["HOME"]
    with Clock(BLOCKED):
        os.environ["HOME"] = str(folder)
        one = Player(folder, model)
        os.fsync = lambda fd: time.sleep(one.disk) if one.disk else None
        try:
            yield one
        finally:
            one.close()
            os.fsync, os.environ["HOME"] = fsync, home
            shutil.rmtree(folder, ignore_errors=True)


def play(model: str, steps: Sequence[str]) -> tuple[Record, list[str]]:
    """Plays one sequence with a driver of its own; the record, and what was wrong."""
    with player(model) as one:
        return _play(one, steps)


def _play(one: Player, steps: Sequence[str]) -> tuple[Record, list[str]]:
    faulty = any(step in FAULTS for step in steps)
    record = one.play(steps, probe=faulty)
    judge = Judge(record)
    problems = judge.judge()
    one.kept = judge.kept
    return record, problems


def run(
    model: str, seeds: Iterator[int] | Sequence[int], until: Callable[[], bool] = lambda: False
) -> Iterator[Failure | None]:
    """Plays the sequences of these seeds; yields what failed, as short as it gets, or None, for each."""
    left = iter(seeds)
    seed = next(left, None)
    while seed is not None and not until():
        failure: Failure | None = None
        with player(model) as one:
            for _ in range(REUSE):
                steps = sequences.make(seed, model)
                try:
                    _, problems = _play(one, steps)
                except AssertionError as error:
                    problems = [f"the driver could not be used: {error}"]
                if problems:
                    failure = Failure(seed, model, steps, problems)
                seed_done, seed = seed, next(left, None)
                if failure is not None or not one.clean or seed is None or until():
                    break
                yield None
        if failure is not None:
            failure = shortened(failure)
        del seed_done
        yield failure


def shortened(failure: Failure) -> Failure:
    """The same failure with fewer steps."""
    problems: list[str] = []

    def fails(steps: Sequence[str]) -> bool:
        for _ in range(AGAIN):
            found = play(failure.model, steps)[1]
            if found:
                problems[:] = found
                return True
        return False

    if not fails(failure.steps):
        failure.reproduced = False
        return failure
    steps = sequences.shrink(failure.steps, fails)
    fails(steps)
    return Failure(failure.seed, failure.model, steps, list(problems))


def check(model: str, first: int, count: int) -> None:
    """For tests: raises `AssertionError` with the first failure that repeats.

    On a busy machine a command may be on its way for longer than the model allows for. What fails once, and then in
    none of `AGAIN` runs with a driver of its own, is only printed.
    """
    for failure in run(model, range(first, first + count)):
        if failure is not None and not failure.reproduced:
            print(failure)
            continue
        assert failure is None, f"\n{failure}"
