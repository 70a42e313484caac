# SPDX-License-Identifier: LGPL-2.1-or-later
"""A USB device made of software, as the host sees it: plugged or not, opened, claimed, read and written.

`UsbDevice` does what every device does (order of transfers, cancellation, faults of cable and host); a
subclass adds vendor requests and what flows through the bulk endpoints. All of it runs under the timeline's
lock; waits are real time, whatever the speed of the simulated camera.
"""

from __future__ import annotations

import errno
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable

from usbproto.simulator import descriptors
from usbproto.simulator.endpoint_zero import EndpointZero
from usbproto.simulator.timeline import Timeline
from usbproto.simulator.usbtransfer import IN, Mishap, Setup, Transfer, UsbFailure

# Device numbers as a host gives them: a replugged device gets the next one. 7 bits, 0 is no number.
_addresses = itertools.cycle(range(1, 128))


class UsbDevice:
    """`delay` (s) is added to every transfer; `kernel_driver`: one of the host holds it until detached.

    `claims` counts how often an interface was claimed. `mishap` decides for each bulk transfer whether it
    fails. `scatter_gather`: the host's controller carries a large read in one piece (URB). `longest_read`:
    the number of bytes for which the host's kernel has memory; None for any.
    """

    def __init__(self, timeline: Timeline, zero: EndpointZero, speed: int) -> None:
        self.speed = speed
        self.delay = 0.0
        self.kernel_driver = False
        self.plugged = True
        self.claims = 0
        self.mishap: Callable[[Transfer], Mishap | None] = lambda transfer: None
        self.scatter_gather = True
        self.longest_read: int | None = None
        self.address = next(_addresses)
        self._zero = zero
        self._changed = threading.Condition(timeline.lock)
        self._queues: dict[int, deque[Transfer]] = {e: deque() for e in (0, *zero.interface_of)}
        self._silent_until: dict[int, float] = {}
        self._claims: dict[int, Handle] = {}
        self._driver_detached = False
        self._watchers: list[Callable[[], None]] = []
        self._resets = 0
        self._denial: int | None = None
        self._refusals = 0

    # --- what a subclass adds ---

    def _power_on(self) -> None:
        """Forget everything that power loss or a bus reset makes the device forget."""

    def _vendor_request(self, setup: Setup, data: bytes) -> bytes:
        """Answer an IN request or obey an OUT one; UsbFailure(EPIPE) when there is no such request."""
        raise UsbFailure(errno.EPIPE)

    def _serve_in(self, transfer: Transfer, now: float) -> float:
        """Move what can be moved now; say when to look again (monotonic, s) unless it is complete."""
        raise NotImplementedError

    def _serve_out(self, endpoint: int, data: bytes) -> None:
        raise NotImplementedError

    # --- host side ---

    @property
    def device_descriptor(self) -> bytes:
        return self._zero.device

    @property
    def configuration_descriptor(self) -> bytes:
        return self._zero.configuration

    @property
    def interface_count(self) -> int:
        return self._zero.interface_count

    @property
    def _driver_active(self) -> bool:
        return self.kernel_driver and not self._driver_detached

    def open(self) -> Handle:
        """UsbFailure: ENODEV when it is not there, EACCES when it may not be opened."""
        with self._changed:
            if not self.plugged:
                raise UsbFailure(errno.ENODEV)
            if self._denial == errno.EACCES:
                raise UsbFailure(errno.EACCES)
            return Handle(self)

    def watch(self, watcher: Callable[[], None]) -> None:
        """`watcher` is called, with the lock held, when the device was plugged in, plugged out or reset."""
        with self._changed:
            self._watchers.append(watcher)

    def unwatch(self, watcher: Callable[[], None]) -> None:
        with self._changed:
            self._watchers.remove(watcher)

    # --- faults ---

    def unplug(self) -> None:
        """All transfers, pending and later, fail with ENODEV; it is not listed any more."""
        with self._changed:
            self.plugged = False
            self._forget()
            self._claims.clear()

    def enumerate_again(self) -> None:
        """It leaves the bus and is back at once, for instance behind another hub."""
        if self.plugged:
            self.unplug()
            self.replug()

    def replug(self) -> None:
        """It is back under a new address. What was opened before stays dead."""
        with self._changed:
            self.plugged = True
            self.address = next(_addresses)
            self._driver_detached = False
            self._forget()

    def reset_bus(self) -> None:
        """Pending transfers fail with EPROTO (libusb: EIO); the settings of the device are forgotten."""
        with self._changed:
            self._resets += 1
            self._forget()

    def halt(self, endpoint: int) -> None:
        """Transfers of this endpoint fail with EPIPE until the halt is cleared."""
        with self._changed:
            self._zero.halted.add(endpoint)
            self._changed.notify_all()

    def silence(self, endpoint: int, seconds: float) -> None:
        """This endpoint neither takes nor gives for so long, in real time."""
        with self._changed:
            self._silent_until[endpoint] = time.monotonic() + seconds
            self._changed.notify_all()

    def refuse_control(self, count: int = 1) -> None:
        """The next `count` vendor requests are refused (EPIPE)."""
        with self._changed:
            self._refusals = count

    def deny_open(self, number: int | None) -> None:
        """EACCES: cannot be opened. EBUSY: cannot be claimed. None: as usual."""
        with self._changed:
            self._denial = number

    def read_strings(self, allowed: bool) -> None:
        """Whether string descriptors can be read; otherwise they are refused (EPIPE)."""
        with self._changed:
            self._zero.strings_readable = allowed

    def truncate_serial(self, length: int) -> None:
        """The serial number is told with this many characters only."""
        with self._changed:
            strings = self._zero.strings
            strings[descriptors.SERIAL] = strings[descriptors.SERIAL][:length]

    def _forget(self) -> None:
        self._zero.reset()
        self._silent_until.clear()
        self._power_on()
        self._changed.notify_all()
        for watcher in tuple(self._watchers):
            watcher()

    # --- transfers (called by Handle) ---

    def _run(self, handle: Handle, transfer: Transfer, timeout: float | None) -> None:
        """Until complete. UsbFailure: ETIMEDOUT (also when cancelled) only if not a byte was moved."""
        if transfer.endpoint == 0:
            self._move(handle, transfer, timeout)
            return
        with self._changed:
            handle.check(transfer.endpoint)
            reads = transfer.endpoint & IN
            if reads and self.longest_read is not None and len(transfer.buffer) > self.longest_read:
                raise UsbFailure(errno.ENOMEM)
            mishap = self.mishap(transfer)
            if mishap is None or mishap.moves:
                self._move(handle, transfer, timeout)
            if mishap is not None:
                if mishap.errno == errno.EPIPE:
                    self.halt(transfer.endpoint)
                raise UsbFailure(mishap.errno)

    def _move(self, handle: Handle, transfer: Transfer, timeout: float | None) -> None:
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        with self._changed:
            handle.check(transfer.endpoint)
            queue = self._queues.get(transfer.endpoint)
            if queue is None:
                raise UsbFailure(errno.ENOENT)
            start, resets = time.monotonic() + self.delay, self._resets
            queue.append(transfer)
            try:
                while True:
                    handle.check(transfer.endpoint)
                    if self._resets != resets:
                        raise UsbFailure(errno.EPROTO)
                    now, wake = time.monotonic(), start
                    if now >= start:
                        wake = self._serve(transfer, now) if queue[0] is transfer else deadline
                    if transfer.complete:
                        return
                    if transfer.cancelled or now >= deadline:
                        if transfer.actual:
                            return
                        raise UsbFailure(errno.ETIMEDOUT)
                    wake = min(wake, deadline)
                    self._changed.wait(max(0.0, wake - now) if wake != float("inf") else None)
            finally:
                queue.remove(transfer)
                if queue:
                    self._changed.notify_all()

    def _serve(self, transfer: Transfer, now: float) -> float:
        endpoint = transfer.endpoint
        if transfer.setup is not None:
            self._control(transfer, transfer.setup)
        elif endpoint in self._zero.halted:
            raise UsbFailure(errno.EPIPE)
        elif now < (until := self._silent_until.get(endpoint, 0.0)):
            return until
        elif endpoint & IN:
            return self._serve_in(transfer, now)
        else:
            self._serve_out(endpoint, bytes(transfer.buffer))
            transfer.actual = len(transfer.buffer)
            transfer.complete = True
        return now

    def _control(self, transfer: Transfer, setup: Setup) -> None:
        data = b"" if setup.is_in else bytes(transfer.buffer[: setup.length])
        if setup.is_vendor:
            if self._refusals:
                self._refusals -= 1
                raise UsbFailure(errno.EPIPE)
            answer = self._vendor_request(setup, data)
        else:
            answer = self._zero.answer(setup)
        if setup.is_in:
            answer = answer[: min(setup.length, len(transfer.buffer))]
            transfer.buffer[: len(answer)] = answer
        transfer.actual = len(answer) if setup.is_in else len(data)
        transfer.complete = True


