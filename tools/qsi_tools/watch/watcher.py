# SPDX-License-Identifier: LGPL-2.1-or-later
"""The loop: reads what the server tells, shows it, logs it, and waits for a server that has gone."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

from qsi_tools.indi.client import SLICE, Client, Missing, ServerGone
from qsi_tools.indi.devices import CAMERA, FIRST_LIMIT, QUIET, devices_with
from qsi_tools.indi.model import Note, Vector
from qsi_tools.watch.log import Log
from qsi_tools.watch.state import GUIDE_VECTORS, Pulses, Snapshot, snapshot
from qsi_tools.watch.views import Histories, View
from usbproto.deadline import Deadline

# s between attempts to reach a server that has gone: the first at once, then few enough to harm nobody.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0


class Watcher:
    """Watches these devices, or (empty) all cameras."""

    def __init__(
        self, server: str, devices: Sequence[str], view: View, log: Log | None, stop: threading.Event
    ) -> None:
        self._server = server
        self._wanted = tuple(devices)
        self._view = view
        self._log = log
        self._stop = stop
        self._pulses: dict[str, Pulses] = defaultdict(Pulses)
        self._histories: dict[str, Histories] = defaultdict(Histories)

    def once(self) -> None:
        """Shows the cameras as they are. Raises `ClientError`, OSError."""
        with self._connected() as client:
            self._tick(client)
            self._write(client)

    def run(self, log_interval: float, duration: float | None, patience: float) -> None:
        """Until `stop` or `duration` s are over.

        Raises `ServerGone` when there is no server at the beginning, or when it has been away for `patience`
        s; `Missing` when it has no such camera; OSError for the log.
        """
        end = Deadline(duration) if duration is not None else None
        client = self._connected()
        while True:
            try:
                with client:
                    self._follow(client, log_interval, end)
                return
            except ServerGone as gone:
                if patience <= 0:
                    raise
                self._view.say(f"{gone}; trying again for {patience / 60:.0f} minutes")
                again = self._reconnect(gone, Deadline(patience), end)
            if again is None:
                return
            client = again
            self._view.say(f"The INDI server at {self._server} is there again")

    def _connected(self) -> Client:
        """A server with at least one of the cameras."""
        client = self._ask()
        try:
            client.wait_quietly(lambda: bool(self._cameras(client)), FIRST_LIMIT)
            client.settle(QUIET, FIRST_LIMIT)
            if not self._cameras(client):
                there = ", ".join(client.model.devices) or "no device at all"
                wanted = " or ".join(self._wanted) or "camera"
                raise Missing(f"{self._server} has no {wanted}; it has {there}")
        except BaseException:
            client.close()
            raise
        return client

    def _ask(self) -> Client:
        client = Client(self._server, self._stop)
        client.model.on_vector.append(self._count)
        client.model.on_note.append(self._note)
        client.get_properties()
        return client

    def _reconnect(self, gone: ServerGone, patience: Deadline, end: Deadline | None) -> Client | None:
        """The server again; None when it is time to end. Raises `ServerGone`."""
        pause = FIRST_PAUSE
        while not patience.passed:
            self._view.show((), self._histories)
            if self._stop.wait(min(pause, patience.remaining)) or (end is not None and end.passed):
                return None
            with suppress(ServerGone):
                return self._ask()
            pause = min(2 * pause, LONGEST_PAUSE)
        raise gone

    def _follow(self, client: Client, log_interval: float, end: Deadline | None) -> None:
        shown, logged = Deadline(0), Deadline(0)
        while not self._stop.is_set() and not (end is not None and end.passed):
            if logged.passed:
                logged = Deadline(log_interval)
                self._write(client)
            if shown.passed:
                shown = Deadline(self._view.interval)
                self._tick(client)
            client.poll(min(SLICE, shown.remaining, logged.remaining))

    def _cameras(self, client: Client) -> list[Snapshot]:
        found = devices_with(client, CAMERA)
        if self._wanted:
            found = [device for device in self._wanted if device in client.model.devices]
        return [snapshot(client.model, device, self._pulses[device]) for device in found]

    def _tick(self, client: Client) -> None:
        cameras = self._cameras(client)
        now = time.monotonic()
        for camera in cameras:
            self._histories[camera.device].add(now, camera)
        self._view.show(cameras, self._histories)

    def _write(self, client: Client) -> None:
        if self._log is not None:
            now = datetime.now(UTC)
            for camera in self._cameras(client):
                self._log.add(now, camera)

    def _count(self, vector: Vector) -> None:
        if vector.name in GUIDE_VECTORS:
            self._pulses[vector.device].take(vector)

    def _note(self, note: Note) -> None:
        if not note.device or not self._wanted or note.device in self._wanted:
            self._view.say(f"{note.device or 'server'}: {note.text}")
