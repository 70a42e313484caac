# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the user sees: a bar on a terminal, plain lines elsewhere. A screen that is gone stops nothing."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Callable
from typing import TextIO

REDRAW = 0.1  # s between pictures of the bar
LINE_STEP = 25  # per cent between lines where there is no terminal
BAR = 30  # characters
STEADY = 0.5  # s after which a rate says something


class Progress:
    """One phase: `done` bytes of `total`, with rate and time left."""

    def __init__(self, what: str, total: int, now: Callable[[], float] = time.monotonic) -> None:
        self.what = what
        self.total = max(1, total)
        self._now = now
        self._begun = now()

    def text(self, done: int) -> str:
        percent = 100 * done // self.total
        return f"{self.what}: {percent:3} %{self._speed(done)}"

    def bar(self, done: int) -> str:
        full = BAR * done // self.total
        percent = 100 * done // self.total
        return f"{self.what:16} [{'#' * full}{'.' * (BAR - full)}] {percent:3} %{self._speed(done)}"

    def _speed(self, done: int) -> str:
        seconds = self._now() - self._begun
        if done >= self.total:
            return f", {self.total} bytes in {seconds:.1f} s"
        if seconds < STEADY or not done:
            return ""
        left = round(seconds * (self.total - done) / done)
        return f", {done / seconds / 1000:.1f} kB/s, {left // 60}:{left % 60:02} left"


class Screen:
    """`out` is for what was asked for, `err` for what happens on the way."""

    def __init__(self, out: TextIO = sys.stdout, err: TextIO = sys.stderr) -> None:
        self._out = out
        self._err = err
        self._bar = err.isatty()
        self._drawn = 0  # characters of the bar that stands there
        self._drawn_at = 0.0
        self._told = -1  # per cent of the last plain line

    def result(self, text: str) -> None:
        self._write(self._out, text + "\n")

    def say(self, text: str) -> None:
        self._clear()
        self._write(self._err, text + "\n")

    def progress(self, progress: Progress, done: int) -> None:
        if not self._bar:
            percent = 100 * done // progress.total // LINE_STEP * LINE_STEP
            if percent != self._told:
                self._told = percent
                self._write(self._err, progress.text(done) + "\n")
        elif done >= progress.total or time.monotonic() - self._drawn_at >= REDRAW:
            line = progress.bar(done)[: shutil.get_terminal_size().columns - 1]
            self._write(self._err, "\r" + line.ljust(self._drawn) + ("\n" if done >= progress.total else ""))
            self._drawn, self._drawn_at = len(line), time.monotonic()
        if done >= progress.total:
            self._told, self._drawn = -1, 0

    def ask(self, question: str) -> str | None:
        """The line that is typed; None when nobody is there."""
        if not sys.stdin.isatty():
            return None
        self._write(self._err, question + " ")
        return sys.stdin.readline().strip()

    def _clear(self) -> None:
        if self._drawn:
            self._write(self._err, "\n")
            self._drawn = 0

    @staticmethod
    def _write(file: TextIO, text: str) -> None:
        # The ssh session may be gone in the middle of an update.
        with contextlib.suppress(OSError, ValueError):
            file.write(text)
            file.flush()
