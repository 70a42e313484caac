# SPDX-License-Identifier: LGPL-2.1-or-later
"""What every subject of the device has in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from indi_qsi.properties import Answer, Level, State, Vector
from indi_qsi.storage import reason
from usbproto.errors import QsiError

if TYPE_CHECKING:
    from usbproto.camera import Camera

V = TypeVar("V")  # the type of a vector's values

# The groups (tabs) that clients show; the names are INDI's own.
MAIN_CONTROL = "Main Control"
OPTIONS = "Options"
GENERAL_INFO = "General Info"
IMAGE_SETTINGS = "Image Settings"
IMAGE_INFO = "Image Info"


def explain(error: Exception) -> str:
    """An error as a message to the user: what happened, and what to do."""
    return error.explain() if isinstance(error, QsiError) else f"internal error: {error!r}"


def saved_or_not(
    answer: Answer[V], error: Exception | None, values: Mapping[str, V] | None = None, *, message: str = ""
) -> None:
    """Ends a request that was carried out and, without an error, saved. `message` says what was done."""
    if error is None:
        answer.end(State.OK, values, message=message or None, level=Level.INFO)
        return
    unsaved = f"this holds until the driver ends: it cannot be saved ({reason(error)})"
    text = f"{message}; {unsaved}" if message else unsaved[0].upper() + unsaved[1:]
    answer.end(State.OK, values, message=text, level=Level.WARNING)


class Subject:
    """One subject: its vectors, and what it does when the camera comes and goes.

    `connect` and `disconnect` run in the camera thread; `connect` before the vectors are defined.
    """

    def vectors(self) -> Sequence[Vector[Any]]:
        """The vectors to define now that the camera is connected, in their order."""
        return ()

    def saved(self) -> Sequence[Vector[Any]]:
        """The vectors that belong into the config file."""
        return ()

    def kept(self) -> Sequence[Vector[Any]]:
        """Those of them that are saved when they change, and hold again unasked when the driver starts."""
        return ()

    def connect(self, camera: Camera) -> None:
        """Reads values, limits and states from the camera."""

    def started(self) -> None:
        """The vectors are defined: whatever goes on by itself begins now."""

    def leave(self, camera: Camera) -> None:
        """The camera is let go, but can still be reached: nothing of this subject is left running."""

    def disconnect(self) -> None:
        """The camera is let go for good: every vector gets a final state."""

    def lost(self) -> None:
        """The camera left by itself; its vectors stay. What was running gets its final state."""
        self.disconnect()

    def back(self, camera: Camera) -> None:
        """The camera that was lost is there again, perhaps after a power cut: what was set is set again."""
        self.connect(camera)

    def renew(self, camera: Camera) -> None:
        """The camera was silent for a while and may have started anew: what was set is set again.

        In the camera thread, while no exposure runs.
        """