class Handle:
    """A device that somebody opened. Every method raises UsbFailure; time-outs in s, None waits for ever."""

    def __init__(self, device: UsbDevice) -> None:
        self.device = device
        self._address = device.address
        self._closed = False

    def check(self, endpoint: int = 0) -> None:
        """ENODEV when this handle is dead, EBUSY when somebody else holds the endpoint's interface."""
        device = self.device
        if self._closed or not device.plugged or device.address != self._address:
            raise UsbFailure(errno.ENODEV)
        if endpoint:
            holder = device._claims.get(device._zero.interface_of.get(endpoint, -1), self)
            if holder is not self:
                raise UsbFailure(errno.EBUSY)

    def run(self, transfer: Transfer, timeout: float | None) -> int:
        """Wait until the transfer is complete, cancelled or late; the number of bytes moved."""
        self.device._run(self, transfer, timeout)
        return transfer.actual

    def cancel(self, transfer: Transfer) -> None:
        """End a transfer that another thread runs; what was received stays received."""
        with self.device._changed:
            transfer.cancelled = True
            self.device._changed.notify_all()

    def control(self, setup: Setup, data: memoryview, timeout: float | None) -> int:
        return self.run(Transfer(0, data, setup), timeout)

    def bulk(self, endpoint: int, data: memoryview, timeout: float | None) -> int:
        return self.run(Transfer(endpoint, data), timeout)

    def bulk_in_row(self, endpoint: int, data: memoryview, timeout: float | None, size: int) -> int:
        """A read as a row of transfers of `size` bytes that are submitted together.

        A short packet ends one of them, and what is there already goes into the next; the rest is cancelled.
        The bytes stand without gaps in `data`, as libusb joins them.
        """
        received, ended = 0, False
        deadline = None if timeout is None else time.monotonic() + timeout
        for start in range(0, len(data), size):
            part = memoryview(data)[received : received + min(size, len(data) - start)]
            try:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                count = self.bulk(endpoint, part, 0.0 if ended else left)
            except UsbFailure as failure:
                if failure.errno == errno.ETIMEDOUT and received:
                    break
                raise
            received += count
            ended = ended or count < len(part)
        return received

    def reset(self) -> None:
        with self.device._changed:
            self.check()
            self.device.reset_bus()

    def claim(self, interface: int) -> None:
        device = self.device
        with device._changed:
            self.check()
            if not 0 <= interface < device.interface_count:
                raise UsbFailure(errno.ENOENT)
            busy = device._claims.get(interface, self) is not self
            if busy or device._driver_active or device._denial == errno.EBUSY:
                raise UsbFailure(errno.EBUSY)
            device._claims[interface] = self
            device.claims += 1

    def release(self, interface: int) -> None:
        with self.device._changed:
            self.check()
            if self.device._claims.get(interface) is not self:
                raise UsbFailure(errno.ENOENT)
            del self.device._claims[interface]

    def kernel_driver_active(self, interface: int) -> bool:
        with self.device._changed:
            self.check()
            return self.device._driver_active

    def attach_kernel_driver(self, interface: int, attach: bool) -> None:
        """ENOENT when there is no driver to detach."""
        device = self.device
        with device._changed:
            self.check()
            if not device.kernel_driver or not (attach or device._driver_active):
                raise UsbFailure(errno.ENOENT)
            device._driver_detached = not attach

    def close(self) -> None:
        """Release what is claimed and end what is pending. May be called twice."""
        device = self.device
        with device._changed:
            self._closed = True
            for interface in [i for i, holder in device._claims.items() if holder is self]:
                del device._claims[interface]
            device._changed.notify_all()
