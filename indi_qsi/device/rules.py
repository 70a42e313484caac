# SPDX-License-Identifier: LGPL-2.1-or-later
"""When a request may go to the camera: one table for the order book, the documents and the tests.

A vector that is not in the table needs no camera: its requests take effect as soon as they are received.
Decision record 0013 has the reasons; the limits between the end of an exposure and its image are section 8 of
the wire protocol.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class When(Enum):
    """What an order waits for. The value is for the documents."""

    OVERTAKES = "overtakes all other orders"
    ENDS_TRIGGER = "waits for readout and download, and ends a wait for the trigger"
    LINK_QUIET = "waits for the end of readout and download, and of a wait for the trigger"
    NO_EXPOSURE = "waits for the end of the exposure"
    EXPOSURE = "ends the exposure before, and waits for the filter wheel and the folder of its file"
    WHEEL = "is refused during an exposure, and waits for the filter wheel"


@dataclass(frozen=True, slots=True)
class Rule:
    """When an order may go, and what it touches: it never overtakes an order that touches the same."""

    when: When
    touches: frozenset[str]

    def depends_on(self, earlier: Rule) -> bool:
        """Whether this order must not go before an earlier one: an exposure depends on everything."""
        if When.EXPOSURE in (self.when, earlier.when):
            return True
        return not self.touches.isdisjoint(earlier.touches)


def _rule(when: When, *touches: str) -> Rule:
    return Rule(when, frozenset(touches))


# The settings of the camera that belong to a role: another role brings others.
ROLE_SETTINGS = (
    *("Fan", "Gain", "AntiBlooming", "READOUT_QUALITY", "CCD_FLUSH", "SHUTTER_PRIORITY"),
    *("STATUS_LED", "BEEPER", "AUTO_ZERO"),
)
RULES: dict[str, Rule] = {
    "CCD_ABORT_EXPOSURE": _rule(When.OVERTAKES),
    "TELESCOPE_TIMED_GUIDE_NS": _rule(When.OVERTAKES),
    "TELESCOPE_TIMED_GUIDE_WE": _rule(When.OVERTAKES),
    "CCD_EXPOSURE": _rule(When.EXPOSURE),
    "FILTER_SLOT": _rule(When.WHEEL, "wheel"),
    "CCD_TEMPERATURE": _rule(When.LINK_QUIET, "cooler"),
    "CCD_COOLER": _rule(When.LINK_QUIET, "cooler"),
    **{name: _rule(When.NO_EXPOSURE, name) for name in ROLE_SETTINGS},
    "Fan": _rule(When.LINK_QUIET, "Fan"),
    "CCD_ROLE": _rule(When.NO_EXPOSURE, *ROLE_SETTINGS),
    # An order to the shutter takes the place of the other modes (section 3.7).
    "CCD_SHUTTER": _rule(When.NO_EXPOSURE, "modes"),
    "SHUTTER_OUTPUT": _rule(When.NO_EXPOSURE, "modes"),
    "HOST_TIMED": _rule(When.NO_EXPOSURE, "modes"),
    "HIGH_SPEED_READOUT": _rule(When.NO_EXPOSURE, "HIGH_SPEED_READOUT"),
    "EXTERNAL_TRIGGER": _rule(When.NO_EXPOSURE, "EXTERNAL_TRIGGER"),
    "PIXEL_MASK": _rule(When.NO_EXPOSURE, "PIXEL_MASK"),
    "LINK_TIMING": _rule(When.NO_EXPOSURE, "LINK_TIMING"),
}
# CCD_COOLER=Off while the CCD warms up: a user who wants the power off must not wait for a trigger.
POWER_OFF = _rule(When.ENDS_TRIGGER, "cooler")
