# SPDX-License-Identifier: LGPL-2.1-or-later
"""LINK_TIMING: how fast, and how carefully, the camera is talked to. Kept by serial number.

After several link errors the link itself changes to the vendor's timing, until the next connect. That is
shown here, and not kept.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from indi_qsi.device.memory import Memory
from indi_qsi.device.orders import Order, OrderBook
from indi_qsi.device.subject import OPTIONS, Subject, saved_or_not
from indi_qsi.properties import Level, Permission, Request, Rule, State, SwitchElement, SwitchVector, Vector
from usbproto.timing import FAST, TIMINGS, VENDOR, Timing

if TYPE_CHECKING:
    from usbproto.camera import Camera

log = logging.getLogger(__name__)

VARIABLE = "INDI_QSI_TIMING"
SECTION = "link"  # in the memory
KEY = "timing"
# Element -> timing.
ELEMENTS = {"TIMING_FAST": FAST, "TIMING_VENDOR": VENDOR}
_ELEMENT_OF = {timing.name: element for element, timing in ELEMENTS.items()}


def from_environment(environ: Mapping[str, str] = os.environ) -> Timing | None:
    """The timing that the user has set for all cameras; an unknown name is logged, and counts as none."""
    name = environ.get(VARIABLE, "").strip()
    if not name:
        return None
    timing = TIMINGS.get(name.capitalize())
    if timing is None:
        log.error("%s=%s is not understood: valid are %s", VARIABLE, name, ", ".join(TIMINGS))
    return timing


class LinkTimingSubject(Subject):
    """`report` sends a message to the user."""

    def __init__(self, orders: OrderBook, memory: Memory, report: Callable[[str], None]) -> None:
        self._report = report
        self._orders = orders
        self._memory = memory
        self._forced = from_environment()
        self._camera: Camera | None = None
        self.vector = SwitchVector(
            "LINK_TIMING",
            "Link Timing",
            OPTIONS,
            (SwitchElement("TIMING_FAST", "Fast", True), SwitchElement("TIMING_VENDOR", "Vendor")),
            permission=Permission.RW,
            rule=Rule.ONE_OF_MANY,
            on_request=self._requested,
        )

    def vectors(self) -> Sequence[Vector[Any]]:
        return (self.vector,)

    def of(self, usb_serial: str) -> Timing:
        """The timing to begin with: the environment's, what was chosen for this camera, or the fast one."""
        if self._forced is not None:
            return self._forced
        return TIMINGS.get(str(self._memory.get(usb_serial, SECTION).get(KEY)), FAST)

    def connect(self, camera: Camera) -> None:
        self._camera = camera
        self.vector.select(_ELEMENT_OF[camera.session.timing.name], state=State.IDLE)

    def disconnect(self) -> None:
        self._camera = None

    def slowed(self, message: str) -> None:
        """The link has changed to the vendor's timing by itself; maybe before the vector is defined."""
        if not self.vector.defined:
            self._report(message)
        self.vector.select(_ELEMENT_OF[VENDOR.name], state=State.OK, message=message, level=Level.WARNING)

    # --- requests ---

    def _requested(self, request: Request[bool]) -> None:
        element = next(name for name, on in request.values.items() if on)
        self._orders.submit(self.vector, lambda order: self._carry_out(order, element))

    def _carry_out(self, order: Order, element: str) -> None:
        if self._camera is None:
            return
        timing = ELEMENTS[element]
        self._camera.use_timing(timing)
        self.vector.select(element)
        self._memory.put(
            self._camera.usb_serial,
            SECTION,
            {KEY: timing.name},
            lambda error: saved_or_not(order.answer, error),
        )
