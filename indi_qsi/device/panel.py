# SPDX-License-Identifier: LGPL-2.1-or-later
"""The camera's own settings, as switches; only those that the model has.

What the camera takes as settings is kept by the host for each camera and role (main camera or guider) and
sent at every connect; it is not in the config file, which knows neither. Modes that the camera forgets
(trigger, manual shutter, shutter output, host timing) start as off each time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from indi_qsi.device.choices import ACTIONS, ALT_MODES, CHOICES, ON_OFF, ROLES, Choice
from indi_qsi.device.memory import Memory
from indi_qsi.device.orders import Order, OrderBook
from indi_qsi.device.subject import Subject, explain, saved_or_not
from indi_qsi.properties import (
    Level,
    Permission,
    Request,
    Rule,
    State,
    SwitchElement,
    SwitchVector,
    Vector,
)
from usbproto.errors import NotSupported, Refused

if TYPE_CHECKING:
    from usbproto.camera import Camera
    from usbproto.packets import Settings
    from usbproto.settings import Available

CAMERA_SETTINGS = "Camera Settings"
ROLE_SECTION = "role"
MODES_SECTION = "modes"  # says that this camera was ever put into one of its alternative modes


class PanelSubject(Subject):
    """The switches of `CHOICES`, and the role.

    What is in `applied` is called when settings are with the camera: the shortest exposure depends on them.
    """

    def __init__(self, orders: OrderBook, memory: Memory) -> None:
        self._orders = orders
        self._memory = memory
        self.applied: list[Callable[[Camera], None]] = []
        self._camera: Camera | None = None
        self._serial = ""
        self._present: list[Choice] = []  # what this camera has
        self._vectors: dict[str, SwitchVector] = {}
        self._unlisted: set[str] = set()  # vectors that cannot show what the camera reported
        self.role = SwitchVector(
            "CCD_ROLE",
            "Role",
            CAMERA_SETTINGS,
            [SwitchElement(name, label, name == ROLES[0][0]) for name, label in ROLES],
            permission=Permission.RW,
            rule=Rule.ONE_OF_MANY,
            on_request=self._role_requested,
        )

    def _vector(self, choice: Choice, has: Available) -> SwitchVector:
        return SwitchVector(
            choice.vector,
            choice.label,
            CAMERA_SETTINGS,
            [
                SwitchElement(name, label, number == choice.default)
                for number, (name, label) in enumerate(choice.offered(has))
            ],
            permission=Permission.RW,
            rule=Rule.ONE_OF_MANY,
            on_request=lambda request: self._requested(choice, request),
        )

    def vectors(self) -> Sequence[Vector[Any]]:
        if self._camera is None:
            return ()
        return (self.role, *(self._vectors[choice.vector] for choice in self._present))

    # --- what other subjects ask ---

    @property
    def high_speed(self) -> bool:
        """Whether exposures are to be taken by high speed readout."""
        return self._selected("HIGH_SPEED_READOUT") == ON_OFF[0][0]

    @property
    def trigger(self) -> str:
        """Which external trigger starts exposures: the name of an element of EXTERNAL_TRIGGER."""
        return self._selected("EXTERNAL_TRIGGER") or "TRIGGER_OFF"

    @property
    def shutter_on_guide_port(self) -> bool:
        """Whether the "up" output of the guide port follows the shutter, so that it cannot guide north."""
        return self._selected("SHUTTER_OUTPUT") == ON_OFF[0][0]

    @property
    def unsettled(self) -> bool:
        """Whether settings were asked for that the camera may not have yet."""
        return any(vector.pending for vector in (self.role, *self._vectors.values()))

    def _selected(self, name: str) -> str | None:
        vector = self._vectors.get(name)
        return vector.selected if vector is not None else None

    # --- the camera comes and goes ---

    def connect(self, camera: Camera) -> None:
        self._camera = camera
        self._serial = camera.identity.serial
        self._present = [choice for choice in CHOICES if choice.there(camera.available)]
        self._vectors = {choice.vector: self._vector(choice, camera.available) for choice in self._present}
        role = self._memory.get(self._serial, ROLE_SECTION).get("role")
        names = [name for name, _ in ROLES]
        self.role.select(role if role in names else names[0], state=State.IDLE)
        self._end_modes(camera)
        self._restore(camera, self.role.selected)

    def back(self, camera: Camera) -> None:
        """As it was: what is kept, and the modes, which a power cut has made the camera forget."""
        self._camera = camera
        self._restore(camera, self.role.selected)
        self._set_modes(camera)

    def _set_modes(self, camera: Camera) -> None:
        """Puts the camera into the modes that are shown."""
        for choice in self._present:
            vector = self._vectors[choice.vector]
            element = vector.selected
            if choice.kept or element is None or element == choice.elements[choice.default][0]:
                continue
            try:
                ACTIONS[choice.vector](camera, element)
            except (Refused, NotSupported) as error:
                off = choice.elements[choice.default][0]
                vector.select(off, state=State.ALERT, message=explain(error), level=Level.ERROR)

    def renew(self, camera: Camera) -> None:
        camera.apply_settings(camera.settings)
        self._set_modes(camera)

    def leave(self, camera: Camera) -> None:
        self._end_modes(camera)

    def lost(self) -> None:
        """What the camera has is still being saved, and ends with that."""
        self._camera = None

    def disconnect(self) -> None:
        self._camera = None
        for vector in (self.role, *self._vectors.values()):
            vector.set(state=State.IDLE)

    def _end_modes(self, camera: Camera) -> None:
        """Switches off what the camera would go on with until it is switched off."""
        # Not asked of a camera of which no mode was ever used: old firmware may not know the question.
        if self._memory.get(self._serial, MODES_SECTION):
            camera.optional(
                "ending the modes that a former program may have left", lambda: _end(camera), None
            )

    def _restore(self, camera: Camera, role: str | None) -> None:
        """Brings the camera to what is kept for this role; its own defaults stand for the rest."""
        kept = self._memory.get(self._serial, _section(role))
        settings = camera.default_settings
        self._unlisted.clear()
        for choice in self._present:
            if not choice.kept:
                continue
            element = str(kept.get(choice.vector))
            chosen = element in [name for name, _ in choice.elements]
            if not chosen:
                element = _of_camera(choice, settings)
                if not _lists(choice, settings):
                    self._unlisted.add(choice.vector)
            self._vectors[choice.vector].select(element, state=State.IDLE)
            if choice.vector == "Gain" and not chosen:
                camera.default_gain()
            elif choice.field is None:
                ACTIONS[choice.vector](camera, element)
            elif chosen:  # otherwise what the camera reported is sent back, whatever it is
                settings = _with(settings, choice, element)
        settings = replace(settings, gain=camera.settings.gain)
        if settings != camera.settings:
            camera.optional(
                "the settings that are kept for it", lambda: camera.apply_settings(settings), None
            )
        self._tell_applied(camera)

    def _tell_applied(self, camera: Camera) -> None:
        for listener in self.applied:
            listener(camera)

    # --- requests ---

    def _requested(self, choice: Choice, request: Request[bool]) -> None:
        vector = self._vectors[choice.vector]
        element = next(name for name, on in request.values.items() if on)
        settled = vector.state not in (State.BUSY, State.ALERT) and choice.vector not in self._unlisted
        if vector[element] and settled and not self.role.pending:
            vector.set(state=State.OK)  # nothing to do
            return
        self._orders.submit(vector, lambda order: self._carry_out(order, choice, element))

    def _carry_out(self, order: Order, choice: Choice, element: str) -> None:
        vector, camera = self._vectors[choice.vector], self._camera
        if camera is None:
            return
        if choice.field is not None:
            camera.apply_settings(_with(camera.settings, choice, element))
        else:
            if choice.vector in ALT_MODES:
                # Noted before: a program that is killed leaves the camera in this mode.
                self._memory.put(self._serial, MODES_SECTION, {"used": True})
            ACTIONS[choice.vector](camera, element)
        self._unlisted.discard(choice.vector)
        if choice.vector == "CCD_SHUTTER":
            self._show_modes(camera)
        self._tell_applied(camera)
        if not choice.kept:
            order.answer.end(State.OK, {element: True})
            return
        # It holds now; the request ends when it is saved.
        vector.select(element)
        kept = {v.vector: self._vectors[v.vector].selected for v in self._present if v.kept}
        self._memory.put(
            self._serial,
            _section(self.role.selected),
            kept,
            lambda error: saved_or_not(order.answer, error),
        )

    def _show_modes(self, camera: Camera) -> None:
        """An order to the shutter takes the place of the other modes (3.7): what is gone is shown off."""
        bits = camera.alt_modes.read()
        for name, bit in (("SHUTTER_OUTPUT", 0x01), ("HOST_TIMED", 0x04)):
            if self._selected(name) == ON_OFF[0][0] and not bits & bit:
                self._vectors[name].select(
                    ON_OFF[1][0],
                    state=State.OK,
                    message="This is off now: the camera drops it when the shutter is moved by hand",
                    level=Level.WARNING,
                )

    def _role_requested(self, request: Request[bool]) -> None:
        """Another role has other settings: they are brought to the camera."""
        element = next(name for name, on in request.values.items() if on)
        self._orders.submit(self.role, lambda order: self._change_role(order, element))

    def _change_role(self, order: Order, element: str) -> None:
        if self._camera is None:
            return
        self._restore(self._camera, element)
        self.role.select(element)
        self._memory.put(
            self._serial, ROLE_SECTION, {"role": element}, lambda error: saved_or_not(order.answer, error)
        )


def _end(camera: Camera) -> None:
    """Switches off the modes that a camera goes on with."""
    if not camera.alt_modes.read():
        return
    has = camera.available
    if has.manual_shutter:
        camera.alt_modes.manual_shutter(False)
    if has.shutter_output:
        camera.alt_modes.shutter_output(False)
    if has.host_timed:
        camera.alt_modes.host_timed(False)


def _section(role: str | None) -> str:
    return f"settings {role}"


def _with(settings: Settings, choice: Choice, element: str) -> Settings:
    """The settings with one choice made."""
    assert choice.field is not None
    number = [name for name, _ in choice.elements].index(element)
    present = getattr(settings, choice.field)
    return replace(settings, **{choice.field: type(present)(choice.values[number])})


def _lists(choice: Choice, settings: Settings) -> bool:
    """Whether one of the choice's elements says what these settings do."""
    if choice.vector == "Gain":
        return settings.gain in (0, 1)
    return choice.field is None or int(getattr(settings, choice.field)) in choice.values


def _of_camera(choice: Choice, settings: Settings) -> str:
    """The element that says what these settings do."""
    if choice.vector == "Gain":
        return "Low" if settings.gain == 1 else "High"
    if choice.field is None:
        return choice.elements[choice.default][0]
    value = int(getattr(settings, choice.field))
    # A camera may answer with a number that is not in the notes; then it is the first of the choices.
    number = choice.values.index(value) if value in choice.values else 0
    return choice.elements[number][0]
