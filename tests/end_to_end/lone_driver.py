# SPDX-License-Identifier: LGPL-2.1-or-later
"""`indi_qsi_ccd` as indiserver runs it, with a test at the other end of its socket."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support import guard
from tests.support.indi import PATIENCE
from tests.support.rig import PROGRAMS
from tests.support.workbench import Observer


class LoneDriver(Observer):
    """A client, and the driver process that it talks to by one socket for both directions."""

    def __init__(
        self,
        home: Path,
        environ: Mapping[str, str],
        command: Sequence[str] = (str(PROGRAMS / "indi_qsi_ccd"),),
    ) -> None:
        home.mkdir(exist_ok=True)
        self.log_path = home / "driver.log"
        ours, theirs = socket.socketpair()
        with self.log_path.open("ab") as log, theirs:
            self.process = subprocess.Popen(
                command,
                stdin=theirs,
                stdout=theirs,
                stderr=log,
                env=guard.environ({**os.environ, "HOME": str(home), **environ}),
            )
        self.socket = ours
        self.messages = []
        self.blobs = []
        self.raw = b""
        self.closed = threading.Event()
        self.reading = threading.Event()
        self.reading.set()
        self._descriptors = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def hang_up(self) -> None:
        """The server is gone: end of file on the driver's input, and nobody reads its output."""
        self.socket.shutdown(socket.SHUT_RDWR)

    def ended(self) -> int:
        """Its exit status, waited for."""
        return self.process.wait(2 * PATIENCE)

    def close(self) -> None:
        """Ends the driver. Raises AssertionError when one of its threads waited that must not."""
        if self.process.poll() is None:
            self.process.kill()
            self.ended()
        super().close()
        guard.check()
