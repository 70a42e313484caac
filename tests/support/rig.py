# SPDX-License-Identifier: LGPL-2.1-or-later
"""The whole chain of real parts: simulated camera, USB/IP, driver process, indiserver or our own server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from tests.support import guard
from tests.support.indi import PATIENCE, Client, eventually, free_port
from usbproto.frames import adjust_zero, zero_adjustment
from usbproto.simulator.camera import SimulatedCamera
from usbproto.simulator.usbip_server import UsbIpServer

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(sys.executable).parent
DEVICE = "QSI CCD"
READOUT = 0.1  # s, of a full frame; real ones take a second to ten


class Sim:
    """A simulated camera behind USB/IP, in the process of the test, so that the test can look inside."""

    def __init__(
        self,
        directory: Path,
        model: str = "683wsg",
        more: Sequence[str] = (),
        listen: Sequence[str] = (),
        **options: Any,
    ) -> None:
        self.happened: list[dict[str, Any]] = []
        options.setdefault("readout", READOUT)
        self.camera = SimulatedCamera(model, listener=self._note, **options)
        path = directory / f"usb-{model}.sock"
        self.others = [SimulatedCamera(other, readout=READOUT) for other in more]
        devices = [camera.device for camera in (self.camera, *self.others)]
        self.server = UsbIpServer(devices, [f"unix:{path}", *listen])
        self.environ = {"INDI_QSI_USB": f"usbip:unix:{path}"}

    def _note(self, name: str, facts: Mapping[str, Any]) -> None:
        self.happened.append({"e": name, "t": time.time(), **facts})

    def close(self) -> None:
        self.server.close()
        for camera in (self.camera, *self.others):
            camera.close()

    def __enter__(self) -> Sim:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def count(self, event: str) -> int:
        return sum(happening["e"] == event for happening in self.happened)

    def times(self, event: str) -> list[float]:
        return [happening["t"] for happening in self.happened if happening["e"] == event]

    def picture(self) -> np.ndarray:
        """The last frame as a client must get it: after auto-zero."""
        frame = self.camera.firmware.imager.frame
        assert frame is not None
        adjustment = zero_adjustment(frame.overscan, frame.zero_level)
        return adjust_zero(frame.pixels.copy(), adjustment)


def opened(data: bytes) -> tuple[fits.Header, np.ndarray]:
    """Header and pixels of a FITS file that astropy finds no fault with."""
    with fits.open(BytesIO(data)) as file:
        file.verify("exception")
        assert len(file) == 1
        return file[0].header.copy(), np.array(file[0].data)


class Process:
    """A program of ours with a home of its own."""

    def __init__(self, directory: Path, command: list[str], environ: Mapping[str, str]) -> None:
        self.home = directory / "home"
        self.home.mkdir(exist_ok=True)
        self.log_path = directory / f"{Path(command[0]).name}.log"
        path = f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"
        self.environ = guard.environ({**os.environ, "HOME": str(self.home), "PATH": path, **environ})
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=self.environ
            )

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def close(self) -> None:
        """Ends the program. Raises AssertionError when one of its threads waited that must not."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(PATIENCE)
        guard.check()


class Server(Process):
    """An INDI server with our driver, and INDI's own command-line clients for it."""

    port: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def tool(self, name: str, *arguments: str, cwd: Path | None = None) -> str:
        command = [name, "-p", str(self.port), *arguments]
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=2 * PATIENCE, cwd=cwd, env=self.environ
        )
        assert result.returncode == 0, (command, result, self.log)
        return result.stdout

    def get(self, what: str) -> str:
        return self.tool("indi_getprop", "-1", "-t", "15", f"{DEVICE}.{what}").strip()

    def set(self, what: str) -> None:
        self.tool("indi_setprop", f"{DEVICE}.{what}")

    def wait_state(self, vector: str, state: int) -> None:
        """0 Idle, 1 Ok, 2 Busy, 3 Alert."""
        self.tool("indi_eval", "-t", "20", "-w", f'"{DEVICE}.{vector}._STATE"=={state}')

    def connect(self) -> None:
        self.set("CONNECTION.CONNECT=On")
        self.tool(
            "indi_eval",
            *("-t", "20", "-w"),
            f'"{DEVICE}.CONNECTION._STATE"==1 && "{DEVICE}.CONNECTION.CONNECT"==1',
        )


@contextmanager
def under_indiserver(
    directory: Path, environ: Mapping[str, str], driver: str = "indi_qsi_ccd", restarts: int = 0
) -> Iterator[Server]:
    """Debian's indiserver, which starts `indi_qsi_ccd` from the path, or another driver."""
    port = free_port()
    command = ["indiserver", "-v", "-r", str(restarts), "-p", str(port), "-u", str(directory / "indi.sock")]
    server = Server(directory, [*command, driver], environ)
    server.port = port
    try:
        eventually(lambda: answers(port), "indiserver listens")
        yield server
    finally:
        server.close()


@contextmanager
def stand_alone(
    directory: Path, environ: Mapping[str, str], *arguments: str, listen: str = "127.0.0.1:0"
) -> Iterator[Server]:
    """`indi-qsi serve`."""
    server = Server(
        directory,
        [str(PROGRAMS / "indi-qsi"), "serve", "--listen", listen, *arguments],
        {**environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        found = eventually(
            lambda: re.search(r"' on 127\.0\.0\.1:(\d+)", server.log) or server.process.poll() is not None,
            "indi-qsi serve is ready",
        )
        assert isinstance(found, re.Match), server.log
        server.port = int(found[1])
        yield server
    finally:
        server.close()


def answers(port: int) -> bool:
    try:
        Client(f"127.0.0.1:{port}").close()
    except OSError:
        return False
    return True


class IndiClient(Client):
    """A raw client of our device."""

    def new(self, kind: str, vector: str, **values: object) -> None:
        elements = "".join(f"<one{kind} name='{name}'>{value}</one{kind}>" for name, value in values.items())
        self.send(f"<new{kind}Vector device='{DEVICE}' name='{vector}'>{elements}</new{kind}Vector>")

    def connect_camera(self) -> None:
        self.send("<getProperties version='1.7'/>")
        self.wait_for("defSwitchVector", name="CONNECTION")
        self.send(f"<enableBLOB device='{DEVICE}'>Also</enableBLOB>")
        self.new("Switch", "CONNECTION", CONNECT="On")
        self.wait_for("setSwitchVector", name="CONNECTION", state="Ok")
        self.wait_for("defBLOBVector", name="CCD1")

    def expose(self, seconds: float) -> None:
        self.new("Number", "CCD_EXPOSURE", CCD_EXPOSURE_VALUE=seconds)

    def states(self, vector: str) -> list[str]:
        """The states of all updates of a vector so far."""
        return [m.attrib["state"] for m in list(self.messages) if m.get("name") == vector and "set" in m.tag]

    def picture(self, number: int = 1) -> tuple[fits.Header, np.ndarray]:
        """The so-many-th frame, waited for."""
        eventually(lambda: len(self.blobs) >= number, f"frame {number} comes")
        return opened(self.blobs[number - 1])
