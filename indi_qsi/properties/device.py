# SPDX-License-Identifier: LGPL-2.1-or-later
"""A device: a name and its vectors, in the order in which clients are to see them."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from indi_qsi.properties.elements import Level, Permission, check_name
from indi_qsi.properties.ports import BlobItem, LinkPort
from indi_qsi.properties.vectors import MODEL_LOCK, Answer, Vector, tagged
from indi_qsi.wire import writer
from indi_qsi.wire.messages import NewVector

if TYPE_CHECKING:
    from indi_qsi.properties.hub import Hub

_log = logging.getLogger(__name__)

# How many names that no vector has are told, each once: a client that goes on asking must not fill the log.
_MAX_UNKNOWN = 64

# Requests that may wait while a file is loaded: far more than a client sends meanwhile, unless the disk
# hangs.
_MAX_HELD = 1000

_LOG_LEVELS = {
    Level.DEBUG: logging.DEBUG,
    Level.INFO: logging.INFO,
    Level.WARNING: logging.WARNING,
    Level.ERROR: logging.ERROR,
}


class Device:
    """One INDI device. Clients see it from `hub.add_device` to `hub.remove_device`."""

    def __init__(self, name: str, hub: Hub) -> None:
        self.name = check_name(name)
        self.hub = hub
        self.live = False
        self._vectors: dict[str, Vector[Any]] = {}
        self._unknown: set[str] = set()
        self._held: deque[tuple[NewVector, LinkPort | None, Answer[Any] | None]] | None = (
            None  # None: requests are not held
        )
        self._holds = 0
        self._passing: Collection[str] = ()

    @property
    def vectors(self) -> Mapping[str, Vector[Any]]:
        """The vectors by name, in the order of definition; a view that cannot be changed."""
        return MappingProxyType(self._vectors)

    def get(self, name: str) -> Vector[Any] | None:
        """The vector of this name, or None."""
        return self._vectors.get(name)

    def add(self, *vectors: Vector[Any]) -> None:
        """Appends vectors, and defines them if the device is live.

        Raises ValueError if a name is taken or a vector belongs to another device.
        """
        with MODEL_LOCK:
            for vector in vectors:
                if vector.name in self._vectors:
                    raise ValueError(f"{self.name} already has a vector {vector.name}")
                vector.attach(self)
                self._vectors[vector.name] = vector
                self._unknown.discard(vector.name)
            if self.live:
                self.hub.broadcast_all(
                    self.name, [(vector.name, vector.definition(self.name)) for vector in vectors]
                )

    def remove(self, *vectors: Vector[Any]) -> None:
        """Takes vectors away; those that are not there are passed over silently."""
        with MODEL_LOCK:
            going = [vector for vector in vectors if self._vectors.get(vector.name) is vector]
            if self.live:
                self.hub.broadcast_all(
                    self.name,
                    [(vector.name, writer.delete_property(self.name, vector.name)) for vector in going],
                )
            for vector in going:
                del self._vectors[vector.name]
                vector.attach(None)

    def message(self, text: str, level: Level = Level.INFO) -> None:
        """Tells the user something: the clients, and the log."""
        self.log(text, level)
        self.tell(text, level)

    def tell(self, text: str, level: Level) -> None:
        """Tells the clients only."""
        with MODEL_LOCK:
            if self.live:
                data = writer.message(self.name, tagged(text, level) or "")
                self.hub.broadcast(self.name, None, data)

    def log(self, text: str, level: Level) -> None:
        """Tells the log only."""
        _log.log(_LOG_LEVELS[level], "%s: %s", self.name, text)

    # For the hub and for vectors.

    def define(self, link: LinkPort, name: str | None = None) -> None:
        """Sends the definitions of all vectors, or of one, to one link."""
        with MODEL_LOCK:
            wanted = [
                vector.definition(self.name)
                for vector in self._vectors.values()
                if name in (None, vector.name) and link.wants(self.name, vector.name)
            ]
            if wanted:
                link.post(b"".join(wanted))

    def hold(self, passing: Collection[str]) -> None:
        """Requests wait from now on until `release`, but for those of the vectors in `passing`.

        The vectors that they are for are Busy meanwhile.
        """
        with MODEL_LOCK:
            self._holds += 1
            self._held = deque() if self._held is None else self._held
            self._passing = passing

    def release(self) -> None:
        """Passes on the requests that wait, in their order, until one of them makes the rest wait."""
        with MODEL_LOCK:
            self._holds -= 1
        while True:
            with MODEL_LOCK:
                if self._holds:
                    return
                if not self._held:
                    self._held = None
                    return
                message, link, answer = self._held.popleft()
            self._pass_on(message, link)
            if answer is not None:
                answer.dissolve()

    def drop_held(self, name: str) -> None:
        """Requests for a vector that wait are dropped; what ends them is the caller's business."""
        with MODEL_LOCK:
            if self._held is not None:
                self._held = deque(held for held in self._held if held[0].name != name)

    def receive(self, message: NewVector, link: LinkPort | None) -> None:
        """Passes a client's request to its vector."""
        with MODEL_LOCK:
            if self._held is not None and message.name not in self._passing:
                if len(self._held) < _MAX_HELD:
                    vector = self._vectors.get(message.name)
                    answerable = vector is not None and vector.permission is not Permission.RO
                    answer = vector.accept() if vector is not None and answerable else None
                    self._held.append((message, link, answer))
                    return
                text = f"Ignored {message.name}: {_MAX_HELD} requests wait for settings to be loaded"
                self.message(text, Level.ERROR)
                return
        self._pass_on(message, link)

    def _pass_on(self, message: NewVector, link: LinkPort | None) -> None:
        vector = self._vectors.get(message.name)
        if vector is None:
            with MODEL_LOCK:
                if message.name in self._unknown or len(self._unknown) >= _MAX_UNKNOWN:
                    return
                self._unknown.add(message.name)
            text = f"Property {message.name} is not defined in {self.name}"
            self.message(text, Level.WARNING)
        else:
            vector.receive(message, link)
            if self._vectors.get(message.name) is not vector:
                self.message(f"{message.name} was deleted as it was set", Level.WARNING)

    def post(self, vector: str, data: bytes) -> None:
        """Sends a vector's message to every link that watches it."""
        self.hub.broadcast(self.name, vector, data)

    def make_room(self, vector: str, size: int) -> None:
        """A frame of so many bytes is about to be made."""
        if self.live:
            self.hub.make_room(self.name, vector, size)

    def post_blob(self, item: BlobItem) -> None:
        """Sends a frame to every link that wants it."""
        if self.live:
            self.hub.broadcast_blob(item)
