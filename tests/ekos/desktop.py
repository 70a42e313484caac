# SPDX-License-Identifier: LGPL-2.1-or-later
"""A desktop of its own for a KDE program: private folders, a private D-Bus, and a screen only if asked for."""

from __future__ import annotations

import ast
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

SERVICE = "org.kde.kstars"
PROGRAMS = ("kstars", "dbus-daemon", "gdbus")
SCREEN = "2048x1700x24"  # room for three windows
LOOK_AGAIN = 0.1  # s between questions; each one starts a gdbus
CALL_LIMIT = 20  # s; KStars answers D-Bus when its event loop is free
END_LIMIT = 15.0  # s; KStars takes two to save its settings

# What belongs to the desktop of whoever runs the tests.
FOREIGN = ("SESSION_MANAGER", "DBUS_SESSION_BUS_ADDRESS", "WAYLAND_DISPLAY", "DISPLAY")

T = TypeVar("T")


class DBusError(Exception):
    """A call was refused, or nobody answered."""


def missing_programs() -> list[str]:
    return [name for name in PROGRAMS if shutil.which(name) is None]


def wait_until(condition: Callable[[], T], what: str, limit: float) -> T:
    """Waits until the condition is true, and returns its value."""
    deadline = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"did not happen within {limit:g} s: {what}"
        time.sleep(LOOK_AGAIN)


class Desktop:
    """`screen`: an X server without a monitor, for pictures; otherwise Qt draws nowhere."""

    def __init__(self, folder: Path, screen: bool = False) -> None:
        self.home = folder
        self.config = folder / ".config"
        self.data = folder / ".local/share"
        runtime = folder / "run"
        for directory in (self.config, self.data, runtime):
            directory.mkdir(parents=True, exist_ok=True)
        runtime.chmod(0o700)  # Qt insists
        self.environ = {name: value for name, value in os.environ.items() if name not in FOREIGN} | {
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(runtime),
            "XDG_CONFIG_HOME": str(self.config),
            "XDG_DATA_HOME": str(self.data),
            "XDG_CACHE_HOME": str(folder / ".cache"),
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            "LIBGL_ALWAYS_SOFTWARE": "1",
            "ALSA_CONFIG_PATH": "/dev/null",  # there is no sound card to complain about
            "QT_LOGGING_TO_CONSOLE": "1",
            "QT_QPA_PLATFORM": "xcb" if screen else "offscreen",
        }
        self._processes: list[subprocess.Popen[bytes]] = []
        if screen:
            self.environ["DISPLAY"] = self._start_screen()
        self.environ["DBUS_SESSION_BUS_ADDRESS"] = self._start_bus()

    # --- processes ---

    def start(self, *command: str, log: Path, **options: Any) -> subprocess.Popen[bytes]:
        """A program on this desktop, in a process group of its own."""
        with log.open("ab") as file:
            process = subprocess.Popen(
                command,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=options.pop("stdout", file),
                stderr=file,
                start_new_session=True,
                **options,
            )
        self._processes.append(process)
        return process

    def _start_screen(self) -> str:
        reading, writing = os.pipe()
        self.start(
            *("Xvfb", "-displayfd", str(writing), "-screen", "0", SCREEN, "-nolisten", "tcp"),
            log=self.home / "screen.log",
            pass_fds=(writing,),
        )
        os.close(writing)
        with os.fdopen(reading) as pipe:
            number = pipe.readline().strip()
        assert number, "Xvfb did not start"
        return f":{number}"

    def _start_bus(self) -> str:
        process = self.start(
            *("dbus-daemon", "--session", "--nofork", "--nosyslog", "--print-address=1"),
            log=self.home / "bus.log",
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        with process.stdout:
            return process.stdout.readline().decode().strip()

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """Ends the group, which for the bus includes the services that it started."""
        self._signal(process, signal.SIGTERM)
        try:
            process.wait(END_LIMIT)
        except subprocess.TimeoutExpired:
            self._signal(process, signal.SIGKILL)
            process.wait(END_LIMIT)
        self._processes.remove(process)

    @staticmethod
    def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)

    def close(self) -> None:
        for process in reversed(self._processes.copy()):
            self.end(process)

    def __enter__(self) -> Desktop:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- D-Bus ---

    def call(self, path: str, method: str, *arguments: str) -> Any:
        """Calls a method of KStars ("Ekos.start"); returns its one result, or None if it has none."""
        reply = self._gdbus(path, f"{SERVICE}.{method}", *arguments)
        values = _value(reply)
        return values[0] if values else None

    def get(self, path: str, interface: str, name: str) -> Any:
        """A property of KStars."""
        reply = self._gdbus(path, "org.freedesktop.DBus.Properties.Get", f"{SERVICE}.{interface}", name)
        match = re.fullmatch(r"\(<(.*)>,\)", reply, re.DOTALL)
        assert match, reply
        return _value(match[1])

    def _gdbus(self, path: str, method: str, *arguments: str) -> str:
        command = ["gdbus", "call", "--session", "--timeout", str(CALL_LIMIT), "-d", SERVICE, "-o", path]
        result = subprocess.run(
            [*command, "-m", method, *arguments],
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=2 * CALL_LIMIT,
        )
        if result.returncode:
            raise DBusError(f"{path} {method} {arguments}: {result.stderr.strip()}")
        return result.stdout.strip()


def _value(text: str) -> Any:
    """What gdbus prints, as Python. Its notation differs in the words for types and truth."""
    text = re.sub(r"(?<![\w'\"])(?:u?int\d+|byte|double|objectpath|@\w+)\s+", "", text)
    text = re.sub(r"(?<![\w'\"])(true|false)(?![\w'\"])", lambda match: match[1].capitalize(), text)
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
