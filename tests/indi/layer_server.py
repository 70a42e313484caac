# SPDX-License-Identifier: LGPL-2.1-or-later
"""A real indiserver with a driver that has our INDI layer and no camera."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support import guard
from tests.support.indi import PATIENCE, ROOT, eventually, free_port

DRIVER = Path(__file__).with_name("layer_driver.py")


class IndiServer:
    """A real indiserver with the driver of these tests, on its own port, socket and home."""

    def __init__(self, directory: Path, environ: Mapping[str, str]) -> None:
        self.home = directory / "home"
        self.home.mkdir(exist_ok=True)
        self.port = free_port()
        self.path = str(directory / "indi.sock")
        self.log = directory / "indiserver.log"
        wrapper = directory / "indi_layer"
        wrapper.write_text(f"#!/bin/sh\nexec {sys.executable} {DRIVER}\n")
        wrapper.chmod(0o755)
        own = {"HOME": str(self.home), "PYTHONPATH": str(ROOT)}
        self._environ = guard.environ({**os.environ, **own, **environ})
        command = ["indiserver", "-v", "-r", "0", "-p", str(self.port), "-u", self.path, str(wrapper)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environ
            )

    @property
    def driver_pid(self) -> int:
        """The process id of the driver, as the driver wrote it to its log."""
        match = re.search(r"driver pid (\d+) is up", self.log.read_text())
        return int(match[1]) if match else 0

    def tool(self, name: str, *arguments: str, cwd: Path | None = None) -> str:
        """Runs one of INDI's tools against this server, and returns its output."""
        command = [name, "-p", str(self.port), *arguments]
        result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE * 2, cwd=cwd)
        assert result.returncode == 0, (command, result, self.log.read_text())
        return result.stdout

    def get(self, what: str) -> str:
        return self.tool("indi_getprop", "-1", "-t", "15", what).strip()

    def set(self, *what: str) -> None:
        self.tool("indi_setprop", *what)

    def wait(self, expression: str) -> None:
        self.tool("indi_eval", "-t", "15", "-w", expression)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)


@contextmanager
def indiserver(directory: Path, **environ: str) -> Iterator[IndiServer]:
    server = IndiServer(directory, environ)
    try:
        eventually(lambda: server.driver_pid, "the driver comes up")
        yield server
    finally:
        server.close()
