# SPDX-License-Identifier: LGPL-2.1-or-later
"""The filter wheel: FILTER_SLOT, FILTER_NAME, focus offsets and trims.

Slots count from 1 for clients, positions from 0 in the camera. Names, offsets and trims are kept by the host
for each camera; the camera's own memory is not written to.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any
from unicodedata import category

from indi_qsi.device.activity import Activity
from indi_qsi.device.memory import Memory
from indi_qsi.device.orders import Order, OrderBook
from indi_qsi.device.subject import Subject, explain, saved_or_not
from indi_qsi.device.worker import CameraThread, Priority
from indi_qsi.properties import (
    Answer,
    Level,
    NumberElement,
    NumberVector,
    Permission,
    Request,
    State,
    TextElement,
    TextVector,
    Vector,
)
from usbproto.errors import Disconnected, ProtocolError, QsiError, Refused, TimedOut

if TYPE_CHECKING:
    from usbproto.camera import Camera
    from usbproto.wheel import FilterWheel

FILTER_WHEEL = "Filter Wheel"
TIMEOUT = 60.0  # s, advisory
SLOT = "FILTER_SLOT_VALUE"
SECTION = "wheel"
MOVE_LIMIT = 60.0  # s; a move takes a second or two, a search for the home position some more
MOVE_POLL = 0.1  # s between questions whether the wheel is there
NAME_LENGTH = 64  # characters
# The Guide's order; further slots are just numbered.
DEFAULT_NAMES = ("Red", "Green", "Blue", "Luminance")
OFFSET_LIMIT = 100_000  # focuser steps, either sign
TRIM_LIMIT = 1000  # motor steps, either sign; the Guide's trims are small corrections

LOST = "The camera was lost while the filter wheel moved"


@dataclass(eq=False)
class Move:
    """A move on its way; `slot` None: wherever it ends. `limit` is monotonic."""

    slot: int | None
    answer: Answer[float]
    limit: float

    def check_time(self) -> None:
        """Raises `TimedOut`."""
        if time.monotonic() > self.limit:
            raise TimedOut("the move of the filter wheel", MOVE_LIMIT)


def default_name(slot: int) -> str:
    """The name of a slot, from 1, that was never named."""
    return DEFAULT_NAMES[slot - 1] if slot <= len(DEFAULT_NAMES) else f"Filter {slot}"


class FilterSubject(Subject):
    """`report` gets what the camera says of its wheel at connect."""

    def __init__(
        self,
        thread: CameraThread,
        orders: OrderBook,
        activity: Activity,
        memory: Memory,
        report: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        self._thread = thread
        self._orders = orders
        self._activity = activity
        self._memory = memory
        self._report = report
        self._wheel: FilterWheel | None = None
        self._serial = ""
        self._move: Move | None = None
        self._known = False  # whether FILTER_SLOT is where the wheel is; its state may be about a request
        self._trimmed: set[int] = set()  # slots whose trim is new since their last move
        self._complaint: Exception | None = None
        self._build(1)

    def _build(self, count: int) -> None:
        """Vectors have fixed elements, so a wheel of another size gets new ones."""
        slots = range(1, count + 1)
        self.slot = NumberVector(
            "FILTER_SLOT",
            "Filter Slot",
            FILTER_WHEEL,
            (NumberElement(SLOT, "Filter", 1, "%.f", 1, count, 1),),
            permission=Permission.RW,
            timeout=TIMEOUT,
            on_request=self._slot_requested,
        )
        self.names = TextVector(
            "FILTER_NAME",
            "Filter",
            FILTER_WHEEL,
            [
                TextElement(f"FILTER_SLOT_NAME_{n}", f"Filter#{n}", default_name(n), NAME_LENGTH)
                for n in slots
            ],
            permission=Permission.RW,
            on_request=self._names_requested,
        )
        self.offsets = NumberVector(
            "FILTER_FOCUS_OFFSET",
            "Focus Offset",
            FILTER_WHEEL,
            [
                NumberElement(
                    f"FILTER_OFFSET_{n}", f"Filter#{n} (steps)", 0, "%.f", -OFFSET_LIMIT, OFFSET_LIMIT, 1
                )
                for n in slots
            ],
            permission=Permission.RW,
            on_request=self._numbers_requested,
        )
        self.trims = NumberVector(
            "FILTER_TRIM",
            "Position Trim",
            FILTER_WHEEL,
            [
                NumberElement(f"FILTER_TRIM_{n}", f"Filter#{n} (steps)", 0, "%.f", -TRIM_LIMIT, TRIM_LIMIT, 1)
                for n in slots
            ],
            permission=Permission.RW,
            on_request=self._numbers_requested,
        )

    def vectors(self) -> Sequence[Vector[Any]]:
        return (self.slot, self.names, self.offsets, self.trims) if self._wheel is not None else ()

    def saved(self) -> Sequence[Vector[Any]]:
        # Names, offsets and trims belong to a camera, not to a device name: see `Memory`.
        return (self.slot,) if self._wheel is not None else ()

    @property
    def current(self) -> str | None:
        """The name of the filter in the light, None when it is unknown or there is no wheel."""
        if self._wheel is None or not self._known or self._move is not None:
            return None
        return self.names[f"FILTER_SLOT_NAME_{int(self.slot[SLOT])}"]

    def _set_move(self, move: Move | None) -> None:
        self._move = move
        self._activity.wheel_moving = move is not None

    # --- the camera comes and goes ---

    def connect(self, camera: Camera) -> None:
        self._wheel = camera.wheel
        self._set_move(None)
        self._trimmed.clear()
        if camera.wheel is None:
            return
        self._serial = camera.identity.serial
        if camera.wheel.count != len(self.names.elements):
            self._build(camera.wheel.count)
        kept = self._memory.get(self._serial, SECTION)
        for vector in (self.names, self.offsets, self.trims):
            _restore(vector, kept)
        if camera.wheel.moving():
            # A former program sent it off: `started` sees to its end.
            self._set_move(Move(None, self.slot.accept(), time.monotonic() + MOVE_LIMIT))
            return
        try:
            self._show(self._position(), State.OK)
        except (Refused, ProtocolError) as error:
            # The camera goes on working without its wheel.
            self._known = False
            self._complaint = error
            self.slot.set(state=State.ALERT)

    def started(self) -> None:
        """The wheel's vectors are defined; now a message about them has readers."""
        if self._complaint is not None:
            error, self._complaint = self._complaint, None
            self._report(error)
            self.slot.set(state=State.ALERT, message=explain(error), level=Level.ERROR)
        if (move := self._move) is not None:
            self._post(move, self._look)

    def renew(self, camera: Camera) -> None:
        """A wheel that starts anew finds its first position; and the camera forgets trims."""
        if self._wheel is None or self._move is not None:
            return
        try:
            real = self._position()
        except (Refused, ProtocolError) as error:
            self._known = False
            self.slot.set(state=State.ALERT, message=explain(error), level=Level.ERROR)
            return
        self._trimmed = {slot for slot, trim in enumerate(self.trims.values.values(), 1) if trim}
        if self._known and real != int(self.slot[SLOT]):
            self._show(real, State.ALERT, f"The camera has restarted: its filter wheel is at {real}")

    def lost(self) -> None:
        self._end_move(LOST)

    def disconnect(self) -> None:
        self._end_move("The camera was disconnected while the filter wheel moved")
        # The wheel's vectors are wanted once more, to be deleted; `connect` decides about the next ones.

    def _end_move(self, reason: str) -> None:
        if (move := self._move) is not None:
            self._set_move(None)
            move.answer.end(State.ALERT, message=reason)

    def _position(self) -> int:
        assert self._wheel is not None
        position = self._wheel.position()
        if position >= self._wheel.count:
            raise ProtocolError(f"the filter wheel of {self._wheel.count} slots says it is at {position + 1}")
        return position + 1

    # --- moving ---

    def _slot_requested(self, request: Request[float]) -> None:
        slot = round(request.values[SLOT])
        here = self._known and slot == int(self.slot[SLOT]) and slot not in self._trimmed
        if here and not self.slot.pending:
            self.slot.set(state=State.OK)
        elif self._activity.exposure_asked:
            self.slot.refuse("The filter cannot change during an exposure; wait for its end or abort it")
        else:
            self._orders.submit(self.slot, lambda order: self._begin(order, slot))

    def _begin(self, order: Order, slot: int) -> None:
        """The wheel stands still, and no exposure runs."""
        wheel = self._wheel
        if wheel is None:
            return
        move = Move(slot, order.answer, time.monotonic() + MOVE_LIMIT)
        self._set_move(move)
        try:
            if any(self.trims.values.values()):
                # Asked even if this slot has none: the camera keeps the trim of another.
                wheel.has_trims()
            wheel.move(slot - 1, round(self.trims[f"FILTER_TRIM_{slot}"]))
        except Disconnected:
            self._end_move(LOST)
            raise
        except QsiError as error:
            self._failed(move, error)
            raise
        self._trimmed.discard(slot)
        self._post(move, self._look)

    def _post(self, move: Move, work: Callable[[Move, FilterWheel], None], delay: float = 0.0) -> None:
        def step() -> None:
            if self._wheel is not None and self._move is move:
                work(move, self._wheel)

        self._thread.post(Priority.STEP, step, delay=delay, failed=lambda error: self._failed(move, error))

    def _look(self, move: Move, wheel: FilterWheel) -> None:
        if wheel.moving():
            move.check_time()
            self._post(move, self._look, MOVE_POLL)
            return
        real = self._position()
        self._set_move(None)
        if move.slot in (None, real):
            self._arrived(move, real, State.OK)
        else:
            self._arrived(
                move,
                real,
                State.ALERT,
                f"The filter wheel is at {real} instead of {move.slot}; power the camera off and on "
                "if it happens again",
            )

    def _arrived(self, move: Move, real: int, state: State, message: str | None = None) -> None:
        self._known = True
        move.answer.end(state, {SLOT: real}, message=message)

    def _show(self, real: int, state: State, message: str | None = None) -> None:
        self._known = True
        self.slot.set({SLOT: real}, state=state, message=message, level=Level.ERROR)

    def _failed(self, move: Move, error: Exception) -> None:
        if self._move is not move:
            return
        if isinstance(error, Disconnected):
            return  # `lost` answers
        self._set_move(None)
        self._known = False
        reason = f"The filter wheel could not be moved: {explain(error)}"
        if self._wheel is not None and not isinstance(error, TimedOut):
            try:
                self._arrived(move, self._position(), State.ALERT, reason)
                return
            except Exception:  # the error above is the one to report
                pass
        move.answer.end(State.ALERT, message=reason)

    # --- names, offsets, trims ---

    def _names_requested(self, request: Request[str]) -> None:
        empty = [name for name, text in request.values.items() if not text.strip()]
        if empty:
            self.names.refuse(f"{', '.join(empty)}: a filter needs a name of 1 to {NAME_LENGTH} characters")
            return
        self._keep(self.names, {name: text.strip() for name, text in request.values.items()})

    def _numbers_requested(self, request: Request[float]) -> None:
        values = {name: round(value) for name, value in request.values.items()}
        if request.vector is self.trims:
            self._trimmed |= {slot for slot, name in enumerate(values, 1) if values[name] != self.trims[name]}
        self._keep(request.vector, values)

    def _keep(self, vector: Vector[Any], values: dict[str, Any]) -> None:
        answer = vector.accept(values)
        kept = self._memory.get(self._serial, SECTION) | values
        self._memory.put(self._serial, SECTION, kept, lambda error: saved_or_not(answer, error))


def _is_name(text: str) -> bool:
    """Whether a client could have given this name; the file may have been written by hand."""
    return bool(text.strip()) and not any(category(c) in ("Cc", "Cs") and c != "\t" for c in text)


def _restore(vector: Vector[Any], kept: dict[str, Any]) -> None:
    """Takes over what is kept, element by element; what does not fit is left at its default."""
    values: dict[str, Any] = {}
    for name in vector.elements:
        value = kept.get(name)
        if isinstance(vector, TextVector):
            if isinstance(value, str) and value.strip() and value.isprintable():
                values[name] = value[:NAME_LENGTH]
        elif isinstance(vector, NumberVector) and isinstance(value, int | float) and isfinite(value):
            low, high = vector.limits(name)
            values[name] = min(max(float(value), low), high)
    vector.show(values, state=vector.state)  # nothing new is said when a lost camera is back
