# SPDX-License-Identifier: LGPL-2.1-or-later
"""Cameras that are not as the notes say, or are so where the notes say nothing.

A strangeness is written `NAME[:ARGUMENTS]`, the arguments as those of faults. It is the camera's nature: it
survives power cycles and replugging, until it is cleared. Any number of them can be combined, on every model.

This is the registry; what there is stands in the modules `strange_*`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from usbproto import packets as p
from usbproto.simulator.answers import Answer
from usbproto.simulator.arguments import Arguments
from usbproto.simulator.nature import Change, Instead, Nature, Tamper

if TYPE_CHECKING:
    from usbproto.simulator.camera import SimulatedCamera

_SYNTAX = re.compile(r"([\w-]+)(?::(.*))?")
NONE = "none"  # clears all


class Trait:
    """One strangeness of one camera, and how to undo it."""

    def __init__(self, camera: SimulatedCamera, arguments: Arguments) -> None:
        self.camera = camera
        self.arguments = arguments
        self._nature: Nature = camera.firmware.nature
        self._undo = ExitStack()

    @property
    def now(self) -> float:
        """s of the camera's time."""
        return self.camera.timeline.now()

    def instead(self, hook: Instead) -> None:
        """See `Nature`; the same for the next two."""
        self._nature.instead.append(hook)
        self.undo(lambda: self._nature.instead.remove(hook))

    def change(self, hook: Change) -> None:
        self._nature.changes.append(hook)
        self.undo(lambda: self._nature.changes.remove(hook))

    def tamper(self, hook: Tamper) -> None:
        self._nature.tampering.append(hook)
        self.undo(lambda: self._nature.tampering.remove(hook))

    def show_eeprom(self, contents: Mapping[int, int]) -> None:
        """GetEEPROM reads these bytes at these addresses; the memory itself stays as it is."""

        def overlay(command: p.Command[Any, Any], request: p.Payload, answer: Answer) -> Answer:
            if isinstance(request, p.EepromAddress) and request.address in contents and not answer.refused:
                return replace(answer, payload=p.Byte(contents[request.address]))
            return answer

        self.change(overlay)

    def undo(self, action: Callable[[], None]) -> None:
        """`action` is called when the strangeness ends; the last one first."""
        self._undo.callback(action)

    def end(self) -> None:
        self._undo.close()


Action = Callable[[Trait], None]


@dataclass(frozen=True, slots=True)
class Strangeness:
    name: str
    description: str
    action: Action


STRANGENESSES: dict[str, Strangeness] = {}


def strange(name: str, description: str) -> Callable[[Action], Action]:
    """Register an action under a name."""

    def register(action: Action) -> Action:
        STRANGENESSES[name] = Strangeness(name, description, action)
        return action

    return register


class Strange:
    """What is strange about one camera. Methods take the timeline's lock."""

    def __init__(self, camera: SimulatedCamera, texts: Sequence[str] = ()) -> None:
        self._camera = camera
        self._traits: dict[str, Trait] = {}
        for text in texts:
            self.add(text)

    @property
    def active(self) -> list[str]:
        """As they can be given to `add`, in the order in which they were added."""
        return [
            f"{name}:{trait.arguments.text}" if trait.arguments.text else name
            for name, trait in self._traits.items()
        ]

    def add(self, text: str) -> None:
        """Make the camera strange; the same name with other arguments replaces them; `none` clears all.

        ValueError for what cannot be understood; then nothing has changed.
        """
        match = _SYNTAX.fullmatch(text.strip())
        name = match[1].replace("_", "-") if match else ""
        if name == NONE:
            self.clear()
            return
        if match is None or name not in STRANGENESSES:
            raise ValueError(f"no such strangeness: {text!r}; see --list-strange")
        with self._camera.timeline.lock:
            before = self._end(name)
            try:
                self._begin(name, match[2])
            except ValueError as error:
                if before is not None:
                    self._begin(name, before.arguments.text)
                raise ValueError(f"{text}: {error}") from None
            self._camera.events.emit("strange", strange=name, args=match[2] or "")

    def clear(self) -> None:
        """The camera is as the notes say again."""
        with self._camera.timeline.lock:
            for name in reversed(list(self._traits)):
                self._end(name)
            self._camera.events.emit("strange", strange=NONE, args="")

    def _begin(self, name: str, arguments: str | None) -> None:
        trait = Trait(self._camera, Arguments(arguments))
        try:
            STRANGENESSES[name].action(trait)
            trait.arguments.check_taken()
        except ValueError:
            trait.end()
            raise
        self._traits[name] = trait

    def _end(self, name: str) -> Trait | None:
        trait = self._traits.pop(name, None)
        if trait is not None:
            trait.end()
        return trait
