# SPDX-License-Identifier: LGPL-2.1-or-later
"""How far it is: a bar in a terminal, lines elsewhere. On standard error; results go to standard output."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Protocol

from qsi_tools.extras import Missing, need
from qsi_tools.output import tell

# Where nobody watches, news of the same phase come at this rate: a log stays readable.
LINE_INTERVAL = 10.0  # s


class Display(Protocol):
    """Shows one phase at a time."""

    def show(self, phase: str, detail: str = "", part: float | None = None) -> None:
        """What is being done, and how much of it is done (0 to 1), if that is known."""

    def say(self, text: str) -> None:
        """Something that stays to be read."""

    def result(self, text: str) -> None:
        """What the program was run for; on standard output."""

    def __enter__(self) -> Display: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def make_display(quiet: bool) -> Display:
    """A bar where there is a terminal and rich, else lines."""
    if quiet or not sys.stderr.isatty():
        return Lines(quiet)
    try:
        need("rich")
    except Missing as missing:
        print(f"qsi-snap: no bar, plain lines: {missing}", file=sys.stderr)
        return Lines(False)
    return Bar()


class Lines:
    """A line when a phase begins, and once in a while in it."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._phase = ""
        self._told = 0.0

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, phase: str, detail: str = "", part: float | None = None) -> None:
        now = time.monotonic()
        if phase == self._phase and now - self._told < LINE_INTERVAL:
            return
        self._phase, self._told = phase, now
        self.say(f"{phase} {detail}".strip())

    def say(self, text: str) -> None:
        if not self._quiet:
            tell(text, sys.stderr)

    def result(self, text: str) -> None:
        tell(text)


class Bar:
    """rich's progress bar."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<12}"),
            BarColumn(bar_width=36),
            TextColumn("{task.fields[detail]}"),
            console=Console(stderr=True, highlight=False),
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task: Any = None
        self._phase = ""

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._progress.stop()

    def show(self, phase: str, detail: str = "", part: float | None = None) -> None:
        if phase != self._phase:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._task = self._progress.add_task(phase, total=None, detail=detail)
            self._phase = phase
        if part is None:
            self._progress.update(self._task, total=None, detail=detail)
        else:
            self._progress.update(self._task, total=1.0, completed=min(max(part, 0.0), 1.0), detail=detail)

    def say(self, text: str) -> None:
        self._progress.console.print(text, markup=False, soft_wrap=True)

    def result(self, text: str) -> None:
        if sys.stdout.isatty():
            self.say(text)  # above the bar, which is on the same terminal
        else:
            tell(text)
