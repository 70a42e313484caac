# SPDX-License-Identifier: LGPL-2.1-or-later
"""What all vectors have in common: elements, state, permission, updates, requests.

A vector may be changed by any thread. One lock guards the whole model; changes are short, and every
link sees them in the order in which they were made. Nothing waits for a link while it is held.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from threading import RLock
from typing import ClassVar, Generic, Protocol, TypeVar

from indi_qsi.properties.elements import Level, Permission, check_name
from indi_qsi.properties.ports import LinkPort
from indi_qsi.wire import writer
from indi_qsi.wire.messages import Kind, NewVector, State

V = TypeVar("V")  # the type of the values: float, str, bool or State

# One lock for all vectors: a second one could only be taken in the wrong order.
MODEL_LOCK = RLock()

_log = logging.getLogger(__name__)


class Rejected(Exception):
    """Values, a client's or saved ones, that the vector itself refuses. `state` is what it then goes to."""

    def __init__(self, state: State, message: str) -> None:
        super().__init__(message)
        self.state = state
        self.message = message


class Element(Protocol):
    """What every element has."""

    @property
    def name(self) -> str: ...

    @property
    def label(self) -> str: ...


class Owner(Protocol):
    """What a vector needs of its device."""

    @property
    def name(self) -> str: ...

    @property
    def live(self) -> bool: ...

    def post(self, vector: str, data: bytes) -> None: ...

    def message(self, text: str, level: Level = Level.INFO) -> None: ...

    def log(self, text: str, level: Level) -> None: ...


@dataclass(frozen=True, slots=True)
class Request(Generic[V]):
    """A client's request that fits the vector.

    `given` are the values the client gave, `values` those the vector would then have, `link` is
    where it came from (None: from the driver itself, for example from the config file).
    """

    vector: Vector[V]
    values: Mapping[str, V]
    given: Mapping[str, V]
    link: LinkPort | None


Handler = Callable[[Request[V]], None]


class Answer(Generic[V]):
    """One accepted request on its way: it is open until it is ended, once. See `Vector.accept`."""

    def __init__(self, vector: Vector[V]) -> None:
        self.vector = vector

    @property
    def open(self) -> bool:
        """Whether the request has not ended yet."""
        return self.vector.is_open(self)

    def end(
        self,
        state: State,
        values: Mapping[str, V] | None = None,
        *,
        message: str | None = None,
        level: Level = Level.ERROR,
    ) -> bool:
        """Ends the request; False, and nothing is sent, if it had ended before.

        While another request of the vector is open the vector stays Busy: only values and message are sent.
        """
        return self.vector.close(self, state, values, message, level)

    def dissolve(self) -> None:
        """The request was dealt with by other means: the vector goes to the state that it would have."""
        self.vector.dissolve(self)

    def superseded(self) -> None:
        """A newer request of the vector takes its place, and ends for both."""
        self.end(State.IDLE)


def tagged(text: str | None, level: Level) -> str | None:
    """A message with its level in front, as clients know it from other drivers."""
    return None if text is None else f"[{level.value}] {text}"


