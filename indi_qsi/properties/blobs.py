# SPDX-License-Identifier: LGPL-2.1-or-later
"""Vectors that carry frames."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from indi_qsi.properties.elements import BlobElement, Level, Permission
from indi_qsi.properties.ports import BlobItem, FramePort
from indi_qsi.properties.vectors import MODEL_LOCK, Owner, Vector, tagged
from indi_qsi.wire import writer
from indi_qsi.wire.messages import Kind, State


class BlobOwner(Owner, Protocol):
    """What a BLOB vector needs of its device."""

    def make_room(self, vector: str, size: int) -> None: ...

    def post_blob(self, item: BlobItem) -> None: ...


class BlobVector(Vector[None]):
    """Frames, from the driver to the clients only."""

    kind = Kind.BLOB
    _owner: BlobOwner | None

    def __init__(
        self,
        name: str,
        label: str,
        group: str,
        elements: Iterable[BlobElement],
        *,
        permission: Permission = Permission.RO,
        state: State = State.IDLE,
        timeout: float = 0.0,
    ) -> None:
        if permission is not Permission.RO:
            raise ValueError("a camera takes no BLOBs")
        elements = tuple(elements)
        super().__init__(name, label, group, elements, permission=permission, state=state, timeout=timeout)
        self._values = dict.fromkeys(self._labels)

    def make_room(self, size: int) -> None:
        """A frame of so many bytes is about to be made: of too many that wait for a client, the oldest one is
        dropped now, so that its memory is free for this one."""
        if self._owner is not None:
            self._owner.make_room(self.name, size)

    def send(
        self,
        element: str,
        frame: FramePort,
        state: State = State.OK,
        *,
        message: str | None = None,
        level: Level = Level.INFO,
    ) -> None:
        """Sends a frame to every link that wants it. Does not wait; the caller keeps its reference.

        From now on the frame's bytes must not change. Raises KeyError for an unknown element.
        """
        with MODEL_LOCK:
            if element not in self._values:
                raise KeyError(f"{self.name} has no element {element}")
            self._state = state
            owner = self._owner
            if owner is None:
                return
            text = tagged(message, level)
            item = BlobItem(owner.name, self.name, element, frame, state, self.timeout, text)
            owner.post_blob(item)

    def _items(self) -> list[writer.Item]:
        # Without elements an update tells the state only; a definition lists them.
        return []

    def definition(self, device: str) -> bytes:
        """The present definition."""
        items: list[writer.Item] = [
            (name, "", (("label", label or name),)) for name, label in self._labels.items()
        ]
        return writer.define_vector(
            self.kind,
            device,
            self.name,
            items,
            label=self.label or self.name,
            group=self.group,
            state=self.state,
            permission=self.permission.value,
            timeout=self.timeout,
        )
