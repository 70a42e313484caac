# SPDX-License-Identifier: LGPL-2.1-or-later
"""KStars as a user would have it: started once, connected to our server, given jobs."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from typing import Any, TypeVar

from tests.ekos.desktop import DBusError, Desktop, wait_until
from tests.ekos.sequence import Job, write_sequence
from tests.ekos.settings import PROFILE, database, write_profile, write_settings

EKOS, CAPTURE, INDI = "/KStars/Ekos", "/KStars/Ekos/Capture", "/KStars/INDI"
START_LIMIT = 90.0  # s; it takes three on an idle machine
CONNECT_LIMIT = 30.0  # s
JOB_LIMIT = 30.0  # s besides the exposures; a job of one frame takes one or two
LOG_LINES = 40  # of KStars' own log, shown when something fails

# What KStars' log says about INDI and jobs, which is otherwise not written; and not Qt about "offscreen".
LOGGING = (
    "org.kde.kstars.indi.debug=true;org.kde.kstars.ekos.debug=true;org.kde.kstars.ekos.capture.debug=true;"
    "qt.qpa.*=false"
)

T = TypeVar("T")


class Status(IntEnum):
    """Ekos' word for how a connection is."""

    IDLE = 0
    PENDING = 1
    SUCCESS = 2
    ERROR = 3


