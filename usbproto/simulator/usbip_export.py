# SPDX-License-Identifier: LGPL-2.1-or-later
"""The server's side of an imported device: transfers that come over a connection are run on a handle.

One thread reads the connection; each endpoint has a worker that runs its transfers in order. So a control
request or an UNLINK is served while a read waits for data.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import queue
import socket
import threading

from usbproto.simulator import usbip_protocol as usbip
from usbproto.simulator.usbdevice import Handle
from usbproto.simulator.usbip_address import receive, receive_bytes
from usbproto.simulator.usbtransfer import IN, Setup, Transfer, UsbFailure

_log = logging.getLogger(__name__)

# A host keeps a few reads queued; a thousand are a fault of its own, and each costs memory here.
MAX_PENDING = 1024
# What hosts send are commands of some hundred bytes.
MAX_OUT = 1 << 20  # bytes


class _Job:
    """A transfer on its way; `unlink` is the sequence number of the request to cancel it."""

    __slots__ = ("command", "started", "transfer", "unlink")

    def __init__(self, command: usbip.Submit, data: bytes) -> None:
        setup = Setup.parse(command.setup) if command.endpoint == 0 else None
        endpoint = command.endpoint | (IN if command.is_in and command.endpoint else 0)
        self.command = command
        self.transfer = Transfer(endpoint, memoryview(data), setup)
        self.started = False
        self.unlink: int | None = None


class Export:
    """`run` serves until the connection or the device has gone, then gives back the handle."""

    def __init__(self, connection: socket.socket, handle: Handle) -> None:
        self._connection = connection
        self._handle = handle
        self._sending = threading.Lock()  # guards the jobs as well: a reply and its job go together
        self._jobs: dict[int, _Job] = {}
        self._workers: dict[int, tuple[threading.Thread, queue.SimpleQueue[_Job | None]]] = {}

    def run(self) -> None:
        """usbip.ProtocolError when the host breaks the rules; OSError and EOFError when it has gone."""
        device = self._handle.device
        device.watch(self._plug_changed)
        try:
            self._plug_changed()
            self._read()
        finally:
            device.unwatch(self._plug_changed)
            self._handle.close()  # before the client sees the end: it may come back at once
            self._hang_up()
            for _, jobs in self._workers.values():
                jobs.put(None)
            for worker, _ in self._workers.values():
                worker.join()

    def _plug_changed(self) -> None:
        try:
            self._handle.check()
        except UsbFailure:
            self._hang_up()

    def _hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    # --- reader ---

    def _read(self) -> None:
        header = bytearray(usbip.HEADER_SIZE)
        while True:
            receive(self._connection, memoryview(header))
            command = usbip.parse_command(header)
            if isinstance(command, usbip.Unlink):
                self._unlink(command)
            else:
                self._submit(command)

    def _submit(self, command: usbip.Submit) -> None:
        data = b""
        if not command.is_in:
            if command.length > MAX_OUT:
                raise usbip.ProtocolError(f"{command.length} bytes to the device; at most {MAX_OUT}")
            data = receive_bytes(self._connection, command.length)
        job = _Job(command, data)
        with self._sending:
            if command.sequence in self._jobs or len(self._jobs) >= MAX_PENDING:
                raise usbip.ProtocolError(f"transfer {command.sequence}, with {len(self._jobs)} pending")
            self._jobs[command.sequence] = job
        self._worker(job.transfer.endpoint).put(job)

    def _unlink(self, command: usbip.Unlink) -> None:
        with self._sending:
            job = self._jobs.get(command.victim)
            if job is not None and job.started:
                job.unlink = command.sequence
                self._handle.cancel(job.transfer)
                return
            status = 0
            if job is not None:
                del self._jobs[command.victim]
                status = -errno.ECONNRESET
            self._connection.sendall(usbip.pack(usbip.Unlinked(command.sequence, status)))

    def _worker(self, endpoint: int) -> queue.SimpleQueue[_Job | None]:
        if endpoint not in self._workers:
            jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
            worker = threading.Thread(
                target=self._work, args=(jobs,), name=f"USB/IP endpoint {endpoint:#04x}", daemon=True
            )
            self._workers[endpoint] = worker, jobs
            worker.start()
        return self._workers[endpoint][1]

    # --- workers ---

    def _work(self, jobs: queue.SimpleQueue[_Job | None]) -> None:
        room = bytearray()  # header and data of an answer side by side, so that one call sends both
        try:
            while (job := jobs.get()) is not None:
                command = job.command
                if command.is_in:
                    if len(room) < usbip.HEADER_SIZE + command.length:
                        room = bytearray(usbip.HEADER_SIZE + command.length)
                    job.transfer.buffer = memoryview(room)[usbip.HEADER_SIZE :][: command.length]
                with self._sending:
                    if self._jobs.get(command.sequence) is not job:
                        continue  # unlinked before its turn came
                    job.started = True
                self._finish(job, self._run_job(job), memoryview(room))
        except (OSError, UsbFailure) as gone:
            _log.debug("connection ends: %s", gone)
        finally:
            self._hang_up()

    def _run_job(self, job: _Job) -> int | None:
        """The status for the reply, None when it was cancelled. UsbFailure when the device has gone."""
        setup = job.transfer.setup
        try:
            if setup is not None and (setup.request_type, setup.request, setup.value) == usbip.PORT_RESET:
                self._handle.reset()
            else:
                self._handle.run(job.transfer, None)
        except UsbFailure as failure:
            if failure.errno == errno.ENODEV:
                raise
            return None if failure.errno == errno.ETIMEDOUT else -failure.errno
        return 0

    def _finish(self, job: _Job, status: int | None, room: memoryview) -> None:
        command = job.command
        with self._sending:
            del self._jobs[command.sequence]
            if status is not None:
                actual = 0 if status else job.transfer.actual
                header = usbip.pack(usbip.Submitted(command.sequence, status, actual))
                if command.is_in and actual:
                    room[: len(header)] = header
                    self._connection.sendall(room[: len(header) + actual])
                else:
                    self._connection.sendall(header)
            if job.unlink is not None:
                done = 0 if status is not None else -errno.ECONNRESET
                self._connection.sendall(usbip.pack(usbip.Unlinked(job.unlink, done)))
