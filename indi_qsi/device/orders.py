# SPDX-License-Identifier: LGPL-2.1-or-later
"""The order book of a camera: requests that need it, in the order in which they were received.

    request -> submit: Busy -> [prepare] -> the first that may go -> work (camera thread) -> its answer ends

`device.rules` says when an order may go, and decision record 0013 why. An order in the book has not begun.
What it has begun (an exposure, a move of the filter wheel, a cool-down) belongs to its subject.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from indi_qsi.device.rules import RULES, Rule, When
from indi_qsi.device.subject import explain
from indi_qsi.properties import Answer, State, Vector
from usbproto.errors import QsiError

# Orders that may wait: every vector of the table once, and as much again for those that cannot replace one
# another.
MAX_WAITING = 2 * len(RULES)
# s that the preparation of an order may take; a disk that sleeps takes some seconds to wake up.
PREPARE_LIMIT = 15.0
# Threads for one vector that may look at a disk: one that hangs, and others for another disk meanwhile.
MAX_PREPARING = 3
NO_THREADS = QsiError("The system has no more threads", "End other programs")
FULL = f"Ignored: {MAX_WAITING} requests wait for the camera already. Try again when some of them are done"


@dataclass(eq=False, slots=True)
class Order:
    """One request. `work` carries it out in the camera thread and ends the answer, now or later.

    `failed` is given the error when that failed, and may end the answer by itself. `ready`: nothing is left
    to prepare. `done`: the work was done, or will not be.
    """

    answer: Answer[Any]
    rule: Rule
    work: Callable[[Order], None]
    failed: Callable[[Order, Exception], None] | None = None
    ready: bool = True
    done: bool = False

    @property
    def vector(self) -> Vector[Any]:
        """The vector that was set."""
        return self.answer.vector

    def carry_out(self) -> None:
        """In the camera thread. What is raised goes to `fail`."""
        self.work(self)
        self.done = True

    def fail(self, error: Exception) -> None:
        """The order was not carried out."""
        self.done = True
        if self.failed is not None:
            self.failed(self, error)
        self.answer.end(State.ALERT, message=explain(error))


class OrderBook:
    """Any thread submits; the camera thread takes.

    `allows` reports whether orders of a kind may go now. `changed` is called when one may have become due.
    """

    def __init__(self, allows: Callable[[When], bool]) -> None:
        self._allows = allows
        self.changed: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._waiting: list[Order] = []
        self._refusal: Exception | None = None
        self._preparing: Counter[str] = Counter()  # threads that look at a disk, by vector

    def submit(
        self,
        vector: Vector[Any],
        work: Callable[[Order], None],
        *,
        values: Mapping[str, Any] | None = None,
        rule: Rule | None = None,
        failed: Callable[[Order, Exception], None] | None = None,
        prepare: Callable[[], None] | None = None,
        prepared: Callable[[Order], None] | None = None,
        disk: str = "The disk",
    ) -> Order | None:
        """Accepts a request, which makes its vector Busy (with `values`); None if it was refused.

        `prepare` may wait for a `disk`, in a thread of its own, and raises `QsiError` to refuse the request.
        `prepared` is called when that is done, before the order may go. Never waits.
        """
        with self._lock:
            refusal = self._refusal
            if refusal is None and len(self._waiting) < MAX_WAITING:
                order = Order(vector.accept(values), rule or RULES[vector.name], work, failed)
                order.ready = prepare is None and prepared is None
                self._replace_older(order)
                self._waiting.append(order)
            elif refusal is None:
                refusal = QsiError(FULL)
        if refusal is not None:
            vector.refuse(explain(refusal))
            return None
        if prepare is None:
            self._prepared(order, prepared)
            return order
        late = QsiError(f"{disk} does not answer within {PREPARE_LIMIT:g} s", "Does its disk answer?")
        with self._lock:
            crowd = self._preparing[vector.name]
            self._preparing[vector.name] += crowd < MAX_PREPARING
        if crowd >= MAX_PREPARING:
            reason = f"{disk} has not answered {MAX_PREPARING} earlier requests yet"
            self.refuse(order, QsiError(reason, "Does its disk answer?"))
            return order
        arguments = order, prepare, prepared, late
        try:
            threading.Thread(target=self._prepare, args=arguments, name="prepare", daemon=True).start()
        except RuntimeError:
            self._prepared_one(vector)
            self.refuse(order, NO_THREADS)
        return order

    def _replace_older(self, newer: Order) -> None:
        """An older order for the same vector is not worth carrying out, if no other order counts on it."""
        for older in reversed(self._waiting):
            if older.vector is newer.vector and older.rule.when is not When.EXPOSURE:
                self._waiting.remove(older)
                older.answer.superseded()
                return
            if newer.rule.depends_on(older.rule):
                return

    def _prepare(
        self,
        order: Order,
        prepare: Callable[[], None],
        prepared: Callable[[Order], None] | None,
        late: Exception,
    ) -> None:
        # A disk may hang for ever, and then this thread does; the order must end all the same.
        limit = threading.Timer(PREPARE_LIMIT, self.refuse, (order, late))
        limit.daemon = True
        try:
            limit.start()
            prepare()
        except RuntimeError:
            self.refuse(order, NO_THREADS)
        except Exception as error:
            self.refuse(order, error)
        else:
            self._prepared(order, prepared)
        finally:
            limit.cancel()
            self._prepared_one(order.vector)

    def _prepared_one(self, vector: Vector[Any]) -> None:
        with self._lock:
            self._preparing[vector.name] -= 1

    def _prepared(self, order: Order, prepared: Callable[[Order], None] | None) -> None:
        if prepared is not None and order in self._waiting:
            prepared(order)
        order.ready = True
        self.changed()

    def refuse(self, order: Order, error: Exception) -> None:
        """Ends an order that has not begun, as not carried out; nothing if it has. Any thread."""
        if self._remove(order):
            order.fail(error)

    def withdraw(self, vector: Vector[Any], before: Order | None = None) -> list[Order] | None:
        """Takes the orders for a vector out of the book that were received earlier than `before` (None: all).

        Returns them, and leaves their answers to the caller; None, and nothing is done, if `before` is not in
        the book. Any thread.
        """
        with self._lock:
            if before is not None and before not in self._waiting:
                return None
            end = self._waiting.index(before) if before is not None else len(self._waiting)
            gone = [order for order in self._waiting[:end] if order.vector is vector]
            self._waiting = [order for order in self._waiting if order not in gone]
        return gone

    def _remove(self, order: Order) -> bool:
        with self._lock:
            there = order in self._waiting
            if there:
                self._waiting.remove(order)
            return there

    def suspend(self, refusal: Exception, reason: Exception) -> None:
        """The camera is gone: new requests are refused with `refusal`; those that wait end for `reason`."""
        with self._lock:
            self._refusal = refusal
            gone, self._waiting = self._waiting, []
        for order in gone:
            order.fail(reason)

    def resume(self) -> None:
        """There is a camera (again)."""
        with self._lock:
            self._refusal = None

    def take(self) -> Order | None:
        """The first order that may go, which is no longer in the book then. Camera thread."""
        with self._lock:
            passed: list[Order] = []
            for order in self._waiting:
                if (
                    order.ready
                    and self._allows(order.rule.when)
                    and not any(order.rule.depends_on(earlier.rule) for earlier in passed)
                ):
                    self._waiting.remove(order)
                    return order
                passed.append(order)
            return None

    @property
    def waiting(self) -> int:
        """How many orders wait."""
        return len(self._waiting)