class Ekos:
    """One KStars with a profile for the server on `port` of this machine.

    Its pictures are written below `pictures`, one folder a job.
    """

    def __init__(self, desktop: Desktop, port: int, device: str, viewer: bool = False) -> None:
        self.desktop = desktop
        self.device = device
        self.pictures = desktop.home / "pictures"
        self.log_path = desktop.home / "kstars.log"
        self._jobs = 0
        self._covered = False
        desktop.environ["QT_LOGGING_RULES"] = LOGGING
        write_settings(desktop.config, device, self.pictures, viewer)
        if not database(desktop.data).exists():
            desktop.end(self._start())  # it makes its database, then the profile can be put in
        write_profile(database(desktop.data), port, device)
        self._kstars = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        process = self.desktop.start("kstars", log=self.log_path)

        def answers() -> bool:
            assert process.poll() is None, f"KStars ended by itself:\n{self.log}"
            with suppress(DBusError):
                self.desktop.call(EKOS, "Ekos.getProfiles")
                return True
            return False

        wait_until(answers, "KStars answers on D-Bus", START_LIMIT)
        return process

    def close(self) -> None:
        self.desktop.end(self._kstars)

    # --- the profile ---

    def start(self) -> None:
        """The button that starts the profile; then the device is connected and Capture has its camera."""
        assert self.desktop.call(EKOS, "Ekos.setProfile", PROFILE) is True
        self.desktop.call(EKOS, "Ekos.start")
        self.wait(lambda: self.status == Status.SUCCESS, "Ekos reaches the server", CONNECT_LIMIT)
        self.wait_connected()

    def stop(self) -> None:
        """The same button again: ends all connections. The device is disconnected first."""
        self.desktop.call(EKOS, "Ekos.stop")
        self.wait(lambda: self.status == Status.IDLE, "Ekos stops", CONNECT_LIMIT)

    def connect(self) -> None:
        """The button Connect."""
        self.desktop.call(EKOS, "Ekos.connectDevices")
        self.wait_connected()

    def disconnect(self) -> None:
        """The button Disconnect."""
        self.desktop.call(EKOS, "Ekos.disconnectDevices")
        self.wait(lambda: self.indi_status == Status.IDLE, "the device is disconnected", CONNECT_LIMIT)

    def wait_connected(self) -> None:
        self.wait(lambda: self.indi_status == Status.SUCCESS, "the device is connected", CONNECT_LIMIT)
        self.wait(lambda: self._camera() == self.device, "Capture has the camera", CONNECT_LIMIT)
        self.wait(
            lambda: self.number("CCD_INFO", "CCD_MAX_X") > 1, "the sensor's size is known", CONNECT_LIMIT
        )

    @property
    def status(self) -> int:
        return int(self.desktop.get(EKOS, "Ekos", "ekosStatus"))

    @property
    def indi_status(self) -> int:
        return int(self.desktop.get(EKOS, "Ekos", "indiStatus"))

    def _camera(self) -> str | None:
        try:
            return str(self.desktop.get(CAPTURE, "Ekos.Capture", "camera"))
        except DBusError:  # the module appears with the first camera
            return None

    # --- jobs ---

    def run(self, job: Job) -> list[Path]:
        """Runs a job to its end; returns the files that Ekos wrote."""
        folder = self.begin(job)
        self.wait_complete(job)
        files = self.files(folder)
        assert len(files) == job.count, (files, self.report())
        return files

    def begin(self, job: Job) -> Path:
        """Starts a job; returns the folder of its pictures."""
        if self._covered and job.kind == "Light":
            # Ekos asks to take the flat's cover off, and unlike the question before the flat, this one is not
            # answered by itself. A profile that starts anew has forgotten the cover.
            self.stop()
            self.start()
        self._covered = job.kind == "Flat"
        self._jobs += 1
        folder = self.pictures / str(self._jobs)
        folder.mkdir(parents=True)
        sequence = folder / "sequence.esq"
        size = [int(self.number("CCD_INFO", f"CCD_MAX_{axis}")) for axis in "XY"]
        write_sequence(sequence, job, folder, (0, 0, size[0], size[1]))
        self.desktop.call(CAPTURE, "Ekos.Capture.clearSequenceQueue")
        assert self.desktop.call(CAPTURE, "Ekos.Capture.loadSequenceQueue", str(sequence)) is True
        self.desktop.call(CAPTURE, "Ekos.Capture.start")
        return folder

    def wait_complete(self, job: Job) -> None:
        self.wait(self._complete, f"{job} completes", JOB_LIMIT + job.count * job.exposure)

    @staticmethod
    def files(folder: Path) -> list[Path]:
        """The pictures of a job, oldest first."""
        return sorted(folder.rglob("*.fits"))

    def abort(self) -> None:
        """The button that stops the sequence."""
        self.desktop.call(CAPTURE, "Ekos.Capture.abort")

    @property
    def queue(self) -> str:
        """Idle, Running, Complete, Aborted, Error, ..."""
        return str(self.desktop.call(CAPTURE, "Ekos.Capture.getSequenceQueueStatus"))

    def _complete(self) -> bool:
        status = self.queue
        assert status not in ("Aborted", "Error"), f"the sequence ended as {status}\n{self.report()}"
        return status == "Complete"

    # --- what Ekos knows of the device ---

    def number(self, vector: str, element: str) -> float:
        return float(self.desktop.call(INDI, "INDI.getNumber", self.device, vector, element))

    def switch(self, vector: str, element: str) -> str:
        """On or Off."""
        return str(self.desktop.call(INDI, "INDI.getSwitch", self.device, vector, element))

    def state(self, vector: str) -> str:
        """Idle, Ok, Busy or Alert."""
        return str(self.desktop.call(INDI, "INDI.getPropertyState", self.device, vector))

    def text(self, vector: str, element: str) -> str:
        return str(self.desktop.call(INDI, "INDI.getText", self.device, vector, element))

    # --- when it goes wrong ---

    def wait(self, condition: Callable[[], T], what: str, limit: float) -> T:
        try:
            return wait_until(condition, what, limit)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.report()}") from None

    @property
    def log(self) -> str:
        """KStars' own log."""
        return self.log_path.read_text(errors="replace")

    @property
    def messages(self) -> str:
        """What Ekos and its Capture module wrote for their user, newest first."""
        return "\n".join(
            f"--- {interface}:\n{self._messages(path, interface)}"
            for path, interface in ((EKOS, "Ekos"), (CAPTURE, "Ekos.Capture"))
        )

    def _messages(self, path: str, interface: str) -> str:
        try:
            lines: Any = self.desktop.get(path, interface, "logText")
        except DBusError as error:
            return str(error)
        return "\n".join(lines) if isinstance(lines, list) else str(lines)

    def report(self) -> str:
        end = "\n".join(self.log.splitlines()[-LOG_LINES:])
        return f"{self.messages}\n--- end of {self.log_path}:\n{end}"