class Vector(Generic[V]):
    """Base of the five kinds of vectors.

    `on_request` gets each valid request in the thread of the link and must answer it: now by `set`
    or `refuse`, or later by `accept` and the end of that `Answer`. It must not wait. Without it,
    requests are simply applied.
    """

    kind: ClassVar[Kind]

    def __init__(
        self,
        name: str,
        label: str,
        group: str,
        elements: Iterable[Element],
        *,
        permission: Permission,
        state: State = State.IDLE,
        timeout: float = 0.0,
        on_request: Handler[V] | None = None,
    ) -> None:
        self.name = check_name(name)
        self.label = label
        self.group = group
        self.permission = permission
        self.timeout = timeout
        self.on_request = on_request
        self._state = state
        self._wanted = state  # the state that was last asked for, while a request is open
        self._values: dict[str, V] = {}
        self._labels = {check_name(element.name): element.label for element in elements}
        self._owner: Owner | None = None
        self._open: list[Answer[V]] = []  # accepted requests that have not ended

    # Reading.

    @property
    def state(self) -> State:
        """The present state."""
        return self._state

    @property
    def values(self) -> dict[str, V]:
        """A copy of the present values, in the order of the elements."""
        with MODEL_LOCK:
            return dict(self._values)

    def __getitem__(self, element: str) -> V:
        """The present value of one element. Raises KeyError."""
        return self._values[element]

    @property
    def elements(self) -> tuple[str, ...]:
        """The names of the elements, in their order."""
        return tuple(self._labels)

    @property
    def defined(self) -> bool:
        """Whether clients can see the vector."""
        return self._owner is not None and self._owner.live

    def attach(self, owner: Owner | None) -> None:
        """For devices: makes the vector part of a device, or of none."""
        if owner is not None and self._owner is not None:
            raise ValueError(f"{self.name} already belongs to {self._owner.name}")
        self._owner = owner
        if owner is None and self._open:
            self._open.clear()
            self._state = State.IDLE

    # Accepted requests.

    @property
    def pending(self) -> bool:
        """Whether a request was accepted and has not ended."""
        return bool(self._open)

    def accept(self, values: Mapping[str, V] | None = None) -> Answer[V]:
        """Accepts a request that is carried out later: Busy until all open requests have ended.

        Meanwhile `set` and `show` change values only, whatever state they are given.
        """
        with MODEL_LOCK:
            answer = Answer(self)
            if not self._open:
                self._wanted = self._state
            self._open.append(answer)
            self._state = State.BUSY
            self.set(values)
        return answer

    def end_all(
        self,
        state: State,
        values: Mapping[str, V] | None = None,
        *,
        message: str | None = None,
        level: Level = Level.ERROR,
    ) -> None:
        """Ends all open requests by one update, which is sent even if none is open."""
        with MODEL_LOCK:
            self._open.clear()
            self.set(values, state=state, message=message, level=level)

    def is_open(self, answer: Answer[V]) -> bool:
        """For answers."""
        with MODEL_LOCK:
            return answer in self._open

    def close(
        self,
        answer: Answer[V],
        state: State,
        values: Mapping[str, V] | None,
        message: str | None,
        level: Level,
    ) -> bool:
        """For answers."""
        with MODEL_LOCK:
            if answer not in self._open:
                return False
            self._open.remove(answer)
            if not self._open or values or message is not None:
                self.set(values, state=state, message=message, level=level)
            return True

    def dissolve(self, answer: Answer[V]) -> None:
        """For answers."""
        with MODEL_LOCK:
            if answer in self._open:
                self._open.remove(answer)
                if not self._open:
                    self.set(state=self._wanted)

    # Changing.

    def set(
        self,
        values: Mapping[str, V] | None = None,
        *,
        state: State | None = None,
        message: str | None = None,
        level: Level = Level.INFO,
    ) -> None:
        """Changes values and state at once, and sends them to the clients, even if nothing is new.

        While a request is open, the state stays Busy: it belongs to the request. Before the vector is defined
        it only stores. Raises KeyError for an unknown element and ValueError for a value that cannot be sent;
        then nothing has changed.
        """
        with MODEL_LOCK:
            if values:
                self._values.update(self._checked(values))
            if state is not None:
                self._wanted = state
                if not self._open:
                    self._state = state
            self._tell(message, level)

    def show(self, values: Mapping[str, V], *, state: State) -> None:
        """As `set`, but only what is new is sent to the clients."""
        with MODEL_LOCK:
            if self._open:
                state = self._state
            checked = self._checked(values)
            if state is not self._state or any(
                self._values[name] != value for name, value in checked.items()
            ):
                self.set(values, state=state)

    def restore(self, texts: Iterable[tuple[str, str]]) -> None:
        """Takes over saved values, unasked, before clients know the vector. Raises Rejected."""
        with MODEL_LOCK:
            self.set(self._request(texts, None).values, state=State.OK)

    def refuse(self, message: str, state: State = State.ALERT) -> None:
        """Answers a request that was not accepted, by a message.

        The values stay as they are. So does a Busy: it speaks of an earlier request, which goes on.
        """
        with MODEL_LOCK:
            kept = None if self._state is State.BUSY else state
            self.set(state=kept, message=message, level=Level.ERROR)
            self._wanted = state

    def _tell(self, message: str | None, level: Level, items: list[writer.Item] | None = None) -> None:
        owner = self._owner
        if message is not None and owner is not None:
            owner.log(f"{self.name}: {message}", level)
        if owner is None or not owner.live:
            return
        data = writer.set_vector(
            self.kind,
            owner.name,
            self.name,
            self._items() if items is None else items,
            state=self._state,
            timeout=self._wire_timeout(),
            message=tagged(message, level),
        )
        owner.post(self.name, data)

    # Rendering.

    def definition(self, device: str) -> bytes:
        """The present definition, with the present values and state."""
        with MODEL_LOCK:
            items: list[writer.Item] = [
                (name, text, (("label", self._labels[name] or name), *self._details(name)))
                for name, text, _ in self._items()
            ]
            return writer.define_vector(
                self.kind,
                device,
                self.name,
                items,
                label=self.label or self.name,
                group=self.group,
                state=self._state,
                permission=None if self.kind is Kind.LIGHT else self.permission.value,
                timeout=self._wire_timeout(),
                rule=self._wire_rule(),
            )

    def as_request(self, device: str) -> NewVector:
        """The present values as a client's request that would restore them."""
        with MODEL_LOCK:
            pairs = tuple((name, text) for name, text, _ in self._items())
        return NewVector(self.kind, device, self.name, pairs)

    def _items(self) -> list[writer.Item]:
        return [(name, self._text(value), ()) for name, value in self._values.items()]

    def _wire_timeout(self) -> float | None:
        return None if self.kind is Kind.LIGHT else self.timeout

    def _wire_rule(self) -> str | None:
        return None

    def _details(self, element: str) -> tuple[tuple[str, str], ...]:
        return ()

    # Requests.

    def receive(self, message: NewVector, link: LinkPort | None) -> None:
        """For devices: checks a client's request, then applies it or hands it to the handler."""
        owner = self._owner
        if owner is None:
            return
        if self.permission is Permission.RO:
            owner.message(f"Cannot set read-only property {self.name}", Level.ERROR)
            return
        if message.kind is not self.kind:
            text = f"{self.name} is a {self.kind.value} vector, not a {message.kind.value} vector"
            owner.message(text, Level.ERROR)
            return
        with MODEL_LOCK:
            try:
                request = self._request(message.values, link)
            except Rejected as rejected:
                self.refuse(rejected.message, rejected.state)
                return
            if self.on_request is None:
                self.set(request.values, state=State.OK)
                return
            before = list(self._open)
        try:
            self.on_request(request)
        except Exception as error:
            _log.exception("%s.%s: a request failed", owner.name, self.name)
            text = f"internal error: {error!r}"
            accepted = [answer for answer in list(self._open) if answer not in before]
            for answer in accepted:
                answer.end(State.ALERT, message=text)
            if not accepted:
                self.refuse(text)

    def _request(self, texts: Iterable[tuple[str, str]], link: LinkPort | None) -> Request[V]:
        given: dict[str, V] = {}
        for name, text in texts:
            if name not in self._values:
                known = ", ".join(self._values)
                raise Rejected(State.IDLE, f"{self.name} has no element {name!r}; it has {known}")
            given[name] = self._parse(name, text)
        if not given:
            raise Rejected(State.IDLE, f"a request for {self.name} without elements")
        return Request(self, self._merged(given), given, link)

    # What the kinds differ in.

    def _checked(self, values: Mapping[str, V]) -> Mapping[str, V]:
        """The values the driver sets, made fit for the wire. KeyError, ValueError."""
        for name in values:
            if name not in self._values:
                raise KeyError(f"{self.name} has no element {name}")
        return values

    def _merged(self, given: dict[str, V]) -> dict[str, V]:
        """All values the vector would have after a request. Raises Rejected."""
        return {**self._values, **given}

    def _parse(self, name: str, text: str) -> V:
        """A client's text as a value. Raises Rejected."""
        raise NotImplementedError

    def _text(self, value: V) -> str:
        """A value as it goes out."""
        raise NotImplementedError
