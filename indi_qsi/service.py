# SPDX-License-Identifier: LGPL-2.1-or-later
"""What makes `indi-qsi serve` a good service of systemd: it tells when it is ready, what it is doing, that it
is alive, and that it stops.

A watch thread looks at what must not stand still: the camera threads, the door for clients, and the lock of
the property model. As long as all move, systemd's watchdog is fed (sd_notify(3), WATCHDOG=1); if not, systemd
ends the process after WatchdogSec, with all stacks in the journal, and starts it anew. A camera that is away
is no reason for that.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from indi_qsi.properties.vectors import MODEL_LOCK

if TYPE_CHECKING:
    from indi_qsi.device.device import QsiDevice

log = logging.getLogger(__name__)

LOOK_INTERVAL = 2.0  # s between looks, and so the age of what `systemctl status` shows
# Looks fit several times into the watchdog's period: one may be late on a busy machine.
LOOKS_PER_PERIOD = 3
# A camera thread without a sign of life. The longest that a job may lawfully take without one: a few
# exchanges with all their repetitions; a single read gives up after 15 s.
STUCK_AFTER = 60.0  # s
PATIENCE = 3  # looks at the same trouble, before a process that nobody watches gives up
LOCK_TIME = 5.0  # s; nobody holds the model's lock while waiting, so it is free within milliseconds
CLOSE_TIME = 10.0  # s for the thread to end: it may be waiting for the lock


class Door(Protocol):
    """Where clients come in."""

    @property
    def alive(self) -> bool: ...


class Notifier:
    """Messages to systemd; without systemd they go nowhere."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._send = _sender(environ.get("NOTIFY_SOCKET", ""))
        self._status = ""
        self.watchdog = _watchdog(environ)

    def ready(self) -> None:
        """Clients can come."""
        self._send("READY=1")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        self._send("STOPPING=1\nSTATUS=Leaving the camera in order")

    def status(self, text: str) -> None:
        """What `systemctl status` shows; sent when it changes."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text}")


def _sender(address: str) -> Callable[[str], object]:
    if not address:
        return lambda message: None
    try:
        from systemd.daemon import notify
    except ImportError:
        return _DatagramSender(address)
    sender: Callable[[str], object] = notify
    return sender


class _DatagramSender:
    """What systemd-python does, for where it is not installed."""

    def __init__(self, address: str) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def __call__(self, message: str) -> None:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.sendto(message.encode(), self._address)
        except OSError as error:
            log.debug("systemd was not told %r: %s", message, error)


def _watchdog(environ: Mapping[str, str]) -> float | None:
    """The watchdog's period in s, None when there is none for this process."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        period = int(environ.get("WATCHDOG_USEC", "")) / 1e6
    except ValueError:
        return None
    return period if period > 0 else None


class Watch:
    """Looks after the service from now on, until `close`.

    `waits` is what to say while there is no camera yet. `give_up` is told of what stands still and does not
    move for `PATIENCE` looks; without it that is systemd's business. Tells systemd that the service is ready.
    """

    def __init__(
        self,
        devices: Callable[[], Iterable[QsiDevice]],
        door: Door,
        notifier: Notifier,
        waits: str,
        stuck_after: float = STUCK_AFTER,
        give_up: Callable[[str], None] | None = None,
    ) -> None:
        self._devices = devices
        self._door = door
        self._notifier = notifier
        self._waits = waits
        self._stuck_after = stuck_after
        self._give_up = give_up
        self._trouble: str | None = None
        self._looks = 0  # at the same trouble
        self._ended = threading.Event()
        interval = LOOK_INTERVAL
        if notifier.watchdog is not None:
            interval = min(interval, notifier.watchdog / LOOKS_PER_PERIOD)
            # systemd ends a process that hangs by SIGABRT: then every thread's stack goes to the journal.
            faulthandler.enable()
        self._interval = interval
        self.look()
        notifier.ready()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """The service stops; no more looks."""
        self._notifier.stopping()
        self._ended.set()
        self._thread.join(CLOSE_TIME)

    def look(self) -> None:
        """One look: feeds the watchdog if all is well, and tells what goes on."""
        trouble = self._stands_still()
        if trouble is None:
            self._notifier.alive()
            self._notifier.status(self._summary())
        else:
            self._notifier.status(f"Hangs: {trouble}")
        if trouble != self._trouble:
            self._trouble = trouble
            self._looks = 0
            if trouble is None:
                log.warning("it goes on")
            else:
                log.error("%s", trouble)
        self._looks += 1
        if trouble is not None and self._give_up is not None and self._looks >= PATIENCE:
            self._give_up(trouble)

    def _run(self) -> None:
        while not self._ended.wait(self._interval):
            try:
                self.look()
            except Exception:
                # Not fed: if it stays like this, systemd starts the service anew.
                log.exception("the watch failed")

    def _stands_still(self) -> str | None:
        for device in self._devices():
            if device.thread.stuck(self._stuck_after):
                return f"the camera thread of {device.name} has not moved for {self._stuck_after:g} s"
        if not self._door.alive:
            return "clients are not let in any more"
        if not MODEL_LOCK.acquire(timeout=LOCK_TIME):
            return f"the property model has been locked for {LOCK_TIME:g} s"
        MODEL_LOCK.release()
        return None

    def _summary(self) -> str:
        told = [device.summary() for device in self._devices()]
        return "; ".join(text for text in told if text) or self._waits
