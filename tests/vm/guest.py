# SPDX-License-Identifier: LGPL-2.1-or-later
"""A virtual machine with a kernel, systemd and udev of its own, emulated by QEMU.

Commands run in it by QEMU's guest agent, which needs neither network nor log-in.
"""

from __future__ import annotations

import base64
import json
import os
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.vm.image import Image

# Emulation is ten times slower than the machine, and the machine may be busy.
BOOT_TIME = 600.0  # s
COMMAND_TIME = 400.0  # s
ANSWER_TIME = 60.0  # s, of the agent
POLL = 0.2  # s

HOST = "10.0.2.2"  # this machine as the guest sees it (QEMU's user network)
USER = "observer"  # of the image: in the groups plugdev and sudo, as on Raspberry Pi OS

# What QEMU is asked for besides. Nehalem: the newest processor whose instructions the emulation knows well.
MACHINES = {
    "amd64": ["qemu-system-x86_64", "-machine", "q35", "-cpu", "Nehalem"],
    "arm64": ["qemu-system-aarch64", "-machine", "virt", "-cpu", "cortex-a72"],
}
CONSOLES = {"amd64": "ttyS0", "arm64": "ttyAMA0"}


class GuestError(AssertionError):
    """The machine did not do what a test needs of it."""


@dataclass(frozen=True)
class Result:
    status: int
    output: str  # what came on standard output
    errors: str


