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
from indi_qsi.device.subject import Subject, explain
from indi_qsi.device.worker import CameraThread, Priority
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
WAIT_FOR_IDLE = 0.2  # s between looks whether the exposure is over; settings are not changed under it


class PanelSubject(Subject):
    """The switches of `CHOICES`, and the role.

    `exposing` tells that settings must wait; `applied` is told when they are with the camera, because the
    shortest exposure depends on them.
    """

    def __init__(
        self,
        thread: CameraThread,
        memory: Memory,
        exposing: Callable[[], bool],
        applied: Callable[[Camera], None] = lambda camera: None,
    ) -> None:
        self._thread = thread
        self._memory = memory
        self._exposing = exposing
        self._applied = applied
        self._camera: Camera | None = None
        self._serial = ""
        self._present: list[Choice] = []  # what this camera has
        self._vectors: dict[str, SwitchVector] = {}
        self._wanted: dict[str, str] = {}  # by vector, the element that was asked for last
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

    def _selected(self, name: str) -> str | None:
        vector = self._vectors.get(name)
        return vector.selected if vector is not None else None

    # --- the camera comes and goes ---

    def connect(self, camera: Camera) -> None:
        self._camera = camera
        self._serial = camera.identity.serial
        self._wanted.clear()
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
                vector.select(choice.elements[choice.default][0])
                vector.refuse(explain(error))

    def renew(self, camera: Camera) -> None:
        camera.apply_settings(camera.settings)
        self._set_modes(camera)

    def leave(self, camera: Camera) -> None:
        self._end_modes(camera)

    def disconnect(self) -> None:
        self._camera = None
        for vector in (self.role, *self._vectors.values()):
            if vector.state is State.BUSY:
                vector.refuse("The camera was disconnected before this was done")
            else:
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
        self._applied(camera)

    # --- requests ---

    def _requested(self, choice: Choice, request: Request[bool]) -> None:
        vector = self._vectors[choice.vector]
        element = next(name for name, on in request.values.items() if on)
        self._wanted[choice.vector] = element
        settled = vector.state not in (State.BUSY, State.ALERT) and choice.vector not in self._unlisted
        if vector[element] and settled:
            vector.set(state=State.OK)  # nothing to do
            return
        vector.set(state=State.BUSY)
        self._post(lambda: self._carry_out(choice, element), vector)

    def _carry_out(self, choice: Choice, element: str) -> None:
        vector = self._vectors[choice.vector]
        if self._camera is None or self._wanted.get(choice.vector) != element:
            return  # a newer request answers
        if self._exposing():
            self._post(lambda: self._carry_out(choice, element), vector, WAIT_FOR_IDLE)
            return
        if choice.field is not None:
            self._camera.apply_settings(_with(self._camera.settings, choice, element))
        else:
            if choice.vector in ALT_MODES:
                # Noted before: a program that is killed leaves the camera in this mode.
                self._keep(MODES_SECTION, {"used": True})
            ACTIONS[choice.vector](self._camera, element)
        self._unlisted.discard(choice.vector)
        if choice.vector == "CCD_SHUTTER":
            self._show_modes(self._camera)
        warning = None
        if choice.kept:
            kept = {v.vector: self._vectors[v.vector].selected for v in self._present if v.kept}
            warning = self._keep(_section(self.role.selected), kept | {choice.vector: element})
        self._applied(self._camera)
        vector.select(element, state=State.OK, message=warning, level=Level.WARNING)

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
        """Another role has other settings: they are brought to the camera at once."""
        element = next(name for name, on in request.values.items() if on)
        self._wanted[self.role.name] = element
        self.role.set(state=State.BUSY)
        self._post(lambda: self._change_role(element), self.role)

    def _change_role(self, element: str) -> None:
        if self._camera is None or self._wanted.get(self.role.name) != element:
            return
        if self._exposing():
            self._post(lambda: self._change_role(element), self.role, WAIT_FOR_IDLE)
            return
        self._restore(self._camera, element)
        warning = self._keep(ROLE_SECTION, {"role": element})
        self.role.select(element, state=State.OK, message=warning, level=Level.WARNING)

    def _post(self, work: Callable[[], None], vector: SwitchVector, delay: float = 0.0) -> None:
        self._thread.post(
            Priority.CONTROL, work, delay=delay, failed=lambda error: vector.refuse(explain(error))
        )

    def _keep(self, section: str, values: dict[str, Any]) -> str | None:
        """Keeps them for the next connect; returns what the user must know if that fails."""
        try:
            self._memory.put_and_wait(self._serial, section, values)
        except OSError as error:
            return f"This holds until the driver ends: it cannot be saved ({error.strerror})"
        return None


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
