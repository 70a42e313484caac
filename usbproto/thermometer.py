# SPDX-License-Identifier: LGPL-2.1-or-later
"""The camera's temperatures, and the cooler's state and power (wire protocol, section 3.4)."""

from __future__ import annotations

import time
from dataclasses import dataclass

from usbproto import packets as p
from usbproto.errors import DEVICE_ERRORS, Refused
from usbproto.link import Link

PCB_INTERVAL = 30.0  # s between questions for the temperature of the board, which needs a command of its own
# Per cent. Regulation may show a little more than all; far more means that there is no such value.
FULL_POWER, MAX_POWER = 100.0, 105.0
NOT_COOLING = frozenset({p.CoolerState.OFF, p.CoolerState.NO_CONTROL, p.CoolerState.BROWN_OUT})


@dataclass(frozen=True, slots=True)
class Temperatures:
    """degC, and the cooler's power in per cent (0 while it is off). None where there is no such value."""

    cooler: p.CoolerState
    ccd: float
    heat_sink: float | None
    pcb: float | None
    power: float | None

    @property
    def cooling(self) -> bool:
        """Whether the cooler works: regulating, or warming up at its own rate."""
        return self.cooler not in NOT_COOLING

    @property
    def warming_up(self) -> bool:
        """Whether the camera brings the CCD to ambient, or has."""
        return self.cooler in (p.CoolerState.GOING_TO_AMBIENT, p.CoolerState.AT_AMBIENT)

    @property
    def at_ambient(self) -> bool:
        """Whether a warm-up has come to its end."""
        return self.cooler == p.CoolerState.AT_AMBIENT


class Thermometer:
    """Reads them as the vendor's library does: all but the board's from GetTemperature."""

    def __init__(self, link: Link, *, has_board: bool) -> None:
        """`has_board`: the firmware knows GetTemperatureEx."""
        self._link = link
        self._has_board = has_board
        self._board: float | None = None
        self._asked_at: float | None = None  # monotonic, for the board's

    def read(self) -> Temperatures:
        """What the camera measures now. Raises what `Link.exchange` raises."""
        t = self._link.exchange(p.GET_TEMPERATURE, p.Empty())
        # "Heat-sink temperature reads 0 on cameras without that sensor" (6.0).
        return Temperatures(t.cooler, t.ccd, t.heat_sink or None, self._read_board(), self._power(t))

    def _power(self, measured: p.Temperature) -> float | None:
        """What a camera says of the power while the cooler is off is not known, so it is not used."""
        if measured.cooler in NOT_COOLING:
            return 0.0
        if measured.power <= MAX_POWER:
            return min(measured.power, FULL_POWER)
        self._link.session.odd(
            "power", f"The cooler power reads {measured.power:g} %: it is shown as unknown"
        )
        return None

    def _read_board(self) -> float | None:
        now = time.monotonic()
        fresh = self._asked_at is not None and now - self._asked_at < PCB_INTERVAL
        if self._has_board and not fresh:
            self._asked_at = now
            self._board = self._link.optional("the board's temperature", self._ask_board, None)
        return self._board

    def _ask_board(self) -> float | None:
        try:
            found = self._link.exchange(p.GET_TEMPERATURE_EX, p.Empty(), seconds=p.ReplyTime.SHORT.value)
        except Refused as error:
            if error.code in DEVICE_ERRORS:
                return self._board  # the camera complains of its supply or so, which GetTemperature says too
            raise
        return found.pcb or None
