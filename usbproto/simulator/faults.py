# SPDX-License-Identifier: LGPL-2.1-or-later
"""Things that go wrong on demand.

A fault is written `NAME[@EVENT[#N][+SECONDS]][:ARGUMENTS]`. Without an event it happens at once; with one,
when the event happens next (or for the N-th time), or some simulated seconds after it. Arguments are
separated by commas: values in their order, or KEY=VALUE. Faults of answers take `command` (a name or a code,
default: any) and `times` (default 1, 0: for ever).

This is the registry; what can go wrong is in `faults_firmware` and `faults_usb`. A camera that behaves like
this for ever is not broken but strange: see `strange`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from usbproto.simulator.arguments import Arguments
from usbproto.simulator.events import EVENTS

if TYPE_CHECKING:
    from usbproto.simulator.camera import SimulatedCamera

_SYNTAX = re.compile(r"([\w-]+)(?:@(\w+)(?:#(\d+))?(?:\+([\d.]+))?)?(?::(.*))?")


Action = Callable[["SimulatedCamera", Arguments], None]


@dataclass(frozen=True, slots=True)
class Fault:
    name: str
    description: str
    action: Action


FAULTS: dict[str, Fault] = {}


def fault(name: str, description: str) -> Callable[[Action], Action]:
    """Register an action under a name."""

    def register(action: Action) -> Action:
        FAULTS[name] = Fault(name, description, action)
        return action

    return register


class Faults:
    """The faults of one camera. Raises ValueError for what cannot be understood."""

    def __init__(self, camera: SimulatedCamera) -> None:
        self._camera = camera
        self.armed: list[str] = []
        self.fired: list[str] = []

    def arm(self, text: str) -> None:
        match = _SYNTAX.fullmatch(text.strip())
        name = match[1].replace("_", "-") if match else ""
        if match is None or name not in FAULTS:
            raise ValueError(f"no such fault: {text!r}")
        event, nth, delay = match[2], int(match[3] or 1), float(match[4] or 0)
        arguments = Arguments(match[5])
        if event is not None and event not in EVENTS:
            raise ValueError(f"no such event: {event!r}")
        camera = self._camera

        def fire() -> None:
            self.armed.remove(text)
            self.fired.append(text)
            camera.events.emit("fault", fault=name, args=arguments.text)
            try:
                FAULTS[name].action(camera, arguments)
            except (KeyError, ValueError) as error:
                raise ValueError(f"{text}: {error}") from error

        with camera.timeline.lock:
            self.armed.append(text)
            if event is None:
                fire()
                return
            left = nth

            def fire_later() -> None:
                """Nobody is there any more who could be told that the arguments are wrong."""
                try:
                    fire()
                except ValueError as error:
                    camera.events.emit("fault", fault=name, args=arguments.text, error=str(error))

            def listen(happened: str, facts: dict[str, Any]) -> None:
                nonlocal left
                if happened != event or not left:
                    return
                left -= 1
                if left:
                    return
                camera.events.listeners.remove(listen)
                if delay:
                    camera.timeline.after(delay, fire_later)
                else:
                    fire_later()

            camera.events.listeners.append(listen)
