# SPDX-License-Identifier: LGPL-2.1-or-later
"""A clock for tests that wait a lot: time passes as ever, but whenever every thread waits, it jumps to the
moment at which the first of them would wake up.

So a time limit of a minute costs nothing, and a busy machine makes no time limit run out: while any thread has
something to do, only real time passes. Driver and simulated camera live by the same clock and notice nothing.
It replaces `time.monotonic`, `time.time`, `time.sleep`, the waiting of `threading.Condition` (and so events,
timers and queues of ours) and `Thread.join` while it is installed.

Threads that wait in any other way (for a socket, say) count as busy; there must be none. Those that were there
before, but for the one that installs it, do not count at all.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any, Self

_monotonic, _wall, _sleep = time.monotonic, time.time, time.sleep
_join = threading.Thread.join
_condition_wait = threading.Condition.wait

LOOK = 0.002  # real s between looks whether a thread that ended has left only waiting ones
IDLE = 0.1  # of a processor: less than that is used by the looks alone


class _Waiter:
    """In the place of the lock on which a thread waits in `Condition.wait`."""

    def __init__(self, clock: Clock, deadline: float | None) -> None:
        self.deadline = deadline
        self.expired = False
        self._clock = clock
        self._over = False
        self._lock = threading.Lock()
        self._lock.acquire()
        clock._wait(self)

    def block(self) -> None:
        self._lock.acquire()

    def release(self) -> None:
        """By `notify`; raises RuntimeError when the wait is over already, as a lock would."""
        with self._clock._mutex:
            if self._over:
                raise RuntimeError("nobody waits any more")
            self.end()

    def end(self) -> None:
        """With the clock's mutex held."""
        self._over = True
        self._clock._waiters.discard(self)
        self._lock.release()


class Clock:
    """Use it as a context manager. `step` sets the wall clock without touching the monotonic one.

    `blocked`: after so many real seconds in which the process has done nothing, a thread that is not known to
    wait counts as waiting: it waits for a lock that a waiting thread holds. None: there must be no such thread.
    """

    def __init__(self, blocked: float | None = None) -> None:
        self._blocked = blocked
        self._mutex = threading.Lock()
        self._waiters: set[_Waiter] = set()
        self._joining = 0
        self._jumped = 0.0
        self._stepped = 0.0
        self._foreign: set[threading.Thread] = set()
        self._installed = False
        self.jumps = 0

    def monotonic(self) -> float:
        return _monotonic() + self._jumped

    def wall(self) -> float:
        return _wall() + self._jumped + self._stepped

    def step(self, seconds: float) -> None:
        self._stepped += seconds

    def sleep(self, seconds: float) -> None:
        if threading.current_thread() in self._foreign:
            _sleep(seconds)
        else:
            _Waiter(self, self.monotonic() + seconds).block()

    def _wait(self, waiter: _Waiter) -> None:
        with self._mutex:
            self._waiters.add(waiter)
            self._jump()

    def _jump(self, blocked: bool = False) -> None:
        """With the mutex held: to the next deadline, if everybody waits."""
        # Asked each time who is there: one of the foreign threads may just have ended.
        everybody = len(set(threading.enumerate()) - self._foreign)
        if len(self._waiters) + self._joining < everybody and not blocked:
            return
        deadlines = [waiter.deadline for waiter in self._waiters if waiter.deadline is not None]
        if not deadlines:
            return
        now = self.monotonic()
        until = min(deadlines)
        if until > now:
            self._jumped += until - now
            self.jumps += 1
            now = until
        for waiter in [w for w in self._waiters if w.deadline is not None and w.deadline <= now]:
            waiter.expired = True
            waiter.end()

    def _run(self) -> None:
        idle_since, jumps, used = _monotonic(), self.jumps, time.process_time()
        while self._installed:
            _sleep(LOOK)
            if self.jumps != jumps or time.process_time() - used > IDLE * (_monotonic() - idle_since) + LOOK:
                idle_since, jumps, used = _monotonic(), self.jumps, time.process_time()
            blocked = self._blocked is not None and _monotonic() - idle_since > self._blocked
            with self._mutex:
                self._jump(blocked)

    def __enter__(self) -> Self:
        clock = self

        def wait(self: Any, timeout: float | None = None) -> bool:
            if threading.current_thread() in clock._foreign:
                return _condition_wait(self, timeout)
            if not self._is_owned():
                raise RuntimeError("cannot wait on un-acquired lock")
            waiter = _Waiter(clock, None if timeout is None else clock.monotonic() + timeout)
            self._waiters.append(waiter)
            saved = self._release_save()
            try:
                waiter.block()
            finally:
                self._acquire_restore(saved)
                if waiter.expired and waiter in self._waiters:
                    self._waiters.remove(waiter)
            return not waiter.expired

        def join(self: threading.Thread, timeout: float | None = None) -> None:
            if threading.current_thread() in clock._foreign:
                _join(self, timeout)
                return
            with clock._mutex:
                clock._joining += 1
                clock._jump()
            try:
                _join(self, timeout)
            finally:
                with clock._mutex:
                    clock._joining -= 1

        self._installed = True
        self._foreign = set(threading.enumerate()) - {threading.current_thread()}
        self._ticker = threading.Thread(target=self._run, name="clock of the test", daemon=True)
        self._foreign.add(self._ticker)
        self._ticker.start()
        time.monotonic, time.time, time.sleep = self.monotonic, self.wall, self.sleep
        threading._time = self.monotonic  # type: ignore[attr-defined]
        threading.Condition.wait = wait  # type: ignore[method-assign]
        threading.Thread.join = join  # type: ignore[method-assign]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        time.monotonic, time.time, time.sleep = _monotonic, _wall, _sleep
        threading._time = _monotonic  # type: ignore[attr-defined]
        threading.Condition.wait = _condition_wait  # type: ignore[method-assign]
        threading.Thread.join = _join  # type: ignore[method-assign]
        self._installed = False
        self._ticker.join()
