# SPDX-License-Identifier: LGPL-2.1-or-later
"""What every INDI driver has: DRIVER_INFO, SIMULATION, POLLING_PERIOD."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntFlag

from indi_qsi.device.subject import GENERAL_INFO, OPTIONS
from indi_qsi.properties import (
    NumberElement,
    NumberVector,
    Permission,
    Request,
    Rule,
    SwitchElement,
    SwitchVector,
    TextElement,
    TextVector,
)
from indi_qsi.version import VERSION

TIMEOUT = 60.0  # s, advisory


class Interface(IntFlag):
    """What a device is, for DRIVER_INFO."""

    CCD = 2
    GUIDER = 4
    FILTER = 16


# Said before the camera is known: a guiding program reads it once only, at the first definition.
ANY_CAMERA = Interface.CCD | Interface.GUIDER | Interface.FILTER


def driver_info(factory_name: str, executable: str, interface: Interface = ANY_CAMERA) -> TextVector:
    return TextVector(
        "DRIVER_INFO",
        "Driver Info",
        GENERAL_INFO,
        (
            TextElement("DRIVER_NAME", "Name", factory_name),
            TextElement("DRIVER_EXEC", "Exec", executable),
            TextElement("DRIVER_VERSION", "Version", VERSION),
            TextElement("DRIVER_INTERFACE", "Interface", str(int(interface))),
        ),
        permission=Permission.RO,
        timeout=TIMEOUT,
    )


def interface(*, guider: bool, wheel: bool) -> str:
    """DRIVER_INTERFACE of a camera that is known."""
    bits = Interface.CCD
    if guider:
        bits |= Interface.GUIDER
    if wheel:
        bits |= Interface.FILTER
    return str(int(bits))


def simulation(on_request: Callable[[Request[bool]], None]) -> SwitchVector:
    return SwitchVector(
        "SIMULATION",
        "Simulation",
        OPTIONS,
        (SwitchElement("ENABLE", "Enable"), SwitchElement("DISABLE", "Disable", True)),
        permission=Permission.RW,
        rule=Rule.ONE_OF_MANY,
        on_request=on_request,
    )


def polling_period() -> NumberVector:
    return NumberVector(
        "POLLING_PERIOD",
        "Polling",
        OPTIONS,
        (NumberElement("PERIOD_MS", "Period (ms)", 1000, "%.f", 10, 600_000, 1000),),
        permission=Permission.RW,
    )
