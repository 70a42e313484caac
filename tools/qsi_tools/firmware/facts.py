# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a camera says of itself. Values only."""

from __future__ import annotations

from dataclasses import dataclass

from qsi_tools.firmware.dialect import Mark
from qsi_tools.firmware.image import Target


@dataclass(frozen=True, slots=True)
class Facts:
    """`serial` is the one by which it is found on the USB. `firmware` is empty where there is none.

    `mark` None: its loader's language is not known. `supply` says what is wrong with the voltage.
    """

    serial: str
    series: str
    model: str
    base_type: str
    firmware: str
    hardware: str
    manufactured: str
    mark: Mark | None
    idle: bool
    cooling: bool
    supply: str

    @property
    def in_loader(self) -> bool:
        return self.mark is not None and self.mark.in_loader

    def version(self, target: Target) -> str:
        """Of what is in that part; empty when there is nothing, or nobody can say."""
        if target is Target.FIRMWARE:
            return self.firmware
        return (self.mark.core if self.mark is not None else None) or ""

    def as_dict(self) -> dict[str, object]:
        return {
            "serial": self.serial,
            "series": self.series,
            "model": self.model,
            "firmware": self.firmware,
            "core": self.version(Target.CORE) or None,
            "hardware": self.hardware,
            "manufactured": self.manufactured,
            "loader": self.mark.dialect if self.mark is not None else None,
            "simulated": self.mark is not None and self.mark.simulated,
            "in_loader": self.in_loader,
        }