class Agent:
    """The channel to qemu-guest-agent: one request, one answer, as JSON."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._buffer = b""

    def wait(self, alive: Any) -> None:
        """Until the agent answers, while `alive()`."""
        deadline = time.monotonic() + BOOT_TIME
        number = 0
        while alive() and time.monotonic() < deadline:
            number += 1
            try:
                self._connect()
                # What an earlier question is answered with is passed over.
                self._send({"execute": "guest-sync", "arguments": {"id": number}})
                until = time.monotonic() + 5.0
                while self._receive(until).get("return") != number:
                    pass
                return
            except (OSError, ValueError):
                time.sleep(POLL)
        raise GuestError("the machine did not come up")

    def ask(self, command: str, **arguments: object) -> Any:
        self._send({"execute": command, "arguments": arguments})
        answer = self._receive(time.monotonic() + ANSWER_TIME)
        if "return" not in answer:
            raise GuestError(f"{command}: {answer}")
        return answer["return"]

    def close(self) -> None:
        if self._socket:
            self._socket.close()
        self._socket, self._buffer = None, b""

    def _connect(self) -> None:
        if self._socket is None:
            channel = socket.socket(socket.AF_UNIX)
            try:
                channel.connect(str(self._path))
            except OSError:
                channel.close()
                raise
            self._socket = channel

    def _send(self, question: dict[str, object]) -> None:
        assert self._socket is not None
        self._socket.settimeout(ANSWER_TIME)
        self._socket.sendall(json.dumps(question).encode() + b"\n")

    def _receive(self, deadline: float) -> dict[str, Any]:
        assert self._socket is not None
        while b"\n" not in self._buffer:
            self._socket.settimeout(max(0.01, deadline - time.monotonic()))
            data = self._socket.recv(1 << 20)
            if not data:
                self.close()
                raise ConnectionError("QEMU has gone")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Guest:
    """A machine with a disk of its own, which outlives `cut_power`; switched on by `boot`.

    `forward` is a port of this machine that leads to `port` in there.
    """

    def __init__(self, architecture: str, image: Image, folder: Path, forward: int, port: int) -> None:
        self._folder = folder
        self.console = folder / "console.log"
        self._agent = Agent(folder / "agent.sock")
        self._process: subprocess.Popen[bytes] | None = None
        disk = folder / "disk"
        subprocess.run(["cp", "--sparse=always", image.disk, disk], check=True, timeout=COMMAND_TIME)
        machine = MACHINES[architecture]
        self._command = [
            *(*machine, "-accel", "tcg,thread=multi", "-smp", "2", "-m", "1024"),
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *("-kernel", str(image.kernel), "-initrd", str(image.initrd)),
            *("-append", f"root=/dev/vda ro quiet mitigations=off console={CONSOLES[architecture]}"),
            *("-drive", f"file={disk},format=raw,if=virtio"),
            *("-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{forward}-:{port}"),
            *("-device", "virtio-net-pci,netdev=net,romfile="),
            *("-chardev", f"socket,id=agent,path={folder / 'agent.sock'},server=on,wait=off"),
            *("-device", "virtio-serial"),
            *("-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"),
            *("-chardev", f"file,id=console,path={self.console},append=on", "-serial", "chardev:console"),
            *("-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng"),
        ]

    def boot(self) -> None:
        """Switches it on, and returns when all its units are up."""
        with (self._folder / "qemu.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            self._agent.wait(lambda: self._process and self._process.poll() is None)
        except GuestError as error:
            said = (self._folder / "qemu.log").read_text() + self.console.read_text(errors="replace")[-2000:]
            raise GuestError(f"{error}:\n{said}") from None
        state = self.run("systemctl is-system-running --wait; systemctl --failed", ok=(0, 1))
        assert state.output.startswith("running\n"), state.output

    def cut_power(self) -> None:
        """As if the plug were pulled: what was not on the disk is lost."""
        assert self._process is not None
        self._agent.close()
        self._process.kill()
        self._process.wait(ANSWER_TIME)
        self._process = None

    def close(self) -> None:
        if self._process:
            self.cut_power()
        (self._folder / "disk").unlink(missing_ok=True)

    # --- what happens inside ---

    def run(self, command: str, user: str = "root", ok: Sequence[int] = (0,)) -> Result:
        """Runs a shell command; its exit status must be one of `ok`. Users get a log-in shell, in their home."""
        arguments = ["-c", f"set -e\n{command}"]
        path = "/bin/bash"
        if user != "root":
            path, arguments = "/usr/sbin/runuser", ["--login", user, "--command", f"set -e\n{command}"]
        started = self._agent.ask("guest-exec", **{"path": path, "arg": arguments, "capture-output": True})
        deadline = time.monotonic() + COMMAND_TIME
        while not (state := self._agent.ask("guest-exec-status", pid=started["pid"]))["exited"]:
            if time.monotonic() > deadline:
                raise GuestError(f"still not over after {COMMAND_TIME:.0f} s: {command}")
            time.sleep(POLL)
        said = [
            base64.b64decode(state.get(name, "")).decode(errors="replace")
            for name in ("out-data", "err-data")
        ]
        result = Result(state.get("exitcode", -state.get("signal", 1)), *said)
        if result.status not in ok:
            raise GuestError(f"{command}\nended with {result.status}:\n{result.output}{result.errors}")
        return result

    def ask(self, command: str, user: str = "root") -> str:
        """What a command prints, without white space around."""
        return self.run(command, user).output.strip()

    def wait(self, command: str, what: str, timeout: float = COMMAND_TIME) -> None:
        """Until the command ends well."""
        deadline = time.monotonic() + timeout
        while (last := self.run(command, ok=range(-64, 256))).status != 0:
            if time.monotonic() > deadline:
                raise GuestError(f"did not happen: {what}\n{last.output}{last.errors}")
            time.sleep(POLL)

    def put(self, file: Path, path: str) -> None:
        """Copies a file into the machine."""
        handle = self._agent.ask("guest-file-open", path=path, mode="wb")
        content = base64.b64encode(file.read_bytes()).decode()
        written = self._agent.ask("guest-file-write", **{"handle": handle, "buf-b64": content})
        assert written["count"] == file.stat().st_size
        self._agent.ask("guest-file-close", handle=handle)

    # --- the camera's cable ---

    def plug_in(self, port: int, bus_id: str = "1-1") -> None:
        """Attaches a camera that a USB/IP server offers on this port of the host."""
        self.run(f"usbip --tcp-port {port} attach -r {HOST} -b {shlex.quote(bus_id)}")

    def pull_out(self) -> None:
        """Detaches all cameras."""
        self.run(
            "for port in $(usbip port | sed -n 's/^Port \\([0-9]*\\):.*/\\1/p'); do usbip detach -p $port; done"
        )


def missing_programs(architecture: str) -> list[str]:
    """What 'tools/setup vm' would install."""
    return [name for name in (MACHINES[architecture][0], "mmdebstrap") if not shutil.which(name)]


def architecture() -> str:
    """The one that 'tools/test vm --arch' has chosen."""
    return os.environ.get("QSI_VM_ARCH", "amd64")
