# SPDX-License-Identifier: LGPL-2.1-or-later
"""How the cameras are shown: a screen in a terminal, lines or JSON elsewhere."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Protocol

from qsi_tools.watch.history import History, draw
from qsi_tools.watch.log import stamp
from qsi_tools.watch.state import Snapshot, describe, describe_phase

MESSAGES = 6  # that the screen has room for
# Characters. The plot gets what the terminal has beside the facts, the frame and the labels.
PLOT_HEIGHT, LEAST_PLOT, WIDEST_PLOT, BESIDE = 6, 16, 72, 52
SCREEN_INTERVAL = 0.5  # s between pictures of the screen


class Histories:
    """Temperature and power of one camera."""

    def __init__(self) -> None:
        self.temperature = History()
        self.power = History()

    def add(self, now: float, camera: Snapshot) -> None:
        """What is told; nothing while the camera is not connected."""
        if camera.connected and camera.temperature is not None:
            self.temperature.add(now, camera.temperature)
        if camera.connected and camera.power is not None:
            self.power.add(now, camera.power)


class View(Protocol):
    """Shows what there is, when it is told."""

    interval: float  # s between calls of `show`

    def show(self, cameras: Sequence[Snapshot], histories: Mapping[str, Histories]) -> None:
        """The cameras as they are now."""

    def say(self, text: str) -> None:
        """A message of a device, or about the server."""

    def close(self) -> None:
        """Gives the terminal back."""


class Lines:
    """A line, or an object of JSON, for each camera at each interval; messages on standard error."""

    def __init__(self, interval: float, as_json: bool) -> None:
        self.interval = interval
        self._json = as_json

    def show(self, cameras: Sequence[Snapshot], histories: Mapping[str, Histories]) -> None:
        now = datetime.now(UTC)
        for camera in cameras:
            if self._json:
                print(json.dumps({"time": stamp(now), **asdict(camera)}), flush=True)
            else:
                print(f"{now:%H:%M:%S} {describe(camera)}", flush=True)

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        pass


class Screen:
    """The whole terminal, by rich; as it was before when it is closed."""

    interval = SCREEN_INTERVAL

    def __init__(self, server: str) -> None:
        from rich.console import Console
        from rich.live import Live

        self._server = server
        self._notes: deque[str] = deque(maxlen=MESSAGES)
        self._last: Sequence[Snapshot] = ()
        self._console = Console(highlight=False)
        self._live = Live(
            console=self._console,
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def show(self, cameras: Sequence[Snapshot], histories: Mapping[str, Histories]) -> None:
        from rich.console import Group

        self._last = cameras
        width = min(max(self._console.width - BESIDE, LEAST_PLOT), WIDEST_PLOT)
        panels = [_panel(camera, histories.get(camera.device) or Histories(), width) for camera in cameras]
        self._live.update(Group(*panels, self._messages()), refresh=True)

    def say(self, text: str) -> None:
        self._notes.append(f"{datetime.now():%H:%M:%S}  {text}")

    def close(self) -> None:
        self._live.stop()
        for camera in self._last:
            print(describe(camera))

    def _messages(self) -> Any:
        from rich.panel import Panel
        from rich.text import Text

        text = Text("\n".join(self._notes) or "no messages yet", overflow="ellipsis", no_wrap=True)
        title = f"messages of {self._server}, Ctrl-C ends"
        return Panel(text, title=title, title_align="left", border_style="dim")


def _panel(camera: Snapshot, histories: Histories, width: int) -> Any:
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    facts = Table.grid(padding=(0, 2))
    for name, value in _facts(camera):
        facts.add_row(Text(name, style="dim"), Text(value))
    for alarm in camera.alarms:
        facts.add_row(Text("ALARM", style="bold red"), Text(alarm, style="bold red"))
    layout = Table.grid(padding=(0, 3))
    layout.add_row(facts, _curves(histories, width))
    model = f", {camera.model}" if camera.model else ""
    return Panel(layout, title=f"{camera.device}{model}", title_align="left")


def _facts(camera: Snapshot) -> list[tuple[str, str]]:
    if not camera.connected:
        return [("camera", "not connected")]
    none = "-"
    facts = [
        ("temperature", f"{camera.temperature:.1f} °C" if camera.temperature is not None else none),
        ("power", f"{camera.power:.0f} %" if camera.power is not None else none),
        ("exposure", describe_phase(camera)),
    ]
    if camera.filter:
        facts.append(("filter", camera.filter))
    pulses = f"{camera.pulses} pulses, the last {camera.last_pulse}" if camera.pulses else none
    return [*facts, ("guiding", pulses)]


def _curves(histories: Histories, width: int) -> Any:
    from rich.text import Text

    text = Text(no_wrap=True)
    minutes = histories.temperature.minutes
    text.append(f"temperature, °C, of {minutes:.0f} minutes\n", style="dim")
    curve = draw(histories.temperature.samples, width, PLOT_HEIGHT)
    text.append("\n".join(curve) + "\n", style="cyan")
    if histories.power.samples:
        text.append("power, %\n", style="dim")
        curve = draw(histories.power.samples, width, 2, (0.0, 100.0))
        text.append("\n".join(curve), style="yellow")
    return text
