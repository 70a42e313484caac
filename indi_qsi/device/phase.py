# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the exposure is doing, and how far the download is: EXPOSURE_PHASE and DOWNLOAD_PROGRESS."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from indi_qsi.device.activity import Activity, Phase
from indi_qsi.device.subject import MAIN_CONTROL, Subject
from indi_qsi.properties import (
    NumberElement,
    NumberVector,
    Permission,
    State,
    TextElement,
    TextVector,
    Vector,
)

if TYPE_CHECKING:
    from usbproto.camera import Camera

PROGRESS_INTERVAL = 0.25  # s between reports; a transfer comes in up to some hundred pieces


class PhaseSubject(Subject):
    """Set by the exposure; any thread."""

    def __init__(self, activity: Activity) -> None:
        self._activity = activity
        self._reported = 0.0
        self._text = TextVector(
            "EXPOSURE_PHASE",
            "Phase",
            MAIN_CONTROL,
            (TextElement("PHASE", "Phase", Phase.IDLE.value),),
            permission=Permission.RO,
        )
        self._progress = NumberVector(
            "DOWNLOAD_PROGRESS",
            "Download",
            MAIN_CONTROL,
            (NumberElement("PERCENT", "Progress (%)", 0, "%.0f", 0, 100, 1),),
            permission=Permission.RO,
        )

    def vectors(self) -> Sequence[Vector[Any]]:
        return (self._text, self._progress)

    def connect(self, camera: Camera) -> None:
        self.enter(Phase.IDLE)
        self._progress.set({"PERCENT": 0}, state=State.IDLE)

    def disconnect(self) -> None:
        self.enter(Phase.IDLE)
        self._progress.set(state=State.IDLE)

    @property
    def phase(self) -> Phase:
        """The present phase."""
        return self._activity.phase

    def enter(self, phase: Phase) -> None:
        """A new phase begins; nothing is sent when it is the present one."""
        before = self._activity.phase
        if phase is before:
            return
        self._activity.phase = phase
        self._text.set({"PHASE": phase.value}, state=State.IDLE if phase is Phase.IDLE else State.BUSY)
        if phase is Phase.DOWNLOADING:
            self._report(0)
        elif before is Phase.DOWNLOADING and self._progress.state is State.BUSY:
            self._progress.set(state=State.IDLE)  # it was cut off where it stands

    def downloaded(self, done: int, total: int) -> None:
        """So many of all bytes have come."""
        if done >= total:
            self._progress.set({"PERCENT": 100}, state=State.OK)
        elif time.monotonic() - self._reported >= PROGRESS_INTERVAL:
            self._report(100 * done / total)

    def _report(self, percent: float) -> None:
        self._reported = time.monotonic()
        self._progress.set({"PERCENT": percent}, state=State.BUSY)
