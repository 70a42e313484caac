# SPDX-License-Identifier: LGPL-2.1-or-later
"""A shell in which the commands of the documents run as they stand, on ports of their own.

What is put in another's place, so that two runs, and whatever else this machine serves, keep apart:

- INDI's programs, and ours that speak to a server, are found first in a folder of wrappers, which add `-p PORT`
  and the like (`WRAPPERS`); so are `tools/run` and its port;
- in the text, the USB/IP port 3240 becomes another one, and /tmp/ a folder of the test (`SUBSTITUTES`);
- the home directory and the current one are the test's.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.docs.pages import ROOT
from tests.support.indi import PATIENCE
from tests.support.rig import PROGRAMS

# Program -> the arguments that go before those of the document.
CLIENTS = dict.fromkeys(("indi_setprop", "indi_getprop", "indi_eval"), "-p {port}")
WRAPPERS = CLIENTS | {
    "indiserver": "-p {port} -u {folder}/indi.sock",
    **dict.fromkeys(("qsi-doctor", "qsi-snap", "qsi-watch"), "--server 127.0.0.1:{port}"),
}
SUBSTITUTES = {"127.0.0.1:3240": "127.0.0.1:{usb_port}", "/tmp/": "{folder}/tmp/"}
BASH = ("bash", "-eu", "-o", "pipefail", "-c")
# What would lead a program out of the test's own world.
FOREIGN = (
    *("INDI_QSI_USB", "INDI_QSI_SERIAL", "INDI_QSI_DEBUG", "INDI_QSI_BLOB", "INDI_QSI_TIMING"),
    *("INDIDEV", "INDICONFIG"),
)


def wrap(folder: Path, port: int, programs: Mapping[str, str] = WRAPPERS) -> Path:
    """A folder to be put in front of the path: programs that speak to this port."""
    wrappers = folder / "programs"
    wrappers.mkdir()
    for name, arguments in programs.items():
        path = wrappers / name
        more = arguments.format(port=port, folder=folder)
        path.write_text(f'#!/bin/sh\nPATH=${{PATH#*:}} exec {name} {more} "$@"\n')
        path.chmod(0o755)
    return wrappers


class Shell:
    """A home, a current directory that looks like a checkout that is set up, and ports."""

    def __init__(self, folder: Path, port: int, usb_port: int) -> None:
        self.folder, self.port = folder, port
        self._values = {"port": port, "usb_port": usb_port, "folder": folder}
        self.work = folder / "work"
        for made in (folder / "home", folder / "tmp", self.work / "tools"):
            made.mkdir(parents=True)
        (self.work / ".venv").symlink_to(ROOT / ".venv")
        run = self.work / "tools" / "run"
        run.write_text(f'#!/bin/sh\nexec {ROOT}/tools/run --listen 127.0.0.1:{port} "$@"\n')
        run.chmod(0o755)
        path = (str(wrap(folder, port)), str(PROGRAMS), os.environ["PATH"])
        inherited = {name: value for name, value in os.environ.items() if name not in FOREIGN}
        self.environ = inherited | {"HOME": str(folder / "home"), "PATH": os.pathsep.join(path)}

    def substitute(self, text: str) -> str:
        for old, new in SUBSTITUTES.items():
            text = text.replace(old, new.format_map(self._values))
        return text

    def start(self, text: str, log: Path) -> Serving:
        return Serving(self, self.substitute(text), log)

    def run(self, text: str, ends: tuple[int, ...] = (0,)) -> str:
        """A block to its end; its output. Whatever it leaves running is ended."""
        log = self.folder / "output"
        serving = self.start(text, log)
        try:
            status = serving.process.wait(4 * PATIENCE)
        finally:
            serving.close()
        assert status in ends, f"exit status {status}, not one of {ends}:\n{text}\n{serving.log}"
        return serving.log


class Serving:
    """A block that runs until somebody ends it, as by closing its terminal."""

    def __init__(self, shell: Shell, text: str, log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                (*BASH, text),
                cwd=shell.work,
                env=shell.environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + 2 * PATIENCE
        while not condition():
            assert self.process.poll() is None, f"it ended before {what}:\n{self.log}"
            assert time.monotonic() < deadline, f"not in time: {what}\n{self.log}"
            time.sleep(0.05)

    def close(self) -> None:
        """Ends all processes of the block, and waits until none is left."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + PATIENCE / 2
            while time.monotonic() < deadline:
                try:
                    os.killpg(self.process.pid, number)
                except ProcessLookupError:
                    self.process.wait(PATIENCE)
                    return
                self.process.poll()  # reaped, or the group would never be empty
                time.sleep(0.05)
        raise AssertionError(f"it does not end:\n{self.log}")
