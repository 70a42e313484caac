# SPDX-License-Identifier: LGPL-2.1-or-later
"""The desk from which the virtual Raspberry Pi is used: INDI's own programs, without privileges."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from tests.support.rig import DEVICE

NOBODY = "nobody"
# An emulated driver on a busy machine loads astropy for half a minute.
PATIENCE = 300  # s
# s that a client which is told nothing has to ask for pictures in, before the exposure begins.
SUBSCRIBED = 1.0


class Desk:
    """Clients of the server at a port of this machine."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._user = NOBODY if os.geteuid() == 0 else None
        self._folder = Path(tempfile.mkdtemp(prefix="vm-desk-"))
        if self._user:
            shutil.chown(self._folder, self._user)

    def close(self) -> None:
        shutil.rmtree(self._folder)

    def answered(self) -> bool:
        """Whether a driver answers there."""
        return (
            self._tool("indi_getprop", "-1", "-t", "5", f"{DEVICE}.DRIVER_INFO.DRIVER_EXEC").returncode == 0
        )

    def get(self, what: str) -> str:
        return self._must("indi_getprop", "-1", "-t", str(PATIENCE), f"{DEVICE}.{what}")

    def set(self, what: str) -> None:
        self._must("indi_setprop", "-t", str(PATIENCE), f"{DEVICE}.{what}")

    def wait(self, *conditions: str) -> None:
        """Until all are true, such as `CCD_EXPOSURE._STATE==1` (0 Idle, 1 Ok, 2 Busy, 3 Alert)."""
        terms = [condition.split("==") for condition in conditions]
        expression = " && ".join(f'"{DEVICE}.{what}"=={value}' for what, value in terms)
        self._must("indi_eval", "-t", str(PATIENCE), "-w", expression)

    def connected(self) -> None:
        """Waits until the camera is."""
        self.wait("CONNECTION.CONNECT==1", "CONNECTION._STATE==1")

    def begin(self, seconds: float) -> None:
        """Begins an exposure, and returns when the camera exposes."""
        self.set(f"CCD_EXPOSURE.CCD_EXPOSURE_VALUE={seconds}")
        self.wait("CCD_EXPOSURE._STATE==2")

    def picture(self, seconds: float) -> bytes:
        """The file that indi_getprop writes."""
        command = ["indi_getprop", "-p", str(self._port), "-t", str(PATIENCE), f"{DEVICE}.CCD1.CCD1"]
        # It has asked for pictures long before this one is there: a full frame takes seconds.
        getter = subprocess.Popen(command, cwd=self._folder, user=self._user, stdout=subprocess.DEVNULL)
        try:
            time.sleep(SUBSCRIBED)
            self.set(f"CCD_EXPOSURE.CCD_EXPOSURE_VALUE={seconds}")
            assert getter.wait(PATIENCE) == 0
        finally:
            getter.kill()
            getter.wait()
        (file,) = self._folder.iterdir()
        content = file.read_bytes()
        file.unlink()
        return content

    def _must(self, *command: str) -> str:
        result = self._tool(*command)
        assert result.returncode == 0, (command, result)
        return result.stdout.strip()

    def _tool(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [name, "-p", str(self._port), *arguments],
            capture_output=True,
            text=True,
            timeout=PATIENCE + 30,
            cwd=self._folder,
            user=self._user,
        )
