# SPDX-License-Identifier: LGPL-2.1-or-later
"""The camera thread: order, delays, errors, suspension, the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from indi_qsi.device.orders import OrderBook
from indi_qsi.device.worker import CameraThread, Priority
from tests.support.indi import PATIENCE, eventually
from usbproto.errors import Disconnected


class Bench:
    def __init__(self) -> None:
        self.troubles: list[Exception] = []
        self.done: list[str] = []
        self.thread = CameraThread("camera test", OrderBook(lambda when: True), self.troubles.append)
        self._gate = threading.Event()

    def hold(self) -> None:
        """Keeps the thread busy until `release`, so that jobs pile up."""
        begun = threading.Event()

        def work() -> None:
            begun.set()
            assert self._gate.wait(PATIENCE)

        self.thread.post(Priority.URGENT, work)
        assert begun.wait(PATIENCE)

    def release(self) -> None:
        self._gate.set()

    def note(self, what: str, priority: Priority = Priority.STEP, delay: float = 0.0):  # type: ignore[no-untyped-def]
        return self.thread.post(priority, lambda: self.done.append(what), delay=delay)

    def wait(self, count: int) -> list[str]:
        eventually(lambda: len(self.done) >= count, f"{count} jobs are done")
        return self.done


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.release()
    bench.thread.stop()


def test_the_most_urgent_goes_first_then_the_oldest(bench: Bench) -> None:
    bench.hold()
    for name, priority in (
        ("poll", Priority.POLL),
        ("step 1", Priority.STEP),
        ("guide", Priority.GUIDE),
        ("step 2", Priority.STEP),
        ("abort", Priority.URGENT),
    ):
        bench.note(name, priority)
    bench.release()
    assert bench.wait(5) == ["abort", "guide", "step 1", "step 2", "poll"]


def test_a_delayed_job_is_not_early_and_keeps_nobody(bench: Bench) -> None:
    began = time.monotonic()
    bench.note("late", Priority.URGENT, delay=0.1)
    bench.note("now", Priority.POLL)
    assert bench.wait(2) == ["now", "late"]
    assert time.monotonic() - began >= 0.1


def test_a_cancelled_job_is_not_done(bench: Bench) -> None:
    bench.hold()
    bench.note("never").cancel()
    bench.note("done")
    bench.release()
    assert bench.wait(1) == ["done"]


def test_errors_are_told_and_the_thread_goes_on(bench: Bench) -> None:
    told: list[Exception] = []

    def fail() -> None:
        raise ValueError("a bad job")

    def worse(error: Exception) -> None:
        raise RuntimeError("a bad answer")

    bench.thread.post(Priority.STEP, fail, failed=told.append)
    bench.thread.post(Priority.STEP, fail, failed=worse)
    bench.note("after")
    bench.wait(1)
    assert [str(error) for error in told] == ["a bad job"]
    assert [str(error) for error in bench.troubles] == ["a bad job"] * 2


def test_without_a_camera_jobs_are_refused_at_once(bench: Bench) -> None:
    told: list[Exception] = []
    bench.hold()
    bench.note("forgotten")
    away = Disconnected("away")
    bench.thread.suspend(away, away)
    bench.thread.post(Priority.GUIDE, lambda: bench.done.append("never"), failed=told.append)
    assert told == [away]
    bench.thread.post_always(lambda: bench.done.append("always"))
    bench.release()
    assert bench.wait(1) == ["always"]
    bench.thread.resume()
    bench.note("again")
    assert bench.wait(2) == ["always", "again"]


def test_the_end(bench: Bench) -> None:
    bench.hold()
    bench.note("forgotten")
    bench.note("forgotten too", delay=100)
    threading.Timer(0.05, bench.release).start()
    bench.thread.stop(lambda: bench.done.append("last"))
    assert bench.done == ["last"]
    bench.note("too late")
    assert bench.done == ["last"]
