# SPDX-License-Identifier: LGPL-2.1-or-later
"""The hub: brings messages from links to devices, and updates from devices to links."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from indi_qsi.properties.device import Device
from indi_qsi.properties.elements import Permission
from indi_qsi.properties.ports import BlobItem, LinkPort
from indi_qsi.properties.vectors import MODEL_LOCK
from indi_qsi.wire import writer
from indi_qsi.wire.messages import (
    DelProperty,
    EnableBlob,
    GetProperties,
    Message,
    NewVector,
    PingReply,
    PingRequest,
    Problem,
    SnoopedVector,
)

_log = logging.getLogger(__name__)

SnoopCallback = Callable[[SnoopedVector | DelProperty], None]

# How many unknown device names are remembered, to log each of them once only.
_MAX_STRANGERS = 64


class Hub:
    """All devices of the driver and all links to peers. Any thread may call anything."""

    def __init__(self) -> None:
        self._devices: dict[str, Device] = {}
        self._links: list[LinkPort] = []
        self._snoops: list[tuple[str, str | None, SnoopCallback]] = []
        self._strangers: set[str] = set()
        self._listeners: list[Callable[[NewVector], None]] = []

    @property
    def devices(self) -> tuple[Device, ...]:
        """The live devices, oldest first."""
        with MODEL_LOCK:
            return tuple(self._devices.values())

    @property
    def links(self) -> tuple[LinkPort, ...]:
        """The links that are attached."""
        with MODEL_LOCK:
            return tuple(self._links)

    def add_device(self, device: Device) -> None:
        """Makes a device live: defines its vectors. Raises ValueError if its name is taken."""
        with MODEL_LOCK:
            if device.name in self._devices:
                raise ValueError(f"there is already a device {device.name}")
            self._devices[device.name] = device
            device.live = True
            for link in self._links:
                device.define(link)

    def remove_device(self, device: Device) -> None:
        """Takes a device away from the clients; its vectors stay with it."""
        with MODEL_LOCK:
            if self._devices.get(device.name) is device:
                self.broadcast(device.name, None, writer.delete_property(device.name))
                del self._devices[device.name]
                device.live = False

    def attach(self, link: LinkPort) -> None:
        """From now on the link gets updates. Definitions go to it when it asks for them."""
        with MODEL_LOCK:
            self._links.append(link)
            if link.can_snoop:
                for device, name, _ in self._snoops:
                    link.post(writer.get_properties(device, name))

    def detach(self, link: LinkPort) -> None:
        """The link gets nothing more."""
        with MODEL_LOCK:
            if link in self._links:
                self._links.remove(link)

    def snoop(self, device: str, name: str | None, callback: SnoopCallback) -> None:
        """Asks for another device's vector (None: all), now and on links that come later.

        The callback runs in the thread of a link and must not wait. Asking again for what is
        already asked for makes the peer send the present value again.
        """
        with MODEL_LOCK:
            snoop = (device, name, callback)
            if snoop not in self._snoops:
                self._snoops.append(snoop)
            for link in self._links:
                if link.can_snoop:
                    link.post(writer.get_properties(device, name))

    def unsnoop(self, callback: SnoopCallback) -> None:
        """The callback is not called any more. The peer cannot be told; what it sends is dropped."""
        with MODEL_LOCK:
            self._snoops = [snoop for snoop in self._snoops if snoop[2] != callback]

    def listen(self, listener: Callable[[NewVector], None]) -> None:
        """Tells every request for new values, before it is acted on. The listener must not wait or raise."""
        self._listeners.append(listener)

    def dispatch(self, link: LinkPort | None, message: Message) -> None:
        """Acts on one message. `link` is None for what the driver asks of itself (config files)."""
        match message:
            case NewVector():
                self._request(link, message)
            case GetProperties():
                if link is not None:
                    self._define(link, message)
            case EnableBlob(device=device):
                if link is not None:
                    with MODEL_LOCK:
                        link.set_policy(device, message.name, message.policy)
            case PingRequest(uid=uid):
                if link is not None:
                    link.post(writer.ping_reply(uid))
            case PingReply(uid=uid):
                if link is not None:
                    link.pong(uid)
            case SnoopedVector() | DelProperty():
                self._snooped(message)

    def refuse(self, problem: Problem) -> None:
        """Answers a request that could not be read, so that its client does not wait for ever."""
        if problem.target is None:
            return
        device, name = problem.target
        with MODEL_LOCK:
            owner = self._devices.get(device)
            vector = owner.get(name) if owner is not None else None
        if vector is not None and vector.permission is not Permission.RO:
            vector.refuse(f"The request was refused: {problem.reason}")

    def _define(self, link: LinkPort, message: GetProperties) -> None:
        with MODEL_LOCK:
            link.watch(message.device, message.name)
            for device in self._devices.values():
                if message.device in (None, device.name):
                    device.define(link, message.name)

    def _request(self, link: LinkPort | None, message: NewVector) -> None:
        for listener in self._listeners:
            listener(message)
        device = self._devices.get(message.device)
        if device is not None:
            device.receive(message, link)
        elif message.device not in self._strangers and len(self._strangers) < _MAX_STRANGERS:
            self._strangers.add(message.device)
            _log.warning("requests for %r are ignored: no such device here", message.device)

    def _snooped(self, message: SnoopedVector | DelProperty) -> None:
        with MODEL_LOCK:
            callbacks = [
                callback
                for device, name, callback in self._snoops
                if device == message.device and (name is None or message.name is None or name == message.name)
            ]
        for callback in callbacks:
            try:
                callback(message)
            except Exception:
                _log.exception("snooping on %r failed", message.device)

    # For devices.

    def broadcast(self, device: str, name: str | None, data: bytes) -> None:
        """Posts bytes to every link that watches the vector (None: the device)."""
        self.broadcast_all(device, [(name, data)])

    def broadcast_all(self, device: str, messages: Sequence[tuple[str | None, bytes]]) -> None:
        """The same for several vectors, each with its bytes; a link gets its share in one piece."""
        with MODEL_LOCK:
            for link in self._links:
                if wanted := [data for name, data in messages if link.wants(device, name)]:
                    link.post(b"".join(wanted))

    def make_room(self, device: str, name: str, size: int) -> None:
        """A frame of so many bytes is about to be made, for every link that wants it."""
        with MODEL_LOCK:
            for link in self._links:
                if link.wants_blob(device, name):
                    link.make_room(size)

    def broadcast_blob(self, item: BlobItem) -> None:
        """Posts a frame, with a reference of its own, to every link that wants it."""
        with MODEL_LOCK:
            for link in self._links:
                if link.wants_blob(item.device, item.name):
                    item.frame.hold()
                    link.post_blob(item)
