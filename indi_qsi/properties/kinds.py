# SPDX-License-Identifier: LGPL-2.1-or-later
"""Vectors of numbers, texts, switches and lights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import isfinite

from indi_qsi.properties.elements import (
    Level,
    LightElement,
    NumberElement,
    Permission,
    Rule,
    SwitchElement,
    TextElement,
)
from indi_qsi.properties.vectors import MODEL_LOCK, Handler, Rejected, Vector
from indi_qsi.wire import writer
from indi_qsi.wire.messages import Kind, State
from indi_qsi.wire.numbers import format_number, parse_number

# They would garble logs and file headers. The tab is let through: editors put it into names.
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")


class NumberVector(Vector[float]):
    """Numbers. With `check_limits=False` the handler checks the range itself."""

    kind = Kind.NUMBER

    def __init__(
        self,
        name: str,
        label: str,
        group: str,
        elements: Iterable[NumberElement],
        *,
        permission: Permission,
        state: State = State.IDLE,
        timeout: float = 0.0,
        on_request: Handler[float] | None = None,
        check_limits: bool = True,
    ) -> None:
        elements = tuple(elements)
        super().__init__(
            name,
            label,
            group,
            elements,
            permission=permission,
            state=state,
            timeout=timeout,
            on_request=on_request,
        )
        self.check_limits = check_limits
        self._numbers = {element.name: element for element in elements}
        self._values = {element.name: float(element.value) for element in elements}

    def limits(self, element: str) -> tuple[float, float]:
        """The present minimum and maximum of an element. Raises KeyError."""
        number = self._numbers[element]
        return number.minimum, number.maximum

    def set_limits(
        self,
        element: str,
        *,
        minimum: float | None = None,
        maximum: float | None = None,
        step: float | None = None,
    ) -> None:
        """Changes what clients may ask for, and tells them if they know the vector already.

        The value stays as it is. Raises KeyError for an unknown element, ValueError for nan or inf.
        """
        with MODEL_LOCK:
            old = self._numbers[element]
            new = replace(
                old,
                minimum=old.minimum if minimum is None else float(minimum),
                maximum=old.maximum if maximum is None else float(maximum),
                step=old.step if step is None else float(step),
            )
            if not all(map(isfinite, (new.minimum, new.maximum, new.step))):
                raise ValueError(f"limits of {element} must be finite")
            self._numbers[element] = new
            items: list[writer.Item] = [
                (name, text, self._limits_on_wire(name) if name == element else ())
                for name, text, _ in self._items()
            ]
            self._tell(None, Level.INFO, items)

    def _limits_on_wire(self, name: str) -> tuple[tuple[str, str], ...]:
        number = self._numbers[name]
        return (
            ("min", format_number(number.minimum)),
            ("max", format_number(number.maximum)),
            ("step", format_number(number.step)),
        )

    def _details(self, element: str) -> tuple[tuple[str, str], ...]:
        return (("format", self._numbers[element].format), *self._limits_on_wire(element))

    def _checked(self, values: Mapping[str, float]) -> Mapping[str, float]:
        checked = {name: float(value) for name, value in super()._checked(values).items()}
        for name, value in checked.items():
            if not isfinite(value):
                raise ValueError(f"{self.name}.{name} cannot be {value}")
        return checked

    def _parse(self, name: str, text: str) -> float:
        try:
            value = parse_number(text)
        except ValueError as error:
            raise Rejected(State.ALERT, f"{name}: {error}; {self._range(name)}") from None
        number = self._numbers[name]
        if self.check_limits and not number.minimum <= value <= number.maximum:
            raise Rejected(State.ALERT, f"{name} cannot be {value:.10g}; {self._range(name)}")
        return value

    def _range(self, name: str) -> str:
        number = self._numbers[name]
        return f"valid range {number.minimum:.10g}..{number.maximum:.10g}"

    def _text(self, value: float) -> str:
        return format_number(value)


class TextVector(Vector[str]):
    """Texts."""

    kind = Kind.TEXT

    def __init__(
        self,
        name: str,
        label: str,
        group: str,
        elements: Iterable[TextElement],
        *,
        permission: Permission,
        state: State = State.IDLE,
        timeout: float = 0.0,
        on_request: Handler[str] | None = None,
    ) -> None:
        elements = tuple(elements)
        super().__init__(
            name,
            label,
            group,
            elements,
            permission=permission,
            state=state,
            timeout=timeout,
            on_request=on_request,
        )
        self._max_lengths = {element.name: element.max_length for element in elements}
        self._values = {element.name: element.value for element in elements}

    def _parse(self, name: str, text: str) -> str:
        longest = self._max_lengths[name]
        if len(text) > longest:
            raise Rejected(State.ALERT, f"{name} takes at most {longest} characters")
        if _CONTROL.search(text):
            raise Rejected(State.ALERT, f"{name} takes no control characters")
        return text

    def _text(self, value: str) -> str:
        return value


class SwitchVector(Vector[bool]):
    """Switches, under a rule about how many may be On."""

    kind = Kind.SWITCH

    def __init__(
        self,
        name: str,
        label: str,
        group: str,
        elements: Iterable[SwitchElement],
        *,
        permission: Permission,
        rule: Rule = Rule.ONE_OF_MANY,
        state: State = State.IDLE,
        timeout: float = 0.0,
        on_request: Handler[bool] | None = None,
    ) -> None:
        elements = tuple(elements)
        super().__init__(
            name,
            label,
            group,
            elements,
            permission=permission,
            state=state,
            timeout=timeout,
            on_request=on_request,
        )
        self.rule = rule
        self._values = {element.name: element.on for element in elements}
        if rule is not Rule.ANY_OF_MANY and sum(self._values.values()) > 1:
            raise ValueError(f"{name}: more than one switch is On")

    @property
    def selected(self) -> str | None:
        """The name of the (first) switch that is On, or None."""
        with MODEL_LOCK:
            return next((name for name, on in self._values.items() if on), None)

    def select(
        self,
        element: str | None,
        *,
        state: State | None = None,
        message: str | None = None,
        level: Level = Level.INFO,
    ) -> None:
        """Turns one switch On and all others Off; None turns all Off. Raises KeyError."""
        if element is not None and element not in self._values:
            raise KeyError(f"{self.name} has no element {element}")
        values = {name: name == element for name in self._values}
        self.set(values, state=state, message=message, level=level)

    def _checked(self, values: Mapping[str, bool]) -> Mapping[str, bool]:
        """Turning one On turns the others Off, where the rule says so; all Off is allowed here."""
        checked = {name: bool(on) for name, on in super()._checked(values).items()}
        if self.rule is Rule.ANY_OF_MANY or True not in checked.values():
            return checked
        if sum(checked.values()) > 1:
            raise ValueError(f"{self.name}: more than one switch On")
        return dict.fromkeys(self._values, False) | checked

    def _merged(self, given: dict[str, bool]) -> dict[str, bool]:
        """A client may send just the switch to turn On; the others then go Off."""
        if self.rule is Rule.ANY_OF_MANY:
            return {**self._values, **given}
        reset = self.rule is Rule.ONE_OF_MANY or True in given.values()
        merged = (dict.fromkeys(self._values, False) if reset else self._values) | given
        on = sum(merged.values())
        if on > 1 or (on == 0 and self.rule is Rule.ONE_OF_MANY):
            rule = "exactly one" if self.rule is Rule.ONE_OF_MANY else "at most one"
            raise Rejected(State.IDLE, f"{self.name} needs {rule} switch On, not {on}")
        return merged

    def _wire_rule(self) -> str | None:
        return self.rule.value

    def _parse(self, name: str, text: str) -> bool:
        # The C library looks at the start of the word only.
        if text.startswith("On"):
            return True
        if text.startswith("Off"):
            return False
        raise Rejected(State.ALERT, f"{name} is either On or Off, not {text[:20]!r}")

    def _text(self, value: bool) -> str:
        return "On" if value else "Off"


class LightVector(Vector[State]):
    """Lights: states that clients can only look at."""

    kind = Kind.LIGHT

    def __init__(
        self,
        name: str,
        label: str,
        group: str,
        elements: Iterable[LightElement],
        *,
        state: State = State.IDLE,
    ) -> None:
        elements = tuple(elements)
        super().__init__(name, label, group, elements, permission=Permission.RO, state=state)
        self._values = {element.name: element.state for element in elements}

    def _text(self, value: State) -> str:
        return value.value
