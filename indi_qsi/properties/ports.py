# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the property model needs from the outside: links that carry bytes, frames that hold pixels.

The model knows these shapes only; `indi_qsi.links` has the things themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from indi_qsi.wire.messages import BlobPolicy, State


class FramePort(Protocol):
    """A picture in shared memory, counted by its holders."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def format(self) -> str:
        """File name suffix with its dot, such as '.fits'."""

    @property
    def buffer(self) -> memoryview:
        """The bytes."""

    def fileno(self) -> int:
        """The descriptor of the memory, `size` bytes long."""

    def share(self) -> int:
        """The descriptor to give to readers in other processes."""

    def hold(self) -> object:
        """Takes one more reference."""

    def release(self) -> None:
        """Gives one reference back; the last one frees the memory."""


@dataclass(frozen=True, slots=True)
class BlobItem:
    """A frame on its way to one link, which owns one reference to it."""

    device: str
    name: str
    element: str
    frame: FramePort
    state: State
    timeout: float
    message: str | None = None


class LinkPort(Protocol):
    """A peer. No method waits for the peer; all may be called from any thread."""

    @property
    def name(self) -> str:
        """For logs."""

    @property
    def can_snoop(self) -> bool:
        """Whether the peer forwards other drivers' properties when asked to."""

    def watch(self, device: str | None, name: str | None) -> None:
        """The peer asked for this device (None: all) and vector (None: all)."""

    def wants(self, device: str, name: str | None) -> bool:
        """Whether the peer is to be told about this vector, or (None) about this device."""

    def wants_blob(self, device: str, name: str) -> bool:
        """Whether the peer is to be sent frames of this vector."""

    def set_policy(self, device: str, name: str | None, policy: BlobPolicy) -> None:
        """The peer said what it wants of the frames of this device or vector."""

    def post(self, data: bytes) -> None:
        """Puts whole messages into the queue."""

    def make_room(self, size: int) -> None:
        """A frame of so many bytes is about to be made: what cannot wait beside it is dropped now."""

    def post_blob(self, item: BlobItem) -> None:
        """Puts a frame into the queue and becomes the owner of its reference."""

    def pong(self, uid: str) -> None:
        """The peer answered a ping."""
