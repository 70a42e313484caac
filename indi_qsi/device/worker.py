# SPDX-License-Identifier: LGPL-2.1-or-later
"""The camera thread: owns the camera and does one thing at a time.

A handler of a client's request submits an order to the order book and returns; it never talks to the camera
itself. Beside the orders there are jobs: what overtakes them, the next steps of what an order has begun, and
polls. All are short (a few commands), but for the two that the camera itself makes long: the start of an
exposure and the transfer of an image.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable
from enum import IntEnum

from indi_qsi.device.orders import Order, OrderBook

log = logging.getLogger(__name__)

# A job that is running when the process ends may be a transfer: it gets this long to come to its end, which
# is what the largest image of a 500 Series takes. Only then can the camera be left in order.
STOP_TIME = 20.0  # s
# What the name of every camera's thread begins with, before that of its device. By it the log's records are
# told apart.
THREAD_NAME = "camera "


class Priority(IntEnum):
    """Which job goes first when several are due. Orders go after steps, and before polls."""

    URGENT = 0  # abort, connect, disconnect
    GUIDE = 1
    STEP = 2  # of what an order has begun
    POLL = 3


class Job:
    """Something for the camera thread to do. `cancel()` has no effect on a job that has begun."""

    __slots__ = ("always", "cancelled", "due", "failed", "number", "priority", "work")

    def __init__(
        self,
        priority: Priority,
        due: float,
        number: int,
        work: Callable[[], None],
        failed: Callable[[Exception], None] | None = None,
        always: bool = False,
    ) -> None:
        self.priority = priority
        self.due = due
        self.number = number
        self.work = work
        self.failed = failed
        self.always = always  # also without a camera
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def carry_out(self) -> None:
        """In the camera thread. What is raised goes to `fail`."""
        self.work()

    def fail(self, error: Exception) -> None:
        """The job failed."""
        if self.failed is not None:
            self.failed(error)


class CameraThread:
    """Carries out urgent jobs, then steps, then orders, then polls; jobs not before they are due.

    `trouble` gets every error that a job or an order raises, after its own `fail`.
    """

    def __init__(self, name: str, orders: OrderBook, trouble: Callable[[Exception], None]) -> None:
        self._orders = orders
        self._trouble = trouble
        self._refusal: Exception | None = None
        self._jobs: list[Job] = []
        self._number = itertools.count()
        self._changed = threading.Condition()
        self._stopping = False
        self._moved: float | None = None  # the last sign of life of what runs; None: nothing runs
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        orders.changed = self.wake
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

        While the thread is suspended nothing is done: `failed` gets the reason at once.
        """
        job = Job(priority, time.monotonic() + delay, next(self._number), work, failed)
        with self._changed:
            refusal = self._refusal
            if refusal is None and not self._stopping:
                self._jobs.append(job)
                self._changed.notify()
        if refusal is not None and failed is not None:
            failed(refusal)
        return job

    def post_always(self, work: Callable[[], None], *, delay: float = 0.0) -> Job:
        """Has `work` done as urgent, even while the thread is suspended."""
        job = Job(Priority.URGENT, time.monotonic() + delay, next(self._number), work, always=True)
        with self._changed:
            if not self._stopping:
                self._jobs.append(job)
                self._changed.notify()
        return job

    def wake(self) -> None:
        """An order may have become due. Any thread."""
        with self._changed:
            self._changed.notify()

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

    def suspend(self, refusal: Exception, reason: Exception) -> None:
        """The camera is gone: new requests and jobs are refused with `refusal`.

        Requests that wait end for `reason`; jobs that wait are forgotten, but for those of `post_always`.
        """
        with self._changed:
            self._refusal = refusal
            self._jobs = [job for job in self._jobs if job.always]
        self._orders.suspend(refusal, reason)

    def resume(self) -> None:
        """There is a camera (again)."""
        with self._changed:
            self._refusal = None
        self._orders.resume()

    def stop(self, last: Callable[[], None] | None = None) -> None:
        """Forgets what waits, does `last`, and ends the thread; waits for that at most `STOP_TIME`."""
        with self._changed:
            self._jobs.clear()
            if last is not None:
                self._jobs.append(Job(Priority.URGENT, 0.0, next(self._number), last))
            self._stopping = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join(STOP_TIME)
            if self._thread.is_alive():
                log.error("the camera thread did not end within %.0f s", STOP_TIME)

    def _run(self) -> None:
        while (todo := self._next()) is not None:
            self.beat()
            try:
                todo.carry_out()
            except Exception as error:
                for answer in (todo.fail, self._trouble):
                    try:
                        answer(error)
                    except Exception:
                        log.exception("the answer to an error failed too (%s)", error)
            self._moved = None

    def _next(self) -> Job | Order | None:
        """What is to be done next, waited for; None when the thread is to end."""
        with self._changed:
            while True:
                self._jobs = [job for job in self._jobs if not job.cancelled]
                now = time.monotonic()
                due = [job for job in self._jobs if job.due <= now]
                job = min(due, key=lambda job: (job.priority, job.number), default=None)
                if job is None or job.priority is Priority.POLL:
                    order = self._orders.take() if not self._stopping else None
                    if order is not None:
                        return order
                if job is not None:
                    self._jobs.remove(job)
                    return job
                if self._stopping:
                    return None
                self._changed.wait(min(job.due for job in self._jobs) - now if self._jobs else None)
