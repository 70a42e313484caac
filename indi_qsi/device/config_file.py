# SPDX-License-Identifier: LGPL-2.1-or-later
"""CONFIG_PROCESS, and vectors that are saved as soon as a client changes them.

The storage thread reads and writes the file; a request ends when that is done. While a file is being loaded,
requests that came later wait: they may depend on what the file says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from indi_qsi.device.rules import RULES, When
from indi_qsi.device.subject import OPTIONS
from indi_qsi.properties import (
    Answer,
    Device,
    Level,
    NumberVector,
    Permission,
    Rejected,
    Request,
    Rule,
    State,
    SwitchElement,
    SwitchVector,
    Vector,
)
from indi_qsi.properties.config import Config, ConfigError
from indi_qsi.storage import Storage, reason
from indi_qsi.wire.messages import NewVector
from indi_qsi.wire.numbers import format_number, parse_number

LOAD, SAVE, DEFAULT, PURGE = "CONFIG_LOAD", "CONFIG_SAVE", "CONFIG_DEFAULT", "CONFIG_PURGE"
# What does not wait for a file that is being loaded.
OVERTAKING = frozenset({"CONNECTION", *(name for name, rule in RULES.items() if rule.when is When.OVERTAKES)})


def config_process(on_request: Callable[[Request[bool]], None]) -> SwitchVector:
    """CONFIG_PROCESS."""
    return SwitchVector(
        "CONFIG_PROCESS",
        "Configuration",
        OPTIONS,
        (
            SwitchElement(LOAD, "Load"),
            SwitchElement(SAVE, "Save"),
            SwitchElement(DEFAULT, "Default"),
            SwitchElement(PURGE, "Purge"),
        ),
        permission=Permission.RW,
        rule=Rule.AT_MOST_ONE,
        on_request=on_request,
    )


class ConfigFile:
    """The config file of a device. `saved` returns the vectors that belong into it."""

    def __init__(self, device: Device, storage: Storage) -> None:
        self._device = device
        self._storage = storage
        self._config = Config(device.name)
        self.folder = self._config.path.parent
        self.saved: Callable[[], Iterable[Vector[Any]]] = lambda: ()
        self.vector = config_process(self._requested)

    def load_first(self, kept: Iterable[Vector[Any]]) -> None:
        """Brings back what holds unasked: what is defined already, and (`kept`) what comes with the camera.

        At the start of the driver; waits for the disk.
        """
        try:
            requests = self._config.load()
        except ConfigError as error:
            self._device.message(str(error), Level.WARNING)
            return
        self._apply(requests)
        # Restored as soon as they are defined, they might undo what a client asked for a moment before.
        for vector, request in self._meant_for(kept, requests):
            try:
                vector.restore(request.values)
            except Rejected as rejected:
                self._device.message(f"{self._config.path}: {rejected}", Level.WARNING)

    def keep(self, vector: Vector[Any], values: Mapping[str, Any]) -> None:
        """Accepts a request of a client, and saves the vector; the request ends when that is done."""
        answer = vector.accept(values)
        request = vector.as_request(self._device.name)

        def done(error: Exception | None) -> None:
            message = None if error is None else reason(error)
            answer.end(State.OK, message=message, level=Level.WARNING)

        self._storage.post((self._config.path, vector.name), lambda: self._config.update([request]), done)

    # --- CONFIG_PROCESS ---

    def _requested(self, request: Request[bool]) -> None:
        chosen = next((name for name, on in request.values.items() if on), None)
        if chosen is None:
            self.vector.select(None, state=State.OK)
            return
        answer = self.vector.accept(dict.fromkeys(self.vector.elements, False))
        if chosen in (LOAD, DEFAULT):
            self._load(answer, self._config.load if chosen == LOAD else self._config.load_default)
        else:
            self._storage.post(
                (self._config.path, chosen), self._writing(chosen), lambda error: _end(answer, error)
            )

    def _writing(self, chosen: str) -> Callable[[], None]:
        if chosen == PURGE:
            return self._config.purge
        # The values of now. What is not defined (the camera is not connected) keeps what the file says of it.
        requests = [vector.as_request(self._device.name) for vector in self._defined()]
        return lambda: self._config.update(requests)

    def _load(self, answer: Answer[bool], load: Callable[[], list[NewVector]]) -> None:
        """What is asked for from now on waits until the file has been read."""
        loaded: list[NewVector] = []
        self._device.hold(OVERTAKING)

        def done(error: Exception | None) -> None:
            try:
                if error is None:
                    self._apply(loaded)
                _end(answer, error)
            finally:
                self._device.release()

        self._storage.post((self._config.path, answer), lambda: loaded.extend(load()), done)

    def _defined(self) -> list[Vector[Any]]:
        return [vector for vector in self.saved() if vector.defined]

    def _apply(self, requests: Sequence[NewVector]) -> None:
        for vector, request in self._meant_for(self._defined(), requests):
            vector.receive(request, None)

    def _meant_for(
        self, vectors: Iterable[Vector[Any]], requests: Iterable[NewVector]
    ) -> Iterator[tuple[Vector[Any], NewVector]]:
        """What a config file says of these vectors, in its order."""
        known = {vector.name: vector for vector in vectors}
        for request in requests:
            if request.device == self._device.name and request.name in known:
                vector = known[request.name]
                yield vector, _within_limits(request, vector)


def _end(answer: Answer[bool], error: Exception | None) -> None:
    if error is None:
        answer.end(State.OK)
    else:
        answer.end(State.ALERT, message=reason(error))


def _within_limits(request: NewVector, vector: Vector[Any]) -> NewVector:
    """A config file may be of another camera: its numbers are cut to what this one can do."""
    if not isinstance(vector, NumberVector):
        return request
    values = []
    for element, text in request.values:
        try:
            low, high = vector.limits(element)
            text = format_number(min(max(parse_number(text), low), high))
        except (KeyError, ValueError):
            pass  # the vector says what is wrong with it
        values.append((element, text))
    return replace(request, values=tuple(values))
