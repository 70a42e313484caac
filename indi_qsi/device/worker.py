# SPDX-License-Identifier: LGPL-2.1-or-later
"""The camera thread: owns the camera and does one job at a time, the most urgent one first.

A handler of a client's request posts a job and returns; it never talks to the camera itself. Jobs are short
(a few commands), but for the two that the camera itself makes long: the start of an exposure and the transfer
of an image.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable
from enum import IntEnum

log = logging.getLogger(__name__)

# A job that is running when the process ends may be a transfer: it gets this long to come to its end, which
# is what the largest image of a 500 Series takes. Only then can the camera be left in order.
STOP_TIME = 20.0  # s
# What the name of every camera's thread begins with, before that of its device. By it the log's records are
# told apart.
THREAD_NAME = "camera "


class Priority(IntEnum):
    """Which job goes first when several are due."""

    ABORT = 0
    GUIDE = 1
    EXPOSURE = 2
    CONTROL = 3
    POLL = 4


class Job:
    """Something for the camera thread to do. `cancel()` has no effect on a job that has begun."""

    __slots__ = ("cancelled", "due", "failed", "order", "priority", "work")

    def __init__(
        self,
        priority: Priority,
        due: float,
        order: int,
        work: Callable[[], None],
        failed: Callable[[Exception], None] | None,
    ) -> None:
        self.priority = priority
        self.due = due
        self.order = order
        self.work = work
        self.failed = failed
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class CameraThread:
    """Runs jobs in the order of their priority, then of their posting, not before they are due.

    `trouble` is told of every error that a job raises, after the job's own `failed`.
    """

    def __init__(self, name: str, trouble: Callable[[Exception], None]) -> None:
        self._trouble = trouble
        self._refusal: Exception | None = None
        self._jobs: list[Job] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._stopping = False
        self._moved: float | None = None  # the last sign of life of the job that runs; None: none runs
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def post(
        self,
        priority: Priority,
        work: Callable[[], None],
        *,
        delay: float = 0.0,
        failed: Callable[[Exception], None] | None = None,
    ) -> Job:
        """Has `work` done after `delay` seconds. What it raises goes to `failed`.

        While the thread is suspended nothing is done: `failed` is told at once.
        """
        job = Job(priority, time.monotonic() + delay, next(self._order), work, failed)
        with self._changed:
            refusal = self._refusal
            if refusal is None and not self._stopping:
                self._jobs.append(job)
                self._changed.notify()
        if refusal is not None and failed is not None:
            failed(refusal)
        return job

    def post_always(self, work: Callable[[], None], *, delay: float = 0.0) -> Job:
        """Has `work` done even while the thread is suspended."""
        job = Job(Priority.CONTROL, time.monotonic() + delay, next(self._order), work, None)
        with self._changed:
            if not self._stopping:
                self._jobs.append(job)
                self._changed.notify()
        return job

    @property
    def ident(self) -> int | None:
        """Python's number of the thread, by which its log records are known."""
        return self._thread.ident

    def beat(self) -> None:
        """A long job gets on. In the camera thread."""
        self._moved = time.monotonic()

    def stuck(self, seconds: float) -> bool:
        """Whether the thread is dead, or its job has given no sign of life for so long. Any thread."""
        if not self._thread.is_alive():
            return not self._stopping
        moved = self._moved
        return moved is not None and time.monotonic() - moved > seconds

    def suspend(self, refusal: Exception) -> None:
        """There is no camera: forgets what waits, and refuses what comes with this error."""
        with self._changed:
            self._refusal = refusal
            self._jobs.clear()

    def resume(self) -> None:
        """There is a camera (again)."""
        with self._changed:
            self._refusal = None

    def stop(self, last: Callable[[], None] | None = None) -> None:
        """Forgets what waits, does `last`, and ends the thread; waits for that at most `STOP_TIME`."""
        with self._changed:
            self._jobs.clear()
            if last is not None:
                self._jobs.append(Job(Priority.ABORT, 0.0, next(self._order), last, None))
            self._stopping = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join(STOP_TIME)
            if self._thread.is_alive():
                log.error("the camera thread did not end within %.0f s", STOP_TIME)

    def _run(self) -> None:
        while (job := self._next()) is not None:
            self.beat()
            try:
                job.work()
            except Exception as error:
                for answer in (job.failed, self._trouble):
                    try:
                        if answer is not None:
                            answer(error)
                    except Exception:
                        log.exception("the answer to an error failed too (%s)", error)
            self._moved = None

    def _next(self) -> Job | None:
        """The next job, waited for; None when the thread is to end."""
        with self._changed:
            while True:
                self._jobs = [job for job in self._jobs if not job.cancelled]
                now = time.monotonic()
                due = [job for job in self._jobs if job.due <= now]
                if due:
                    job = min(due, key=lambda job: (job.priority, job.order))
                    self._jobs.remove(job)
                    return job
                if self._stopping:
                    return None
                self._changed.wait(min(job.due for job in self._jobs) - now if self._jobs else None)
