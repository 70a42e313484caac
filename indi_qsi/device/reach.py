# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether a set point can be reached: a cooler at full power that gets nowhere is told once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from usbproto.thermometer import Temperatures

FULL_POWER = 99.5  # per cent
# The Guide gives a cool-down 5 to 15 minutes, at full power almost to its end.
PATIENCE = 300.0  # s at full power ...
PROGRESS = 0.3  # K that it must have come nearer in that time
NEAR = 1.0  # K; closer than this the regulation is at work


class Reach:
    """Looks at every reading; `lost` is true once for each cool-down that fails."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """A new set point."""
        self._since: float | None = None
        self._distance = 0.0
        self._said = False

    def lost(self, measured: Temperatures, target: float) -> bool:
        distance = measured.ccd - target
        now = time.monotonic()
        if measured.power is None or measured.power < FULL_POWER or distance < NEAR:
            self._since = None
        elif self._since is None or self._distance - distance >= PROGRESS:
            self._since, self._distance = now, distance
        elif not self._said and now - self._since >= PATIENCE:
            self._said = True
            return True
        return False
